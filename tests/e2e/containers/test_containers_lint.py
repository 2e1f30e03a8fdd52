"""The Dockerfiles, compose files and chart under the tools of their trade, and the bill of materials of a node.

The tools come from the package registry into an environment of their own; skipped with the reason where that fails.
"""

from __future__ import annotations

import json
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


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = ["--requirement", CONSORTIUM / "lint.txt", "--requirement", CONSORTIUM / "sbom.txt"]
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    done = subprocess.run([str(one) for one in pip], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"NOTHING WAS CHECKED: the tools cannot be installed: {done.stderr.strip().splitlines()[-1][:200]}")
    return folder / "bin"


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
