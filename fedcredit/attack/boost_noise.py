"""What noise is worth: several runs together, one noise used twice, and averages over vectors that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.attack.boost_attack import PlayedBoost
from fedcredit.attack.boost_view import BoostView
from fedcredit.attack.membership import Equations
from fedcredit.errors import BoundError
from fedcredit.types import PartyId

__all__ = ["Column", "differences", "noise_left", "pool_runs"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Column:
    """What several runs together tell of one column.

    Args:
        known: All equations, over all common rows; rows that a run holds out are zeros in its vectors.
        truth: (n,), true bins, as the first run cut them.
        bad: bool (n,).
        disclosed: Splits disclosed in all runs.
    """

    known: Equations
    truth: NDArray[np.int32]
    bad: Bools
    disclosed: int


def pool_runs(runs: Sequence[PlayedBoost]) -> dict[tuple[PartyId, str], Column]:
    """Equations of several runs over the same common rows, by holder and column; disclosed splits are not used.

    The attacker is given which code of one run is which of another. Runs with other rows to train on may have cut a
    column a little differently; that is left as an error of the attack, as it is for the label holder.

    Raises:
        BoundError: no run, or the runs are about other rows.
    """
    if not runs or any(set(one.result.index.ids) != set(runs[0].result.index.ids) for one in runs):
        raise BoundError("attack.runs", "runs over the same common rows are needed")
    found = {}
    for party, trees in runs[0].held.items():
        for own in trees.own:
            parts = []
            splits = 0
            for run in runs:
                code = next(other.shape.code for other in run.held[party].own if other.name == own.name)
                parts.append(_over_all_rows(run, (party, code)))
                splits += run.view.disclosed((party, code))
            if len({part.bins for part in parts}) == 1:
                found[party, own.name] = Column(_joined(parts), own.codes[_order(runs[0])], _bads(runs[0]), splits)
    return found


def differences(first: BoostView, second: BoostView, feature: tuple[PartyId, str]) -> Equations:
    """Exact equations from two runs in which a holder used the same noise: slot by slot, the noise cancels.

    Raises:
        BoundError: no slot in which the two runs differ was answered in both.
    """
    before, after = first.answers(feature), second.answers(feature)
    pairs = [(before[at], after[at]) for at in before.keys() & after.keys()]
    apart = [(one[0] - two[0], one[1] - two[1]) for one, two in pairs if (one[0] != two[0]).any()]
    if not apart:
        raise BoundError("attack.differences", "the two runs do not differ where both were answered")
    return Equations(np.array([vector for vector, _ in apart]), np.array([sums for _, sums in apart]))


def noise_left(known: Equations, use: Sequence[int], vector: Ints, unit: float) -> float:
    """Standard deviation, in rows, of the error that is left in a vector's sum over one bin.

    Best linear estimate from some of the equations, each row being in each bin alike: with none of them it is how far
    such a sum is from its mean, with one and a large sum it is that equation's noise.

    Args:
        known: Equations with noise.
        use: Which of them.
        vector: int64 (n,), whose sum is wanted.
        unit: Value of a row of maximal gradient.

    Raises:
        BoundError: the equations carry no noise.
    """
    if known.noise is None:
        raise BoundError("attack.noise", "equations without noise leave none")
    spread = (1.0 / known.bins) * (1.0 - 1.0 / known.bins)
    chosen = known.vectors[list(use)].astype(np.float64)
    wanted = vector.astype(np.float64)
    across = spread * chosen @ wanted
    seen = spread * chosen @ chosen.T + np.diag(known.noise[list(use)] ** 2)
    left = spread * float(wanted @ wanted) - float(across @ np.linalg.solve(seen, across))
    return float(np.sqrt(max(left, 0.0))) / unit


def _order(run: PlayedBoost) -> Ints:
    """Places of the common rows in the order of their names, which is the same in every run."""
    return np.argsort(np.array(run.result.index.ids), kind="stable")


def _bads(run: PlayedBoost) -> Bools:
    bads: Bools = run.result.bad[_order(run)]
    return bads


def _over_all_rows(run: PlayedBoost, feature: tuple[PartyId, str]) -> Equations:
    known = run.view.equations(feature)
    every = np.zeros((len(known.vectors), len(run.result.bad)), np.int64)
    every[:, run.result.index.train] = known.vectors
    return Equations(every[:, _order(run)], known.sums, known.noise)


def _joined(parts: Sequence[Equations]) -> Equations:
    noises = [one.noise for one in parts if one.noise is not None]
    told = [one for one in parts if len(one.vectors)]
    if noises and len(noises) != len(told):
        raise BoundError("attack.runs", "runs with noise and runs without are not put together")
    vectors, sums = np.concatenate([one.vectors for one in parts]), np.concatenate([one.sums for one in parts])
    return Equations(vectors, sums, np.concatenate(noises) if noises else None)
