"""A feature holder reads labels from the bins that were returned to it.

A WOE value with the class totals says how many bads a bin has (to within its rounding); the owner knows which rows are
in it. Over all returned bins that is a linear system in the labels, each between 0 and 1.

Source: Dinur & Nissim (PODS 2003) for the relaxation and rounding; Beck &
Teboulle, SIAM J. Imaging Sciences 2 (2009), for the accelerated projected gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError
from fedcredit.kernels.woe import WOE_UNIT

__all__ = ["LabelRecovery", "ReturnedFeature", "bads_of_woe", "labels_from_returned_woe", "measure_labels"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ROUNDS = 60  # of the bisection: a WOE falls strictly with the bads
_STEPS = 2000


@dataclass(frozen=True)
class ReturnedFeature:
    """One feature as its owner has it after the selection.

    Args:
        codes: (n,), merged bin of each training row.
        woe_units: (bins,), WOE in steps of 0.05, not rounded where the attack is told so.
    """

    codes: NDArray[np.integer]
    woe_units: NDArray[np.number]


@dataclass(frozen=True)
class LabelRecovery:
    """How well the rows named as defaulters are defaulters; as many are named as there are.

    Args:
        recall: Share of defaulters found (equal to the precision, as equally many are named).
        model: The same for the rows with the lowest sum of WOE: what the model itself says.
        chance: Share of defaulters among all rows.
        bins: Number of bins returned.
    """

    recall: float
    model: float
    chance: float
    bins: int


def bads_of_woe(rows: Floats, woe: Floats, goods: int, bads: int, smoothing: float) -> Floats:
    """Number of bads that a bin of so many rows must have for its WOE; real numbers, same shape as ``rows``."""
    low, high = np.zeros_like(rows), rows.copy()
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        good_share = (rows - middle + smoothing) / (goods + smoothing)
        bad_share = (middle + smoothing) / (bads + smoothing)
        safer = np.log(np.maximum(good_share, 1e-300)) - np.log(np.maximum(bad_share, 1e-300)) > woe
        low, high = np.where(safer, middle, low), np.where(safer, high, middle)
    return np.asarray((low + high) / 2, dtype=np.float64)


def labels_from_returned_woe(
    features: Sequence[ReturnedFeature], goods: int, bads: int, smoothing: float, *, rounded: bool = True
) -> Floats:
    """Likelihood of default of each row, in [0, 1], from the bins returned and nothing else.

    Args:
        features: Returned features, same rows in each.
        goods: Goods among the rows, as the label holder signed them.
        bads: Bads among them.
        smoothing: Smoothing of the WOE, from the spec.
        rounded: WOE were rounded to whole units; equations are weighted by what the rounding leaves open.

    Raises:
        BoundError: no feature was returned.
    """
    if not features:
        raise BoundError("attack.returned", "no feature was returned to this holder")
    blocks, targets, weights = [], [], []
    for feature in features:
        count = len(feature.woe_units)
        member = (feature.codes[None, :] == np.arange(count)[:, None]).astype(np.float64)
        rows = member.sum(axis=1)
        woe: Floats = feature.woe_units.astype(np.float64) * WOE_UNIT
        half = WOE_UNIT / 2 if rounded else 0.0
        spread = bads_of_woe(rows, woe - half, goods, bads, smoothing)
        spread = spread - bads_of_woe(rows, woe + half, goods, bads, smoothing)
        blocks.append(member)
        targets.append(bads_of_woe(rows, woe, goods, bads, smoothing))
        weights.append(1.0 / np.sqrt(1.0 + spread**2))
    n = blocks[0].shape[1]
    matrix = np.concatenate([*blocks, np.ones((1, n))])
    target = np.concatenate([*targets, [float(bads)]])
    weight = np.concatenate([*weights, [1.0]])
    return _in_the_box(matrix * weight[:, None], target * weight, bads / n)


def measure_labels(guess: Floats, bad: Bools, features: Sequence[ReturnedFeature]) -> LabelRecovery:
    """Names as many rows as there are defaulters, and counts."""
    named = int(bad.sum())
    score = -sum(np.asarray(feature.woe_units)[feature.codes] for feature in features)

    def share(values: Floats) -> float:
        order = np.argsort(-values, kind="stable")[:named]
        return float(bad[order].mean())

    bins = sum(len(feature.woe_units) for feature in features)
    model = np.asarray(score, dtype=np.float64)
    return LabelRecovery(share(guess + 1e-9 * model), share(model), float(bad.mean()), bins)


def _in_the_box(matrix: Floats, target: Floats, start: float) -> Floats:
    """Least squares over [0, 1]^n by accelerated projected gradient."""
    step = 1.0 / max(float(np.linalg.norm(matrix @ matrix.T, 2)), 1e-300)
    point = np.full(matrix.shape[1], start)
    ahead, momentum = point, 1.0
    for _ in range(_STEPS):
        following = np.clip(ahead - step * (matrix.T @ (matrix @ ahead - target)), 0.0, 1.0)
        faster = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = following + (momentum - 1.0) / faster * (following - point)
        point, momentum = following, faster
    return np.asarray(point, dtype=np.float64)
