"""Keeps child processes up, and ends them all: restarts with growing pauses, whole process groups, no orphan.

Children are on a leash (`fedcredit.runtime.daemon.leash`), so they end even when this process is killed. What they
start in their turn stays in their process group; groups of children that fell over are remembered until they are empty,
because Flower's task processes outlive the one that started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedcredit.runtime.daemon.leash import leashed

__all__ = ["Child", "ChildView", "Supervisor"]

_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.5, 15.0  # a SuperNode is not let in again for up to 60 s: about eight tries
_HEALTHY_S = 60.0  # a child that lived as long starts over with the first pause
_KILLED_S = 5.0  # for the system to end what was killed
_LOOK_S = 0.1
_MOST_LOG = 32 << 20  # bytes; a log is put aside once when it has grown to this


@dataclass(frozen=True)
class Child:
    """A process to keep up.

    Args:
        name: Of the process and its log.
        command: Absolute path of a program and its arguments.
        environment: All of its environment.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class ChildView:
    """How a child is.

    Args:
        name: Which.
        process: Its process id; None while it is down.
        restarts: How often it was started again.
        seconds: Since it was started or went down.
        last_exit: Status of its last end, negative for a signal; None if it never ended.
    """

    name: str
    process: int | None
    restarts: int
    seconds: float
    last_exit: int | None


@dataclass
class _Kept:
    child: Child
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    since: float = 0.0
    last_exit: int | None = None
    renewed: bool = False
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps children up.

    Args:
        logs: Folder of ``<name>.log`` files, made with mode 0700.
        grace_s: From SIGTERM to SIGKILL, in seconds.
    """

    def __init__(self, logs: Path, grace_s: float = 5.0) -> None:
        self._logs, self._grace_s = logs, grace_s
        self._kept: dict[str, _Kept] = {}
        self._groups: set[int] = set()

    async def start(self, children: Sequence[Child]) -> None:
        """Starts children; returns when each has been started once, not when it is ready."""
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for child in children:
            kept = self._kept[child.name] = _Kept(child)
            await self._spawn(kept)
            kept.task = asyncio.create_task(self._keep(kept), name=f"keeps {child.name}")

    async def stop(self) -> None:
        """Ends all children, the last started first, and whatever they have started."""
        for kept in self._kept.values():
            if kept.task is not None:
                kept.task.cancel()
        for sign, patience in ((signal.SIGTERM, self._grace_s), (signal.SIGKILL, _KILLED_S)):
            for group in sorted(self._alive(), reverse=True):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, sign)
            until = time.monotonic() + patience
            while self._alive() and time.monotonic() < until:  # noqa: ASYNC110 -- groups of processes tell nobody
                await asyncio.sleep(_LOOK_S)
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        for kept in self._kept.values():
            if kept.process is not None:
                await kept.process.wait()
        self._kept.clear()

    async def renew(self, child: Child) -> None:
        """Ends one child and whatever is in its group; it is started again at once, by this command."""
        kept = self._kept[child.name]
        kept.child = child
        if kept.process is None or kept.process.returncode is not None:
            return  # it is started again anyway
        group = kept.process.pid
        kept.renewed = True
        for sign, patience in ((signal.SIGTERM, self._grace_s), (signal.SIGKILL, _KILLED_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, sign)
            until = time.monotonic() + patience
            while group in self._alive() and time.monotonic() < until:  # noqa: ASYNC110 -- as in `stop`
                await asyncio.sleep(_LOOK_S)

    def signal(self, name: str, sign: signal.Signals) -> None:
        """Sends a signal to one child, if it runs."""
        kept = self._kept.get(name)
        if kept is not None and kept.process is not None and kept.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                kept.process.send_signal(sign)

    def views(self) -> list[ChildView]:
        """How all children are."""
        now = time.monotonic()
        return [
            ChildView(
                name=name,
                process=kept.process.pid if kept.process and kept.process.returncode is None else None,
                restarts=kept.restarts,
                seconds=now - kept.since,
                last_exit=kept.last_exit,
            )
            for name, kept in self._kept.items()
        ]

    async def _spawn(self, kept: _Kept) -> None:
        path = self._logs / f"{kept.child.name}.log"
        if path.exists() and path.stat().st_size > _MOST_LOG:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            kept.process = await asyncio.create_subprocess_exec(
                *leashed(kept.child.command, signal.SIGTERM),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(kept.child.environment),
                start_new_session=True,
            )
        kept.since = time.monotonic()
        self._groups.add(kept.process.pid)

    async def _keep(self, kept: _Kept) -> None:
        pause = _FIRST_PAUSE_S
        while kept.process is not None:
            kept.last_exit = await kept.process.wait()
            lived, kept.since = time.monotonic() - kept.since, time.monotonic()
            pause = _FIRST_PAUSE_S if lived > _HEALTHY_S or kept.renewed else pause
            kept.renewed = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)
            self._alive()
            kept.restarts += 1
            await self._spawn(kept)

    def _alive(self) -> set[int]:
        """Groups with a process in them; the others are forgotten, since their number may be given out again."""
        for group in tuple(self._groups):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                self._groups.discard(group)
        return self._groups
