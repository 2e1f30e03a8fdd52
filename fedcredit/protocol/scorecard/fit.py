"""The fit of a scorecard as one sequence of sums: the label holder runs it over encrypted sums, the oracle over pooled
columns. Whatever decides anything stands here or in `fedcredit.protocol.scorecard.decisions`, so that the two can only
differ in their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.discriminant import Moments
from fedcredit.kernels.newton import WeightedSums
from fedcredit.kernels.points import PointScale, integer_points, split_points
from fedcredit.kernels.selection import Dropped
from fedcredit.kernels.woe import WOE_UNIT
from fedcredit.protocol.bin.features import BinnedFeature
from fedcredit.protocol.scorecard.decisions import CommonFit, Decided, Decisions, Evaluated, OneBank, Steps
from fedcredit.protocol.scorecard.plan import FIT_UNIT, WEIGHT_UNIT, FitPlan
from fedcredit.spec.model import ScorecardSection

__all__ = ["FitRules", "FitSums", "FittedScorecard", "fit_scorecard"]

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
        common: What this bank's scorecard has in common with those of other banks; None where it decides alone.
    """

    features: tuple[BinnedFeature, ...]
    coefficients: Floats
    covariance: Floats
    base_points: int
    tables: tuple[Ints, ...]
    scores: Ints
    dropped: tuple[Dropped, ...]
    totals: int
    common: CommonFit | None = None


@dataclass(frozen=True)
class FitRules:
    """How a scorecard is fitted.

    Args:
        scorecard: Section ``[scorecard]``.
        plan: Rounds and units.
        decisions: Who decides.
    """

    scorecard: ScorecardSection
    plan: FitPlan
    decisions: Decisions = field(default_factory=OneBank)


async def fit_scorecard(
    sums: FitSums, features: Sequence[BinnedFeature], good: NDArray[np.bool_], how: FitRules
) -> FittedScorecard:
    """Selects, fits and scores.

    Args:
        sums: Where sums come from.
        features: Candidates, in column order.
        good: bool (training rows,).
        how: Rules, and who decides.

    Raises:
        DataError: no feature is left.
    """
    if not features:
        raise DataError("fit.no-features", "no feature passes the selection: lower min_iv or look at the dropped list")
    rules = how.scorecard
    products = await sums.products()
    kept, dropped = await how.decisions.uncollinear(features, products, rules)
    await sums.keep(kept)
    chosen = [features[place] for place in kept]
    moments = _moments(chosen, products[np.ix_(kept, kept)])
    scale = PointScale(base_score=rules.base_score, base_odds=rules.base_odds, pdo=rules.pdo)
    steps = how.decisions.steps(chosen, moments, good.astype(np.float64), rules.ridge)
    fit = _Fit(sums, list(zip(kept, chosen, strict=True)), good.astype(np.float64), how.plan)
    last, totals = await fit.run(steps)
    decided, common = steps.finish(last)
    coefficients, information = decided.point, decided.information
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
        common=common,
    )


class _Fit:
    """The rounds of one fit; see `fedcredit.kernels.newton` for what each step is."""

    def __init__(
        self, sums: FitSums, columns: Sequence[tuple[int, BinnedFeature]], good: Floats, plan: FitPlan
    ) -> None:
        self._sums, self._good, self._plan = sums, good, plan
        self._places = [place for place, _ in columns]
        self._features = [feature for _, feature in columns]

    async def run(self, steps: Steps) -> tuple[Decided, int]:
        """The last point with its information, and the number of totals spent."""
        decided, spent = await steps.start(), 0
        for _ in range(self._plan.rounds):
            slopes = zip(decided.point[1:], self._features, strict=True)
            tables = [np.rint(FIT_UNIT * slope * feature.merged.woe).astype(np.int64) for slope, feature in slopes]
            units = await self._sums.totals(tables)
            spent += 1
            best, total = await steps.best(decided.point, decided.point[0] + units / FIT_UNIT)
            gradient, weighted = await self._gradient(total)
            decided = await steps.step(Evaluated(best, total, gradient, weighted))
            if decided.size < _CONVERGED:
                break
        return decided, spent

    async def _gradient(self, total: Floats) -> tuple[Floats, WeightedSums]:
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
        return gradient, WeightedSums(float(weight.sum() / WEIGHT_UNIT), columns, squares)


def _moments(features: Sequence[BinnedFeature], products: Ints) -> Moments:
    goods = np.array([float(feature.merged.goods @ feature.merged.woe) for feature in features])
    bads = np.array([float(feature.merged.bads @ feature.merged.woe) for feature in features])
    first = features[0].merged
    return Moments(
        int(first.goods.sum()), int(first.bads.sum()), goods, bads, products.astype(np.float64) * WOE_UNIT**2
    )
