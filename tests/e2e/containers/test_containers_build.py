"""Builds both images with buildah, runs them with podman as the compose file says: no root, shell or writable root.

Needs root, buildah, podman, debootstrap and the package registries; skipped with the reason where something is missing.
FEDCREDIT_CONTAINER_BASE names a base image to use instead of one made with debootstrap, FEDCREDIT_CONTAINER_FOLDER a
folder that keeps images from one run to the next. Limits of memory and processes are left to the tests of Docker.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fedcredit

if TYPE_CHECKING:
    from tests.e2e.containers import container_bench as bench
    from tests.e2e.containers.container_bench import Engine
else:
    import container_bench as bench
    from container_bench import Engine

pytestmark = [pytest.mark.slow, pytest.mark.images, pytest.mark.timeout(3600)]

WHOLE: dict[str, Any] = bench.yaml.safe_load((bench.CONSORTIUM / "compose.yaml").read_text("utf-8"))

each_image = pytest.mark.parametrize("image", bench.TARGETS)

LOOK = """
import json, os, stat
raised, open_to_all, files = [], [], 0
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev", "tmp", "run")]
    for name in names:
        mode = os.lstat(os.path.join(folder, name)).st_mode
        files += 1
        if stat.S_ISREG(mode) and mode & 0o6000:
            raised.append(os.path.join(folder, name))
        if stat.S_ISREG(mode) and mode & 0o002:
            open_to_all.append(os.path.join(folder, name))
def writes(folder):
    try:
        with open(os.path.join(folder, "probe"), "w"):
            return True
    except OSError:
        return False
folders = ("/", "/etc", "/usr/bin", "/opt/fedcredit", "/home/fedcredit", "/var/lib/fedcredit", "/tmp")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
tools = ("gcc", "cc", "pip", "pip3", "uv", "uvx", "curl", "wget", "git", "ssh")
places = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/fedcredit/bin")
print(json.dumps({
    "user": [os.getuid(), os.getgid()], "raised": raised, "open": open_to_all, "files": files,
    "writes": [one for one in folders if writes(one)],
    "capabilities": status["CapBnd"].strip(), "new": status["NoNewPrivs"].strip(),
    "tools": [one for one in tools for place in places if os.path.exists(os.path.join(place, one))],
    "registries": [one for one in ("/etc/pip.conf", "/run/secrets/ca", "/root/.config/pip") if os.access(one, os.F_OK)],
}))
"""


@each_image
def test_what_a_container_is(images: Engine, image: str) -> None:
    seen = images.python(image, LOOK)
    assert seen.pop("files") > 10_000
    assert seen == {
        "user": [bench.USER, bench.USER],
        "raised": [],
        "open": [],
        "writes": ["/tmp"],
        "capabilities": "0000000000000000",
        "new": "1",
        "tools": [],
        "registries": [],
    }


@each_image
def test_its_command_and_its_settings(images: Engine, image: str) -> None:
    inspected = json.loads(images.run("podman", "image", "inspect", bench.tag(image)).stdout)[0]
    settings = inspected["Config"]
    assert settings["User"] == f"{bench.USER}:{bench.USER}"
    assert settings["Entrypoint"] == ["/usr/bin/tini", "--", f"/opt/fedcredit/bin/{image}"]
    assert "FLWR_TELEMETRY_ENABLED=0" in settings["Env"]
    assert inspected["Labels"]["org.opencontainers.image.version"] == fedcredit.__version__
    assert inspected["Size"] < 1_500_000_000
    shown = images.container(image, f"/opt/fedcredit/bin/{image}", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "serve" in shown.stdout


def test_what_comes_with_the_program_is_in_the_image(images: Engine) -> None:
    """Links of the source tree are files in the wheel: nothing is missing, and commands find them by name."""
    kinds = ("catalog", "simulations", "consortium")
    code = (
        "import json; from fedcredit.shipped import shipped_files as f; from pathlib import Path; "
        f"print(json.dumps({{kind: [p.name for p in f(kind).values() if p.is_file()] for kind in {kinds}}}))"
    )
    for image in bench.TARGETS:
        seen = images.python(image, code)
        assert seen == {kind: sorted(one.name for one in (bench.SHIPPED / kind).glob("*.toml")) for kind in kinds}
    for words, text in ((("catalog", "show", "gas"), "Gas company (gas)"), (("spec", "check", "demo"), "demo: right")):
        shown = images.container("fedcredit-node", "/opt/fedcredit/bin/fedcredit", *words)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert text in shown.stdout


PACKAGES = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"


@each_image
def test_the_bill_of_materials_in_the_image_is_complete(images: Engine, image: str) -> None:
    bill = images.python(image, "print(open('/usr/share/doc/fedcredit/sbom.cdx.json').read())")
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == image
    listed = {(one["name"], one["version"]) for one in bill["components"]}
    installed = images.python(image, PACKAGES)
    assert len(installed) > 60
    assert {*installed.items()} <= listed
    lines = (bench.ROOT / "constraints.txt").read_text("utf-8").split()
    pins = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower(): line.split("==")[1] for line in lines}
    own = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    own.pop("fedcredit")
    assert own == {name: pins.get(name) for name in own}
    assert not {"pip", "uv", "setuptools", "torch"} & set(own)
    unlicensed = [one["name"] for one in bill["components"] if not one.get("licenses")]
    assert unlicensed == []
    debian = (
        "import json; print(json.dumps(open('/var/lib/dpkg/status').read().count('\\nStatus: install ok installed')))"
    )
    assert sum(one.get("purl", "").startswith("pkg:deb/") for one in bill["components"]) == images.python(image, debian)
    texts = images.python(image, "import json; print(json.dumps(open('/usr/share/doc/fedcredit/licences.txt').read()))")
    assert len(texts.splitlines()) == len(bill["components"])


@pytest.fixture(scope="module")
def homes(engine: Engine) -> Path:
    """A trial consortium, its records, and their owner's number as in the images."""
    return bench.make_trial(engine.folder / "trial")


def options(service: dict[str, Any], base: Path) -> list[str]:
    """What the compose file says of a service, in podman's words; all but limits, logs and restarts."""
    words = [
        f"--user={bench.USER}:{bench.USER}",
        "--network",
        ",".join(f"fedcredit-test-{one}" for one in service["networks"]),
    ]
    words += ["--read-only"] if service["read_only"] else []
    words += [f"--cap-drop={one}" for one in service["cap_drop"]]
    words += [f"--security-opt={one.removesuffix(':true')}" for one in service["security_opt"]]
    words += [f"--tmpfs={one}" for one in service["tmpfs"]]
    for mount in service["volumes"]:
        source = mount["source"].replace("${FEDCREDIT_HOMES:-./homes}", str(base / "homes"))
        source = source.replace("${FEDCREDIT_RECORDS:-./records}", str(base / "records"))
        source = source.replace("${FEDCREDIT_SPECS:-./specs}", str(base / "specs"))
        source = str(bench.CONSORTIUM / source) if source.startswith("./") else source
        words.append(f"--volume={source}:{mount['target']}:{'ro' if mount.get('read_only') else 'rw'}")
    return words


CONNECT = """
import socket, sys
for host in sys.argv[1:]:
    try:
        socket.create_connection((host.rsplit(":", 1)[0], int(host.rsplit(":", 1)[1])), 3).close()
        print("reached", host)
    except OSError as error:
        print("not", host)
"""


@pytest.fixture(scope="module")
def running(images: Engine, homes: Path) -> Engine:
    """The daemons of the compose file, each in its container."""
    for name in WHOLE["networks"]:
        images.run("podman", "network", "create", "--internal", f"fedcredit-test-{name}")
    for name in bench.DAEMONS:
        service = WHOLE["services"][name]
        images.run(
            *("podman", "run", "--detach", "--cgroups=disabled", "--name", name, *options(service, homes)),
            *("--volume=/dev/null:/usr/bin/dash:ro", "--volume=/dev/null:/usr/bin/bash:ro"),
            f"localhost/{service['image']}",
        )
    return images


def wait_ready(engine: Engine, name: str) -> None:
    until = time.monotonic() + bench.READY_S
    while engine.run("podman", "healthcheck", "run", name, check=False).returncode != 0:
        state = engine.run("podman", "inspect", "--format", "{{.State.Status}}", name).stdout.strip()
        if state != "running" or time.monotonic() > until:
            logs = engine.run("podman", "logs", "--tail", "60", name)
            pytest.fail(f"{name} is {state} and not ready:\n{logs.stdout}\n{logs.stderr}")
        time.sleep(3.0)


def test_the_nodes_and_the_coordinator_find_each_other(running: Engine) -> None:
    for name in bench.DAEMONS:
        wait_ready(running, name)


def test_a_holder_reaches_the_coordinator_and_nobody_else(running: Engine) -> None:
    shape = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    other = running.run("podman", "inspect", "--format", shape, "tax_office").stdout.split()[0]
    hosts = (
        "coordinator:9443",
        "coordinator:9442",
        "coordinator:9093",
        "coordinator:9464",
        f"{other}:9464",
        "192.0.2.1:443",
    )
    seen = running.run("podman", "exec", "bank", bench.PYTHON, "-I", "-c", CONNECT, *hosts).stdout.splitlines()
    assert seen == [f"{'reached' if place == 0 else 'not'} {host}" for place, host in enumerate(hosts)]


def operate(engine: Engine, base: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What an operator does: a container of the moment, with the program and the operator's home."""
    service = WHOLE["services"]["operations"]
    entry = "--entrypoint=" + json.dumps(service["entrypoint"])
    image = f"localhost/{service['image']}"
    command = ("podman", "run", "--rm", "--cgroups=disabled", entry, *options(service, base), image, *words)
    return engine.run(*command, check=False, timeout_s=900.0)


def test_a_scorecard_is_trained_between_containers(running: Engine, homes: Path) -> None:
    """Submitted by the operator's container, trained by four others, none of which has a shell."""
    done = operate(running, homes, "run", "submit", f"/specs/{bench.SPEC.name}", "--data", "credit", "--watch")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in ("bank", "tax_office", "utility"):
        runs = list((homes / "homes" / name / "runs").iterdir())
        assert len(runs) == 1, name
    summary = json.loads(next((homes / "homes/bank/runs").glob("*/summary.json")).read_text("utf-8"))
    assert '"auc"' in json.dumps(summary)
    listed = operate(running, homes, "run", "list")
    assert "finished" in listed.stdout, listed.stdout + listed.stderr


def test_nothing_is_written_outside_home_and_tmp(running: Engine, homes: Path) -> None:
    for name in bench.DAEMONS:
        lines = running.run("podman", "diff", name).stdout.splitlines()
        assert set(lines) <= {"C /etc"}, "more than the places where podman mounts hosts and resolv.conf"
    made = {path.name for path in (homes / "homes/bank").iterdir()}
    assert {"cache", "state", "runs", "logs"} <= made
    assert list((homes / "homes/bank/cache").rglob("*.nbc")), "compiled loops are not kept"
    assert all(path.lstat().st_uid == bench.USER for path in (homes / "homes/bank").rglob("*"))


def test_a_container_stops_when_asked_and_starts_again(running: Engine) -> None:
    began = time.monotonic()
    running.run("podman", "stop", "--time", "30", "bank")
    assert time.monotonic() - began < 28.0, "it was killed, not stopped"
    running.run("podman", "start", "bank")
    wait_ready(running, "bank")
