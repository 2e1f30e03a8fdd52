"""A file for a library that reads and writes files only; what passes through it is secret.

On Linux it is memory without a name: no other user can open it, and nothing is left when the process is killed.
Elsewhere it is one file in a directory of mode 0700, in /dev/shm where that exists, removed after each use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["DirectoryScratch", "MemoryScratch", "Scratch", "make_scratch"]


class Scratch(Protocol):
    """Moves bytes through a file; safe to use from several threads."""

    def loaded(self, data: bytes, load: Callable[[str], object]) -> None:
        """Lets ``load`` read a file that holds ``data``."""
        ...

    def written(self, save: Callable[[str], object]) -> bytes:
        """What ``save`` writes to a file."""
        ...


class MemoryScratch:
    """An anonymous file in memory, named to this process alone by its descriptor."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("fedcredit", os.MFD_CLOEXEC)
        self._path = f"/proc/self/fd/{self._descriptor}"
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, os.close, self._descriptor)

    def loaded(self, data: bytes, load: Callable[[str], object]) -> None:
        """Lets ``load`` read a file that holds ``data``."""
        with self._lock:
            try:
                os.pwrite(self._descriptor, data, 0)
                load(self._path)
            finally:
                os.ftruncate(self._descriptor, 0)

    def written(self, save: Callable[[str], object]) -> bytes:
        """What ``save`` writes to a file."""
        with self._lock:
            try:
                save(self._path)
                return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
            finally:
                os.ftruncate(self._descriptor, 0)


class DirectoryScratch:
    """A private directory with at most one file in it."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108 - a directory of mode 0700 is made in it
        self.directory = Path(tempfile.mkdtemp(prefix="fedcredit-", dir=memory if memory.is_dir() else None))
        self._path = self.directory / "object"
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)

    def loaded(self, data: bytes, load: Callable[[str], object]) -> None:
        """Lets ``load`` read a file that holds ``data``."""
        with self._lock:
            try:
                self._path.write_bytes(data)
                load(str(self._path))
            finally:
                self._path.unlink(missing_ok=True)

    def written(self, save: Callable[[str], object]) -> bytes:
        """What ``save`` writes to a file."""
        with self._lock:
            try:
                save(str(self._path))
                return self._path.read_bytes()
            finally:
                self._path.unlink(missing_ok=True)


def make_scratch() -> Scratch:
    """Memory without a name where the system has it, else a private directory."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        return MemoryScratch()
    return DirectoryScratch()
