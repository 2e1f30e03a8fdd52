"""A daemon as a process: one per home, started in the background or in the foreground, stopped, watched by systemd.

Whether a daemon lives is told by a lock that its process holds on ``state/daemon.lock`` and that the system releases
however it ends; the file holds its process id. Source: sd_notify(3) for the messages to systemd; they go out only where
it has set ``NOTIFY_SOCKET``.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedcredit.errors import FedCreditError, SpecError, TransportError
from fedcredit.runtime.daemon.logs import Log, log_failure

__all__ = ["Daemon", "DaemonLock", "detach", "notify_systemd", "run_daemon", "running_pid", "stop_daemon"]

STATUS_FILE, LOCK_FILE = "daemon.json", "daemon.lock"
_TICK, _LATE = 1.0, 30.0  # seconds between two turns of the loop; without one it counts as standing still
_CLOSE = 9.0  # seconds for a clean end; a supervisor asks for ten
_LOOK = 0.1
_ERROR_LINE = re.compile(r"error: (?P<text>.*?)(?: \[(?P<code>[a-z][a-z0-9.-]*)\])?$")


class Daemon(Protocol):
    """What `run_daemon` runs."""

    async def open(self) -> None:
        """Starts everything; a `FedCreditError` ends the process."""

    async def turn(self) -> None:
        """One turn of the loop, about every second; at most a few seconds long."""

    async def close(self) -> None:
        """Ends everything that was started."""

    def missing(self) -> str:
        """What it lacks to do its work; "" = nothing."""


class DaemonLock:
    """Held by the daemon of a home.

    Args:
        state: The home's ``state`` folder.

    Raises:
        SpecError: another daemon of this home runs.
    """

    def __init__(self, state: Path) -> None:
        self._file = os.open(state / LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._file, 20, 0).decode("ascii", "replace").strip() or "another one"
            os.close(self._file)
            text = f"{state.parent}: its daemon runs already, as process {pid}; stop that one first"
            raise SpecError("daemon.running", text) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode("ascii"), 0)

    def close(self) -> None:
        """Lets the home go."""
        os.close(self._file)


def running_pid(state: Path) -> int | None:
    """Process id of the daemon of a home; None where none runs."""
    try:
        file = os.open(state / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(file, 20, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(file)


@dataclass(frozen=True)
class _Started:
    pid: int
    errors: Path


def detach(command: tuple[str, ...], folder: Path, missing: Callable[[int], str | None], timeout_s: float) -> int:
    """Starts a daemon in the background and waits until it is ready.

    Args:
        command: Runs it in the foreground; absolute path of a program and its arguments.
        folder: Its home; what it writes before its log is open goes to ``logs/daemon.err``.
        missing: Given the process id: what the daemon says it lacks, "" = ready, None = it has said nothing yet.
        timeout_s: Longest wait.

    Returns:
        Its process id.

    Raises:
        FedCreditError: it ended, with its own last error; or it is not ready in time, and goes on.
    """
    pid = running_pid(folder / "state")
    if pid is not None:
        raise SpecError("daemon.running", f"{folder}: its daemon runs already, as process {pid}; stop that one first")
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    errors = folder / "logs" / "daemon.err"
    opened = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(errors), opened, 0o600),
    ]
    # not subprocess, which would have its say about a child that outlives this process
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
    return _await_ready(_Started(pid, errors), missing, timeout_s)


def _await_ready(started: _Started, missing: Callable[[int], str | None], timeout_s: float) -> int:
    until, pid, lacks = time.monotonic() + timeout_s, started.pid, None
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            raise _own_error(started.errors, os.waitstatus_to_exitcode(status))
        lacks = missing(pid)
        if lacks == "":
            return pid
        time.sleep(_LOOK)
    text = f"started as process {pid}, but not ready within {timeout_s:g} s: {lacks or 'it has said nothing yet'}"
    raise TransportError("daemon.late", f"{text}; it goes on, `status` tells how far it is")


def _own_error(errors: Path, status: int) -> FedCreditError:
    """The last error line that a process has left."""
    lines = errors.read_text("utf-8", "replace").splitlines() if errors.exists() else []
    found = [match for match in map(_ERROR_LINE.fullmatch, lines) if match]
    text, code = f"it ended with status {status}; {errors} says more", "daemon.ended"
    if found:
        text, code = found[-1]["text"], found[-1]["code"] or code
    return (SpecError if status == SpecError.exit_code else TransportError)(code, text)


def stop_daemon(folder: Path, timeout_s: float = 15.0) -> int | None:
    """Ends the daemon of a home, cleanly.

    Returns:
        Its process id; None where none ran.

    Raises:
        TransportError: it does not end in time.
    """
    pid = running_pid(folder / "state")
    if not pid:
        return None
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + timeout_s
    while running_pid(folder / "state") == pid:
        if time.monotonic() > until:
            raise TransportError("daemon.late", f"process {pid} did not end within {timeout_s:g} s; look at its log")
        time.sleep(_LOOK)
    return pid


def notify_systemd(message: str) -> None:
    """Sends a line such as ``READY=1`` to systemd, where it listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
        one.connect("\0" + address[1:] if address.startswith("@") else address)
        one.sendall(message.encode("utf-8"))


class _Loop:
    """The turns of a daemon, and whether they go on."""

    def __init__(self, daemon: Daemon, log: Log) -> None:
        self._daemon, self._log = daemon, log
        self._last = time.monotonic()
        self.stop = asyncio.Event()

    def alive(self) -> str:
        still = time.monotonic() - self._last
        return f"the loop stands still for {still:.0f} s" if still > _LATE else ""

    async def through(self) -> None:
        told = None
        while not self.stop.is_set():
            try:
                await self._daemon.turn()
                self._last = time.monotonic()
            except Exception as error:  # noqa: BLE001 -- the next turn may do; the probe tells if none does
                log_failure(self._log, "turn.failed", error)
            missing = self._daemon.missing()
            if missing != told:
                notify_systemd(f"STATUS={missing or 'ready'}")
                told = missing
            if not self.alive():
                notify_systemd("WATCHDOG=1")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), _TICK)


async def run_daemon(daemon: Daemon, log: Log, probe: Callable[[Callable[[], str]], None]) -> None:
    """Runs a daemon until SIGTERM or SIGINT, then closes it within ten seconds.

    Args:
        daemon: What to run.
        log: Where starts, ends and failures go.
        probe: Is given the function that tells "" while the loop turns.

    Raises:
        FedCreditError: it could not be opened.
    """
    loop = _Loop(daemon, log)
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, loop.stop.set)
    probe(loop.alive)
    opening = asyncio.create_task(daemon.open())
    stopping = asyncio.create_task(loop.stop.wait())
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            notify_systemd("READY=1")
            log.info("daemon.started")
            await loop.through()
    finally:
        notify_systemd("STOPPING=1")
        opening.cancel()
        stopping.cancel()
        await asyncio.gather(opening, stopping, return_exceptions=True)
        try:
            await asyncio.wait_for(daemon.close(), _CLOSE)
        except TimeoutError:
            log.warning("daemon.closed", code="daemon.late")
        log.info("daemon.ended")
