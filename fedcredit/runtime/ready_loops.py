"""Makes compiled loops ready before they are needed: once for a machine, a version and a processor, by one process.

Whoever comes while another compiles waits for it instead of compiling beside it. A process that is killed leaves what
it has compiled, and the next one goes on.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fedcredit.errors import FedCreditError, IntegrityError, TransportError
from fedcredit.kernels.loop_store import CACHE_VARIABLE, UNUSABLE, check_store, loop_store, store_place
from fedcredit.runtime.daemon.leash import leashed

__all__ = [
    "GROUPS",
    "SUMS",
    "TREES",
    "load_loops",
    "loops_for",
    "loops_if_kept",
    "main",
    "place_loops",
    "ready_loops",
    "ready_loops_beside",
]

SUMS, TREES = "sums", "trees"
GROUPS = (SUMS, TREES)
"""Loops of encrypted sums, which every run needs, and of trees."""

_MODULES = {SUMS: "fedcredit.crypto.", TREES: "fedcredit.kernels."}
_OLD_S = 60 * 86_400.0  # of folders of other versions
_NOTICE_S = 600.0  # longest time that another process is waited for


def loops_for(model: str) -> tuple[str, ...]:
    """Groups of loops that a run of a model needs."""
    return (SUMS,) if model in {"scorecard", "fedavg"} else GROUPS


def place_loops(home: Path) -> dict[str, str]:
    """Environment of a house's processes: where they keep compiled loops.

    The folder that the environment names, else the user's cache, which all homes of a user share; in the home where the
    user has none, as service users.
    """
    place = store_place(os.environ)
    if CACHE_VARIABLE not in os.environ:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            usable = os.access(place, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        place = place if usable else home / "cache" / "compiled"
    return {CACHE_VARIABLE: str(place.absolute())}


def ready_loops(groups: Sequence[str] = GROUPS) -> int:
    """Compiles what is not compiled yet; at once where all is.

    Args:
        groups: Of `GROUPS`.

    Returns:
        How many loops this process has compiled; 0 where another one had.

    Raises:
        IntegrityError: the folder cannot be used, or others can write it.
        TransportError: another process compiles and does not come to an end.
    """
    from fedcredit.kernels.compiled import KEPT  # noqa: PLC0415 -- loads the compiler

    folder = loop_store(os.environ)
    if not KEPT or Path(KEPT) != folder:
        raise IntegrityError(UNUSABLE, f"{folder}: could not be used when this process started; start again")
    done = 0
    for group in groups:
        mark = folder / f"ready-{group}-{_processor()}"
        if mark.exists():
            continue
        with _alone(folder / f"lock-{group}"):
            if mark.exists():
                continue
            done += _compile(group)
            mark.touch(mode=0o600)
            check_store(folder)
    _forget_old(folder)
    return done


def loops_if_kept(groups: Sequence[str] = GROUPS) -> None:
    """The same for a run that can do without: where no folder can be used, it compiles what it needs and keeps nothing.

    Raises:
        IntegrityError: others can write the folder.
        TransportError: another process compiles and does not come to an end.
    """
    try:
        ready_loops(groups)
    except IntegrityError as error:
        if error.code != UNUSABLE:
            raise


async def ready_loops_beside(environment: dict[str, str]) -> None:
    """The same in processes of their own, one a group, so that the caller neither waits nor loads the compiler.

    Args:
        environment: What `place_loops` says; the rest is this process's own.

    Raises:
        FedCreditError: as `ready_loops`; or a process died.
    """
    command = (sys.executable, "-P", "-m", __name__)
    started = [
        await asyncio.create_subprocess_exec(
            *leashed((*command, group)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
        )
        for group in GROUPS
    ]
    try:
        for process in started:
            _, said = await process.communicate()
            if process.returncode:
                last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise IntegrityError("compiled.failed", last or f"compiling ended with status {process.returncode}")
    finally:
        for process in started:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()


def load_loops(group: str) -> None:
    """Takes a group's loops into this process if they are compiled; compiles nothing."""
    from fedcredit.kernels.compiled import KEPT  # noqa: PLC0415 -- loads the compiler

    if KEPT and (Path(KEPT) / f"ready-{group}-{_processor()}").exists():
        _compile(group)


def _compile(group: str) -> int:
    from fedcredit.runtime.loop_signatures import loops_listed  # noqa: PLC0415 -- loads the compiler

    done = 0
    for loop, kinds, module in loops_listed():
        if module.startswith(_MODULES[group]):
            missed = sum(loop.stats.cache_misses.values())
            loop.compile(kinds)
            done += sum(loop.stats.cache_misses.values()) - missed
    return done


def _processor() -> str:
    """Name of the processor's kind, as the compiler distinguishes them."""
    from numba.core.registry import cpu_target  # noqa: PLC0415 -- loads the compiler

    kind = cpu_target.target_context.codegen().magic_tuple()
    return hashlib.sha256(repr(kind).encode()).hexdigest()[:12]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The right to compile; whoever else has it is waited for, however it ends."""
    until = time.monotonic() + _NOTICE_S
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    text = f"{path}: another process has compiled for {_NOTICE_S:g} s; end it"
                    raise TransportError("compiled.late", text) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(file)


def _forget_old(own: Path) -> None:
    """Removes what other versions left long ago."""
    os.utime(own)
    for folder in own.parent.glob("loops-*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _OLD_S and folder != own:
                _remove(folder)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()


def main(groups: Sequence[str]) -> int:
    """The command: groups to make ready, all where none is named; used when a daemon starts and an image is tried."""
    try:
        ready_loops(groups or GROUPS)
    except FedCreditError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
