"""Who drives a run: a lock that the driving process holds, and that the system releases however the process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from fedcredit.errors import SpecError
from fedcredit.types import RunId

__all__ = ["DriverLocks"]


class DriverLocks:
    """Locks of the runs that this process drives.

    Args:
        folder: Where the files are; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._held = folder, dict[RunId, int]()

    def take(self, run: RunId) -> None:
        """Holds a run until it is released, or this process ends; again is harmless.

        Raises:
            SpecError: another process drives it.
        """
        if run in self._held:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        file = os.open(self._folder / f"{run}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise SpecError("registry.driven", f"run {run}: another process drives it") from None
        self._held[run] = file

    def release(self, run: RunId) -> None:
        """Lets a run go, if it is held here, and removes its file."""
        file = self._held.pop(run, None)
        if file is not None:
            with suppress(FileNotFoundError):
                (self._folder / f"{run}.lock").unlink()
            os.close(file)

    def forget(self, run: RunId) -> None:
        """Removes what a process that is gone has left, before another one is to drive the run."""
        if self.driven(run) is False:
            with suppress(FileNotFoundError):
                (self._folder / f"{run}.lock").unlink()

    def driven(self, run: RunId) -> bool | None:
        """Whether a process drives a run; None where none has begun to, or the last one has ended the run."""
        try:
            file = os.open(self._folder / f"{run}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(file)

    def close(self) -> None:
        """Lets everything go; the files of runs that have not ended stay, and tell that nobody drives them."""
        for file in self._held.values():
            os.close(file)
        self._held.clear()
