"""Daemons as processes: one per home, started in the background, stopped, watched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedcredit.errors import FedCreditError, SpecError, TransportError
from fedcredit.runtime.daemon.logs import Logs
from fedcredit.runtime.daemon.process import DaemonLock, detach, notify_systemd, run_daemon, running_pid, stop_daemon

PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from fedcredit.errors import FedCreditError, SpecError, TransportError
from fedcredit.runtime.daemon.process import DaemonLock, run_daemon
from fedcredit.runtime.daemon.logs import Logs

folder, how = Path(sys.argv[1]), sys.argv[2]

class Daemon:
    async def open(self):
        if how == "settings":
            raise SpecError("metrics.listen", "metrics.listen: 127.0.0.1:1 cannot be listened on")
        if how == "crash":
            raise ZeroDivisionError
    async def turn(self):
        (folder / "ready").touch()
    async def close(self):
        (folder / "closed").touch()
        if how == "stubborn":
            await asyncio.sleep(3600)
    def missing(self):
        return ""

lock = DaemonLock(folder / "state")
logs = Logs("daemon", folder / "logs", quiet=True)
try:
    asyncio.run(run_daemon(Daemon(), logs.log, lambda alive: None))
except FedCreditError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "state").mkdir()
    yield tmp_path
    pid = running_pid(tmp_path / "state")
    if pid:
        os.kill(pid, signal.SIGKILL)


def start(home: Path, how: str = "well", timeout_s: float = 30.0) -> int:
    def missing(_: int) -> str | None:
        return "" if (home / "ready").exists() else None

    return detach((sys.executable, "-c", PROGRAM, str(home), how), home, missing, timeout_s)


def reap(pid: int) -> None:
    os.waitpid(pid, 0)


def test_it_starts_tells_its_process_and_stops(home: Path) -> None:
    assert running_pid(home / "state") is None
    pid = start(home)
    assert running_pid(home / "state") == pid
    with pytest.raises(SpecError, match=f"runs already, as process {pid}"):
        start(home)
    assert stop_daemon(home) == pid
    assert (home / "closed").exists()
    assert running_pid(home / "state") is None
    assert stop_daemon(home) is None
    reap(pid)


def test_a_killed_daemon_is_no_daemon(home: Path) -> None:
    pid = start(home)
    os.kill(pid, signal.SIGKILL)
    reap(pid)
    assert running_pid(home / "state") is None
    assert stop_daemon(home) is None


def test_why_it_could_not_start_is_told(home: Path) -> None:
    with pytest.raises(SpecError) as caught:
        start(home, "settings")
    assert str(caught.value) == "metrics.listen: 127.0.0.1:1 cannot be listened on [metrics.listen]"
    with pytest.raises(TransportError, match="ended with status 1") as crashed:
        start(home, "crash")
    assert str(home / "logs" / "daemon.err") in str(crashed.value)


def test_one_that_is_not_ready_in_time_goes_on(home: Path) -> None:
    command = (sys.executable, "-c", PROGRAM, str(home), "well")
    with pytest.raises(TransportError, match="not ready within 3 s: superlink does not run"):
        detach(command, home, lambda _: "superlink does not run", 3.0)
    pid = running_pid(home / "state")
    assert pid
    assert stop_daemon(home) == pid
    reap(pid)


def test_an_end_that_hangs_is_cut_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    program = PROGRAM.replace(
        "folder, how", "import fedcredit.runtime.daemon.process as p; p._CLOSE = 0.5\nfolder, how"
    )
    pid = detach(
        (sys.executable, "-c", program, str(home), "stubborn"),
        home,
        lambda _: "" if (home / "ready").exists() else None,
        30.0,
    )
    begun = time.monotonic()
    assert stop_daemon(home, 10.0) == pid
    assert time.monotonic() - begun < 8
    reap(pid)
    events = [json.loads(line) for line in (home / "logs" / "daemon.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["daemon.started", "daemon.closed", "daemon.ended"]


def test_the_lock_is_of_one_process(home: Path) -> None:
    lock = DaemonLock(home / "state")
    with pytest.raises(SpecError, match=f"as process {os.getpid()}"):
        DaemonLock(home / "state")
    assert running_pid(home / "state") == os.getpid()
    lock.close()
    DaemonLock(home / "state").close()


class Fake:
    """Counts what is called; turns as it is told."""

    def __init__(self, turn: Callable[[], None], fails: FedCreditError | None = None) -> None:
        self._turn, self._fails = turn, fails
        self.calls: list[str] = []
        self.lacks = ""

    async def open(self) -> None:
        self.calls.append("open")
        if self._fails is not None:
            raise self._fails

    async def turn(self) -> None:
        self.calls.append("turn")
        self._turn()

    async def close(self) -> None:
        self.calls.append("close")

    def missing(self) -> str:
        return self.lacks


def run(daemon: Fake, folder: Path) -> tuple[list[dict[str, str]], list[Callable[[], str]]]:
    logs, probes = Logs("daemon", folder, quiet=True), list[Callable[[], str]]()
    try:
        asyncio.run(run_daemon(daemon, logs.log, probes.append))
    finally:
        logs.close()
    return [json.loads(line) for line in (folder / "daemon.jsonl").read_text().splitlines()], probes


def stop_myself() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_turn_that_fails_is_logged_and_the_next_one_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcredit.runtime.daemon.process._TICK", 0.01)
    turns = iter([ValueError("id 91310000MA1FL8XQ5T"), TransportError("exchange.full", "x")])

    def turn() -> None:
        failure = next(turns, None)
        if failure is not None:
            raise failure
        stop_myself()

    daemon = Fake(turn)
    events, probes = run(daemon, tmp_path)
    assert daemon.calls == ["open", "turn", "turn", "turn", "close"]
    assert [one.get("code") for one in events if one["event"] == "turn.failed"] == [
        "internal.valueerror",
        "exchange.full",
    ]
    assert "91310000" not in json.dumps(events)
    assert probes[0]() == ""


def test_turns_that_all_fail_make_it_unhealthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcredit.runtime.daemon.process._TICK", 0.01)
    monkeypatch.setattr("fedcredit.runtime.daemon.process._LATE", 0.05)
    seen: list[str] = []
    left = iter(range(20))

    def turn() -> None:
        if next(left, None) is None:
            stop_myself()
        raise ValueError

    daemon = Fake(turn)
    logs = Logs("daemon", tmp_path, quiet=True)

    def probe(alive: Callable[[], str]) -> None:
        original = daemon.missing

        def missing() -> str:
            seen.append(alive())
            return original()

        daemon.missing = missing  # type: ignore[method-assign]

    asyncio.run(run_daemon(daemon, logs.log, probe))
    logs.close()
    assert seen[0] == ""
    assert seen[-1].startswith("the loop stands still")


def test_what_could_not_open_is_closed_and_told(tmp_path: Path) -> None:
    daemon = Fake(stop_myself, TransportError("exchange.listen", "cannot listen"))
    with pytest.raises(TransportError, match="cannot listen"):
        run(daemon, tmp_path)
    assert daemon.calls == ["open", "close"]


def test_systemd_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        run(Fake(stop_myself), tmp_path)
        heard = [listener.recv(1000).decode() for _ in range(4)]
    assert heard == ["READY=1", "STATUS=ready", "WATCHDOG=1", "STOPPING=1"]


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nothing"))
    notify_systemd("READY=1")


@pytest.mark.parametrize("module", ["nodes.daemon", "coordinator.daemon"])
def test_a_home_that_is_none_is_one_line_and_exit_2(module: str, tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path / "nothing")], [str(tmp_path), "x"]):
        done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
