"""Processes that end with others: ``leash.py PARENT SIGNAL COMMAND …`` starts a command that ends with its parent.

The kernel signals this process when its parent dies, however it dies; that survives the exec that follows. Run as a
file of its own, because doing it between fork and exec of a process with threads can deadlock.

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


def leashed(command: tuple[str, ...], sign: signal.Signals = signal.SIGKILL) -> tuple[str, ...]:
    """The command that runs a command on a leash held by this process.

    Args:
        command: Absolute path of a program and its arguments.
        sign: What it gets when this process is gone; SIGTERM for one that has children of its own to end.
    """
    own = str(Path(__file__).resolve())
    return (sys.executable, "-I", "-S", own, str(os.getpid()), str(int(sign)), *command)


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
    parent, sign, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sign, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 -- no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
