"""Thousands of byte strings looked for at once in captures, memory and files: what must not be there, and its forms."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import SpecError
from fedcredit.kernels.compiled import compiled

__all__ = ["LEAST_BYTES", "Needles", "file_pieces", "forms", "memory_pieces"]

LEAST_BYTES = 6
"""Shorter strings are found everywhere by chance."""

_PIECE = 8 << 20
_BITS = 23
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads the first bytes over the table
_PREFIX = LEAST_BYTES
_CANDIDATES = 1 << 16


@compiled
def _candidates(data: NDArray[np.uint8], start: int, table: NDArray[np.bool_], places: NDArray[np.int64]) -> int:
    """Places from ``start`` on where the first bytes of some string may stand; how many, at most all there is room for.

    The last place is -1 minus where to go on, if there was no more room.
    """
    count = 0
    for place in range(start, len(data) - _PREFIX + 1):
        first = np.uint64(0)
        for byte in range(_PREFIX):
            first = (first << np.uint64(8)) | np.uint64(data[place + byte])
        if first and table[(first * _MIX) >> np.uint64(64 - _BITS)]:
            if count == len(places) - 1:
                places[count] = -1 - place
                return count + 1
            places[count] = place
            count += 1
    return count


class Needles:
    """Byte strings to look for.

    Args:
        words: What each of them is, by its bytes.

    Raises:
        SpecError: one is shorter than `LEAST_BYTES`.
    """

    def __init__(self, words: Mapping[bytes, str]) -> None:
        short = next((what for word, what in words.items() if len(word) < LEAST_BYTES), None)
        if short is not None:
            raise SpecError("needles.short", f"{short}: at least {LEAST_BYTES} bytes are needed to look for it")
        self.words = dict(words)
        self._longest = max(map(len, self.words), default=1)
        self._by_prefix: dict[bytes, list[bytes]] = {}
        self._table = np.zeros(1 << _BITS, dtype=np.bool_)
        for word in self.words:
            self._by_prefix.setdefault(word[:_PREFIX], []).append(word)
        for word in self._by_prefix:
            mixed = int.from_bytes(word, "big") * int(_MIX) % (1 << 64)
            self._table[mixed >> (64 - _BITS)] = True
        self._places = np.empty(_CANDIDATES, dtype=np.int64)

    def find(self, pieces: Iterable[bytes]) -> dict[bytes, int]:
        """Looks through pieces that follow each other.

        Returns:
            Where each string that was found begins first, in bytes from the start of the first piece.
        """
        found: dict[bytes, int] = {}
        tail, start = b"", 0
        for piece in pieces:
            data = tail + piece
            for place in self._candidates(data):
                for word in self._by_prefix.get(data[place : place + _PREFIX], ()):
                    if word not in found and data.startswith(word, place):
                        found[word] = start + place
            kept = min(len(data), self._longest - 1)
            start += len(data) - kept
            tail = data[len(data) - kept :] if kept else b""
        return found

    def _candidates(self, data: bytes) -> Iterator[int]:
        """Places where the first bytes of some string may stand."""
        numbers, start = np.frombuffer(data, dtype=np.uint8), 0
        while True:
            count = _candidates(numbers, start, self._table, self._places)
            places = self._places[:count].tolist()
            if not places or places[-1] >= 0:
                yield from places
                return
            yield from places[:-1]
            start = -1 - places[-1]


def forms(value: str | float) -> list[bytes]:
    """The bytes a value may be kept or carried as: text, and both orders of 64-bit integer and floating point.

    Forms shorter than `LEAST_BYTES`, and numbers whose binary form is too common to say anything, are left out.
    """
    found = [str(value).encode()]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        found.append(str(int(value)).encode())
    if not isinstance(value, str):
        found += [struct.pack("<d", value), struct.pack(">d", value)]
        if float(value).is_integer() and abs(value) < 2**63:
            found += [struct.pack("<q", int(value)), struct.pack(">q", int(value))]
    return [one for one in dict.fromkeys(found) if len(one) >= LEAST_BYTES and len(set(one)) >= LEAST_BYTES]


def file_pieces(path: Path) -> Iterator[bytes]:
    """A file, piece by piece."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def memory_pieces(pid: int) -> Iterator[list[bytes]]:
    """The readable memory of a process, map by map; needs the right to trace it.

    Left out are pages that cannot be read, such as those of devices, and those of files that are mapped without the
    right to write: they hold what the file holds.
    """
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines():
            span, rights, *rest = line.split(maxsplit=5)
            if "r" not in rights or ("w" not in rights and rest[-1:] and rest[-1].startswith(("/", "[v"))):
                continue
            low, high = (int(end, 16) for end in span.split("-"))
            pieces = []
            for start in range(low, high, _PIECE):
                try:
                    memory.seek(start)
                    pieces.append(memory.read(min(_PIECE, high - start)))
                except (OSError, ValueError, OverflowError):
                    break
            yield pieces
