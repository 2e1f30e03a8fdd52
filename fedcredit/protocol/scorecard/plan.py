"""What a scorecard run asks for and what it costs: both sides derive it from the spec and the selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from fedcredit.crypto.packing import Field
from fedcredit.kernels.woe import WOE_LIMIT_UNITS
from fedcredit.protocol.group_sum.session import Conversation, Session
from fedcredit.spec.model import ScorecardSection
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Cost, CostKind

__all__ = [
    "BITS_PER_TOTAL",
    "FIT_UNIT",
    "MAX_COEFFICIENT",
    "TOTAL_BOUND",
    "WEIGHT_UNIT",
    "FitPlan",
    "column_costs",
    "pairs",
    "plan_fit",
]

_RESIDUAL_UNIT, _MLE_RESIDUAL_UNIT = 1 << 14, 1 << 20
"""Residuals are rounded to 2^-14, so that they share a vector with the weights; ``mle`` goes to the optimum and rounds
to 2^-20."""

WEIGHT_UNIT = 1 << 10
"""Weights p(1-p) are rounded to 2^-10; they enter the step's matrix, never the gradient."""

FIT_UNIT = 1 << 20
"""Totals of a fit are integers in units of 2^-20 logits before a holder's noise and rounding."""

TOTAL_BOUND = 1 << 30
"""Largest absolute total of a row: 1,000 logits in a fit, a thousand million points in scoring."""

BITS_PER_TOTAL = 12.0
"""Bits a total discloses at most, in a fit by its rounding, in scoring by integer points; three make a row's cap.

A holder refuses tables that would disclose more.
"""

_BITS_PER_FIT_TOTAL = 6.0
"""Declared for each total of a fit: a range of 32 logits a holder at steps of 1/2, several times what is needed."""

MAX_COEFFICIENT = 10.0
"""Largest coefficient on WOE whose tables a holder adds up: near 1 in a finished fit, a few in its first round."""

_BITS_PER_FINE_TOTAL = 40.0
"""Declared where steps are finer than 1/16 logit, beyond any cap that is enforced: such totals give the bins."""

_MLE_TOTALS = 6


@dataclass(frozen=True)
class FitPlan:
    """How a fit spends.

    Args:
        rounds: Totals per training row, each followed by one batch of (residual, weight) sums.
        bits_per_total: Bits one total may disclose about a row.
        noise_units: Standard deviation of a holder's noise on each total, in units; 0 = none.
        score_unit: Points that make one logit, in scoring.
        residual_unit: Residuals are integers; this many make one.
        step_units: A holder rounds its partial to multiples of this, at random; 1 = not at all.
    """

    rounds: int
    bits_per_total: float
    noise_units: float
    step_units: int
    residual_unit: int
    score_unit: float

    @property
    def step_fields(self) -> tuple[Field, Field]:
        """Residual and weight of one batch of the fit."""
        return Field(self.residual_unit), Field(WEIGHT_UNIT // 4)

    def bins(self, session: Session, rows: int, own_columns: int) -> Conversation:
        """Sums by merged bin: the label holder's own columns, then a batch a round."""
        own = ((Field(WOE_LIMIT_UNITS),) * own_columns,) if own_columns else ()
        batches = own + (self.step_fields,) * self.rounds
        return Conversation(session, "scorecard/bins", batches, rows)

    @staticmethod
    def products(session: Session, rows: int) -> Conversation:
        """Sums of products of two columns of one holder."""
        return Conversation(session, "scorecard/products", ((Field(1),),), rows, WOE_LIMIT_UNITS**2)

    @staticmethod
    def cross(session: Session, rows: int, asker: PartyId, answerer: PartyId, columns: int) -> Conversation:
        """Sums of products of one holder's columns with another's."""
        purpose = f"scorecard/products/{asker}/{answerer}"
        return Conversation(session, purpose, ((Field(WOE_LIMIT_UNITS),) * columns,), rows, WOE_LIMIT_UNITS)


def plan_fit(rules: ScorecardSection) -> FitPlan:
    """The plan of section ``[scorecard]``."""
    rounds = {"moments": 0, "one-step": rules.max_totals, "mle": _MLE_TOTALS}[rules.fit]
    step = max(1, round(rules.total_step * FIT_UNIT))
    coarse = 16 * step >= FIT_UNIT
    return FitPlan(
        rounds=rounds,
        bits_per_total=_BITS_PER_FIT_TOTAL if coarse else _BITS_PER_FINE_TOTAL,
        noise_units=rules.total_noise * FIT_UNIT,
        step_units=step,
        residual_unit=_MLE_RESIDUAL_UNIT if rules.fit == "mle" else _RESIDUAL_UNIT,
        score_unit=rules.pdo / math.log(2.0),
    )


def column_costs(
    plan: FitPlan, names: Sequence[str], own_columns: int, others: int, *, hidden: bool = False
) -> tuple[Cost, ...]:
    """What a holder of the columns ``names`` discloses in a whole fit and its scoring.

    Args:
        plan: The fit.
        names: Ledger names of the holder's candidates.
        own_columns: Candidates of the label holder.
        others: Candidates of all other feature holders.
        hidden: Whether the holder does not know the split, so that every row may be trained on and scored.
    """
    equations = own_columns + len(names) - 1 + others + len(plan.step_fields) * plan.rounds
    costs = [Cost(CostKind.EQUATIONS, name, equations) for name in names]
    fit = plan.rounds * plan.bits_per_total
    bits = fit + BITS_PER_TOTAL if hidden else max(fit, BITS_PER_TOTAL)  # a row is trained on or scored, never both
    return (*costs, Cost(CostKind.ROW_BITS, "", bits))


def pairs(columns: int) -> list[tuple[int, int]]:
    """All pairs of different columns, in the order of their products."""
    return list(combinations(range(columns), 2))
