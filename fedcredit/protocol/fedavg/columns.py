"""A bank's records as averaging takes them: numbers and hashed categories, in the order of the columns' names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.data.split import test_mask
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.kernels.nn_columns import BUCKETS
from fedcredit.spec.model import PartySection

__all__ = ["BankColumns", "BankRows", "Examples", "examples_of", "rows_of"]

_DIRECTIONS = {"increasing": 1, "decreasing": -1, "auto": 0}
_BLOCK = 2  # bytes of a hash that name a bucket


@dataclass(frozen=True)
class BankColumns:
    """Columns that all banks of a run must have; their digest is part of the name of every sum.

    Args:
        numbers: Names of numeric columns, sorted.
        categories: Names of category columns, sorted.
        directions: For each numeric column 1 if risk never falls with it, -1 if it never rises, else 0.
        special: For each numeric column its codes that are no numbers, sorted; they count as missing.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    directions: tuple[int, ...]
    special: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, table: HolderTable, party: PartySection) -> BankColumns:
        """Of a bank's table, as its section of the spec describes it."""
        numbers = tuple(sorted(name for name, one in table.columns.items() if one.dtype != pl.String))
        categories = tuple(sorted(name for name, one in table.columns.items() if one.dtype == pl.String))
        directions = tuple(_DIRECTIONS[party.monotone.get(name, "auto")] for name in numbers)
        special = tuple(tuple(sorted(party.special.get(name, ()))) for name in numbers)
        return cls(numbers, categories, directions, special)

    def digest(self) -> str:
        """Names columns, kinds, directions and codes; 64 hex digits."""
        return hashlib.sha256(repr((self.numbers, self.categories, self.directions, self.special)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Examples:
    """Some rows of a bank.

    Args:
        numbers: float64 (n, p), NaN = missing.
        buckets: int64 (n, c), bucket of each category, -1 = missing.
        bad: bool (n,).
    """

    numbers: NDArray[np.float64]
    buckets: NDArray[np.int64]
    bad: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.bad)

    def digest(self) -> bytes:
        """32 bytes that name their content, in this order."""
        parts = (self.numbers.astype("<f8"), self.buckets.astype("<i8"), np.packbits(self.bad))
        shape = repr((self.numbers.shape, self.buckets.shape)).encode()
        return hashlib.sha256(b"".join([shape, *(np.ascontiguousarray(part).tobytes() for part in parts)])).digest()

    def take(self, rows: NDArray[np.bool_]) -> Examples:
        """Some of them."""
        return Examples(self.numbers[rows], self.buckets[rows], self.bad[rows])


@dataclass(frozen=True, eq=False)
class BankRows:
    """All rows that a bank brings to a run.

    Args:
        columns: What they have.
        train: Rows that train or, where there is patience, judge.
        judges: bool (len(train),), training rows that would judge a round.
        test: Held-out rows.
        reference: Public rows on which every round is judged; None = there are none.
    """

    columns: BankColumns
    train: Examples
    judges: NDArray[np.bool_]
    test: Examples
    reference: Examples | None = None


def examples_of(table: HolderTable, columns: BankColumns, seed: int) -> Examples:
    """A table's rows with the columns of a run.

    Args:
        table: With labels.
        columns: Those of the run.
        seed: Of the hash of categories.

    Raises:
        DataError: a column is not there or of another kind, or there are no labels.
    """
    if table.label is None:
        raise DataError("label.missing", f"{table.party}: has no label")
    for name, text in [(one, False) for one in columns.numbers] + [(one, True) for one in columns.categories]:
        if name not in table.columns or (table.columns[name].dtype == pl.String) != text:
            kind = "category" if text else "number"
            raise DataError("fedavg.column", f"{table.party}: column {name!r} must be there, and a {kind}")
    numbers = np.full((table.rows, len(columns.numbers)), np.nan)
    for at, (name, codes) in enumerate(zip(columns.numbers, columns.special, strict=True)):
        values = table.columns[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        numbers[:, at] = np.where(np.isin(values, codes), np.nan, values)
    buckets = np.full((table.rows, len(columns.categories)), -1, dtype=np.int64)
    for at, name in enumerate(columns.categories):
        buckets[:, at] = _buckets(table.columns[name], name, seed)
    return Examples(numbers, buckets, table.label.astype(np.bool_))


def _buckets(column: pl.Series, name: str, seed: int) -> NDArray[np.int64]:
    """Bucket of each value; every distinct text is hashed once."""
    codes = column.rank("dense").fill_null(0).to_numpy().astype(np.int64)  # 0 = missing
    keyed = hashlib.blake2b(digest_size=_BLOCK, key=hashlib.sha256(f"{seed}/{name}".encode()).digest())
    found = [-1]
    for text in column.drop_nulls().unique().sort().to_list():
        hasher = keyed.copy()
        hasher.update(text.encode())
        found.append(int.from_bytes(hasher.digest(), "big") % BUCKETS)
    buckets: NDArray[np.int64] = np.array(found, dtype=np.int64)[codes]
    return buckets


def rows_of(
    table: HolderTable,
    party: PartySection,
    held_out: NDArray[np.bool_] | HolderTable,
    *,
    validation: float,
    seed: int,
    reference: HolderTable | None = None,
) -> BankRows:
    """A bank's rows for a run.

    Args:
        table: Its records.
        party: Its section of the spec.
        held_out: bool (n,), which of them are held out, or a table that is held out in their place.
        validation: Share of the training rows that would judge a round.
        seed: ``run.seed``.
        reference: Public rows.

    Raises:
        DataError: no rows to train on, or a column that one of the tables lacks.
    """
    columns = BankColumns.of(table, party)
    own = examples_of(table, columns, seed)
    if isinstance(held_out, HolderTable):
        train, test, ids = own, examples_of(held_out, columns, seed), table.ids
    else:
        train, test, ids = own.take(~held_out), own.take(held_out), table.ids.filter(pl.Series(~held_out))
    judges = test_mask((f"validation/{one}" for one in ids), seed, validation)
    if not len(train) or judges.all():
        raise DataError("fedavg.rows", f"{table.party}: {len(train)} rows to train on; more are needed")
    public = None if reference is None else examples_of(reference, columns, seed)
    return BankRows(columns, train, judges, test, public)
