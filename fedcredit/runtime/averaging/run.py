"""Averaging over banks: what carries its rounds has to know of it, and what a bank keeps of the result.

Loading this module loads no network library; a bank's role does, and the coordinator never has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.kernels.metrics import auc, ks
from fedcredit.protocol.fedavg.messages import SCHEMA as FEDAVG
from fedcredit.protocol.fedavg.relay import FedavgRelay
from fedcredit.protocol.secure_sum.messages import SCHEMA as SECURE_SUM
from fedcredit.protocol.secure_sum.rules import SignedIdentity
from fedcredit.runtime.rounds.bank import RoundBank
from fedcredit.runtime.rounds.driver import RoundRelay
from fedcredit.runtime.rounds.model import BankSeat, RoundModel
from fedcredit.runtime.rounds.privacy import BookedBank, account_of
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.spec.model import RunSpec
from fedcredit.types import RunId

if TYPE_CHECKING:
    from fedcredit.protocol.fedavg.bank import BankInputs, FedavgBank
    from fedcredit.protocol.fedavg.learner import Learned

__all__ = ["FEDAVG_RUN", "bank_inputs"]


def bank_inputs(seat: BankSeat) -> BankInputs:
    """What a bank brings, as its role wants it."""
    from fedcredit.protocol.fedavg.bank import BankInputs  # noqa: PLC0415 -- loads torch

    tables = seat.tables
    return BankInputs(
        party=seat.party,
        spec=seat.spec,
        run=seat.run,
        table=tables.own,
        held_out=tables.held_out,
        keep=seat.keep,
        identity=SignedIdentity(seat.key, seat.keys),
        reference=tables.reference,
    )


def _bank(seat: BankSeat, state: bytes | None) -> RoundBank:
    from fedcredit.protocol.fedavg.bank import FedavgBank  # noqa: PLC0415 -- loads torch

    bank = FedavgBank(bank_inputs(seat), state)
    return BookedBank(bank, account_of(seat, seat.privacy), begins=state is None)


def _relay(spec: RunSpec, run: RunId) -> RoundRelay:
    return FedavgRelay(spec, run)


def _own(files: RunFiles, seat: BankSeat, bank: RoundBank) -> Mapping[str, Any]:
    """Files of one bank below ``model/BANK``, and its figures.

    ``model.json`` (the common network), ``personal.json`` (its own, where there is one), ``rounds.json`` (what it saw
    of each round) and ``predictions.parquet`` (its held-out rows).
    """
    booked = cast("BookedBank", bank)
    learned, folder = cast("FedavgBank", booked.bank).result(), f"model/{seat.party}"
    files.text(f"{folder}/model.json", learned.model.to_bytes().decode())
    if learned.personal is not None:
        files.text(f"{folder}/personal.json", learned.personal.to_bytes().decode())
    files.json(f"{folder}/rounds.json", [asdict(one) for one in learned.history])
    test = seat.tables.test
    files.table(f"{folder}/predictions.parquet", _predictions(test, learned))
    return {**_figures(seat, test, learned), "differential_privacy": account_of(seat, seat.privacy).end().block()}


def _predictions(test: HolderTable, learned: Learned) -> pl.DataFrame:
    personal = learned.personal_margins
    return pl.DataFrame(
        {
            "id": test.ids.to_list(),
            "label": _bad(test),
            "probability": _logistic(learned.margins),
            "probability_personal": _logistic(personal) if personal is not None else [None] * test.rows,
        },
        schema_overrides={"probability_personal": pl.Float64},
    )


def _figures(seat: BankSeat, test: HolderTable, learned: Learned) -> dict[str, Any]:
    own, bad = seat.tables.own, _bad(test)
    held_out = seat.tables.held_out
    rows_test = test.rows
    train = np.ones(own.rows, dtype=np.bool_) if isinstance(held_out, HolderTable) else ~held_out
    both = bool(bad.any() and not bad.all())
    last = learned.history[-1] if learned.history else None
    return {
        "rows_train": int(train.sum()),
        "rows_test": rows_test,
        "positives_train": int(_bad(own)[train].sum()),
        "positives_test": int(bad.sum()),
        "auc_test": auc(bad, learned.margins) if both else None,
        "ks_test": ks(bad, learned.margins) if both else None,
        "loss_test": learned.own.loss,
        "auc_personal": auc(bad, learned.personal_margins) if both and learned.personal_margins is not None else None,
        "pooled": None if learned.pooled is None else asdict(learned.pooled),
        "model_digest": learned.model.digest(),
        "parameters": len(learned.model.parameters),
        "rounds": {
            "played": len(learned.history),
            "best": learned.best_round,
            "discarded": sum(one.discarded for one in learned.history),
            "unusual": [one.number for one in learned.history if one.unusual],
            "last_norm": None if last is None else last.norm,
        },
        "members": list(learned.members),
    }


def _bad(table: HolderTable) -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_) if table.label is None else table.label.astype(np.bool_)


def _logistic(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * margins))  # without overflow
    return found


FEDAVG_RUN = RoundModel(schemas=(SECURE_SUM, FEDAVG), bank=_bank, relay=_relay, own=_own)
"""Averaging."""
