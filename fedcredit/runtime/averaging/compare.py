"""What a simulation of averaging is held against: the same rounds in the clear, pooled rows, each bank on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcredit.kernels.metrics import auc
from fedcredit.runtime.averaging.run import bank_inputs
from fedcredit.runtime.rounds.model import BankSeat
from fedcredit.types import PartyId

if TYPE_CHECKING:
    from fedcredit.protocol.fedavg.columns import Examples
    from fedcredit.protocol.fedavg.model import AveragedModel

__all__ = ["Compared", "compare"]


@dataclass(frozen=True)
class Compared:
    """The comparison.

    Args:
        clear_digest: Digest of the model of the same rounds in the clear; None where banks were lost on the way.
        pooled: AUC on each bank's held-out rows of the same network trained on all banks' rows in one place.
        alone: The same of a network trained on the bank's own rows.
    """

    clear_digest: str | None
    pooled: Mapping[PartyId, float | None]
    alone: Mapping[PartyId, float | None]


def compare(seats: Mapping[PartyId, BankSeat], *, whole: bool) -> Compared:
    """Computes what only somebody who sees all rows can.

    Args:
        seats: The banks that have the model.
        whole: Whether all banks were in all sums.
    """
    from fedcredit.protocol.fedavg.oracle import average_in_the_clear, train_on_pooled  # noqa: PLC0415 -- loads torch
    from fedcredit.protocol.fedavg.plan import plan_averaging  # noqa: PLC0415 -- as above

    inputs = {party: bank_inputs(seat) for party, seat in seats.items()}
    plan = plan_averaging(next(iter(seats.values())).spec)
    clear = None
    if whole:
        learned = average_in_the_clear({party: one.learner() for party, one in inputs.items()})
        clear = next(iter(learned.values())).model.digest()
    rows = {party: one.rows() for party, one in inputs.items()}
    together = train_on_pooled(list(rows.values()), plan).model
    alone = {party: train_on_pooled([one], plan).model for party, one in rows.items()}
    return Compared(
        clear,
        {party: _auc(together, one.test) for party, one in rows.items()},
        {party: _auc(alone[party], one.test) for party, one in rows.items()},
    )


def _auc(model: AveragedModel, test: Examples) -> float | None:
    if not test.bad.any() or test.bad.all():
        return None
    return auc(test.bad, model.margins(test))
