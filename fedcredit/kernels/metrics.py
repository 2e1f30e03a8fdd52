"""Measures of a risk score against what happened. y = 1 is a bad; a higher score is riskier.

Rows of equal score are never told apart: no result depends on the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.stability import population_stability

__all__ = [
    "CalibrationCurve",
    "GainTable",
    "RocCurve",
    "auc",
    "auc_fraction",
    "brier",
    "calibration_curve",
    "ece",
    "gain_table",
    "gini",
    "ks",
    "log_loss",
    "population_stability",
    "roc_curve",
]

_CLIP: Final = 1e-15  # log_loss never sees ln 0; the same floor in double precision as customary elsewhere

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Points of the ROC curve, one for each distinct score and the origin.

    Args:
        false_positive_rate: float64 (points,), share of goods at or above the threshold, 0 to 1.
        true_positive_rate: float64 (points,), share of bads at or above the threshold, 0 to 1.
        thresholds: float64 (points,), falling, the first is +inf.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    thresholds: Floats


@dataclass(frozen=True, eq=False)
class GainTable:
    """Groups of equal size from the riskiest to the safest; every column has one entry a group.

    Args:
        rows: int64, rows in the group.
        bads: int64, bads in the group.
        bad_rate: float64, bads over rows.
        cumulative_bad_share: float64, share of all bads in this and riskier groups; the last is 1.
        lift: float64, bad_rate over the overall bad rate.
        cumulative_lift: float64, the same for this and riskier groups together; the last is 1.
        ks: float64, cumulative share of bads less that of goods.
    """

    rows: Ints
    bads: Ints
    bad_rate: Floats
    cumulative_bad_share: Floats
    lift: Floats
    cumulative_lift: Floats
    ks: Floats


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Groups of equal size by rising probability; every column has one entry a group.

    Args:
        rows: int64, rows in the group.
        bads: int64, bads in the group.
        mean_probability: float64, mean predicted probability of bad.
        bad_rate: float64, share of bads that came.
    """

    rows: Ints
    bads: Ints
    mean_probability: Floats
    bad_rate: Floats


def _checked(y: ArrayLike, risk: ArrayLike) -> tuple[Ints, Floats]:
    labels, values = np.asarray(y), np.asarray(risk, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != values.shape or labels.size == 0:
        raise DataError("kernels.metric-shape", f"y {labels.shape} and score {values.shape} must be equal vectors")
    if not np.isin(labels, (0, 1)).all():
        raise DataError("kernels.metric-label", "y has a value other than 0 (good) and 1 (bad)")
    if np.isnan(values).any():
        raise DataError("kernels.metric-score", "a score is not a number; every row needs one")
    return labels.astype(np.int64), values


def _both_classes(y: Ints) -> None:
    bads = int(y.sum())
    if bads in (0, y.size):
        raise DataError("kernels.metric-class", f"{bads} bads in {y.size} rows; the measure needs goods and bads")


def _probabilities(y: ArrayLike, probability: ArrayLike) -> tuple[Ints, Floats]:
    labels, values = _checked(y, probability)
    if float(values.min()) < 0.0 or float(values.max()) > 1.0:
        raise DataError(
            "kernels.metric-probability", "a probability lies outside [0, 1]; give no points or logits here"
        )
    return labels, values


def _by_value(y: Ints, risk: Floats) -> tuple[Floats, Ints, Ints]:
    """Distinct scores rising, and goods and bads at each."""
    order = np.argsort(risk)  # ties are pooled below, so their order does not matter
    sorted_risk, sorted_y = risk[order], y[order]
    starts = np.flatnonzero(np.concatenate(([True], sorted_risk[1:] != sorted_risk[:-1])))
    bads = np.add.reduceat(sorted_y, starts)
    rows = np.diff(np.append(starts, y.size))
    return sorted_risk[starts], rows - bads, bads


def _group_of_value(rows: Ints, groups: int) -> Ints:
    """Equal-frequency group of each distinct value, 0..groups-1, from the number of rows at each value.

    A value goes where the middle of its rows falls; ties stay together, so a group may be larger or stay empty.
    """
    if groups < 1:
        raise DataError("kernels.metric-groups", f"{groups} groups; at least 1 is needed")
    before = np.cumsum(rows) - rows
    group: Ints = groups * (2 * before + rows) // (2 * int(rows.sum()))
    return group


def auc_fraction(y: ArrayLike, risk: ArrayLike) -> tuple[int, int]:
    """AUC as an exact fraction: twice the ordered (bad, good) pairs, ties one, over twice all pairs.

    Args:
        y: 0/1 (n,), both present.
        risk: (n,), higher is riskier; infinities are allowed.

    Returns:
        Numerator and denominator, Python integers; the denominator is 2 x bads x goods and not reduced.

    Raises:
        DataError: Shapes differ, y is not 0/1 or has one class only, or a score is NaN.

    Source: Mann & Whitney (1947); Hanley & McNeil, Radiology 143 (1982).
    """
    labels, values = _checked(y, risk)
    _both_classes(labels)
    _, goods, bads = _by_value(labels, values)
    goods_below = np.cumsum(goods) - goods
    # Each product is at most n^2 / 2 and so is their sum: int64 holds it up to n = 4e9.
    return int((bads * (2 * goods_below + goods)).sum()), 2 * int(goods.sum()) * int(bads.sum())


def auc(y: ArrayLike, risk: ArrayLike) -> float:
    """Area under the ROC curve, the chance that a bad scores above a good, ties half; [0, 1].

    The float nearest to :func:`auc_fraction`.

    Args:
        y: 0/1 (n,), both present.
        risk: (n,), higher is riskier.

    Raises:
        DataError: Shapes differ, y is not 0/1 or has one class only, or a score is NaN.
    """
    numerator, denominator = auc_fraction(y, risk)
    return numerator / denominator


def gini(y: ArrayLike, risk: ArrayLike) -> float:
    """Gini coefficient (accuracy ratio), 2 AUC - 1; [-1, 1].

    Args:
        y: 0/1 (n,), both present.
        risk: (n,), higher is riskier.

    Raises:
        DataError: As :func:`auc_fraction`.
    """
    numerator, denominator = auc_fraction(y, risk)
    return (2 * numerator - denominator) / denominator


def roc_curve(y: ArrayLike, risk: ArrayLike) -> RocCurve:
    """ROC curve with a point for every distinct score.

    Args:
        y: 0/1 (n,), both present.
        risk: (n,), higher is riskier.

    Raises:
        DataError: As :func:`auc_fraction`.
    """
    labels, values = _checked(y, risk)
    _both_classes(labels)
    distinct, goods, bads = _by_value(labels, values)
    return RocCurve(
        np.concatenate(([0.0], np.cumsum(goods[::-1]) / int(goods.sum()))),
        np.concatenate(([0.0], np.cumsum(bads[::-1]) / int(bads.sum()))),
        np.concatenate(([np.inf], distinct[::-1])),
    )


def ks(y: ArrayLike, risk: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance of the scores of bads and of goods, [0, 1].

    The largest gap between the two distribution functions over *all* scores, from integer counts.

    Args:
        y: 0/1 (n,), both present.
        risk: (n,).

    Raises:
        DataError: As :func:`auc_fraction`.

    Source: Smirnov (1939); Press et al., Numerical Recipes, section 14.3.
    """
    labels, values = _checked(y, risk)
    _both_classes(labels)
    _, goods, bads = _by_value(labels, values)
    all_goods, all_bads = int(goods.sum()), int(bads.sum())
    gap = int(np.abs(np.cumsum(bads) * all_goods - np.cumsum(goods) * all_bads).max())
    return gap / (all_goods * all_bads)


def brier(y: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared error of the probability of bad, [0, 1]; lower is better.

    Args:
        y: 0/1 (n,).
        probability: (n,) in [0, 1].

    Raises:
        DataError: Shapes differ, y is not 0/1, or a probability is outside [0, 1].

    Source: Brier, Monthly Weather Review 78 (1950), for two classes.
    """
    labels, values = _probabilities(y, probability)
    return float(np.mean((values - labels) ** 2))


def log_loss(y: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities are clipped to [1e-15, 1 - 1e-15].

    Args:
        y: 0/1 (n,).
        probability: (n,) in [0, 1].

    Raises:
        DataError: Shapes differ, y is not 0/1, or a probability is outside [0, 1].
    """
    labels, values = _probabilities(y, probability)
    values = np.clip(values, _CLIP, 1.0 - _CLIP)
    return float(-np.mean(np.where(labels == 1, np.log(values), np.log1p(-values))))


def calibration_curve(y: ArrayLike, probability: ArrayLike, groups: int = 10) -> CalibrationCurve:
    """Predicted against observed share of bads in groups of equal size.

    Rows are ordered by probability; equal probabilities stay in one group (the one where the middle of their rows
    falls), and groups left empty by such ties are left out.

    Args:
        y: 0/1 (n,).
        probability: (n,) in [0, 1].
        groups: Most groups, >= 1.

    Raises:
        DataError: Shapes differ, y is not 0/1, a probability is outside [0, 1], or groups < 1.
    """
    labels, values = _probabilities(y, probability)
    distinct, goods, bads = _by_value(labels, values)
    group = _group_of_value(goods + bads, groups)
    _, starts = np.unique(group, return_index=True)
    rows_in = np.add.reduceat(goods + bads, starts)
    bads_in = np.add.reduceat(bads, starts)
    mean = np.add.reduceat(distinct * (goods + bads), starts) / rows_in
    return CalibrationCurve(rows_in, bads_in, mean, bads_in / rows_in)


def ece(y: ArrayLike, probability: ArrayLike, groups: int = 10) -> float:
    """Expected calibration error over equal-frequency groups: row-weighted mean of |bad rate - mean probability|.

    Args:
        y: 0/1 (n,).
        probability: (n,) in [0, 1].
        groups: Most groups, >= 1; grouping as in :func:`calibration_curve`.

    Raises:
        DataError: As :func:`calibration_curve`.

    Source: Naeini et al., AAAI 2015; with equal-frequency bins, Nixon et al., CVPR workshops 2019 ("ACE").
    """
    curve = calibration_curve(y, probability, groups)
    gaps = np.abs(curve.bad_rate - curve.mean_probability)
    return float((gaps * curve.rows).sum() / int(curve.rows.sum()))


def gain_table(y: ArrayLike, risk: ArrayLike, groups: int = 10) -> GainTable:
    """Gains and lift over groups of equal size, riskiest first.

    Equal scores stay in one group, so there may be fewer groups than asked for.

    Args:
        y: 0/1 (n,), both present.
        risk: (n,), higher is riskier.
        groups: Most groups, >= 1.

    Raises:
        DataError: As :func:`auc_fraction`, or groups < 1.

    Source: Siddiqi, "Credit Risk Scorecards" (2006), ch. 6.
    """
    labels, values = _checked(y, risk)
    _both_classes(labels)
    _, goods, bads = _by_value(labels, -values)
    _, starts = np.unique(_group_of_value(goods + bads, groups), return_index=True)
    rows_in = np.add.reduceat(goods + bads, starts)
    bads_in = np.add.reduceat(bads, starts)
    upto_rows, upto_bads = np.cumsum(rows_in), np.cumsum(bads_in)
    all_rows, all_bads = int(upto_rows[-1]), int(upto_bads[-1])
    overall = all_bads / all_rows
    return GainTable(
        rows=rows_in,
        bads=bads_in,
        bad_rate=bads_in / rows_in,
        cumulative_bad_share=upto_bads / all_bads,
        lift=bads_in / rows_in / overall,
        cumulative_lift=upto_bads / upto_rows / overall,
        ks=upto_bads / all_bads - (upto_rows - upto_bads) / (all_rows - all_bads),
    )
