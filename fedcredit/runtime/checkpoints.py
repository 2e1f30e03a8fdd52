"""Checkpoints as files: one a party, replaced as a whole, on the disk before anything goes on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fedcredit.errors import IntegrityError

__all__ = ["FileCheckpoints", "replace_file"]

_DIGEST_BYTES = 32


def replace_file(path: Path, *parts: bytes, durable: bool = True) -> None:
    """Writes a file that is there whole or as it was before, whenever the process or the machine stops.

    Mode 0600. The new content is forced to the disk under another name, which then takes the file's place; the folder
    is forced to the disk too, so that the new name outlives a crash. What cannot be written leaves nothing behind.

    Args:
        path: The file.
        *parts: Its content, one after the other.
        durable: False where only the process may stop and not the machine; simulation.
    """
    temporary = path.with_name(f".{path.name}.new")
    file = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:  # a disk that is nearly full may take a part
                rest = rest[os.write(file, rest) :]
        if durable:
            os.fsync(file)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk gets its room back
        raise
    finally:
        os.close(file)
    temporary.replace(path)
    if durable:
        _sync(path.parent)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class FileCheckpoints:
    """One party's state in one file, readable by its owner only; see `fedcredit.protocol.checkpoint`.

    Args:
        path: The file; it appears with the first state, in a folder with mode 0700.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> bytes | None:
        """The state saved last; None before the first.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        digest, state = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(state).digest() != digest:
            raise IntegrityError("checkpoint.damaged", f"{self._path.name}: the checkpoint is damaged")
        return state

    def save(self, state: bytes) -> None:
        """Replaces the state; it is on the disk when this returns, and a crash leaves the old or the new one."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, hashlib.sha256(state).digest() + state)
