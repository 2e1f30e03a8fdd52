"""A party's own columns as bins, and what the label holder makes of the counts: pure, the same for every party."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.crypto.prg import Entropy, uniform_below
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.kernels.prebin import PrebinRules, Prebins, fit_prebins
from fedcredit.kernels.stability import population_stability
from fedcredit.kernels.woe import BinningRules, MergedBins, merge_bins
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.spec.model import BinSection, PartySection
from fedcredit.types import PartyId

__all__ = [
    "BinnedFeature",
    "CountedFeature",
    "LabelCounts",
    "Merge",
    "OwnFeature",
    "bin_feature",
    "binning_rules",
    "count_labels",
    "merge_alone",
    "order_of_features",
    "prebin",
]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OwnFeature:
    """One column of a party, cut into bins; never leaves it.

    Args:
        name: Column name.
        shape: What the label holder learns of it; holds its code.
        prebins: Edges or categories.
        codes: int32 (n,), the bin of each common row.
        rare_missing: Whether some common rows miss the value, too few for a bin of their own.
    """

    name: str
    shape: FeatureShape
    prebins: Prebins
    codes: NDArray[np.int32]
    rare_missing: bool = False


@dataclass(frozen=True)
class LabelCounts:
    """Sums by prebin, int64 (prebins,) each: bads and rows to train on, rows held out."""

    bads: Ints
    rows: Ints
    test_rows: Ints


@dataclass(frozen=True)
class CountedFeature:
    """A feature of anybody with the label holder's counts by prebin."""

    owner: PartyId
    shape: FeatureShape
    counts: LabelCounts


@dataclass(frozen=True)
class BinnedFeature:
    """One feature as the label holder sees it.

    Args:
        owner: Party that holds it.
        shape: Its code and number of prebins.
        merged: Its merged bins with counts, WOE and IV.
        stability: Population stability between training and held-out rows.
        test_rows: int64 (bins,), held-out rows by merged bin.
    """

    owner: PartyId
    shape: FeatureShape
    merged: MergedBins
    stability: float
    test_rows: Ints

    @property
    def code(self) -> str:
        """Its code among the owner's features."""
        return self.shape.code


def order_of_features(count: int, entropy: Entropy) -> list[int]:
    """A random order of ``count`` features (Fisher-Yates), so that codes say nothing of columns."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        (other,) = uniform_below(entropy, last + 1, 1)
        order[last], order[other] = order[other], order[last]
    return order


def prebin(
    table: HolderTable,
    index: RowIndex,
    party: PartySection,
    rules: PrebinRules,
    order: Sequence[int],
    fit: NDArray[np.bool_] | None = None,
) -> list[OwnFeature]:
    """Cuts a party's columns into bins at the quantiles of its whole table, unless told otherwise.

    Not of the rows of the run: which rows those are is the label holder's choice, and bins must not follow it. So the
    cut points are also the same whichever way rows were found; no bin has too few of the rows of the run.

    Args:
        table: The party's own records.
        index: Common rows.
        party: What its configuration says of special codes and monotone features.
        rules: How to cut; special codes and categories are taken from ``party``.
        order: Order in which the columns get the codes F1, F2, ….
        fit: bool (n,), the only common rows that are ever summed: bins are cut at *their* quantiles, and none has too
            few of them; None = no bin has too few of those that count, as far as the party knows.

    A column that has nothing to tell on the common rows becomes one bin: whether a holder refuses, or how many features
    it announces, would itself say something of rows that the label holder chose.
    """
    features = []
    counting = np.ones(len(index.rows), np.bool_) if index.members is None else index.members
    names = list(table.columns)
    width = len(str(len(names)))
    for rank, place in enumerate(order):
        name = names[place]
        whole = table.columns[name]
        column = index.take(whole)
        numeric = column.dtype != pl.String
        special = tuple(float(code) for code in party.special.get(name, ()))
        cut = replace(rules, special=special if numeric else (), categorical=not numeric)
        try:
            prebins = fit_prebins(column, counting, cut, whole) if fit is None else fit_prebins(column, fit, cut)
            codes = prebins.apply(column).astype(np.int32)
        except DataError:
            prebins, codes = Prebins(kind="numeric"), np.zeros(len(column), np.int32)
        monotone: Literal["", "increasing", "decreasing", "auto"] = party.monotone.get(name, "")
        shape = FeatureShape(
            code=f"F{rank + 1:0{width}d}", bins=prebins.bins, ordered=prebins.ordered, monotone=monotone
        )
        rare = not prebins.has_missing and column.filter(pl.Series(counting)).null_count() > 0
        features.append(OwnFeature(name, shape, prebins, codes, rare))
    return features


def count_labels(codes: NDArray[np.int32], bins: int, bad: NDArray[np.bool_], index: RowIndex) -> LabelCounts:
    """Counts by prebin where labels and bins are in one house."""

    def count(rows: NDArray[np.bool_]) -> Ints:
        return np.bincount(codes[rows], minlength=bins).astype(np.int64)

    return LabelCounts(count(bad & index.train), count(index.train), count(index.test))


def binning_rules(shape: FeatureShape, rules: BinSection) -> BinningRules:
    """How the prebins of a feature are merged."""
    return BinningRules(
        max_bins=rules.max_bins,
        min_share=rules.min_share,
        min_goods=rules.min_goods,
        min_bads=rules.min_bads,
        smoothing=rules.smoothing,
        monotone=shape.monotone or None,
    )


def bin_feature(owner: PartyId, shape: FeatureShape, counts: LabelCounts, rules: BinSection) -> BinnedFeature:
    """Merges a feature's prebins and measures it."""
    merged = merge_bins(counts.rows - counts.bads, counts.bads, shape.ordered, binning_rules(shape, rules))
    train, test = (
        np.bincount(merged.group, weights=each, minlength=merged.bins).astype(np.int64)
        for each in (counts.rows, counts.test_rows)
    )
    stability = float(population_stability(train, test))
    return BinnedFeature(owner, shape, merged, stability, test)


Merge = Callable[[Sequence[CountedFeature], BinSection], Awaitable[list[BinnedFeature]]]
"""How bins are decided on."""


async def merge_alone(counted: Sequence[CountedFeature], rules: BinSection) -> list[BinnedFeature]:
    """Bins of a label holder that decides alone."""
    return [bin_feature(one.owner, one.shape, one.counts, rules) for one in counted]
