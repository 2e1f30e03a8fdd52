"""The Dockerfiles, compose files and chart under the tools of their trade, and the bill of materials of a node.

The tools come from the package registry into an environment of their own; skipped with the reason where that fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CONSORTIUM = ROOT / "configs/consortium"
CHART = CONSORTIUM / "helm"
VECTORS = ROOT / "tests/vectors/containers"

pytestmark = [pytest.mark.slow, pytest.mark.images, pytest.mark.timeout(1200)]

YAML_RULES = """
extends: default
rules:
  braces: {max-spaces-inside: 1}
  comments: {min-spaces-from-content: 1}
  document-start: disable
  line-length: {max: 160}
"""

RENDER = """
import json, sys
import helm_python as helm
chart, values = sys.argv[1], json.loads(sys.argv[2])
with helm.Chart.load(chart) as loaded:
    loaded.validate_schema(values)
    files = loaded.render(values, name="member", namespace="fedcredit")
report = helm.lint(chart, values, strict=True, kube_version="v1.30.0")
print(json.dumps({"files": files, "findings": [one for one in report["messages"] if one["severity"] > 1]}))
"""


def run(tools: Path, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(tools / name), *map(str, words)], check=False, capture_output=True, text=True, cwd=ROOT)


@cache
def values(kind: str, tools: Path) -> str:
    code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))"
    return run(tools, "python", "-c", code, CHART / f"ci/{kind}-values.yaml").stdout


@cache
def render(kind: str, tools: Path, more: str = "{}") -> tuple[int, str, str]:
    given = json.dumps({**json.loads(values(kind, tools)), **json.loads(more)})
    done = run(tools, "python", "-c", RENDER, CHART, given)
    return done.returncode, done.stdout, done.stderr


def test_hadolint_finds_nothing_in_the_dockerfiles(tools: Path) -> None:
    done = run(tools, "hadolint", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_something_where_there_is_something(tools: Path, tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("USER 10001:10001", "USER root")
    (tmp_path / "Dockerfile").write_text(text, "utf-8")
    assert "DL3002" in run(tools, "hadolint", tmp_path / "Dockerfile").stdout


LOST = """
import json, sys
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
def lost(given, kept, path=""):
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in kept:
                if value not in (None, [], {}, ""):
                    yield path + "." + key
            else:
                yield from lost(value, kept[key], path + "." + key)
    elif isinstance(given, list):
        for place, pair in enumerate(zip(given, kept, strict=True)):
            yield from lost(*pair, f"{path}[{place}]")
    elif given != kept:
        yield path
given = json.load(open(sys.argv[1]))
print(json.dumps(list(lost(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given)))))))
"""


def test_grafanas_own_types_keep_everything_that_the_dashboard_says(tools: Path, tmp_path: Path) -> None:
    path = CONSORTIUM / "monitoring/dashboard.json"
    done = run(tools, "python", "-c", LOST, path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    board = json.loads(path.read_text("utf-8"))
    board["panels"][1]["fieldConfig"]["defaults"]["untis"] = "s"
    (tmp_path / "wrong.json").write_text(json.dumps(board), "utf-8")
    assert "untis" in run(tools, "python", "-c", LOST, tmp_path / "wrong.json").stdout, "a slip is seen"


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prometheus' own checker: installed, or unpacked from Debian's package."""
    if found := shutil.which("promtool"):
        return Path(found)
    folder = tmp_path_factory.mktemp("prometheus")
    fetch = "apt-get download -qq prometheus && dpkg -x prometheus_*.deb ."
    done = subprocess.run(["sh", "-c", fetch], check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        pytest.skip(f"NO ALERTING RULE WAS RUN: no promtool, and its package cannot be had: {done.stderr[-200:]}")
    return folder / "usr/bin/promtool"


def test_the_alerting_rules_do_what_they_say(promtool: Path, tmp_path: Path) -> None:
    folder = CONSORTIUM / "monitoring"
    for words in (("check", "config", "prometheus.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run([promtool, *words], check=False, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    text = (folder / "alerts.yaml").read_text("utf-8")
    (tmp_path / "alerts.yaml").write_text(text.replace("fedcredit_ledger_used_share > 0.9", "vector(0) > 1"), "utf-8")
    shutil.copy(folder / "alerts_test.yaml", tmp_path)
    words = ("test", "rules", "alerts_test.yaml")
    done = subprocess.run([promtool, *words], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, "an alert that is never raised is seen"


def test_prometheus_understands_every_question_of_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    board = json.loads((CONSORTIUM / "monitoring/dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(asked) > 15
    plain = [one.replace("$__rate_interval", "5m").replace("$member", ".*") for one in asked]
    rules = [{"record": f"question:{place}", "expr": one} for place, one in enumerate(plain)]
    (tmp_path / "all.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}), "utf-8")
    command = [str(promtool), "check", "rules", str(tmp_path / "all.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_files_follow_the_specification(tools: Path) -> None:
    files = (CONSORTIUM / "compose.yaml", CONSORTIUM / "compose.party.yaml")
    done = run(tools, "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)
    assert done.returncode == 0, done.stdout


def test_the_yaml_is_tidy(tools: Path) -> None:
    files = [*CONSORTIUM.glob("*.yaml"), CHART / "Chart.yaml", CHART / "values.yaml", *CHART.glob("ci/*.yaml")]
    assert len(files) == 6
    done = run(tools, "yamllint", "--strict", "--config-data", YAML_RULES, *files)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("kind", ["node", "coordinator"])
def test_helm_renders_what_the_fast_tests_read(tools: Path, kind: str) -> None:
    status, answer, error = render(kind, tools)
    assert status == 0, error
    seen = json.loads(answer)
    assert seen["findings"] == []
    parts = [
        f"# {name}\n{text.strip()}\n"
        for name, text in sorted(seen["files"].items())
        if name.endswith(".yaml") and text.strip()
    ]
    assert "---\n".join(parts) == (VECTORS / f"{kind}.yaml").read_text("utf-8")


@pytest.mark.parametrize("kind", ["node", "coordinator"])
def test_kubernetes_takes_what_is_rendered(tools: Path, kind: str, tmp_path: Path) -> None:
    texts = (VECTORS / f"{kind}.yaml").read_text("utf-8").split("---\n")
    plain = [text for text in texts if "kind: ServiceMonitor" not in text]  # no part of Kubernetes itself
    assert len(texts) - len(plain) == (kind == "node")
    (tmp_path / "all.yaml").write_text("---\n".join(plain), "utf-8")
    for version in ("1.27.0", "1.37.0"):
        done = run(tools, "kubernetes-validate", "--strict", "--kubernetes-version", version, tmp_path / "all.yaml")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("node", {"member": "Bank!"}),
        ("node", {"member": "coordinator"}),
        ("coordinator", {"member": "bank"}),
        ("node", {"kind": "operator"}),
        ("node", {"home": {"secret": "", "storage": {"size": "1Gi"}}}),
        ("node", {"networkPolicy": {"enabled": True, "coordinator": []}}),
        ("node", {"networkPolicy": {"coordinator": [{"cidr": "everywhere"}]}}),
        ("node", {"image": {"tag": "latest"}}),
        ("node", {"image": {"digest": "sha256:12"}}),
        ("node", {"user": {"id": 0}}),
        ("node", {"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}}),
        ("node", {"replicas": 2}),
    ],
)
def test_values_that_are_wrong_are_refused(tools: Path, kind: str, more: dict[str, Any]) -> None:
    status, _, error = render(kind, tools, json.dumps(more))
    assert status == 1
    assert "HelmValuesError" in error


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"image": {"digest": f"sha256:{'0' * 64}"}}, f'image: "fedcredit-node@sha256:{"0" * 64}"'),
        ({"user": {"id": 20000, "group": 20001}}, "fsGroup: 20001"),
        ({"user": {"namespace": True}}, "hostUsers: false"),
        ({"image": {"pullSecrets": ["one", "two"]}}, "- name: two"),
        ({"nodeSelector": {"zone": "a"}, "podAnnotations": {"x": "y"}}, "zone: a"),
        (
            {"networkPolicy": {"coordinator": [{"namespace": "p", "podLabels": {"a": "b"}}]}},
            'kubernetes.io/metadata.name: "p"',
        ),
    ],
)
def test_values_reach_what_they_are_for(tools: Path, more: dict[str, Any], text: str) -> None:
    status, answer, error = render("node", tools, json.dumps(more))
    assert status == 0, error
    assert any(text in file for file in json.loads(answer)["files"].values())


def test_the_bill_of_materials_of_this_environment(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "status").write_text(
        "Package: tini\nStatus: install ok installed\nArchitecture: amd64\nVersion: 0.19.0-1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n",
        "utf-8",
    )
    (tmp_path / "doc/tini").mkdir(parents=True)
    licences = "License: Expat\nLicense: GPL-2+\nLicense: LGPL-2.1 or Apache-2.0 with exception\nLicense: homemade\n"
    (tmp_path / "doc/tini/copyright").write_text(licences, "utf-8")
    done = run(
        *(tools, "python", CONSORTIUM / "sbom.py", "--name", "fedcredit-node", "--python", sys.executable),
        *("--dpkg-status", tmp_path / "status", "--copyrights", tmp_path / "doc", "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    bill = json.loads((tmp_path / "out/sbom.cdx.json").read_text("utf-8"))
    listed = {one["name"]: one for one in bill["components"]}
    installed = {one.metadata["Name"]: one.version for one in distributions()}
    assert {name: listed[name]["version"] for name in installed} == installed
    tini = listed["tini"]
    assert tini["purl"] == "pkg:deb/debian/tini@0.19.0-1?arch=amd64"
    names = [one["license"].get("id", one["license"].get("name")) for one in tini["licenses"]]
    assert names == ["Apache-2.0", "GPL-2.0-or-later", "LGPL-2.1-only", "MIT", "homemade"]
    assert "gone" not in listed
    text = (tmp_path / "out/licences.txt").read_text("utf-8")
    assert "pypi\tscipy\t" in text
    row = next(line for line in text.splitlines() if line.startswith("pypi\tscipy\t"))
    assert row.endswith("\tBSD-3-Clause")
