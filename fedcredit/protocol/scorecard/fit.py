"""The fit of a scorecard as one sequence of sums: the label holder runs it over encrypted sums, the oracle over pooled
columns. Whatever decides anything stands here, so that the two can only differ in their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.collinearity import correlation_from_moments, select
from fedcredit.kernels.discriminant import Moments, discriminant
from fedcredit.kernels.newton import WeightedSums, best_combination, projected_information, secant_update
from fedcredit.kernels.points import PointScale, integer_points, split_points
from fedcredit.kernels.selection import Dropped
from fedcredit.kernels.woe import WOE_UNIT
from fedcredit.protocol.bin.features import BinnedFeature
from fedcredit.protocol.scorecard.plan import FIT_UNIT, WEIGHT_UNIT, FitPlan
from fedcredit.spec.model import ScorecardSection

__all__ = ["FitSums", "FittedScorecard", "fit_scorecard"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CONVERGED = 1e-4  # largest step of a coefficient after which no more is asked: below it totals differ by rounding


class FitSums(Protocol):
    """The sums a fit needs; all exact integers."""

    async def products(self) -> Ints:
        """int64 (k, k): sums over training rows of the products of two candidates' WOE units."""
        ...

    async def keep(self, kept: Sequence[int]) -> None:
        """Tells who needs to know which candidates stay."""
        ...

    async def totals(self, tables: Sequence[Ints]) -> Ints:
        """int64 (training rows,): for each row the sum over the kept features of its bin's entry."""
        ...

    async def by_bin(self, residual: Ints, weight: Ints) -> list[tuple[Ints, Ints]]:
        """For each candidate, sums by merged bin of two integers per training row."""
        ...

    async def score(self, tables: Sequence[Ints]) -> Ints:
        """int64 (held-out rows,): totals as above; the tables are the model."""
        ...


@dataclass(frozen=True)
class FittedScorecard:
    """Result of a fit.

    Args:
        features: The kept features, in column order.
        coefficients: float64 (k + 1,), intercept first; log-odds of good on WOE.
        covariance: float64 (k + 1, k + 1), inverse information at the last point with exact sums.
        base_points: Points before any feature.
        tables: For each kept feature, integer points by merged bin.
        scores: int64 (held-out rows,).
        dropped: Candidates dropped as collinear.
        totals: Totals per training row that were spent.
    """

    features: tuple[BinnedFeature, ...]
    coefficients: Floats
    covariance: Floats
    base_points: int
    tables: tuple[Ints, ...]
    scores: Ints
    dropped: tuple[Dropped, ...]
    totals: int


async def fit_scorecard(
    sums: FitSums, features: Sequence[BinnedFeature], good: NDArray[np.bool_], rules: ScorecardSection, plan: FitPlan
) -> FittedScorecard:
    """Selects, fits and scores.

    Args:
        sums: Where sums come from.
        features: Candidates, in column order.
        good: bool (training rows,).
        rules: Section ``[scorecard]``.
        plan: Rounds and units.

    Raises:
        DataError: no feature is left.
    """
    if not features:
        raise DataError("fit.no-features", "no feature passes the selection: lower min_iv or look at the dropped list")
    products = await sums.products()
    kept, dropped = _uncollinear(features, products, int(good.size), rules)
    await sums.keep(kept)
    chosen = [features[place] for place in kept]
    moments = _moments(chosen, products[np.ix_(kept, kept)])
    scale = PointScale(base_score=rules.base_score, base_odds=rules.base_odds, pdo=rules.pdo)
    columns = list(zip(kept, chosen, strict=True))
    fit = _Fit(sums, columns, good.astype(np.float64), moments, rules.ridge, plan)
    coefficients, information, totals = await fit.run()
    woe = [feature.merged.woe for feature in chosen]
    points = integer_points(split_points(scale, float(coefficients[0]), coefficients[1:], woe))
    scores = await sums.score(points.bins)
    return FittedScorecard(
        features=tuple(chosen),
        coefficients=coefficients,
        covariance=np.asarray(np.linalg.inv(information), dtype=np.float64),
        base_points=points.base,
        tables=points.bins,
        scores=scores + points.base,
        dropped=tuple(dropped),
        totals=totals,
    )


class _Fit:
    """State of one fit; see `fedcredit.kernels.newton` for what each step is."""

    def __init__(
        self,
        sums: FitSums,
        columns: Sequence[tuple[int, BinnedFeature]],
        good: Floats,
        moments: Moments,
        ridge: float,
        plan: FitPlan,
    ) -> None:
        self._sums, self._good, self._moments, self._ridge = sums, good, moments, ridge
        self._places = [place for place, _ in columns]
        self._features = [feature for _, feature in columns]
        self._plan = plan

    async def run(self) -> tuple[Floats, Floats, int]:
        """Coefficients, information, number of totals spent."""
        point = discriminant(self._moments, self._ridge)
        information = self._flat_information()
        known: list[Floats] = []
        totals: list[Floats] = []
        visited: list[Floats] = []
        gradients: list[Floats] = []
        for _ in range(self._plan.rounds):
            slopes = zip(point[1:], self._features, strict=True)
            tables = [np.rint(FIT_UNIT * slope * feature.merged.woe).astype(np.int64) for slope, feature in slopes]
            units = await self._sums.totals(tables)
            known.append(point)
            totals.append(point[0] + units / FIT_UNIT)
            best, total = best_combination(known, totals, self._good, self._ridge)
            gradient, weighted = await self._gradient(best, total)
            visited.append(best)
            gradients.append(gradient)
            information = projected_information(self._moments, best, total, weighted, self._ridge)
            information = secant_update(information, visited, gradients)
            step = np.linalg.solve(information, gradient)
            point = best + step
            if np.abs(step).max() < _CONVERGED:
                break
        return point, information, len(known)

    async def _gradient(self, point: Floats, total: Floats) -> tuple[Floats, WeightedSums]:
        unit = self._plan.residual_unit
        p = np.exp(-np.logaddexp(0.0, -total))
        residual = np.rint((self._good - p) * unit).astype(np.int64)
        weight = np.rint(p * (1 - p) * WEIGHT_UNIT).astype(np.int64)
        by_bin = await self._sums.by_bin(residual, weight)
        k = len(self._features)
        gradient, columns, squares = np.empty(k + 1), np.empty(k), np.empty(k)
        gradient[0] = residual.sum() / unit
        for column, (place, feature) in enumerate(zip(self._places, self._features, strict=True)):
            residuals, weights = by_bin[place]
            woe = feature.merged.woe
            gradient[column + 1] = woe @ residuals / unit
            columns[column] = woe @ weights / WEIGHT_UNIT
            squares[column] = woe**2 @ weights / WEIGHT_UNIT
        gradient[1:] -= self._ridge * point[1:]
        return gradient, WeightedSums(float(weight.sum() / WEIGHT_UNIT), columns, squares)

    def _flat_information(self) -> Floats:
        """Information where every row has the sample's odds: what ``moments`` knows without a total."""
        moments = self._moments
        k = len(moments.sums_good)
        sums = moments.sums_good + moments.sums_bad
        weight = moments.goods * moments.bads / moments.rows**2
        flat = np.empty((k + 1, k + 1))
        flat[0, 0] = moments.rows
        flat[0, 1:] = flat[1:, 0] = sums
        flat[1:, 1:] = moments.products
        flat *= weight
        flat[1:, 1:] += self._ridge * np.eye(k)
        return flat


def _moments(features: Sequence[BinnedFeature], products: Ints) -> Moments:
    goods = np.array([float(feature.merged.goods @ feature.merged.woe) for feature in features])
    bads = np.array([float(feature.merged.bads @ feature.merged.woe) for feature in features])
    first = features[0].merged
    return Moments(
        int(first.goods.sum()), int(first.bads.sum()), goods, bads, products.astype(np.float64) * WOE_UNIT**2
    )


def _uncollinear(
    features: Sequence[BinnedFeature], products: Ints, rows: int, rules: ScorecardSection
) -> tuple[list[int], list[Dropped]]:
    sums = np.array([int((f.merged.goods + f.merged.bads) @ f.merged.woe_units) for f in features])
    correlation = correlation_from_moments(rows, sums, products)
    order = sorted(range(len(features)), key=lambda i: (-features[i].merged.iv, features[i].owner, features[i].code))
    selection = select(correlation, order, rules.max_correlation, rules.max_vif)
    dropped = []
    for drop in selection.dropped:
        feature = features[drop.feature]
        against = "" if drop.against is None else f"{features[drop.against].owner}:{features[drop.against].code}"
        dropped.append(Dropped(feature.owner, feature.code, drop.reason, drop.value, drop.limit, against))
    return sorted(selection.kept), dropped
