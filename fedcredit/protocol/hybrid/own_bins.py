"""Bins that the banks of a hybrid run have in common for their own columns, cut at quantiles of all their rows.

The banks add up counts over a coarse grid of each column (the sign and binary exponent of a number, or 12 bits of a
keyed hash of a name), then over parts of those cells in which a cut falls. Every bank finds the same bins from the same
totals. What a bank sees of the others is how many rows of all together lie in a cell; a cell is refined only into parts
that hold a quarter of ``min_rows`` on average.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.kernels.cells import (
    FIRST_BITS,
    CellGrid,
    keys_of_names,
    keys_of_numbers,
    number_between,
)
from fedcredit.kernels.prebin import PrebinRules, Prebins, cut_places, kept_categories
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.pool import Pool
from fedcredit.spec.model import PartySection

__all__ = ["MOST_ROWS", "OwnColumns", "pooled_features"]

Ints = NDArray[np.int64]

MOST_ROWS = 1 << 31
"""Rows of a bank that a sum of counts has room for."""

_REFINEMENTS = 3


@dataclass(frozen=True)
class OwnColumns:
    """What one bank brings.

    Args:
        run: Digest of the run; keys the hashes of names.
        table: The bank's own records.
        index: Common rows; those that count are counted.
        party: What the configuration says of special codes and monotone features, the same at every bank.
        rules: How to cut; special codes and categories are taken from ``party``.
        fit: bool (n,), the only rows that are counted; None = all that count.
    """

    run: str
    table: HolderTable
    index: RowIndex
    party: PartySection
    rules: PrebinRules
    fit: NDArray[np.bool_] | None = None

    @property
    def counting(self) -> NDArray[np.bool_]:
        """Bool (n,), rows that are counted."""
        if self.fit is not None:
            return self.fit
        return np.ones(len(self.index.rows), np.bool_) if self.index.members is None else self.index.members


async def pooled_features(pool: Pool, own: OwnColumns) -> list[OwnFeature]:
    """Cuts a bank's own columns into the bins that all banks of the pool have.

    Columns come in the order of their names, whatever the bank's file says. With one bank in the pool the bins are
    those of its rows, at the grid's precision.

    Args:
        pool: The banks.
        own: What this one brings.

    Raises:
        PeerError: the banks have other columns, types, special codes or rules.
        DataError: an infinite value.
    """
    names = sorted(own.table.columns)
    columns = [_Column(name, own) for name in names]
    about = [[c.name, c.numeric, list(c.special), own.party.monotone.get(c.name, "")] for c in columns]
    rules = [own.rules.max_prebins, own.rules.min_rows, own.rules.max_categories]
    agreed = hashlib.sha256(json.dumps([about, rules]).encode()).hexdigest()
    firsts = await _sums(pool, f"bins/grid/{agreed}", [column.first() for column in columns])
    for column, totals in zip(columns, firsts, strict=True):
        column.begin(totals)
    for number in range(1, _REFINEMENTS + 1):
        asked = [column.parts() for column in columns]
        if not any(len(counts) for counts in asked):
            break
        found = await _sums(pool, f"bins/parts/{number}", asked)
        for column, totals in zip(columns, found, strict=True):
            column.refine(totals)
    width = len(str(len(names)))
    return [column.feature(f"F{rank + 1:0{width}d}") for rank, column in enumerate(columns)]


async def _sums(pool: Pool, what: str, parts: Sequence[Ints]) -> list[Ints]:
    """Totals of several vectors in one sum."""
    together = await pool.sum(what, np.concatenate(parts), MOST_ROWS)
    return np.split(together, np.cumsum([len(part) for part in parts])[:-1])


class _Column:
    """One column on its way to common bins."""

    def __init__(self, name: str, own: OwnColumns) -> None:
        self.name, self._own = name, own
        self._column = own.index.take(own.table.columns[name])
        self.numeric = self._column.dtype != pl.String
        codes = own.party.special.get(name, ()) if self.numeric else ()
        self.special = tuple(sorted({float(code) for code in codes}))
        counted = self._column.filter(pl.Series(own.counting))
        self._names: dict[str, int] = {}
        if self.numeric:
            values = counted.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            missing = np.isnan(values)
            self._of_code = [int((values == code).sum()) for code in self.special]
            keys = keys_of_numbers(values[~missing & ~np.isin(values, self.special)])
            self._missing = int(missing.sum())
        else:
            present = counted.drop_nulls()
            distinct = present.unique().sort().to_list()
            # Names hash to other cells in every run and in every column.
            salt = hashlib.sha256(f"fedcredit/own-bins/{own.run}/{name}".encode()).digest()
            self._names = dict(zip(distinct, keys_of_names(distinct, salt).tolist(), strict=True))
            keys = np.array([self._names[one] for one in present.to_list()], np.uint64)
            self._of_code, self._missing = [], counted.null_count()
        self._keys = np.sort(keys)
        self._grid = CellGrid.first(np.zeros(1 << FIRST_BITS, np.int64))
        self._totals: list[int] = []

    def first(self) -> Ints:
        """Own counts: missing, special codes, cells of the first grid."""
        return np.concatenate([[self._missing, *self._of_code], CellGrid.first_counts(self._keys)]).astype(np.int64)

    def begin(self, totals: Ints) -> None:
        """Takes the totals of `first`."""
        head = 1 + len(self.special)
        self._totals = [int(count) for count in totals[:head]]
        self._grid = CellGrid.first(totals[head:])

    def parts(self) -> Ints:
        """Own counts by part of the cells to refine; empty where there are none."""
        return self._grid.part_counts(self._keys, self._to_refine(), self._own.rules.min_rows)

    def refine(self, totals: Ints) -> None:
        """Takes the totals of `parts`."""
        self._grid = self._grid.refined(totals, self._to_refine(), self._own.rules.min_rows)

    def _to_refine(self) -> list[int]:
        """Cells in which a quantile falls, or that hold enough rows for a category of their own."""
        counts, rules = self._grid.counts, self._own.rules
        wanted = set(np.flatnonzero(counts >= rules.min_rows).tolist())
        if self.numeric and len(counts):
            upto = np.cumsum(counts)
            targets = upto[-1] * np.arange(1, rules.max_prebins) / rules.max_prebins
            hit = set(np.searchsorted(upto, targets).tolist())
            cuts = cut_places(counts, rules)
            wanted &= hit | set(cuts) | {place + 1 for place in cuts}
        return sorted(place for place in wanted if self._grid.parts(place, rules.min_rows) > 0)

    def feature(self, code: str) -> OwnFeature:
        """The column in the common bins; one bin where all of them together have nothing to tell."""
        prebins = self._numeric() if self.numeric else self._categorical()
        if prebins is None or prebins.bins < 2:
            prebins, codes = Prebins(kind="numeric"), np.zeros(len(self._column), np.int32)
        else:
            codes = prebins.apply(self._column).astype(np.int32)
        direction: Literal["", "increasing", "decreasing", "auto"] = self._own.party.monotone.get(self.name, "")
        shape = FeatureShape(code=code, bins=prebins.bins, ordered=prebins.ordered, monotone=direction)
        return OwnFeature(self.name, shape, prebins, codes, not prebins.has_missing and self._missing > 0)

    def _numeric(self) -> Prebins | None:
        rules, grid = self._own.rules, self._grid
        missing, *of_code = self._totals
        rows_of_code = dict(zip(self.special, of_code, strict=True))
        special = tuple((code,) for code, rows in rows_of_code.items() if rows >= rules.min_rows)
        as_missing = tuple(code for code, rows in rows_of_code.items() if rows < rules.min_rows)
        missing += sum(rows_of_code[code] for code in as_missing)
        has_missing = missing >= rules.min_rows
        ordinary = int(grid.counts.sum())
        if ordinary == 0 or ordinary + (0 if has_missing else missing) < rules.min_rows:
            return None
        places = cut_places(grid.counts, rules)
        edges = tuple(number_between(grid.high(place), int(grid.low[place + 1])) for place in places)
        median = int(np.searchsorted(np.cumsum(grid.counts), (ordinary - 1) // 2, side="right"))
        fallback = int(np.searchsorted(np.array(places), median, side="left"))
        return Prebins(
            "numeric", edges=edges, special=special, has_missing=has_missing, as_missing=as_missing, fallback=fallback
        )

    def _categorical(self) -> Prebins | None:
        rules, grid = self._own.rules, self._grid
        missing = self._totals[0]
        has_missing = missing >= rules.min_rows
        ranked = sorted(range(len(grid.counts)), key=lambda place: (-int(grid.counts[place]), int(grid.low[place])))
        rows = [int(grid.counts[place]) for place in ranked]
        stand, other = kept_categories(rows, 0 if has_missing else missing, rules)
        own: dict[int, list[str]] = {}
        places = grid.places_of(np.array(list(self._names.values()), np.uint64))
        for name, place in zip(self._names, places.tolist(), strict=True):
            own.setdefault(place, []).append(name)
        strange = "(a category of other banks, number {})"  # a bin that no own name falls in has one all the same
        kept = enumerate(ranked[:stand], start=1)
        bins = [tuple(own.get(place, [strange.format(number)])) for number, place in kept]
        if other:
            bins.append(())
        fallback = len(bins) if has_missing and not other else (len(bins) - 1 if other else 0)
        return Prebins("categorical", categories=tuple(bins), has_missing=has_missing, fallback=fallback)
