"""The chart, as Helm rendered it (a slower test renders it again), and the step that its pods start with."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import fedcredit
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import load_consortium

ROOT = Path(__file__).parents[2]
CHART = ROOT / "configs/consortium/helm"
yaml: Any = import_module("yaml")  # it has no types of its own

each_kind = pytest.mark.parametrize("kind", ["node", "coordinator"])


@cache
def rendered(kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    text = (ROOT / f"tests/vectors/containers/{kind}.yaml").read_text("utf-8")
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}


def one(kind: str, resource: str, name: str = "") -> dict[str, Any]:
    member = "bank" if kind == "node" else "coordinator"
    return rendered(kind)[resource, f"fedcredit-{member}{name}"]


def pod(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(kind, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def containers(kind: str) -> list[dict[str, Any]]:
    return [*pod(kind)["initContainers"], *pod(kind)["containers"]]


@each_kind
def test_what_is_installed(kind: str) -> None:
    kinds = sorted(resource for resource, _ in rendered(kind))
    common = ["ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet"]
    assert kinds == sorted([*common, "ServiceMonitor" if kind == "node" else "Service"])


@each_kind
def test_the_pod_meets_the_restricted_standard(kind: str) -> None:
    spec = pod(kind)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) >= 10000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in containers(kind):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "hostPort" not in str(container)
    allowed = {"secret", "configMap", "emptyDir", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])


@each_kind
def test_every_container_has_its_limits(kind: str) -> None:
    for container in containers(kind):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert {"memory", "ephemeral-storage"} <= set(resources["limits"])
    for volume in pod(kind)["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["medium"] == "Memory"
            assert volume["emptyDir"]["sizeLimit"]


@each_kind
def test_keys_are_read_by_the_step_alone_and_never_reach_the_volume(kind: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(kind)["volumes"]}
    assert volumes["secret"]["secret"]["defaultMode"] == 0o400
    step, member = containers(kind)
    mounts = [{mount["name"]: mount for mount in container["volumeMounts"]} for container in (step, member)]
    assert mounts[0]["secret"]["readOnly"] is True
    assert "secret" not in mounts[1]
    keys = step["command"][-1]
    assert step["command"][-2:] == ["/var/lib/fedcredit/home", "/run/fedcredit/keys"]
    assert mounts[0]["keys"]["mountPath"] == mounts[1]["keys"]["mountPath"] == str(Path(keys).parent)
    assert "persistentVolumeClaim" not in volumes["keys"]
    assert pod(kind)["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


@each_kind
def test_one_member_is_one_process_that_starts_as_the_image_does(kind: str) -> None:
    spec = one(kind, "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    member = containers(kind)[1]
    assert "command" not in member, "the image's entry point counts"
    assert member["args"] == ["serve", "--home", "/var/lib/fedcredit/home"]
    assert member["image"] == f"fedcredit-{kind}:{fedcredit.__version__}"
    assert {"name": "FEDCREDIT_HOME", "value": "/var/lib/fedcredit/home"} in member["env"]
    claim = spec["volumeClaimTemplates"][0]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert {"name": "home", "mountPath": "/var/lib/fedcredit"} in member["volumeMounts"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    service = one(kind, "Service", "-self")
    assert service["metadata"]["name"] == spec["serviceName"]
    labels = spec["template"]["metadata"]["labels"]
    for resource in (service["spec"]["selector"], spec["selector"]["matchLabels"]):
        assert resource.items() <= labels.items()


@each_kind
def test_probes_need_no_shell(kind: str) -> None:
    member = containers(kind)[1]
    asked = {}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        command = member[probe]["exec"]["command"]
        assert command[:-1] == ["/opt/fedcredit/bin/python", "-I", "/opt/fedcredit/probe.py"]
        asked[probe] = command[-1]
        assert member[probe]["timeoutSeconds"] > 5, "the probe itself gives up after 4 seconds"
    assert asked == {"startupProbe": "healthz", "livenessProbe": "healthz", "readinessProbe": "readyz"}


def test_a_node_reaches_the_coordinator_its_database_and_names_and_nothing_else() -> None:
    policy = one("node", "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"].items() <= pod_labels("node").items()
    assert [sorted(port["port"] for port in rule["ports"]) for rule in policy["egress"]] == [
        [53, 53],
        [9443],
        [5432],
    ]
    assert [rule["to"] for rule in policy["egress"][1:]] == [
        [{"ipBlock": {"cidr": "203.0.113.10/32"}}],
        [{"ipBlock": {"cidr": "10.20.0.5/32"}}],
    ]
    assert policy["egress"][0]["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [[9464]]
    assert all(rule["from"] for rule in policy["ingress"])


def pod_labels(kind: str) -> dict[str, str]:
    labels: dict[str, str] = one(kind, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    return labels


def test_the_coordinator_calls_nobody() -> None:
    policy = one("coordinator", "NetworkPolicy")["spec"]
    assert policy["egress"] == []
    assert "Egress" in policy["policyTypes"]
    assert [sorted(port["port"] for port in rule["ports"]) for rule in policy["ingress"]] == [[9443]]
    assert policy["ingress"][0]["from"] == [{"ipBlock": {"cidr": "198.51.100.0/24"}}]
    ports = {port["name"]: port["containerPort"] for port in containers("coordinator")[1]["ports"]}
    assert ports == {"exchange": 9443}


@each_kind
def test_a_run_is_not_drained_away(kind: str) -> None:
    budget = one(kind, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 0
    assert budget["selector"]["matchLabels"].items() <= pod_labels(kind).items()


def test_versions_of_the_chart() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == fedcredit.__version__
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(values) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@each_kind
def test_the_rendered_step_is_the_one_in_the_chart(kind: str) -> None:
    step = one(kind, "ConfigMap", "-step")["data"]
    assert step == {"lay_home.py": (CHART / "files/lay_home.py").read_text("utf-8")}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("trial")
    spec = load_consortium(ROOT / "configs/consortium/compose/consortium.toml")
    return {str(name): folder for name, folder in provision_local(spec, out / "homes").items()}


def mounted(home: Path, folder: Path) -> Path:
    """A secret as a pod with fsGroup sees it: links into a hidden folder, files that the group can read."""
    hidden = folder / "..2026"
    hidden.mkdir(parents=True)
    for path in [*home.iterdir(), *(home / "keys").iterdir()]:
        if path.is_file():
            (hidden / path.name).write_bytes(path.read_bytes())
            (hidden / path.name).chmod(0o440)
            (folder / path.name).symlink_to(Path("..2026") / path.name)
    return folder


def lay(secret: Path, base: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CHART / "files/lay_home.py"), secret, base / "home", base / "memory/keys"]
    return subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)


@pytest.mark.parametrize("member", ["bank", "coordinator"])
def test_a_home_laid_from_a_secret_opens_and_is_laid_again(trial: dict[str, Path], tmp_path: Path, member: str) -> None:
    secret = mounted(trial[member], tmp_path / "secret")
    for _ in range(2):
        done = lay(secret, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert open_home(tmp_path / "home").party == member
    keys = tmp_path / "home/keys"
    assert keys.readlink() == tmp_path / "memory/keys"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    assert {"identity.key", "sealing.key", "tls.key"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(keys.stat().st_mode) == stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    on_the_volume = [path for path in (tmp_path / "home").rglob("*.key") if not path.parent.samefile(keys)]
    assert on_the_volume == []


def test_what_a_secret_lacks_is_named(trial: dict[str, Path], tmp_path: Path) -> None:
    secret = mounted(trial["bank"], tmp_path / "secret")
    (secret / "tls.key").unlink()
    done = lay(secret, tmp_path)
    assert done.returncode == 1
    assert "lacks tls.key" in done.stderr
    assert not (tmp_path / "home").exists()
    (secret / "node.toml").unlink()
    assert "needs one of node.toml and coordinator.toml, has 0" in lay(secret, tmp_path).stderr


def test_an_earlier_roster_is_refused(trial: dict[str, Path], tmp_path: Path) -> None:
    secret = mounted(trial["bank"], tmp_path / "secret")
    assert lay(secret, tmp_path).returncode == 0
    pins = json.loads((tmp_path / "home/pins.json").read_text("utf-8"))
    (tmp_path / "home/pins.json").write_text(
        json.dumps({**pins, "roster_version": pins["roster_version"] + 1}), "utf-8"
    )
    done = lay(secret, tmp_path)
    assert done.returncode == 1
    assert "update the secret" in done.stderr


def test_keys_on_the_volume_are_refused(trial: dict[str, Path], tmp_path: Path) -> None:
    secret = mounted(trial["bank"], tmp_path / "secret")
    (tmp_path / "home/keys").mkdir(parents=True)
    done = lay(secret, tmp_path)
    assert done.returncode == 1
    assert "is a folder" in done.stderr
    assert list((tmp_path / "home/keys").iterdir()) == []
