"""Where a party keeps seeds and salts for its auditor: one line each, on its own disk, before anything is sent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FileEscrow"]


class FileEscrow:
    """An append-only file of JSON lines, readable by its owner only.

    Args:
        path: The file; created with mode 0600.
        durable: Force each line to the disk before it counts; production.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._durable = durable

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        """Appends one entry."""
        line = json.dumps({"what": what, **entry}, sort_keys=True).encode() + b"\n"
        rest = memoryview(line)
        while rest:  # a disk that is nearly full may take a part
            rest = rest[os.write(self._file, rest) :]
        if self._durable:
            os.fsync(self._file)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
