"""The group ristretto255 as libsodium computes it: one function a symbol, on arrays of encodings.

libsodium comes inside the package ``rbcl``, as text in a module that would write it to a temporary file and leave it
there. Here it is read from that module without running it and loaded from memory that has no name: nothing is left on
the disk, and directories that forbid execution (``/tmp`` in the containers) do not matter.

The calls release the interpreter's lock, so threads keep every core busy. Encodings are 32 bytes; what is no canonical
encoding of a point is never computed with.

libsodium up to 1.0.18 decodes a point from 255 of the 256 bits and ignores the highest, so that each point has a second
encoding; it is looked at here before the library sees a peer's bytes.

Source: RFC 9496 (ristretto255); libsodium's ``crypto_core_ristretto255_*`` and ``crypto_scalarmult_ristretto255*``.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.cores import on_cores
from fedcredit.errors import IntegrityError, PeerError

__all__ = [
    "ORDER",
    "POINT",
    "SCALAR",
    "WIDE",
    "Bytes",
    "Job",
    "add",
    "each",
    "from_uniform",
    "invert",
    "library",
    "reduced",
    "reject",
    "times",
    "times_base",
    "times_each",
    "validate",
]

POINT = 32
"""Bytes of an encoded point."""

SCALAR = 32
"""Bytes of a scalar below `ORDER`, little-endian."""

WIDE = 64
"""Bytes that become a scalar or a point without bias."""

ORDER = (1 << 252) + 27742317777372353535851937790883648493
"""Order of the group, a prime."""

Bytes = NDArray[np.uint8]
Job = Callable[[int, int], int]
"""Works on the items from one number to another; returns how many it did before the first that it could not do."""

_BLOCK = 2048
_FIELD = (1 << 255) - 19
_HIGHEST = np.uint8(0x80)  # of the last byte
_FUNCTIONS = {
    "crypto_core_ristretto255_is_valid_point": 1,
    "crypto_core_ristretto255_add": 3,
    "crypto_core_ristretto255_from_hash": 2,
    "crypto_core_ristretto255_scalar_reduce": 2,
    "crypto_core_ristretto255_scalar_invert": 2,
    "crypto_scalarmult_ristretto255": 3,
    "crypto_scalarmult_ristretto255_base": 2,
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libsodium, loaded once for the process.

    Raises:
        IntegrityError: the package is not installed, holds something else, or cannot be loaded.
    """
    try:
        loaded = _loaded(_carried())
        for name, arguments in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = [ctypes.c_void_p] * arguments, ctypes.c_int
        ready = loaded.sodium_init() >= 0
    except (OSError, AttributeError) as error:
        raise IntegrityError("blind.library", "libsodium of the package rbcl cannot be loaded", str(error)) from None
    if not ready:
        raise IntegrityError("blind.library", "libsodium does not start on this machine")
    return loaded


def _carried() -> bytes:
    """The shared object that the package carries as text."""
    found = importlib.util.find_spec("rbcl")
    places = found.submodule_search_locations if found else None
    if not places:
        raise IntegrityError("blind.library", "the package rbcl, which brings libsodium, is not installed")
    text = (Path(places[0]) / "_sodium.py").read_text(encoding="ascii")
    literal = re.search(r"bytes\.fromhex\('([0-9a-f]+)'\)", text)
    if literal is None:
        raise IntegrityError("blind.library", "the package rbcl carries no libsodium where version 1.1 has it")
    return bytes.fromhex(literal.group(1))


def _loaded(content: bytes) -> ctypes.CDLL:
    """Loads a shared object from memory; where the system has no such memory, from a file removed at once."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("libsodium", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            return ctypes.CDLL(f"/proc/self/fd/{file.fileno()}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"{hashlib.sha256(content).hexdigest()[:16]}.so"
        path.write_bytes(content)
        return ctypes.CDLL(str(path))


def each(count: int, job: Job) -> int | None:
    """Does a job for all items, over every core.

    Args:
        count: Number of items.
        job: As `Job`.

    Returns:
        Number of the first item that could not be done; None if all were.
    """
    starts = range(0, count, _BLOCK)
    done = on_cores(lambda start: job(start, min(start + _BLOCK, count)), starts)
    for start, finished in zip(starts, done, strict=True):
        if finished < min(_BLOCK, count - start):
            return start + finished
    return None


def times(points: Bytes, scalar: int) -> Bytes:
    """One scalar times each point.

    Args:
        points: uint8 (n, 32), encodings of a peer.
        scalar: Address of 32 bytes.

    Returns:
        uint8 (n, 32).

    Raises:
        PeerError: an item is no canonical encoding, or the identity.
    """
    points = _canonical(points)
    out = np.empty_like(points)
    source, target = points.ctypes.data, out.ctypes.data
    multiply = library().crypto_scalarmult_ristretto255

    def job(first: int, last: int) -> int:
        for at in range(first, last):
            if multiply(target + POINT * at, scalar, source + POINT * at):
                return at - first
        return last - first

    reject(points, each(len(points), job))
    return out


def times_each(points: Bytes, scalars: Bytes) -> Bytes:
    """A scalar of its own times each point; shapes uint8 (n, 32), raises as `times`."""
    points, scalars = _canonical(points), np.ascontiguousarray(scalars)
    out = np.empty_like(points)
    source, factor, target = points.ctypes.data, scalars.ctypes.data, out.ctypes.data
    multiply = library().crypto_scalarmult_ristretto255

    def job(first: int, last: int) -> int:
        for at in range(POINT * first, POINT * last, POINT):
            if multiply(target + at, factor + at, source + at):
                return at // POINT - first
        return last - first

    reject(points, each(len(points), job))
    return out


def times_base(scalars: Bytes) -> Bytes:
    """Each scalar times the generator, uint8 (n, 32); scalars are not zero."""
    scalars = np.ascontiguousarray(scalars)
    out = np.empty_like(scalars)
    source, target = scalars.ctypes.data, out.ctypes.data
    multiply = library().crypto_scalarmult_ristretto255_base

    def job(first: int, last: int) -> int:
        for at in range(POINT * first, POINT * last, POINT):
            if multiply(target + at, source + at):
                return at // POINT - first
        return last - first

    reject(scalars, each(len(scalars), job))
    return out


def from_uniform(uniform: Bytes) -> Bytes:
    """The one-way map of RFC 9496 section 4.3.4: uint8 (n, 64) uniform bytes to uint8 (n, 32) encodings."""
    uniform = np.ascontiguousarray(uniform)
    out = np.empty((len(uniform), POINT), dtype=np.uint8)
    source, target = uniform.ctypes.data, out.ctypes.data
    derive = library().crypto_core_ristretto255_from_hash

    def job(first: int, last: int) -> int:
        for at in range(first, last):
            derive(target + POINT * at, source + WIDE * at)
        return last - first

    each(len(uniform), job)
    return out


def reduced(wide: Bytes) -> Bytes:
    """Scalars modulo the order, uint8 (n, 32), of uint8 (n, 64) uniform bytes; a zero has probability 2^-252."""
    wide = np.ascontiguousarray(wide)
    out = np.empty((len(wide), SCALAR), dtype=np.uint8)
    source, target = wide.ctypes.data, out.ctypes.data
    reduce = library().crypto_core_ristretto255_scalar_reduce

    def job(first: int, last: int) -> int:
        for at in range(first, last):
            reduce(target + SCALAR * at, source + WIDE * at)
        return last - first

    each(len(wide), job)
    return out


def invert(scalar: Bytes) -> Bytes:
    """The inverse of one scalar, uint8 (32,) each."""
    scalar, out = np.ascontiguousarray(scalar), np.empty(SCALAR, dtype=np.uint8)
    library().crypto_core_ristretto255_scalar_invert(out.ctypes.data, scalar.ctypes.data)
    return out


def add(left: Bytes, right: Bytes) -> Bytes:
    """The sum of two points, uint8 (32,) each.

    Raises:
        PeerError: one is no canonical encoding.
    """
    left, right = _canonical(np.stack([left, right]))
    out = np.empty(POINT, dtype=np.uint8)
    if library().crypto_core_ristretto255_add(out.ctypes.data, left.ctypes.data, right.ctypes.data):
        raise PeerError("blind.encoding", "a sum was asked of bytes that encode no point")
    return out


def validate(points: Bytes) -> None:
    """Refuses what is no canonical encoding of a point other than the identity.

    Args:
        points: uint8 (n, 32), encodings of a peer.

    Raises:
        PeerError: naming the first such item.
    """
    points = _canonical(points)
    valid = library().crypto_core_ristretto255_is_valid_point
    source = points.ctypes.data
    live = np.asarray(points.any(axis=1))

    def job(first: int, last: int) -> int:
        for at in range(first, last):
            if not (live[at] and valid(source + POINT * at)):
                return at - first
        return last - first

    reject(points, each(len(points), job))


def _canonical(points: Bytes) -> Bytes:
    """The same array, contiguous, without encodings that set the highest bit."""
    points = np.ascontiguousarray(points)
    (high,) = np.nonzero(points[:, POINT - 1] & _HIGHEST)
    if len(high):
        reject(points, int(high[0]))
    return points


def reject(points: Bytes, at: int | None) -> None:
    """Says what is wrong with an item that could not be computed with; nothing where ``at`` is None.

    Raises:
        PeerError: ``blind.identity`` or ``blind.encoding``.
    """
    if at is None:
        return
    value = int.from_bytes(points[at].tobytes(), "little")
    if value == 0:
        raise PeerError("blind.identity", f"item {at} is the identity, which every key leaves as it is")
    what = "not canonical" if value >= _FIELD or value & 1 else "the encoding of no point"
    raise PeerError("blind.encoding", f"item {at} is {what}: 32 bytes as RFC 9496 encodes a point are right")
