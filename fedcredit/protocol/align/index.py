"""The common order of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.errors import DataError, PeerError
from fedcredit.types import PartyId

__all__ = ["UNKNOWN", "RowIndex", "check_split", "common_order", "in_order", "locate", "rows_of"]

Bools = NDArray[np.bool_]

UNKNOWN = -1
"""Row of an id that a party does not know."""


@dataclass(frozen=True)
class RowIndex:
    """The rows of a run, in the common order.

    Args:
        ids: Common ids, as far as the party knows them.
        rows: int64 (n,), the row of each id in the party's own table; `UNKNOWN` where it has none.
        test: bool (n,), rows held out. Where rows are hidden, a feature holder knows no split and holds nothing out.
        members: bool (n,), rows that count at all; None = all, as far as the party knows. Where rows are hidden, the
            label holder alone has it, and its vectors are 0 elsewhere.
        hidden: Whether rows that do not count are mixed in, and only the label holder knows which.
    """

    ids: tuple[str, ...]
    rows: NDArray[np.int64]
    test: Bools
    members: Bools | None = None
    hidden: bool = False

    @property
    def train(self) -> Bools:
        """Bool (n,), rows to train on."""
        return ~self.test if self.members is None else self.members & ~self.test

    @property
    def summed(self) -> Bools:
        """Bool (n,), rows that sums of a fit run over at a feature holder: all where it does not know the split."""
        return np.ones(len(self.rows), np.bool_) if self.hidden else self.train

    @property
    def known(self) -> Bools:
        """Bool (n,), rows that the party has in its own table."""
        known: Bools = self.rows != UNKNOWN
        return known

    def take(self, column: pl.Series) -> pl.Series:
        """A column of the party's own table in the common order; null where it does not know the id."""
        if self.known.all():
            return column.gather(pl.Series(self.rows))
        return column.gather(pl.Series(self.rows).replace(UNKNOWN, None))

    def bad(self, label: NDArray[np.int8]) -> Bools:
        """Bool (n,), the rows whose label is 1."""
        found = np.zeros(len(self.rows), np.bool_)
        found[self.known] = label[self.rows[self.known]] == 1
        return found

    def at(self, own: Sequence[str], *, leads: bool) -> RowIndex:
        """The same rows as another party, with these ids in its table, sees them.

        Args:
            own: Ids in the order of that party's table.
            leads: Whether it is the label holder.
        """
        rows = rows_of(own, self.ids)
        if self.hidden and not leads:
            return RowIndex(self.ids, rows, np.zeros(len(rows), np.bool_), hidden=True)
        return RowIndex(self.ids, rows, self.test, self.members if leads else None, self.hidden)


def rows_of(own: Sequence[str], ids: Sequence[str]) -> NDArray[np.int64]:
    """The own row of every id, int64 (n,); `UNKNOWN` where there is none."""
    at = {one: row for row, one in enumerate(own)}
    return np.fromiter((at.get(one, UNKNOWN) for one in ids), dtype=np.int64, count=len(ids))


def in_order(ids: Iterable[str], seed: int) -> list[str]:
    """Ids ordered by a keyed hash, as everyone orders them: the order of a file may itself follow the label."""
    key = b"fedcredit/order" + seed.to_bytes(8, "little", signed=True)
    return sorted(ids, key=lambda one: hashlib.blake2b(one.encode(), key=key, digest_size=16).digest())


def common_order(lists: Sequence[Collection[str]], seed: int) -> tuple[str, ...]:
    """Ids in every list, in the common order.

    Raises:
        DataError: no id is in all lists.
    """
    common = set(lists[0]).intersection(*lists[1:])
    if not common:
        sizes = ", ".join(str(len(ids)) for ids in lists)
        raise DataError(
            "align.empty", f"no id is held by all parties (they hold {sizes} ids): check that `id` names the same key"
        )
    return tuple(in_order(common, seed))


def check_split(test: Bools, rows: int) -> None:
    """Refuses a split that leaves a part without rows.

    Args:
        test: bool, rows held out.
        rows: How many rows count.

    Raises:
        DataError: no row is left to train or to test on.
    """
    held = int(test.sum())
    if not 0 < held < rows:
        raise DataError("split.empty", f"{held} of {rows} rows are held out: both parts of the split need rows")


def locate(
    own: Sequence[str], ids: Sequence[str], test_rows: bytes, sender: PartyId, *, every_row: bool = False
) -> RowIndex:
    """Finds the common ids among a party's own, from what the label holder sent.

    Args:
        own: The party's ids in the order of its table.
        ids: Common ids as received.
        test_rows: One bit a row, most significant first, padded with zeros.
        sender: For the error text.
        every_row: Whether ids may be unknown here.

    Raises:
        PeerError: an id is twice, or unknown here where it may not be, or the bits do not fit the ids.
    """
    rows = rows_of(own, ids)
    strange = not every_row and bool((rows == UNKNOWN).any())
    if len(set(ids)) != len(ids) or strange or len(test_rows) != -(-len(ids) // 8):
        raise PeerError("align.index", f"{sender}: the common index holds unknown or repeated ids, or wrong test rows")
    bits = np.unpackbits(np.frombuffer(test_rows, dtype=np.uint8))
    if bits[len(ids) :].any():
        raise PeerError("align.index", f"{sender}: the padding of the test rows is not zero")
    return RowIndex(tuple(ids), rows, bits[: len(ids)].astype(np.bool_))
