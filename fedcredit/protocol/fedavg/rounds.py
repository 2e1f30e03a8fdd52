"""What one round's opened total says, what it is held against, and what is remembered of it. No records, no network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import PeerError
from fedcredit.kernels.nn_server import norm
from fedcredit.protocol.fedavg.plan import FULL, LOSS_CAP, LearnPlan

__all__ = ["Judged", "Opened", "RoundRecord", "open_round", "read_judged", "unusual"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDED = 1.0  # units of 2^-24 by which a bank's rounding may pass a bound, for each number it brings
_FEW = 5  # rounds before the norm of one can be called unusual
_FAR = 6.0  # median absolute deviations; of a normal sample one in 20,000 is further away


@dataclass(frozen=True)
class Judged:
    """What is said of the parameters with which a round began.

    Args:
        loss: Mean validation loss in nats; None where nothing is validated.
        votes: Banks that found them worse on the public rows than the parameters before.
    """

    loss: float | None
    votes: int


@dataclass(frozen=True)
class RoundRecord:
    """One round, as a bank remembers it.

    Args:
        number: From 1.
        members: Banks in its sum.
        norm: L2 norm of the averaged update.
        own_norm: Of this bank's own update.
        agreement: Cosine of the own update and the average of all others, in [-1, 1]; 0 where one of them is 0.
        validation_loss: Mean validation loss before the round, in nats.
        votes: Banks that found the parameters before the round worse on the public rows.
        discarded: Whether what led to those parameters was taken back, and this round with it.
        unusual: Whether the norm is far from those of the rounds before.
    """

    number: int
    members: int
    norm: float
    own_norm: float
    agreement: float
    validation_loss: float | None
    votes: int
    discarded: bool
    unusual: bool


@dataclass(frozen=True, eq=False)
class Opened:
    """A round's total, checked.

    Args:
        update: float64 (m,), averaged.
        control: float64 (m,), averaged change of control variates; None without SCAFFOLD.
        own: float64 (m,), this bank's own update as it was brought.
        own_control: float64 (m,), this bank's own change of its control variate; None without SCAFFOLD.
        agreement: Cosine of the own update and the average of all others; 0 where one of them is 0.
        judged: Of the parameters before.
    """

    update: Floats
    control: Floats | None
    own: Floats
    own_control: Floats | None
    agreement: float
    judged: Judged


def open_round(total: Ints, own: Ints, plan: LearnPlan, size: int, members: int) -> Opened:
    """Reads a round's total and holds it against what honest banks can bring.

    Args:
        total: int64 (m or 2m, + 1 weight, + judgement).
        own: The same of this bank alone.
        plan: The run's.
        size: Number of parameters, m.
        members: Banks in the sum.

    Raises:
        PeerError: the weights, the norm or the votes are beyond what banks that keep to the protocol can bring. Which
            bank it was, the sum does not say.
    """
    parts = 2 if plan.scaffold else 1
    weight = int(total[parts * size])
    most = FULL * members if not plan.weighted else FULL + members
    if not 0 < weight <= most:
        raise PeerError("fedavg.weight", f"the banks' weights add up to {weight} of at most {most}; a bank cheats")
    update = total[:size] / weight
    room = _ROUNDED * members * size**0.5 / weight
    if plan.unit != "bank" and norm(update) > plan.clip + room:
        right = f"the averaged update has a norm over {plan.clip:g}, to which every bank shrinks its own; a bank cheats"
        raise PeerError("fedavg.norm", right)
    own_weight = max(1, int(own[parts * size]))
    own_update, rest = own[:size] / own_weight, (total[:size] - own[:size]).astype(np.float64)
    control = own_control = None
    if plan.scaffold:
        control, own_control = total[size : 2 * size] / weight, own[size : 2 * size] / own_weight
    judged = read_judged(total[parts * size + 1 :], plan, members)
    return Opened(update, control, own_update, own_control, _cosine(own_update, rest), judged)


def _cosine(one: Floats, other: Floats) -> float:
    lengths = norm(one) * norm(other)
    return max(-1.0, min(1.0, math.fsum((one * other).tolist()) / lengths)) if lengths else 0.0


def read_judged(total: Ints, plan: LearnPlan, members: int) -> Judged:
    """Reads what is said of parameters.

    Args:
        total: int64: sums of losses and rows where there is patience, votes where there are public rows.
        plan: The run's.
        members: Banks in the sum.

    Raises:
        PeerError: losses or votes that no banks can have.
    """
    loss, at = None, 0
    if plan.patience:
        losses, rows = int(total[0]), int(total[1])
        room = LOSS_CAP * members
        if not (0 <= rows <= FULL + members and 0 <= losses <= LOSS_CAP * rows + room):
            raise PeerError(
                "fedavg.loss", "the banks' validation losses add up to what no rows can have; a bank cheats"
            )
        loss, at = (losses / rows if rows > 0 else None), 2
    votes = int(total[at]) if plan.reference else 0
    if not 0 <= votes <= members:
        raise PeerError("fedavg.votes", f"{votes} votes of {members} banks; a bank cheats")
    return Judged(loss, votes)


def unusual(value: float, before: Sequence[float]) -> bool:
    """Whether a norm is far from those before, by median and median absolute deviation; never of the first few."""
    if len(before) < _FEW:
        return False
    middle = statistics.median(before)
    spread = statistics.median(abs(one - middle) for one in before)
    return abs(value - middle) > _FAR * max(spread, 1e-3 * middle)
