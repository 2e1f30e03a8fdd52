"""The common order of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, PeerError
from fedcredit.types import PartyId

__all__ = ["RowIndex", "common_order", "locate"]


@dataclass(frozen=True)
class RowIndex:
    """The rows of a run, in the common order.

    Args:
        ids: Common ids.
        rows: int64 (n,), the row of each id in the party's own table.
        test: bool (n,), rows held out.
    """

    ids: tuple[str, ...]
    rows: NDArray[np.int64]
    test: NDArray[np.bool_]

    @property
    def train(self) -> NDArray[np.bool_]:
        """Bool (n,), rows to train on."""
        return ~self.test


def common_order(lists: Sequence[Collection[str]], seed: int) -> tuple[str, ...]:
    """Ids in every list, ordered by a keyed hash: the order of a file may itself follow the label.

    Raises:
        DataError: no id is in all lists.
    """
    common = set(lists[0]).intersection(*lists[1:])
    if not common:
        sizes = ", ".join(str(len(ids)) for ids in lists)
        raise DataError(
            "align.empty", f"no id is held by all parties (they hold {sizes} ids): check that `id` names the same key"
        )
    key = b"fedcredit/order" + seed.to_bytes(8, "little", signed=True)
    return tuple(sorted(common, key=lambda one: hashlib.blake2b(one.encode(), key=key, digest_size=16).digest()))


def locate(own: Sequence[str], ids: Sequence[str], test_rows: bytes, sender: PartyId) -> RowIndex:
    """Finds the common ids among a party's own, from what the label holder sent.

    Args:
        own: The party's ids in the order of its table.
        ids: Common ids as received.
        test_rows: One bit a row, most significant first, padded with zeros.
        sender: For the error text.

    Raises:
        PeerError: an id is unknown here or twice, or the bits do not fit the ids.
    """
    at = {one: row for row, one in enumerate(own)}
    if len(set(ids)) != len(ids) or any(one not in at for one in ids) or len(test_rows) != -(-len(ids) // 8):
        raise PeerError("align.index", f"{sender}: the common index holds unknown or repeated ids, or wrong test rows")
    bits = np.unpackbits(np.frombuffer(test_rows, dtype=np.uint8))
    if bits[len(ids) :].any():
        raise PeerError("align.index", f"{sender}: the padding of the test rows is not zero")
    rows = np.fromiter((at[one] for one in ids), dtype=np.int64, count=len(ids))
    return RowIndex(tuple(ids), rows, bits[: len(ids)].astype(np.bool_))
