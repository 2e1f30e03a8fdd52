"""All attacks on the bins of a boosting run's feature holders, and how much each finds against what chance would.

Chance has two levels, and both are stated: one over the number of bins, for a feature of which no split was disclosed;
and one over the bins that disclosed splits leave a row, which every party of the run has agreed to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.attack.boost_view import BoostView
from fedcredit.attack.membership import Equations, least_squares, one_hot, start_from
from fedcredit.attack.posterior import Sweeps, posterior
from fedcredit.attack.recorder import Recording, recording
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.errors import BoundError
from fedcredit.protocol.boost.feature_holder import HolderTrees
from fedcredit.protocol.boost.plan import plan_boost
from fedcredit.protocol.boost.roles import BoostResult
from fedcredit.types import PartyId

__all__ = ["BoostRecovery", "Found", "PlayedBoost", "attacks", "play_boost", "recover", "together"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Feature = tuple[PartyId, str]

Attack = Callable[[Equations], Floats]
"""From what is known of a feature to a weight of each bin for each row, float64 (n, B)."""

_EDGE = 0.99  # rows beyond this quantile of leverage are looked at on their own


@dataclass(frozen=True, eq=False)
class PlayedBoost:
    """A boosting run, what its label holder can compute with, and the truth at the holders.

    Rows are those that are not held out.

    Args:
        view: What the label holder knows.
        notes: All that was sent and received.
        result: What the label holder ended with.
        held: What each feature holder ended with.
        bad: bool (n,).
        truth: For each feature (n,), true bins.
    """

    view: BoostView
    notes: Recording
    result: BoostResult
    held: Mapping[PartyId, HolderTrees]
    bad: Bools
    truth: Mapping[Feature, NDArray[np.int32]]

    @property
    def unsplit(self) -> list[Feature]:
        """Features that were asked about and of which no split was disclosed: sums alone can tell their bins."""
        return [one for one in self.view.features if not self.view.disclosed(one) and self.view.asked(one)]

    @property
    def split(self) -> list[Feature]:
        """Features with a disclosed split."""
        return [one for one in self.view.features if self.view.disclosed(one)]


@dataclass(frozen=True)
class BoostRecovery:
    """How much of one feature one attack found; shares of rows.

    Args:
        everyone: Of all rows.
        defaulters: Of the defaulters.
        edge: Of the one row in a hundred with the largest leverage in the equations.
        chance: One over the bins that disclosed splits leave a row: mean over all rows.
        chance_defaulters: The same over defaulters.
        equations: Number of equations.
    """

    everyone: float
    defaulters: float
    edge: float
    chance: float
    chance_defaulters: float
    equations: int


@dataclass(frozen=True)
class Found:
    """Several features together.

    Args:
        features: How many.
        equations: Largest number of equations about one.
        everyone: Rows found in multiples of chance, mean over the features.
        defaulters: Defaulters found in multiples of chance, mean over the features.
        worst: Defaulters found of the feature where most were found, in multiples of chance: the largest of several
            noisy figures.
        edge: Rows of largest leverage, in multiples of chance.
        right: Share of defaulters' bins that were right.
        chance: Share that chance would find.
    """

    features: int
    equations: int
    everyone: float
    defaulters: float
    worst: float
    edge: float
    right: float
    chance: float


def play_boost(rehearsal: Rehearsal) -> PlayedBoost:
    """Runs the real roles and records what the label holder receives.

    Raises:
        BoundError: the spec's model is not boosting.
        FedCreditError: of the role that failed first.
    """
    spec = rehearsal.loaded.spec
    if spec.run.model != "boost":
        raise BoundError("attack.model", f"run.model is {spec.run.model!r}; this attack is on boost")
    with recording() as notes:
        results = rehearsal.play()
    leader, plan = spec.label_holder.name, plan_boost(spec)
    result: BoostResult = results[leader]
    rows = result.index.train
    held = {party.name: results[party.name][1] for party in spec.feature_holders}
    truth = {(party, own.shape.code): own.codes[rows] for party, trees in held.items() for own in trees.own}
    return PlayedBoost(BoostView(notes, leader, plan.noise_sd), notes, result, held, result.bad[rows], truth)


def attacks(bad: Bools, *, noisy: bool, sweeps: Sweeps | None = None) -> dict[str, Attack]:
    """Every attack there is, by name.

    Args:
        bad: bool (n,): rows of one class may have other shares of bins than those of the other.
        noisy: The sums carry noise: they are sampled as well.
        sweeps: How long to sample.
    """
    found: dict[str, Attack] = {"least squares": least_squares, "one-hot": lambda known: one_hot(known, steps=150)}
    if noisy:
        found["posterior"] = lambda known: posterior(known, bad, sweeps=sweeps)
    return found


def recover(known: Equations, truth: NDArray[np.integer], bad: Bools, attack: Attack) -> BoostRecovery:
    """Runs one attack on one feature and compares with the truth.

    Raises:
        BoundError: nothing is known of the feature, or no row is a defaulter.
    """
    if not len(known.vectors) or not bad.any():
        raise BoundError("attack.nothing", "no equation about this feature, or no defaulter")
    guess = attack(known)
    right = guess.argmax(axis=1) == truth
    chance = start_from(known, None).max(axis=1)
    leverage = _leverage(known)
    edge = leverage >= np.quantile(leverage, _EDGE)
    return BoostRecovery(
        float(right.mean()),
        float(right[bad].mean()),
        float(right[edge].mean()),
        float(chance.mean()),
        float(chance[bad].mean()),
        len(known.vectors),
    )


def together(found: Sequence[BoostRecovery]) -> Found:
    """Means over several features.

    Raises:
        BoundError: there is none.
    """
    if not found:
        raise BoundError("attack.nothing", "no feature to put together")

    def times(values: Sequence[float]) -> float:
        return float(np.mean([value / one.chance for value, one in zip(values, found, strict=True)]))

    bads = [one.defaulters / one.chance_defaulters for one in found]
    return Found(
        len(found),
        max(one.equations for one in found),
        times([one.everyone for one in found]),
        float(np.mean(bads)),
        max(bads),
        times([one.edge for one in found]),
        float(np.mean([one.defaulters for one in found])),
        float(np.mean([one.chance_defaulters for one in found])),
    )


def _leverage(known: Equations) -> Floats:
    """How much the equations see of each row; float64 (n,)."""
    scale = 1.0 if known.noise is None else known.noise[:, None]
    strength: Floats = ((known.vectors / scale) ** 2).sum(axis=0)
    return strength
