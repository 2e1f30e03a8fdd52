"""Everything that a scorecard is decided by: bins, candidates, collinear columns, each step of the fit.

One bank decides on its own sums (`OneBank`); the banks of a hybrid run decide on totals over all of them
(`fedcredit.protocol.hybrid.scorecard_decisions`). What is asked of the holders, and when, is the same: see
`fedcredit.protocol.scorecard.fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.collinearity import correlation_from_moments, select
from fedcredit.kernels.discriminant import Moments, discriminant
from fedcredit.kernels.newton import WeightedSums, best_combination, projected_information, secant_update
from fedcredit.kernels.selection import Dropped
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature, merge_alone
from fedcredit.protocol.scorecard.candidates import Candidates, Offer, select_candidates
from fedcredit.spec.model import BinSection, ScorecardSection

__all__ = [
    "CommonFit",
    "Decided",
    "Decisions",
    "Evaluated",
    "OneBank",
    "Steps",
    "flat_information",
    "uncollinear",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluated:
    """What a label holder has learned of one point.

    Args:
        point: float64 (k + 1,), intercept first.
        total: float64 (n,), log-odds of each training row.
        gradient: float64 (k + 1,), of the likelihood without a penalty.
        weighted: Exact sums with the weights at the point.
    """

    point: Floats
    total: Floats
    gradient: Floats
    weighted: WeightedSums


@dataclass(frozen=True)
class Decided:
    """Where a step leads.

    Args:
        point: float64 (k + 1,).
        information: float64 (k + 1, k + 1).
        size: Largest change of a coefficient that all decide about together.
    """

    point: Floats
    information: Floats
    size: float


@dataclass(frozen=True)
class CommonFit:
    """What the banks of a hybrid run have in common.

    Args:
        slopes: float64 (k,), coefficients before each bank made its own of them.
        woe_units: For each feature int64 (bins,), WOE of the pool.
    """

    slopes: Floats
    woe_units: tuple[Ints, ...]


class Steps(Protocol):
    """The steps of one fit; see `fedcredit.kernels.newton` for what each is."""

    async def start(self) -> Decided:
        """The first point, from moments alone."""
        ...

    async def best(self, point: Floats, total: Floats) -> tuple[Floats, Floats]:
        """The best combination of the points so far, this newest one included, and its totals."""
        ...

    async def step(self, at: Evaluated) -> Decided:
        """The next point."""
        ...

    def finish(self, last: Decided) -> tuple[Decided, CommonFit | None]:
        """What a bank makes of the last point, and what it has in common with others."""
        ...


class Decisions(Protocol):
    """Who decides."""

    async def merge(self, counted: Sequence[CountedFeature], rules: BinSection) -> list[BinnedFeature]:
        """Scorecard bins from counts by prebin."""
        ...

    async def candidates(self, offer: Offer) -> Candidates:
        """Features to try."""
        ...

    async def uncollinear(
        self, features: Sequence[BinnedFeature], products: Ints, rules: ScorecardSection
    ) -> tuple[list[int], list[Dropped]]:
        """Places of the candidates that do not repeat better ones, ascending, and the others with reasons.

        Args:
            features: Candidates.
            products: int64 (k, k), own sums of products of WOE units.
            rules: Section ``[scorecard]``.
        """
        ...

    def steps(self, features: Sequence[BinnedFeature], moments: Moments, good: Floats, ridge: float) -> Steps:
        """The steps of a fit.

        Args:
            features: Those that stay.
            moments: Their own sums.
            good: float64 (n,), 1 for good, 0 for bad.
            ridge: Penalty on squared coefficients.
        """
        ...


class OneBank:
    """A label holder that decides alone."""

    async def merge(self, counted: Sequence[CountedFeature], rules: BinSection) -> list[BinnedFeature]:
        """See `Decisions.merge`."""
        return await merge_alone(counted, rules)

    async def candidates(self, offer: Offer) -> Candidates:
        """See `Decisions.candidates`."""
        return select_candidates(offer)

    async def uncollinear(
        self, features: Sequence[BinnedFeature], products: Ints, rules: ScorecardSection
    ) -> tuple[list[int], list[Dropped]]:
        """See `Decisions.uncollinear`."""
        first = features[0].merged
        rows = int((first.goods + first.bads).sum())
        sums = np.array([int((f.merged.goods + f.merged.bads) @ f.merged.woe_units) for f in features])
        return uncollinear(features, correlation_from_moments(rows, sums, products), rules)

    def steps(self, features: Sequence[BinnedFeature], moments: Moments, good: Floats, ridge: float) -> Steps:
        """See `Decisions.steps`."""
        del features
        return _OwnSteps(moments, good, ridge)


class _OwnSteps:
    """Steps on one bank's own sums."""

    def __init__(self, moments: Moments, good: Floats, ridge: float) -> None:
        self._moments, self._good, self._ridge = moments, good, ridge
        self._known: list[Floats] = []
        self._totals: list[Floats] = []
        self._visited: list[Floats] = []
        self._gradients: list[Floats] = []

    async def start(self) -> Decided:
        """See `Steps.start`."""
        return Decided(discriminant(self._moments, self._ridge), flat_information(self._moments, self._ridge), np.inf)

    async def best(self, point: Floats, total: Floats) -> tuple[Floats, Floats]:
        """See `Steps.best`."""
        self._known.append(point)
        self._totals.append(total)
        return best_combination(self._known, self._totals, self._good, self._ridge)

    async def step(self, at: Evaluated) -> Decided:
        """See `Steps.step`."""
        gradient = at.gradient.copy()
        gradient[1:] -= self._ridge * at.point[1:]
        self._visited.append(at.point)
        self._gradients.append(gradient)
        information = projected_information(self._moments, at.point, at.total, at.weighted, self._ridge)
        information = secant_update(information, self._visited, self._gradients)
        step = np.linalg.solve(information, gradient)
        return Decided(at.point + step, information, float(np.abs(step).max()))

    def finish(self, last: Decided) -> tuple[Decided, CommonFit | None]:
        """See `Steps.finish`."""
        return last, None


def flat_information(moments: Moments, ridge: float) -> Floats:
    """Information where every row has the sample's odds: what ``moments`` knows without a total."""
    k = len(moments.sums_good)
    sums = moments.sums_good + moments.sums_bad
    weight = moments.goods * moments.bads / moments.rows**2
    flat = np.empty((k + 1, k + 1))
    flat[0, 0] = moments.rows
    flat[0, 1:] = flat[1:, 0] = sums
    flat[1:, 1:] = moments.products
    flat *= weight
    flat[1:, 1:] += ridge * np.eye(k)
    return flat


def uncollinear(
    features: Sequence[BinnedFeature], correlation: Floats, rules: ScorecardSection
) -> tuple[list[int], list[Dropped]]:
    """Places of the candidates that do not repeat better ones, ascending, and the others with reasons."""
    order = sorted(range(len(features)), key=lambda i: (-features[i].merged.iv, features[i].owner, features[i].code))
    selection = select(correlation, order, rules.max_correlation, rules.max_vif)
    dropped = []
    for drop in selection.dropped:
        feature = features[drop.feature]
        against = "" if drop.against is None else f"{features[drop.against].owner}:{features[drop.against].code}"
        dropped.append(Dropped(feature.owner, feature.code, drop.reason, drop.value, drop.limit, against))
    return sorted(selection.kept), dropped
