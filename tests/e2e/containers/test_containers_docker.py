"""Docker's own engine: it builds both images, and its compose plugin brings the compose files up and down.

The engine comes from Debian 13, in namespaces of its own beside whatever this machine has; skipped, loudly, where that
cannot be had.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.containers import container_bench as bench
    from tests.e2e.containers.container_bench import Room
else:
    import container_bench as bench
    from container_bench import Room

pytestmark = [pytest.mark.slow, pytest.mark.images, pytest.mark.timeout(3600)]

WHOLE = "configs/consortium/compose.yaml"
PARTY = "configs/consortium/compose.party.yaml"


@pytest.fixture(scope="module")
def trial(docker: Room) -> Path:
    return bench.make_trial(docker.folder / "trial")


def compose(docker: Room, file: str, trial: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "FEDCREDIT_USER": f"{bench.USER}:{bench.USER}",
        "FEDCREDIT_HOMES": str(trial / "homes"),
        "FEDCREDIT_RECORDS": str(trial / "records"),
        "FEDCREDIT_SPECS": str(trial / "specs"),
        **more,
    }
    check = more.pop("check", "yes") == "yes"
    return docker.run("docker", "compose", "--file", file, *words, check=check, timeout_s=900.0, **variables)


def nothing_left(docker: Room) -> None:
    assert docker.run("docker", "ps", "--all", "--quiet").stdout == ""
    networks = docker.run("docker", "network", "ls", "--format", "{{.Name}}").stdout.split()
    assert sorted(networks) == ["bridge", "host", "none"]
    assert docker.run("docker", "volume", "ls", "--quiet").stdout == ""


@pytest.fixture(scope="module")
def up(docker: Room, trial: Path) -> Iterator[Room]:
    compose(docker, WHOLE, trial, "up", "--detach", "--wait")
    yield docker
    compose(docker, WHOLE, trial, "down", "--volumes")
    nothing_left(docker)


def state(docker: Room, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker.run("docker", "inspect", f"fedcredit-{name}-1").stdout)[0]
    return found


def test_every_service_is_healthy_in_the_engines_own_eyes(up: Room) -> None:
    for name in bench.DAEMONS:
        assert state(up, name)["State"]["Health"]["Status"] == "healthy", name
    order = {name: state(up, name)["State"]["StartedAt"] for name in bench.DAEMONS}
    assert min(order, key=lambda name: order[name]) == "coordinator", "nodes start when the coordinator is ready"


def test_limits_are_the_engines(up: Room) -> None:
    read = (
        "import json; base = '/sys/fs/cgroup/'; v2 = base + 'memory.max'; import os; "
        "names = ['memory.max', 'pids.max'] if os.path.exists(v2) else "
        "['memory/memory.limit_in_bytes', 'pids/pids.max']; "
        "print(json.dumps([int(open(base + name).read()) for name in names]))"
    )
    for name in bench.DAEMONS:
        done = up.run("docker", "exec", f"fedcredit-{name}-1", bench.PYTHON, "-I", "-c", read)
        assert json.loads(done.stdout) == [4 << 30, 512], name
        host = state(up, name)["HostConfig"]
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}


def test_a_scorecard_is_trained_and_the_model_is_that_of_the_simulation(up: Room, trial: Path) -> None:
    words = ("run", "--rm", "operations", "run", "submit", f"/specs/{bench.SPEC.name}", "--data", "credit", "--watch")
    compose(up, WHOLE, trial, *words)
    assert bench.auc(trial / "homes/bank") == pytest.approx(bench.simulated_auc(trial), abs=1e-9)
    listed = compose(up, WHOLE, trial, "run", "--rm", "operations", "run", "list").stdout
    assert listed.count(" finished  ") == 1


def test_a_service_that_dies_is_started_again(up: Room, trial: Path) -> None:
    """As the policy of the file says; not by the test."""
    before = state(up, "bank")["State"]
    up.run("kill", "-9", str(before["Pid"]))
    bench.wait_for("restart of bank", lambda: state(up, "bank")["RestartCount"] == 1, 60.0)
    bench.wait_for("health of bank", lambda: state(up, "bank")["State"].get("Health", {}).get("Status") == "healthy")
    assert state(up, "bank")["State"]["Pid"] != before["Pid"]


def test_a_member_in_its_own_house(docker: Room, up: Room, trial: Path, tmp_path: Path) -> None:
    """The coordinator's file and a node's, two projects as in two houses, with what the trial's files say otherwise."""
    compose(docker, WHOLE, trial, "stop", "bank")
    house = trial / "house"
    shutil.copytree(trial / "homes/bank", house, symlinks=True)
    shutil.copy(bench.CONSORTIUM / "compose/bank.toml", house / "node.toml")
    bench.own(house)
    more = {"FEDCREDIT_HOME": str(house), "FEDCREDIT_RECORDS": str(trial / "records/bank")}
    lines = "networks: { node: { external: true, name: fedcredit_bank } }\n"
    extra = docker.folder / "join.yaml"
    extra.write_text(lines, "utf-8")
    file = ("--file", str(extra), "--project-name", "house", "--profile", "node")
    try:
        compose(docker, PARTY, trial, *file, "up", "--detach", "--wait", **more)
        words = ("exec", "node", "fedcredit-node", "status", "--home", "/var/lib/fedcredit")
        assert "ready" in compose(docker, PARTY, trial, *file, *words, **more).stdout
    finally:
        compose(docker, PARTY, trial, *file, "down", "--volumes", **more)
        compose(docker, WHOLE, trial, "start", "bank")
