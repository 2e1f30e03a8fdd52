"""Spare workers: processes that have loaded everything before there is work, each used once.

Loading what a session needs takes two seconds of a processor. A daemon keeps spares that have done so; they have opened
no home and read no message. Who needs a worker starts ``hand_over.py``, which passes its standard streams to a spare
and ends as the spare does; where there is none, it becomes the worker itself. A spare ends with whoever it works for,
and with the daemon.

    python -m fedcredit.runtime.daemon.spare MODULE SOCKET
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedcredit.runtime.daemon.leash import leashed

__all__ = ["FOLDER", "SparePool", "handed_over", "main"]

FOLDER = Path("state") / "spares"
"""Where the sockets of a home's spares are; the folder is the owner's alone."""

_LOOK_S = 0.5
_AFTER_S = 10.0  # from a spare's being taken to the next one's start: the cores belong to the run that begins
_FELL_S = 60.0  # the same, for one that fell over
_GRACE_S = 5.0
_MOST_BYTES = 1 << 16


def handed_over(home: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    """The command that has a spare of a home do what a command would, or runs it where there is no spare.

    Args:
        home: Whose.
        command: ``python -P -m MODULE ARGUMENT …``.
    """
    own = str(Path(__file__).with_name("hand_over.py").resolve())
    return (sys.executable, "-I", "-S", own, str(home / FOLDER), *command)


@dataclass
class SparePool:
    """Keeps spares of one home.

    Args:
        folder: Of their sockets.
        module: Whose ``load`` they have called, and whose ``main`` they call.
        count: How many wait.
        environment: All of their environment.
        log: Takes what they write before they work.
    """

    folder: Path
    module: str
    count: int
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    _all: dict[Path, asyncio.subprocess.Process] = field(default_factory=dict)
    _waiting: set[Path] = field(default_factory=set)
    _number: int = 0

    async def keep(self) -> None:
        """Keeps them until it is cancelled; then ends all, those at work too."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.folder.iterdir():
            left.unlink()
        not_before = 0.0
        try:
            while True:
                pause = self._look()
                not_before = max(not_before, time.monotonic() + pause) if pause else not_before
                if len(self._waiting) < self.count and time.monotonic() >= not_before:
                    await self._start()
                await asyncio.sleep(_LOOK_S)
        finally:
            await self._end()

    def _look(self) -> float:
        """Forgets those that were taken or have ended; how long to wait with the next."""
        pause = 0.0
        for path, process in list(self._all.items()):
            ended = process.returncode is not None
            if path in self._waiting and (ended or path.with_suffix(".taken").exists()):
                self._waiting.discard(path)
                pause = max(pause, _AFTER_S if path.with_suffix(".taken").exists() else _FELL_S)
            if ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it may have left in its group
                del self._all[path]
                path.unlink(missing_ok=True)
                path.with_suffix(".taken").unlink(missing_ok=True)
        return pause

    async def _start(self) -> None:
        self._number += 1
        path = self.folder / f"{self._number}.sock"
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._all[path] = await asyncio.create_subprocess_exec(
                *leashed((sys.executable, "-P", "-m", __name__, self.module, str(path))),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                env=dict(self.environment),
                start_new_session=True,
            )
        self._waiting.add(path)

    async def _end(self) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._all.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            waits = [process.wait() for process in self._all.values()]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*waits), _GRACE_S)
        for left in self.folder.iterdir():
            left.unlink()


def main(module_name: str, path: Path) -> int:
    """A spare's life: loads, waits to be taken, works, says how it ended."""
    module = importlib.import_module(module_name)
    module.load()
    own, home = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), Path.cwd()
    part = path.with_suffix(".new")
    os.chdir(path.parent)  # a path of any length has a short name here
    own.bind(part.name)
    own.listen(1)
    part.rename(path)  # from now on it can be taken, by renaming it again
    line, _ = own.accept()
    own.close()
    os.chdir(home)
    (_, user, _) = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user != os.geteuid():
        return 1
    order, streams, _, _ = socket.recv_fds(line, _MOST_BYTES, 3)
    arguments = [str(one) for one in json.loads(order)]
    if len(streams) != 3 or arguments[:1] != [module_name]:
        return 1
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    threading.Thread(target=_end_with, args=(line,), name="leash", daemon=True).start()
    status = int(module.main(arguments[1:]))
    sys.stdout.flush()
    sys.stderr.flush()
    for number in range(3):
        os.close(number)  # its streams end before its status is told
    line.sendall(bytes([status]))
    os._exit(0)


def _end_with(line: socket.socket) -> None:
    """Whoever it works for is gone: so is it, with all it has started."""
    line.recv(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
