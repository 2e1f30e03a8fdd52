"""Integer arrays as canonical bytes: 64-bit little-endian words, and dense bit fields.

Bit order of dense fields: value i occupies bits [i*w, (i+1)*w) of the stream, least significant bit first, and bit b
of the stream is bit b % 8 of byte b // 8. Padding bits of the last byte are zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, PeerError

__all__ = ["pack_bits", "pack_int64", "packed_size", "unpack_bits", "unpack_int64"]

_MAX_WIDTH = 32


def pack_int64(values: NDArray[np.signedinteger[Any]]) -> bytes:
    """Signed 64-bit little-endian words of an integer array, in C order.

    Raises:
        BoundError: the array does not hold signed integers.
    """
    if not np.issubdtype(values.dtype, np.signedinteger):
        raise BoundError("wire.array-type", f"an array of {values.dtype} was to be packed, signed integers are needed")
    return np.ascontiguousarray(values, dtype="<i8").tobytes()


def unpack_int64(data: bytes, count: int) -> NDArray[np.int64]:
    """Reads exactly ``count`` signed 64-bit words: int64 (count,), own memory.

    Raises:
        PeerError: the length is not 8 * count.
    """
    if len(data) != 8 * count:
        raise PeerError("wire.array-length", f"an array of {count} words has {len(data)} bytes, {8 * count} expected")
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` fields of ``bits`` bits take."""
    return (count * bits + 7) // 8


def pack_bits(values: NDArray[np.unsignedinteger[Any]], bits: int) -> bytes:
    """Dense packing of unsigned values.

    Args:
        values: uint (n,), each below 2**bits.
        bits: Width of a field, 1 to 32.

    Raises:
        BoundError: width outside 1..32, values not unsigned, or a value that does not fit.
    """
    _check_width(bits)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.unsignedinteger):
        raise BoundError("wire.array-type", f"a {values.ndim}-d array of {values.dtype} was to be packed in bits")
    if values.size and int(values.max()) >> bits:
        raise BoundError("wire.array-range", f"a value does not fit in {bits} bits")
    count = int(values.size)
    # Eight fields fill exactly `bits` bytes, so the stream is a matrix with one row for eight values.
    rows = (count + 7) // 8
    fields = np.zeros((rows, 8), dtype=np.uint64)
    fields.reshape(-1)[:count] = values
    out = np.zeros((rows, bits), dtype=np.uint8)
    for place in range(8):
        first, shift = divmod(place * bits, 8)
        last = ((place + 1) * bits - 1) // 8
        shifted = fields[:, place] << np.uint64(shift)
        for byte in range(first, last + 1):
            out[:, byte] |= (shifted >> np.uint64(8 * (byte - first))).astype(np.uint8)
    return out.tobytes()[: packed_size(count, bits)]


def unpack_bits(data: bytes, count: int, bits: int, upper: int | None = None) -> NDArray[np.uint32]:
    """Reads exactly ``count`` dense fields: uint32 (count,).

    Args:
        data: Bytes from a peer.
        count: Number of fields expected.
        bits: Width of a field, 1 to 32.
        upper: Values must be below this (a modulus, say); None allows the whole width.

    Raises:
        PeerError: wrong length, padding bits that are not zero, or a value not below ``upper``.
        BoundError: width outside 1..32.
    """
    _check_width(bits)
    size = packed_size(count, bits)
    if len(data) != size:
        raise PeerError("wire.array-length", f"{count} fields of {bits} bits have {len(data)} bytes, {size} expected")
    padding = 8 * size - count * bits
    if padding and data[-1] >> (8 - padding):
        raise PeerError("wire.array-padding", f"the padding after {count} fields of {bits} bits is not zero")
    rows = (count + 7) // 8
    raw = np.zeros((rows, bits), dtype=np.uint8)
    raw.reshape(-1)[:size] = np.frombuffer(data, dtype=np.uint8)
    fields = np.empty((rows, 8), dtype=np.uint32)
    mask = np.uint64((1 << bits) - 1)
    for place in range(8):
        first, shift = divmod(place * bits, 8)
        last = ((place + 1) * bits - 1) // 8
        word = np.zeros(rows, dtype=np.uint64)
        for byte in range(first, last + 1):
            word |= raw[:, byte].astype(np.uint64) << np.uint64(8 * (byte - first))
        fields[:, place] = (word >> np.uint64(shift)) & mask
    values = fields.reshape(-1)[:count].copy()
    if upper is not None and count and int(values.max()) >= upper:
        raise PeerError("wire.array-range", f"a field is not below {upper}")
    return values


def _check_width(bits: int) -> None:
    """Refuses widths that the five-byte window of a shifted field does not hold."""
    if not 1 <= bits <= _MAX_WIDTH:
        raise BoundError("wire.array-width", f"fields of {bits} bits, 1 to {_MAX_WIDTH} are possible")
