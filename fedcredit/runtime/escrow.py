"""Where a party keeps seeds and salts for its auditor, and what it has bound itself to: one line each, on its own disk.

A line counts once it ends in a newline: the rest of a write that a crash cut off is dropped when the file is opened
again. One process at a time may write to a file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedcredit.errors import IntegrityError

__all__ = ["FileEscrow", "NoEscrow", "read_escrow"]

_BINDING = frozenset({"bind", "key", "digest"})


class FileEscrow:
    """An append-only file of JSON lines, readable by its owner only; what it holds already is read first.

    Args:
        path: The file; created with mode 0600.
        durable: Force each line to the disk before it counts; production.

    Raises:
        IntegrityError: the file is damaged, or another process writes to it.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._durable = durable
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._lock(path)
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            self._bound = dict(_bindings(_lines(data[:whole], path), path))
            if whole < len(data):
                os.ftruncate(self._file, whole)
        except BaseException:
            os.close(self._file)
            raise
        if durable:  # the name of a new file has to outlive a crash as well
            folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IntegrityError("escrow.in-use", f"{path.name}: another process writes to this escrow") from None

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        """Appends one entry."""
        self._append({"what": what, **entry})

    def bind(self, what: str, key: str, digest: str) -> None:
        """Ties a key to a digest for good; again with the same digest changes nothing.

        Raises:
            IntegrityError: the key was bound to another digest before.
        """
        known = self._bound.get((what, key))
        if known is None:
            self._append({"bind": what, "key": key, "digest": digest})
            self._bound[what, key] = digest
        elif known != digest:
            raise _other(what, key)

    def _append(self, entry: Mapping[str, str | int]) -> None:
        rest = memoryview(json.dumps(entry, sort_keys=True).encode() + b"\n")
        while rest:  # a disk that is nearly full may take a part
            rest = rest[os.write(self._file, rest) :]
        if self._durable:
            os.fsync(self._file)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


class NoEscrow:
    """Keeps nothing but what is bound, in memory: for the oracle, rehearsals and tests."""

    def __init__(self) -> None:
        self._bound: dict[tuple[str, str], str] = {}

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        """Drops the entry."""

    def bind(self, what: str, key: str, digest: str) -> None:
        """As `FileEscrow.bind`, for the life of this object.

        Raises:
            IntegrityError: the key was bound to another digest before.
        """
        if self._bound.setdefault((what, key), digest) != digest:
            raise _other(what, key)


def read_escrow(path: Path) -> list[dict[str, Any]]:
    """All entries of a file in order; bindings have the keys ``bind``, ``key`` and ``digest``, others ``what``.

    Raises:
        IntegrityError: the file is damaged.
    """
    data = path.read_bytes()
    return list(_lines(data[: data.rfind(b"\n") + 1], path))


def _lines(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise IntegrityError("escrow.damaged", f"{path.name}: line {number} is no entry of an escrow")
        yield entry


def _bindings(entries: Iterator[dict[str, Any]], path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    known: dict[tuple[str, str], str] = {}
    for entry in entries:
        if entry.keys() != _BINDING:
            continue
        key, digest = (str(entry["bind"]), str(entry["key"])), str(entry["digest"])
        if known.setdefault(key, digest) != digest:
            raise IntegrityError("escrow.damaged", f"{path.name}: binds {key[0]} {key[1]} to two digests")
        yield key, digest


def _other(what: str, key: str) -> IntegrityError:
    return IntegrityError("escrow.bound", f"{what} {key}: bound to other content before; a repeat must be the same")
