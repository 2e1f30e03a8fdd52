"""A bank's role in averaging, one visit at a time: what comes is a question, what goes is the answer, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.errors import BoundError, IntegrityError
from fedcredit.protocol.fedavg.columns import BankRows, rows_of
from fedcredit.protocol.fedavg.learner import Learned, Learner
from fedcredit.protocol.fedavg.messages import SCHEMA as FEDAVG
from fedcredit.protocol.fedavg.messages import ModelReady
from fedcredit.protocol.fedavg.plan import plan_averaging
from fedcredit.protocol.fedavg.protect import Protection
from fedcredit.protocol.fedavg.secure_ends import MemberEnd
from fedcredit.protocol.fedavg.sums import SumsEnd
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.secure_sum.member import SumHouse
from fedcredit.protocol.secure_sum.messages import SCHEMA as SECURE_SUM
from fedcredit.protocol.secure_sum.rules import Identity
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import Message

__all__ = ["SCHEMAS", "BankInputs", "FedavgBank", "MakeEnd"]

SCHEMAS = (SECURE_SUM, FEDAVG)
"""All messages of an averaging run."""


@dataclass(frozen=True, eq=False)
class BankInputs:
    """What a bank brings to a run of averaging; the same at every visit.

    Args:
        party: The bank.
        spec: The run.
        run: Name of the run.
        table: Its records.
        held_out: bool (n,), which of them are held out, or the table of ``split.test_source``.
        keep: Its run secret, and the escrow that remembers what it has answered.
        identity: Signs its keys for the sums, and checks the other banks' signatures.
        reference: Records of ``fedavg.reference``; None = the run has none.
    """

    party: PartyId
    spec: RunSpec
    run: RunId
    table: HolderTable
    held_out: NDArray[np.bool_] | HolderTable
    keep: KeptSecrets = field(repr=False)
    identity: Identity
    reference: HolderTable | None = None

    def rows(self) -> BankRows:
        """Its rows as the run takes them.

        Raises:
            DataError: no rows to train on, or a column that one of the tables lacks.
        """
        plan = plan_averaging(self.spec)
        section = next(party for party in self.spec.party if party.name == self.party)
        public = self.reference
        return rows_of(self.table, section, self.held_out, validation=plan.validation, seed=plan.seed, reference=public)

    def learner(self, state: bytes | None = None) -> Learner:
        """Its part in the learning, without any way to the others.

        Raises:
            DataError: as `rows`.
            SpecError: keys that do not go together.
            IntegrityError: the state is damaged or of another run.
        """
        plan, rows = plan_averaging(self.spec), self.rows()
        noise = None
        if plan.unit != "none":
            noise = Protection(self.spec, self.run, self.keep.secret, rows.train)
        return Learner(self.party, rows, plan, noise, state)


MakeEnd = Callable[[BankInputs, bytes | None], SumsEnd]
"""Makes a bank's end of the sums."""


def _secure_end(inputs: BankInputs, state: bytes | None) -> SumsEnd:
    house = SumHouse(inputs.party, inputs.keep.secret, inputs.keep.escrow, inputs.identity)
    return MemberEnd(inputs.spec, inputs.run, house, state)


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """State of both halves."""

    learner: bytes
    sums: bytes
    told: bool


class FedavgBank:
    """A bank's role.

    Args:
        inputs: What it brings.
        state: What `state` gave at the end of the last visit; None in the first.
        sums: Makes this bank's end of the sums, from its state or from None; secure sums unless a test says otherwise.

    Raises:
        DataError: the bank's records do not carry the run.
        SpecError: keys that do not go together.
        IntegrityError: the state is damaged or of another run.
    """

    def __init__(self, inputs: BankInputs, state: bytes | None = None, *, sums: MakeEnd | None = None) -> None:
        try:
            saved = None if state is None else msgspec.msgpack.decode(state, type=_Saved)
        except (ValueError, TypeError) as error:
            raise IntegrityError("fedavg.state", "the state of this averaging run is damaged", str(error)) from None
        self._learner = inputs.learner(None if saved is None else saved.learner)
        self._sums: SumsEnd = (sums or _secure_end)(inputs, None if saved is None else saved.sums)
        self._told = False if saved is None else saved.told

    def answer(self, messages: Sequence[Message]) -> list[tuple[PartyId, Message]]:
        """One visit.

        Args:
            messages: All that the coordinator brought, in order; nothing in the first visit.

        Returns:
            What goes to the coordinator, in order.

        Raises:
            PeerError: what came is not what the protocol allows now, or a total that honest banks cannot make.
            FedCreditError: the bank's own part failed.
        """
        out = list(self._sums.receive(messages))
        opened = self._sums.opened()
        if opened is not None:
            self._learner.take(*opened)
        if self._learner.finished and not self._told:
            learned = self._learner.result()
            out.append(ModelReady(model=learned.model.digest(), rounds=len(learned.history)))
            self._told = True
        elif not self._learner.finished and self._sums.ready:
            asked = self._learner.ask(self._sums.members)
            out += self._sums.contribute(asked.what, asked.values, asked.bound)
        return [(COORDINATOR, message) for message in out]

    def state(self) -> bytes:
        """Everything it needs to go on in another process with the same inputs."""
        return msgspec.msgpack.encode(_Saved(learner=self._learner.state(), sums=self._sums.state(), told=self._told))

    @property
    def finished(self) -> bool:
        """Whether it has its model and has said so."""
        return self._told

    @property
    def stage(self) -> str:
        """``exponents``, ``moments``, ``round/R``, ``judge``, ``score`` or ``finished``."""
        return self._learner.stage

    def result(self) -> Learned:
        """What the bank has at the end.

        Raises:
            BoundError: it is not finished.
        """
        if not self._told:
            raise BoundError("fedavg.unfinished", "the bank has no model yet")
        return self._learner.result()
