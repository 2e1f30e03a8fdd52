"""Processes that end with others: ``python leash.py PARENT COMMAND …`` starts a command that ends with its parent.

The kernel kills this process when its parent dies, however it dies; that survives the exec that follows. Run as a file
of its own, because doing it between fork and exec of a process with threads can deadlock.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

__all__ = ["end_with", "leashed", "main"]

_PR_SET_PDEATHSIG = 1
_GRACE_S = 5.0


def leashed(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command that runs a command on a leash held by this process."""
    return (sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command)


def end_with(process: int) -> None:
    """Has this process end when another one does that is not its parent: first asked to, then killed."""
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        select.select([watched], [], [])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="leash", daemon=True).start()


def main(arguments: list[str]) -> None:
    """Puts on the leash and becomes the command; ends at once where the parent is gone already."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 -- no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
