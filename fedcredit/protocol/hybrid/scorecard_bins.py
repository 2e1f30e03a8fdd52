"""Scorecard bins that the banks of a hybrid run have in common, and each bank's own weight of evidence in them.

Banks differ in how many of their customers default, and regions, sectors and terms go with banks: in plain totals a bin
would be credited with the bank that fills it. So each bank's goods and bads are weighted to the pool's odds before they
are added. Measured on eight lenders of sba-30k with common coefficients, test rows of six splits: AUC .680 with plain
totals, .685 weighted, and with WOE and coefficients of the banks' own .689 and .712.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import PeerError
from fedcredit.kernels.stability import population_stability
from fedcredit.kernels.woe import WOE_LIMIT_UNITS, WOE_UNIT, MergedBins, merge_bins
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature, binning_rules
from fedcredit.protocol.hybrid.own_bins import MOST_ROWS
from fedcredit.protocol.pool import Pool
from fedcredit.spec.model import BinSection, HybridSection
from fedcredit.types import PartyId

__all__ = ["PooledBins", "in_bins", "own_woe", "pooled_bins"]

Ints = NDArray[np.int64]

_WEIGHT_BITS = 10
"""Weighted counts are added in units of 2^-10 rows."""


@dataclass(frozen=True)
class PooledBins:
    """Features in the banks' common bins.

    Args:
        features: As one bank sees them: common groups, IV and stability; its own counts and WOE.
        woe_units: For each feature the WOE of the pool, int64 (bins,).
    """

    features: list[BinnedFeature]
    woe_units: list[Ints]


async def pooled_bins(
    pool: Pool, me: PartyId, counted: Sequence[CountedFeature], rules: BinSection, hybrid: HybridSection
) -> PooledBins:
    """Merges prebins on totals over the banks.

    Args:
        pool: The banks.
        me: This one.
        counted: Its own counts; all banks have the same features in the same order.
        rules: Section ``[bin]``; least goods, bads and share are those of the pool.
        hybrid: Section ``[hybrid]``.

    Raises:
        PeerError: the banks have other features, or a feature that has no rows.
    """
    own = counted[0].counts
    bads, rows = int(own.bads.sum()), int(own.rows.sum())
    goods = rows - bads
    classes = await pool.sum("card/classes", np.array([goods, bads], np.int64), MOST_ROWS)
    if not (goods and bads):
        raise PeerError("hybrid.classes", f"{me}: goods and bads are both needed to take part")
    weights = (1.0, 1.0)
    if hybrid.own_intercepts:
        share = rows / int(classes.sum())
        weights = (share * int(classes[0]) / goods, share * int(classes[1]) / bads)
    about = [["" if f.owner == me else f.owner, *(getattr(f.shape, key) for key in f.shape.__struct_fields__)]
             for f in counted]  # fmt: skip
    agreed = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    vector = np.concatenate([_weighted(one, weights) for one in counted])
    totals = await pool.sum(f"card/bins/{agreed}", vector, MOST_ROWS << _WEIGHT_BITS)
    parts = np.split(totals, np.cumsum([4 * one.shape.bins for one in counted])[:-1])
    found = [_merged(one, part, rules, hybrid.woe_rows) for one, part in zip(counted, parts, strict=True)]
    return PooledBins([feature for feature, _ in found], [woe for _, woe in found])


def _weighted(one: CountedFeature, weights: tuple[float, float]) -> Ints:
    """Weighted goods, weighted bads, rows to train on, rows held out; by prebin."""
    counts, unit = one.counts, 1 << _WEIGHT_BITS
    scaled = [
        np.rint(each * (weight * unit))
        for each, weight in zip((counts.rows - counts.bads, counts.bads), weights)  # noqa: B905 - two and two
    ]
    return np.concatenate([*scaled, counts.rows, counts.test_rows]).astype(np.int64)


def _merged(one: CountedFeature, totals: Ints, rules: BinSection, woe_rows: float) -> tuple[BinnedFeature, Ints]:
    good, bad, train, test = np.split(totals, 4)
    goods, bads = (np.rint(each / (1 << _WEIGHT_BITS)).astype(np.int64) for each in (good, bad))
    common = merge_bins(goods, bads, one.shape.ordered, binning_rules(one.shape, rules))
    mixes = [np.bincount(common.group, weights=each, minlength=common.bins).astype(np.int64) for each in (train, test)]
    stability = float(population_stability(*mixes)) if all(mix.any() for mix in mixes) else 0.0
    return in_bins(one, common, stability, woe_rows), common.woe_units


def in_bins(one: CountedFeature, common: MergedBins, stability: float, woe_rows: float) -> BinnedFeature:
    """A feature in given bins, with one bank's own counts and WOE.

    Args:
        one: Own counts by prebin.
        common: The bins, with the WOE and IV of the pool.
        stability: Of the pool.
        woe_rows: See `own_woe`.
    """

    def by_bin(counts: Ints) -> Ints:
        return np.bincount(common.group, weights=counts, minlength=common.bins).astype(np.int64)

    counts = one.counts
    own = replace(common, goods=by_bin(counts.rows - counts.bads), bads=by_bin(counts.bads))
    own = replace(own, woe_units=own_woe(own, woe_rows))
    return BinnedFeature(one.owner, one.shape, own, stability, by_bin(counts.test_rows))


def own_woe(bins: MergedBins, woe_rows: float) -> Ints:
    """A bank's own WOE in common bins, drawn towards the pool's.

    To each bin are added ``woe_rows`` rows whose odds are those that the pool's WOE gives at this bank. So a bin with
    few rows of the bank has the pool's WOE, and one with many the bank's own.

    Args:
        bins: Own counts and the pool's WOE.
        woe_rows: Rows to add; 0 = the pool's WOE as it is.

    Returns:
        int64 (bins,), in units.

    Source: Good, "The Estimation of Probabilities" (1965): pseudo-counts as a conjugate prior.
    """
    if woe_rows == 0 or bins.bins < 2:
        return bins.woe_units
    base = np.log(bins.goods.sum() / bins.bads.sum())
    expected = 1.0 / (1.0 + np.exp(-(base + bins.woe)))
    good, bad = bins.goods + woe_rows * expected, bins.bads + woe_rows * (1.0 - expected)
    units = np.rint((np.log(good / bad) - base) / WOE_UNIT)
    return np.asarray(np.clip(units, -WOE_LIMIT_UNITS, WOE_LIMIT_UNITS), dtype=np.int64)
