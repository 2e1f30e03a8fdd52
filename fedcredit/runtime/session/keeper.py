"""Keeps a session alive beyond the message that started it, until it has ended or the node is stopped.

A SuperNode handles one message at a time. Were a session as long as its message, a node in two runs would be deaf to
one of them, and two nodes that begin different runs first would wait for each other. So the message starts a keeper,
which holds the worker on a leash, and later messages ask how it went. A keeper ends with the node's supervisor, whose
process it watches; the session goes on from its checkpoints when the order comes again.

A session's folder holds ``order`` (the last order), ``lock`` (locked by the keeper; its process id) and ``result``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedcredit.errors import FedCreditError, IntegrityError, PeerError, TransportError
from fedcredit.runtime.daemon.worker_process import WORKER_DIED, WorkerJob, public_error, run_worker
from fedcredit.types import RunId

__all__ = ["SessionBook", "end_sessions", "main"]

_RUN = re.compile(r"[0-9a-f]{32}")
_LOOK_S = 0.1
_START_S = 30.0  # an interpreter on a busy machine
_END_S = 20.0  # above the worker's own grace
_KEPT_S = 30 * 86_400  # of results nobody asks for any more


class _Result(msgspec.Struct):
    order_sha256: str
    ok: bool
    answer: bytes = b""
    code: str = ""
    text: str = ""


@dataclass(frozen=True)
class SessionBook:
    """Sessions of a node.

    Args:
        folder: Where their folders are.
        job: The worker that plays a session; its log takes the keeper's errors too.
        supervisor: Process with which all sessions end.
    """

    folder: Path
    job: WorkerJob
    supervisor: int

    def attend(self, run: RunId, order: bytes, hold_s: float) -> bytes | None:
        """Starts a session unless it goes on already, and waits a while for its end.

        An order other than the one under which a session runs replaces it. A session that has ended is told again, not
        played again; one whose worker died is played again when it is next asked for.

        Args:
            run: Name of the run, 32 hex digits.
            order: What the worker gets.
            hold_s: Longest wait for the end.

        Returns:
            The worker's answer; None while it still works.

        Raises:
            PeerError: the worker refused or failed, and said why; or the name is none.
            TransportError: the worker died.
        """
        if _RUN.fullmatch(run) is None:
            raise PeerError("node.run", "a run's name is 32 hex digits")
        folder, until = self.folder / run, time.monotonic() + hold_s
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256(order).hexdigest()
        if _kept(folder) and _digest(folder / "order") != digest:
            _stop(folder)
        if not _kept(folder) and _result(folder, digest) is None:
            self._prune()
            self._start(folder, order)
        while True:
            kept = _kept(folder)  # before the look at the result, which a keeper writes before it ends
            result = _result(folder, digest)
            if result is not None:
                return _told(result)
            if not kept:
                raise TransportError(WORKER_DIED, f"the worker died; {self.job.log.name} at that house says why")
            if time.monotonic() >= until:
                return None
            time.sleep(_LOOK_S)

    def _start(self, folder: Path, order: bytes) -> None:
        (folder / "result").unlink(missing_ok=True)
        _write(folder / "order", order)
        self.job.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", __name__, str(folder), str(self.supervisor), str(self.job.log)]
        keeper = os.posix_spawn(  # not a child to be looked after: it outlives this process
            command[0],
            [*command, *self.job.command],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, self.job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            ],
            setsid=True,
        )
        until = time.monotonic() + _START_S
        while not _kept(folder) and not (folder / "result").exists():
            if os.waitpid(keeper, os.WNOHANG) != (0, 0) or time.monotonic() > until:
                raise TransportError(WORKER_DIED, f"the session did not start; {self.job.log.name} there says why")
            time.sleep(_LOOK_S)

    def _prune(self) -> None:
        old = time.time() - _KEPT_S
        for folder in self.folder.iterdir():
            if folder.stat().st_mtime < old and not _kept(folder):
                shutil.rmtree(folder, ignore_errors=True)


def end_sessions(folder: Path) -> None:
    """Ends every session under a folder, worker and keeper; returns when they are gone."""
    if folder.is_dir():
        for one in sorted(folder.iterdir()):
            if _kept(one):
                _stop(one)


def main(arguments: list[str]) -> None:
    """The keeper's process: ``FOLDER SUPERVISOR LOG COMMAND …``."""
    folder, supervisor, log, *command = arguments
    with _locked(Path(folder)):
        asyncio.run(_keep(Path(folder), int(supervisor), WorkerJob(tuple(command), Path(log))))


async def _keep(folder: Path, supervisor: int, job: WorkerJob) -> None:
    order = (folder / "order").read_bytes()
    result = _Result(order_sha256=hashlib.sha256(order).hexdigest(), ok=True)
    working = asyncio.create_task(run_worker(job, order))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, working.cancel)
    try:
        loop.add_reader(os.pidfd_open(supervisor), working.cancel)
        result.answer = await working
    except (ProcessLookupError, asyncio.CancelledError):
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return
    except TransportError:
        return  # it died; whoever asks next has it started again
    except FedCreditError as error:
        result.ok, result.code, result.text = False, error.code, error.public
    _write(folder / "result", msgspec.msgpack.encode(result))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The right to keep this session; another keeper that has it is waited for briefly."""
    with (folder / "lock").open("a+b") as lock:
        until = time.monotonic() + _START_S / 2
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(_LOOK_S)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield


def _kept(folder: Path) -> bool:
    """Whether a keeper is at work."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _stop(folder: Path) -> None:
    until = time.monotonic() + _END_S
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int((folder / "lock").read_bytes()), sign)
        while _kept(folder) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        until += _END_S
    if _kept(folder):
        raise TransportError("node.session-stuck", "a session of this run does not end")


def _result(folder: Path, digest: str) -> _Result | None:
    try:
        result = msgspec.msgpack.decode((folder / "result").read_bytes(), type=_Result)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise IntegrityError("node.session-result", "a stored result does not decode", str(error)) from None
    return result if result.order_sha256 == digest else None


def _told(result: _Result) -> bytes:
    if not result.ok:
        raise public_error(result.code, result.text, "node.worker-failed")
    return result.answer


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, also where the power fails."""
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
