"""Residues on the wire: bit-packed in 27 bits each, one encoding for each value, everything else refused.

Bits run from the lowest of the first byte upwards; the last byte is filled with zero bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.lanes import compiled
from fedcredit.errors import PeerError

__all__ = ["RESIDUE_BITS", "pack_residues", "packed_size", "unpack_residues"]

RESIDUE_BITS = 27


@compiled
def _pack(values: NDArray[np.uint32], out: NDArray[np.uint8]) -> None:
    held, filled, place = np.uint64(0), np.uint64(0), 0
    for value in values:
        held |= np.uint64(value) << filled
        filled += np.uint64(RESIDUE_BITS)
        while filled >= np.uint64(8):
            out[place] = np.uint8(held & np.uint64(255))
            held >>= np.uint64(8)
            filled -= np.uint64(8)
            place += 1
    if filled > np.uint64(0):
        out[place] = np.uint8(held & np.uint64(255))


@compiled
def _unpack(data: NDArray[np.uint8], primes: NDArray[np.uint32], out: NDArray[np.uint32]) -> bool:
    held, filled, place = np.uint64(0), np.uint64(0), 0
    mask = np.uint64((1 << RESIDUE_BITS) - 1)
    good = True
    for group in range(out.shape[0]):
        for at in range(primes.size):
            for i in range(out.shape[2]):
                while filled < np.uint64(RESIDUE_BITS):
                    held |= np.uint64(data[place]) << filled
                    filled += np.uint64(8)
                    place += 1
                value = np.uint32(held & mask)
                good &= value < primes[at]
                out[group, at, i] = value
                held >>= np.uint64(RESIDUE_BITS)
                filled -= np.uint64(RESIDUE_BITS)
    return good and held == np.uint64(0)


def packed_size(count: int) -> int:
    """Bytes of ``count`` residues."""
    return (count * RESIDUE_BITS + 7) // 8


def pack_residues(values: NDArray[np.uint32]) -> bytes:
    """Packs reduced residues, in C order."""
    out = np.zeros(packed_size(values.size), dtype=np.uint8)
    _pack(values.reshape(-1), out)
    return out.tobytes()


def unpack_residues(
    data: memoryview, primes: NDArray[np.uint32], shape: tuple[int, int, int], what: str
) -> NDArray[np.uint32]:
    """Unpacks groups of runs of residues, one run modulo each prime.

    Args:
        data: Exactly the packed residues, groups * L * run of them.
        primes: uint32 (L,).
        shape: (groups, at least L, run); places of the second axis beyond L become zero.
        what: Name of the thing, for the error.

    Returns:
        uint32, of that shape.

    Raises:
        PeerError: another length, a residue that is not reduced, or padding bits that are not zero.
    """
    expected = packed_size(shape[0] * len(primes) * shape[2])
    if len(data) != expected:
        raise PeerError("residues.length", f"{what}: {len(data)} bytes of residues found, {expected} are right")
    out = np.zeros(shape, dtype=np.uint32)
    if not _unpack(np.frombuffer(data, dtype=np.uint8), primes, out):
        raise PeerError("residues.range", f"{what}: a residue is not below its prime, or the padding is not zero")
    return out
