"""A polynomial with coefficients -1, 0 and 1, as a secret key of BFV is, in two bits each.

Source: Fan and Vercauteren, ePrint 2012/144 (ternary secret).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import uniform_words
from fedcredit.crypto.seal_format import DEGREE, PRIMES
from fedcredit.errors import IntegrityError

__all__ = ["TERNARY_BYTES", "pack_ternary", "ternary_residues", "uniform_ternary", "unpack_ternary"]

TERNARY_BYTES = DEGREE // 4
"""Bytes of a packed polynomial."""

_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)


def pack_ternary(residues: NDArray[np.uint64], primes: tuple[int, ...] = PRIMES) -> bytes:
    """Packs a ternary polynomial: 0, 1 and, for -1, 2 in two bits each, the first lowest.

    Args:
        residues: uint64 (len(primes), 8192), the polynomial modulo each of the primes, in coefficient form.
        primes: Of the key.

    Raises:
        IntegrityError: a coefficient is none of the three, or the primes disagree.
    """
    minus = np.array(primes, np.uint64)[:, None] - np.uint64(1)
    codes = np.where(residues == minus, np.uint64(2), np.where(residues < 2, residues, np.uint64(3)))
    if int(codes.max()) > 2 or bool((codes != codes[0]).any()):
        raise IntegrityError("bfv.ternary", "a secret key that is not ternary; the cipher library makes ternary ones")
    quads = codes[0].astype(np.uint8).reshape(-1, 4) << _SHIFTS
    return np.asarray(np.bitwise_or.reduce(quads, axis=1), dtype=np.uint8).tobytes()


def unpack_ternary(data: bytes) -> NDArray[np.int64]:
    """The polynomial in some bytes; int64 (8192,), each -1, 0 or 1.

    Raises:
        IntegrityError: another length, two bits that stand for no coefficient, or no coefficient but zero.
    """
    if len(data) != TERNARY_BYTES:
        raise IntegrityError("bfv.ternary", f"a secret key of {len(data)} bytes, {TERNARY_BYTES} expected")
    codes = ((np.frombuffer(data, np.uint8)[:, None] >> _SHIFTS) & np.uint8(3)).reshape(-1).astype(np.int64)
    if int(codes.max()) > 2 or not bool(codes.any()):
        raise IntegrityError("bfv.ternary", "a secret key that is zero, or has a coefficient other than -1, 0 and 1")
    return np.where(codes == 2, -1, codes)


def ternary_residues(values: NDArray[np.int64], primes: tuple[int, ...] = PRIMES) -> NDArray[np.uint64]:
    """The polynomial modulo each of the primes, uint64 (len(primes), 8192), in coefficient form.

    Args:
        values: int64 (8192,), each -1, 0 or 1.
        primes: Of the key.
    """
    minus = np.array(primes, np.uint64)[:, None] - np.uint64(1)
    return np.where(values == -1, minus, values.astype(np.uint64))


def uniform_ternary(take: Callable[[int], bytes]) -> bytes:
    """A packed polynomial with independent coefficients, each of the three with the same probability.

    Args:
        take: Gives the next bytes of a uniform stream; the same stream gives the same polynomial.
    """
    quads = uniform_words(take, 3, DEGREE).astype(np.uint8).reshape(-1, 4) << _SHIFTS
    return np.asarray(np.bitwise_or.reduce(quads, axis=1), dtype=np.uint8).tobytes()
