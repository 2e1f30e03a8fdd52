"""``fedcredit-coordinator``: what it says of itself, and whose homes it takes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import main
from fedcredit.runtime.daemon.process import DaemonLock
from fedcredit.runtime.daemon.status import CoordinatorStatus, ExchangeCounts, PeerView, ProcessView, write_status
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec

Capture = pytest.CaptureFixture[str]
RUN = "5f2a81c0" + "1" * 24


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, Path]:
    raw: dict[str, Any] = {
        "name": "north",
        "trial": True,
        "coordinator": {"exchange": f"127.0.0.1:{free_port()}", "fleet": f"127.0.0.1:{free_port()}"},
        "member": [{"name": "bank"}, {"name": "ops", "kind": "operator"}],
    }
    made = provision_local(ConsortiumSpec.model_validate(raw), tmp_path / "homes")
    return {str(name): path for name, path in made.items()}


def status(**other: Any) -> CoordinatorStatus:
    values: dict[str, Any] = {
        "party": "coordinator",
        "consortium": "north",
        "roster_version": 2,
        "roster_digest": "d" * 64,
        "version": "1",
        "pid": os.getpid(),
        "started": "2026-01-01T00:00:00Z",
        "written": "2026-01-01T00:00:00Z",
        "missing": "",
        "certificate_seconds": 300 * 86400.0,
        "address": "0.0.0.0:9443",
        "nodes": ["bank", "tax_office"],
        "processes": [ProcessView(name="superlink", running=True, since="2026-01-01T00:00:00Z", restarts=1)],
        "parties": [PeerView(party="bank", run=RUN, connected=False, since="2026-01-01T00:00:00Z")],
        "exchange": ExchangeCounts(runs=1, queue_bytes=2_500_000, refused={"exchange.busy": 4}, reconnects=6),
        "operators_refused": 7,
        "runs": {"running": 1, "failed": 3},
    }
    return CoordinatorStatus(**{**values, **other})


def test_status_of_a_running_coordinator(homes: dict[str, Path], capsys: Capture) -> None:
    home = homes["coordinator"]
    (home / "state").mkdir(exist_ok=True)
    lock = DaemonLock(home / "state")
    write_status(home / "state" / "daemon.json", status())
    assert main(["status", "--home", str(home)]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0] == "coordinator of north: ready"
    for text in ("1 runs open, 2.5 MB queued", "6 reconnects", "4 streams, 7 operators", "3 failed, 1 running", "AWAY"):
        assert text in told
    assert all(len(line) <= 80 for line in told.splitlines())
    assert main(["status", "--home", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exchange"]["refused"] == {"exchange.busy": 4}
    write_status(home / "state" / "daemon.json", status(pid=1))
    assert main(["status", "--home", str(home)]) == 3  # left behind by another process
    assert "is starting" in capsys.readouterr().err
    lock.close()
    assert main(["status", "--home", str(home)]) == 3
    assert "does not run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["start", "serve", "status", "stop"])
def test_other_homes_are_refused(homes: dict[str, Path], capsys: Capture, command: str) -> None:
    for name in ("bank", "ops"):
        assert main([command, "--home", str(homes[name])]) == 2
        assert "give that of the coordinator" in capsys.readouterr().err


def test_why_it_cannot_start_is_one_line(
    homes: dict[str, Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = homes["coordinator"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = home / "coordinator.toml"
        lines = settings.read_text().splitlines()
        place = lines.index("[metrics]") + 1
        lines[place] = f'listen = "{address}"'
        settings.write_text("\n".join(lines))
        monkeypatch.setenv("FEDCREDIT_HOME", str(home))
        assert main(["start", "--wait", "30"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: metrics.listen: {address} cannot be listened on")
    assert len(told.err.splitlines()) == 1
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == "it was not running\n"


def test_every_command_has_an_example(capsys: Capture) -> None:
    for command in ("start", "serve", "status", "stop", "request", "pin"):
        assert main([command, "--help"]) == 0
        assert f"fedcredit-coordinator {command}" in " ".join(capsys.readouterr().out.split("Example")[1].split())
