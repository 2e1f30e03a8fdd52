"""Splits as bytes of fixed length, and rows as bits: what is said must not show in how much is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, PeerError

__all__ = ["NO_FEATURE", "SlotFormat", "pack_bits", "unpack_bits"]

Bools = NDArray[np.bool_]

NO_FEATURE = 0xFFFF
"""Number in an unused slot; a holder has fewer features than that."""


@dataclass(frozen=True)
class SlotFormat:
    """How the splits of one holder are written: two bytes of feature number, then one bit a bin.

    Args:
        bins: Bins of each of the holder's features.
    """

    bins: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        return 2 + -(-max(self.bins) // 8)

    def write(self, splits: Sequence[tuple[int, tuple[int, ...]]], slots: int) -> bytes:
        """Splits in slots, the unused ones at the end.

        Args:
            splits: Feature number and bins that go left.
            slots: How many there are room for.

        Raises:
            BoundError: more splits than slots.
        """
        if len(splits) > slots:
            raise BoundError("boost.slots", f"{len(splits)} splits for {slots} slots")
        out = bytearray()
        for feature, left in splits:
            row = np.zeros(8 * (self.size - 2), np.bool_)
            row[list(left)] = True
            out += feature.to_bytes(2, "big") + np.packbits(row).tobytes()
        return bytes(out) + (NO_FEATURE.to_bytes(2, "big") + bytes(self.size - 2)) * (slots - len(splits))

    def read(self, data: bytes, slots: int) -> list[tuple[int, tuple[int, ...]]]:
        """The splits in the slots.

        Raises:
            PeerError: another length, a feature or bin that does not exist, a left side that is empty or everything,
                a split twice, or a used slot after an unused one.
        """
        if len(data) != slots * self.size:
            raise PeerError("boost.slots", f"{len(data)} bytes of splits where {slots * self.size} are right")
        found: list[tuple[int, tuple[int, ...]]] = []
        ended = False
        for at in range(0, len(data), self.size):
            feature = int.from_bytes(data[at : at + 2], "big")
            bits = np.unpackbits(np.frombuffer(data[at + 2 : at + self.size], dtype=np.uint8))
            left = tuple(int(bin_) for bin_ in np.flatnonzero(bits))
            if feature == NO_FEATURE and not left:
                ended = True
                continue
            if ended or feature >= len(self.bins) or not 0 < len(left) < self.bins[feature]:
                raise PeerError("boost.slots", "a slot that holds no split of these features")
            if left[-1] >= self.bins[feature] or left[0] != 0 or (feature, left) in found:
                raise PeerError("boost.slots", "a split over bins that do not exist, without the first bin, or twice")
            found.append((feature, left))
        return found


def pack_bits(bits: Bools) -> bytes:
    """One bit an entry, row by row, most significant first, padded with zeros."""
    return np.packbits(bits.reshape(-1)).tobytes()


def unpack_bits(data: bytes, shape: tuple[int, ...], what: str) -> Bools:
    """The reverse of `pack_bits`.

    Args:
        data: As received.
        shape: Of the result.
        what: For the error text.

    Raises:
        PeerError: another length, or padding that is not zero.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) != -(-count // 8):
        raise PeerError("boost.bits", f"{what}: {len(data)} bytes for {count} bits")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if bits[count:].any():
        raise PeerError("boost.bits", f"{what}: the padding is not zero")
    return bits[:count].astype(np.bool_).reshape(shape)
