"""Reasons for single rows, and which of them are given most often where the risk is highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcredit.report.tables import Floats, Predictions, Reasons
from fedcredit.report.tree_names import TreeNames
from fedcredit.runtime.boost.files import PartFeature

__all__ = ["MOST", "Example", "Frequent", "Given", "Told", "examples", "frequent", "shares"]

_GROUPS: Final = 10
MOST: Final = 12
"""Features in the table of frequent reasons; the run's file has all."""


@dataclass(frozen=True)
class Frequent:
    """How often a feature is a reason: shares of the rows of the riskiest tenth, and of all held-out rows.

    Args:
        named: Share of the riskiest rows that name it.
        first: Share of them that name it first.
        everywhere: Share of all rows that name it.
        contribution: Mean log-odds of default where the riskiest rows name it.
    """

    owner: str
    name: str
    own: bool
    named: float
    first: float
    everywhere: float
    contribution: float

    @property
    def odds(self) -> float:
        """Factor that the mean contribution is on the odds of default."""
        return float(np.exp(self.contribution))


@dataclass(frozen=True)
class Given:
    """One reason of one row."""

    owner: str
    name: str
    own: bool
    contribution: float

    @property
    def odds(self) -> float:
        """Factor on the row's odds of default."""
        return float(np.exp(self.contribution))


@dataclass(frozen=True)
class Example:
    """One held-out row with its reasons."""

    place: str
    id: str
    score: float
    probability: float
    bad: bool
    reasons: list[Given]


@dataclass(frozen=True)
class Told:
    """Features of the model with the reasons that name them."""

    features: Sequence[PartFeature]
    names: TreeNames
    reasons: Reasons


def shares(told: Told, rows: int) -> Floats:
    """Share of the rows that name each feature as a reason."""
    return np.bincount(told.reasons.feature, minlength=len(told.features)) / rows


def frequent(told: Told, held_out: Predictions) -> tuple[int, list[Frequent]]:
    """The reasons of the riskiest tenth of the rows: how many rows these are, and the features most often named.

    Rows of equal risk are taken in the order of the predictions.
    """
    rows = held_out.bad.size
    riskiest = max(1, round(rows / _GROUPS))
    chosen = np.zeros(rows, dtype=np.bool_)
    chosen[np.argsort(-held_out.risk, kind="stable")[:riskiest]] = True
    reasons, size = told.reasons, len(told.features)
    here = chosen[reasons.row]
    named = np.bincount(reasons.feature[here], minlength=size)
    first = np.bincount(reasons.feature[here & (reasons.rank == 1)], minlength=size)
    total = np.bincount(reasons.feature[here], weights=reasons.contribution[here], minlength=size)
    everywhere = shares(told, rows)
    found = [
        Frequent(
            owner=feature.owner,
            name=told.names.short(feature),
            own=told.names.own(feature),
            named=float(named[place] / riskiest),
            first=float(first[place] / riskiest),
            everywhere=float(everywhere[place]),
            contribution=float(total[place] / named[place]),
        )
        for place, feature in enumerate(told.features)
        if named[place]
    ]
    return riskiest, sorted(found, key=lambda one: (-one.named, -one.first, one.owner, one.name))[:MOST]


def examples(told: Told, held_out: Predictions, ids: Sequence[str]) -> list[Example]:
    """The riskiest row, the middle one and the safest one; of equal rows the first."""
    order = np.argsort(-held_out.risk, kind="stable")
    middle = int(order.size // 2)
    return [
        _example(told, held_out, ids, (place, int(row)))
        for place, row in (("Highest risk", order[0]), ("Middle", order[middle]), ("Lowest risk", order[-1]))
    ]


def _example(told: Told, held_out: Predictions, ids: Sequence[str], at: tuple[str, int]) -> Example:
    place, row = at
    own = np.flatnonzero(told.reasons.row == row)
    own = own[np.argsort(told.reasons.rank[own], kind="stable")]
    given = []
    for reason in own.tolist():
        feature, contribution = told.features[told.reasons.feature[reason]], float(told.reasons.contribution[reason])
        name = told.names.short(feature)
        given.append(Given(feature.owner, name, told.names.own(feature), contribution))
    bad = bool(held_out.bad[row])
    return Example(place, ids[row], float(held_out.score[row]), float(held_out.probability[row]), bad, given)
