"""Averaging runs over made-up banks, played visit by visit in one process; everything that crosses is kept.

For tests and for attacks on what was really seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.split import test_mask
from fedcredit.data.table import HolderTable, table_digest
from fedcredit.protocol.fedavg.bank import SCHEMAS, BankInputs, FedavgBank
from fedcredit.protocol.fedavg.learner import Learned
from fedcredit.protocol.fedavg.relay import Averaged, FedavgRelay
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.secure_sum.rules import UnsafeUnsigned
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import Message, decode, encode
from fedcredit.wire.schema import merge

__all__ = ["RUN", "AveragingRehearsal", "Crossing", "averaging_spec", "made_up_bank"]

RUN = RunId("ab" * 16)
"""Name of every rehearsed run."""

Keys = Mapping[str, Any]


def averaging_spec(
    banks: int = 3, fedavg: Keys | None = None, monotone: Keys | None = None, **sections: Keys
) -> RunSpec:
    """A specification of averaging over made-up banks.

    Args:
        banks: How many.
        fedavg: Keys of ``[fedavg]``.
        monotone: Directions of columns.
        sections: Other sections.
    """
    names = [f"bank_{number}" for number in range(1, banks + 1)]
    keys = {"role": "label_holder", "id": "id", "label": "bad", "monotone": monotone or {}, "special": {"delay": [-77]}}
    return RunSpec.model_validate(
        {
            "run": {"name": "made-up", "model": "fedavg", "mode": "simulation", "seed": 3},
            "party": [{"name": name, "source": f"{name}.csv", **keys} for name in names],
            "fedavg": {"hidden": [6], "rounds": 3, "batch_size": 64, **(fedavg or {})},
            **{name: dict(section) for name, section in sections.items()},
        }
    )


def made_up_bank(party: PartyId, rows: int = 300, *, seed: int = 0, shift: float = 0.0) -> HolderTable:
    """Records of a bank: numbers of unlike size, codes, missing values, categories.

    Args:
        party: The bank.
        rows: How many.
        seed: Of the records.
        shift: By how much its customers are riskier.
    """
    source = np.random.default_rng([seed, *party.encode()])  # made-up records are no secret
    risk = source.normal(size=rows) + shift
    bad = source.random(rows) < 1.0 / (1.0 + np.exp(1.2 - 1.5 * risk))
    delay = np.round(5 * (0.8 * risk + source.normal(size=rows)))
    delay[source.random(rows) < 0.1] = -77.0
    turnover = np.where(source.random(rows) < 0.15, np.nan, 1e6 * np.exp(source.normal(size=rows) - 0.7 * risk))
    sector = np.digitize(0.6 * risk + source.normal(size=rows), [-0.8, 0.0, 0.8])
    names = [None if gone else f"s{code}" for code, gone in zip(sector, source.random(rows) < 0.1, strict=True)]
    columns = {
        "delay": pl.Series(delay),
        "turnover": pl.Series(turnover).fill_nan(None),
        "age": pl.Series(40 - 4 * risk + 9 * source.normal(size=rows)),
        "sector": pl.Series(names, dtype=pl.String),
    }
    ids = pl.Series("id", [f"{party}-{number}" for number in range(rows)])
    label = bad.astype(np.int8)
    return HolderTable(party, ids, label, columns, table_digest(ids, label, columns))


@dataclass(frozen=True)
class Crossing:
    """One message that crossed.

    Args:
        step: Of all banks together, from 1.
        sender: Who sent it.
        receiver: Who got it.
        message: What.
    """

    step: int
    sender: PartyId
    receiver: PartyId
    message: Message


@dataclass
class AveragingRehearsal:
    """Banks and a coordinator in one process; a bank's role is made anew from its state for every visit.

    Attributes:
        spec: The run.
        tables: Each bank's records.
        reference: Public records, where the run has them.
        held_out: Table that all banks hold out in place of own rows; None = own rows, by the spec.
        secrets: 32 bytes of each bank's run secret; fresh ones where not given.
        lost: Banks that do not answer from a step on, by step.
        alter: What becomes of a message on its way.
        crossed: All messages, in order.
    """

    spec: RunSpec
    tables: Mapping[PartyId, HolderTable]
    reference: HolderTable | None = None
    held_out: HolderTable | None = None
    secrets: Mapping[PartyId, bytes] = field(default_factory=dict)
    lost: Mapping[int, Sequence[PartyId]] = field(default_factory=dict)
    alter: Callable[[Crossing], Message] = lambda crossing: crossing.message
    crossed: list[Crossing] = field(default_factory=list)

    def inputs(self) -> dict[PartyId, BankInputs]:
        """What each bank brings."""
        found = {}
        for party, table in self.tables.items():
            secret = RunSecret(self.secrets[party]) if party in self.secrets else RunSecret.fresh()
            split = self.spec.split
            found[party] = BankInputs(
                party=party,
                spec=self.spec,
                run=RUN,
                table=table,
                held_out=self.held_out or test_mask(table.ids, split.seed, split.test_fraction),
                keep=KeptSecrets(secret, SystemEntropy(), NoEscrow()),
                identity=UnsafeUnsigned(),
                reference=self.reference,
            )
        return found

    def play(self) -> tuple[Averaged, dict[PartyId, Learned]]:
        """Plays a run to its end.

        Raises:
            FedCreditError: as the roles.
        """
        inputs, relay = self.inputs(), FedavgRelay(self.spec, RUN)
        states: dict[PartyId, bytes | None] = dict.fromkeys(inputs)
        questions, step, gone = relay.start(), 0, set[PartyId]()
        while questions:
            step += 1
            gone |= set(self.lost.get(step, ()))
            answers = {}
            for party, question in questions.items():
                if party in gone:
                    continue
                bank = FedavgBank(inputs[party], states[party])
                asked = [self._cross(step, COORDINATOR, party, one) for one in question]
                answer = bank.answer(asked)
                states[party] = bank.state()
                answers[party] = [self._cross(step, party, to, one) for to, one in answer]
            relay.missing([party for party in questions if party in gone])
            questions = relay.arrived(answers)
        results = {party: FedavgBank(inputs[party], states[party]).result() for party in relay.members}
        return relay.result(), results

    def _cross(self, step: int, sender: PartyId, receiver: PartyId, message: Message) -> Message:
        """A message as bytes and back."""
        crossing = Crossing(step, sender, receiver, message)
        altered = self.alter(crossing)
        self.crossed.append(Crossing(step, sender, receiver, altered))
        data = encode(altered)
        return decode(type(altered), data)

    def received(self, party: PartyId) -> Iterable[Message]:
        """All that a party got, in order."""
        return [one.message for one in self.crossed if one.receiver == party]


SCHEMA = merge(*SCHEMAS)
"""All messages of a run."""
