"""Has a spare worker do the work of this process: ``hand_over.py FOLDER PYTHON -P -m MODULE ARGUMENT …``.

Run as a file of its own, without the package, because a start is to take milliseconds. A spare is taken by renaming its
socket, which one process alone can do. Without one, this process becomes the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from types import FrameType

__all__ = ["main"]

_DIED = 70  # EX_SOFTWARE: the spare ended without a word


def main(folder: str, command: list[str]) -> int:
    """Hands over; returns the status of the spare, or becomes the worker."""
    line = _taken(folder)
    if line is None:
        os.execv(command[0], command)  # noqa: S606 -- no shell is the point
    process, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))

    def end(sign: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os._exit(128 + sign)

    signal.signal(signal.SIGTERM, end)
    order = json.dumps(command[command.index("-m") + 1 :]).encode()
    socket.send_fds(line, [order], [0, 1, 2])
    for number in range(3):
        os.close(number)  # the spare has them now; they end when it closes them
    told = line.recv(1)
    return told[0] if told else _DIED


def _taken(folder: str) -> socket.socket | None:
    try:
        os.chdir(folder)  # a path of any length has a short name here
        names = sorted(one.name for one in Path().iterdir() if one.suffix == ".sock")
    except OSError:
        return None
    for name in names:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        taken = name.removesuffix(".sock") + ".taken"
        try:
            Path(name).rename(taken)
            line.connect(taken)
        except OSError:
            line.close()  # another was quicker, or it has fallen over
            continue
        return line
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
