"""The steps of a fit over several banks: each decides on totals, none sees another's sums.

All rows have the coefficients in common; each bank has an intercept of its own, unless the configuration says
otherwise. A bank solves for its intercept before it adds: what enters a total is its gradient and information *given*
the best intercept (the Schur complement), which is all that the common coefficients follow from.

Source: Efron (1975) for moments, within banks: as for matched strata, the difference of class means is weighted by
goods x bads / rows; Le Cam (1956) and Nocedal & Wright, ch. 6 for the steps, as in `fedcredit.kernels.newton`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.discriminant import Moments, discriminant
from fedcredit.kernels.newton import WeightedSums, projected_information, secant_update
from fedcredit.protocol.hybrid.totals import joined_matrix, total_reals, upper_half
from fedcredit.protocol.pool import Pool
from fedcredit.protocol.scorecard.decisions import CommonFit, Decided, Evaluated, flat_information
from fedcredit.spec.model import HybridSection

__all__ = ["Local", "PooledSteps", "local_information", "own_intercept", "personal"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EVALUATIONS = 12  # of the likelihood in one search; Newton in a handful of dimensions needs three or four
_CONVERGED = 1e-5  # largest step in a weight; totals are added in units of 2^-20
_WORTH = 0.05  # as in kernels.newton: least gain of log-likelihood for which a combination replaces the newest point
_SMALLEST_STEP = 1 / 64
_CONSTANT = 1e-9  # relative variance below which a column is one value and the rest is rounding


@dataclass(frozen=True)
class Local:
    """What one bank knows of a point: its own part of gradient and information, without a penalty.

    Args:
        point: float64 (k + 1,), intercept first.
        gradient: float64 (k + 1,).
        information: float64 (k + 1, k + 1).
    """

    point: Floats
    gradient: Floats
    information: Floats

    def given_intercept(self) -> tuple[Floats, Floats]:
        """Gradient (k,) and information (k, k) of the coefficients where the intercept follows them."""
        lead, cross = self.information[0, 0], self.information[0, 1:]
        return (
            self.gradient[1:] - cross * (self.gradient[0] / lead),
            self.information[1:, 1:] - np.outer(cross, cross) / lead,
        )

    def intercept_after(self, step: Floats) -> float:
        """The own intercept after a step (k,) of the coefficients."""
        lead, cross = self.information[0, 0], self.information[0, 1:]
        return float(self.point[0] + (self.gradient[0] - cross @ step) / lead)


def local_information(moments: Moments, at: Evaluated) -> Floats:
    """Information of one bank's rows without a penalty; float64 (k + 1, k + 1).

    A column that has one value at this bank, though not at others, goes with the intercept: there is nothing to project
    it on.

    Args:
        moments: Own sums over the training rows.
        at: What the bank has learned of the point.
    """
    mean = moments.mean
    varies = np.diag(moments.covariance) > _CONSTANT * (1.0 + mean**2)
    part = Moments(
        goods=moments.goods,
        bads=moments.bads,
        sums_good=moments.sums_good[varies],
        sums_bad=moments.sums_bad[varies],
        products=moments.products[np.ix_(varies, varies)],
    )
    weighted = WeightedSums(at.weighted.total, at.weighted.columns[varies], at.weighted.squares[varies])
    known = np.flatnonzero(np.concatenate([[True], varies]))
    information = np.zeros((len(mean) + 1, len(mean) + 1))
    information[np.ix_(known, known)] = projected_information(part, at.point[known], at.total, weighted, 0.0)
    for place in np.flatnonzero(~varies):
        value = float(mean[place])
        row = value * information[0]
        information[place + 1], information[:, place + 1] = row, row
        information[place + 1, place + 1] = value**2 * information[0, 0]
        information[0, place + 1] = information[place + 1, 0] = value * information[0, 0]
    return information


def own_intercept(moments: Moments, slopes: Floats) -> float:
    """A bank's intercept for given coefficients, from its class means."""
    middle = 0.5 * (moments.sums_good / moments.goods + moments.sums_bad / moments.bads)
    return float(np.log(moments.goods / moments.bads) - middle @ slopes)


def personal(last: Decided, local: Local, ridge: float) -> Decided:
    """A bank's own coefficients: the maximum of its own likelihood, as far as it knows it, near the common ones.

    Args:
        last: The common point.
        local: What the bank knows of the point visited last.
        ridge: Penalty on the squared distance from the common coefficients, above 0.
    """
    penalty = ridge * np.eye(len(last.point))
    penalty[0, 0] = 0.0
    gradient = local.gradient - local.information @ (last.point - local.point)
    information = local.information + penalty
    return Decided(last.point + np.linalg.solve(information, gradient), information, last.size)


class PooledSteps:
    """See `fedcredit.protocol.scorecard.decisions.Steps`.

    Args:
        pool: The banks.
        hybrid: Section ``[hybrid]``.
        moments: Own sums over the training rows.
        good: float64 (n,).
        ridge: Penalty on squared coefficients.
        woe_units: WOE of the pool, for each feature.
    """

    def __init__(
        self,
        pool: Pool,
        hybrid: HybridSection,
        moments: Moments,
        good: Floats,
        ridge: float,
        woe_units: tuple[Ints, ...],
    ) -> None:
        self._pool, self._hybrid, self._moments, self._good = pool, hybrid, moments, good
        self._own, self._ridge, self._woe_units = hybrid.own_intercepts, ridge, woe_units
        self._known: list[Floats] = []
        self._totals: list[Floats] = []
        self._visited: list[Floats] = []
        self._gradients: list[Floats] = []
        self._local: Local | None = None

    async def start(self) -> Decided:
        """Moments within banks, or of all rows together where they have one intercept."""
        own = self._moments
        k = len(own.sums_good)
        if not self._own:
            values = np.concatenate([[own.goods, own.bads], own.sums_good, own.sums_bad, upper_half(own.products)])
            total = await total_reals(self._pool, "card/start", values)
            goods, bads = round(total[0]), round(total[1])
            sums_good, sums_bad, half = np.split(total[2:], [k, 2 * k])
            moments = Moments(goods, bads, sums_good, sums_bad, joined_matrix(half, k))
            return Decided(discriminant(moments, self._ridge), flat_information(moments, self._ridge), np.inf)
        good, bad = own.sums_good / own.goods, own.sums_bad / own.bads
        scatter = own.products - own.goods * np.outer(good, good) - own.bads * np.outer(bad, bad)
        weight = own.goods * own.bads / own.rows
        flat = Local(np.zeros(k + 1), np.zeros(k + 1), flat_information(own, 0.0))
        _, information = flat.given_intercept()
        counts = np.array([own.rows - 2, weight])
        parts = [counts, weight * (good - bad), upper_half(scatter), upper_half(information)]
        total = await total_reals(self._pool, "card/start", np.concatenate(parts))
        difference, first, second = np.split(total[2:], [k, k + k * (k + 1) // 2])
        within = (joined_matrix(first, k) + self._ridge * np.eye(k)) / max(1.0, float(total[0]))
        try:
            slopes: Floats = np.linalg.solve(within, difference / total[1])
        except np.linalg.LinAlgError as error:
            raise DataError("fit.collinear", "the WOE columns are collinear: set scorecard.ridge above 0") from error
        point = np.concatenate([[own_intercept(own, slopes)], slopes])
        return Decided(point, self._whole(flat, joined_matrix(second, k) + self._ridge * np.eye(k)), np.inf)

    async def best(self, point: Floats, total: Floats) -> tuple[Floats, Floats]:
        """The maximum of the banks' likelihood over combinations of the known totals and constants."""
        self._known.append(point)
        self._totals.append(total)
        search = _Search(self._known, self._totals, self._good, own=self._own)
        penalty = self._ridge * search.slopes.T @ search.slopes
        weights, constant = search.newest, 0.0
        change, shift, size = np.zeros_like(weights), 0.0, 1.0
        newest = value = -np.inf
        for number in range(_EVALUATIONS):
            tried, moved = weights + size * change, constant + size * shift
            seen = search.evaluate(tried, moved)
            what = f"card/best/{len(self._known)}/{number}"
            found, gradient, curvature = seen.split(await total_reals(self._pool, what, seen.vector()))
            found -= 0.5 * float(tried @ penalty @ tried)
            if number and found < value:
                size /= 2
                if size < _SMALLEST_STEP:
                    break
                continue
            weights, constant, value, size = tried, moved, found, 1.0
            newest = value if not number else newest
            change = _solved(curvature + penalty, gradient - penalty @ weights)
            shift = seen.constant_after(change)
            if np.abs(change).max() < _CONVERGED:
                break
        if value - newest < _WORTH:
            return point, total
        return search.point(weights, constant), search.total(weights, constant)

    async def step(self, at: Evaluated) -> Decided:
        """Newton on the totals of gradient and information."""
        local = self._local = Local(at.point, at.gradient, local_information(self._moments, at))
        gradient, matrix = local.given_intercept() if self._own else (local.gradient, local.information)
        size = len(gradient)
        values = np.concatenate([gradient, upper_half(matrix)])
        total = await total_reals(self._pool, f"card/step/{len(self._known)}", values)
        penalty = self._ridge * np.eye(size)
        where = at.point[1:] if self._own else at.point
        if not self._own:
            penalty[0, 0] = 0.0
        gradient = np.asarray(total[:size] - penalty @ where, dtype=np.float64)
        self._visited.append(where)
        self._gradients.append(gradient)
        pooled = secant_update(joined_matrix(total[size:], size) + penalty, self._visited, self._gradients)
        step = np.asarray(np.linalg.solve(pooled, gradient), dtype=np.float64)
        largest = float(np.abs(step).max())
        if not self._own:
            return Decided(at.point + step, pooled, largest)
        point = np.concatenate([[local.intercept_after(step)], at.point[1:] + step])
        return Decided(point, self._whole(local, pooled), largest)

    def finish(self, last: Decided) -> tuple[Decided, CommonFit | None]:
        """The bank's own coefficients, where the configuration has them and a round was made."""
        common = CommonFit(last.point[1:].copy(), self._woe_units)
        if self._hybrid.slope_ridge == 0 or self._local is None:
            return last, common
        return personal(last, self._local, self._hybrid.slope_ridge), common

    @staticmethod
    def _whole(local: Local, pooled: Floats) -> Floats:
        """Information of this bank's intercept and the common coefficients: given the former, that of the pool."""
        lead, cross = local.information[0, 0], local.information[0, 1:]
        whole = np.empty((len(cross) + 1, len(cross) + 1))
        whole[0, 0] = lead
        whole[0, 1:] = whole[1:, 0] = cross
        whole[1:, 1:] = pooled + np.outer(cross, cross) / lead
        return whole


def _solved(matrix: Floats, vector: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(matrix, vector, rcond=1e-12)[0], dtype=np.float64)


@dataclass(frozen=True)
class _Seen:
    """One bank's likelihood at some weights, with what Newton needs of it."""

    value: float
    gradient: Floats
    curvature: Floats
    constant: tuple[float, float, Floats]

    def vector(self) -> Floats:
        """What is added over the banks: the constant is solved for first."""
        slope, lead, cross = self.constant
        gradient, curvature = self.gradient, self.curvature
        if lead > 0:
            gradient = gradient - cross * (slope / lead)
            curvature = curvature - np.outer(cross, cross) / lead
        return np.concatenate([[self.value], gradient, upper_half(curvature)])

    def split(self, total: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and curvature of all banks."""
        size = len(self.gradient)
        return float(total[0]), total[1 : size + 1], joined_matrix(total[size + 1 :], size)

    def constant_after(self, change: Floats) -> float:
        """Change of the own constant that goes with one of the weights."""
        slope, lead, cross = self.constant
        return float((slope - cross @ change) / lead) if lead > 0 else 0.0


class _Search:
    """Combinations of known totals; with an own constant, or a common one as the first weight."""

    def __init__(self, known: list[Floats], totals: list[Floats], good: Floats, *, own: bool) -> None:
        self._good, self._own = good, own
        points, rows = np.column_stack(known), np.column_stack(totals)
        if not own:
            constant = np.zeros((len(points), 1))
            constant[0] = 1.0
            points, rows = np.hstack([constant, points]), np.hstack([np.ones((len(rows), 1)), rows])
        self._points, self._rows = points, rows

    @property
    def slopes(self) -> Floats:
        """float64 (k, weights), coefficients that each weight multiplies."""
        return np.asarray(self._points[1:])

    @property
    def newest(self) -> Floats:
        """The weights of the newest point."""
        weights = np.zeros(self._rows.shape[1])
        weights[-1] = 1.0
        return weights

    def total(self, weights: Floats, constant: float) -> Floats:
        """float64 (n,), log-odds."""
        return np.asarray(self._rows @ weights + constant)

    def point(self, weights: Floats, constant: float) -> Floats:
        """float64 (k + 1,)."""
        point = np.asarray(self._points @ weights)
        point[0] += constant
        return point

    def evaluate(self, weights: Floats, constant: float) -> _Seen:
        """Likelihood, gradient, curvature."""
        total = self.total(weights, constant)
        value = -float(np.logaddexp(0.0, np.where(self._good > 0, -total, total)).sum())
        p = np.exp(-np.logaddexp(0.0, -total))
        residual, w = self._good - p, p * (1 - p)
        curvature = (self._rows * w[:, None]).T @ self._rows
        cross = self._rows.T @ w
        solved = (float(residual.sum()), float(w.sum()), cross) if self._own else (0.0, 0.0, cross)
        return _Seen(value, self._rows.T @ residual, curvature, solved)
