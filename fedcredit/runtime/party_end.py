"""One party's end of a run: its gate, its stage, its inbox; the same in a simulation and in an institution's own house.

What lies between the ends is a `Wires`: bytes handed over in one process (`fedcredit.runtime.local`), or the exchange
(`fedcredit.runtime.exchange.channel`).
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from fedcredit.errors import DataError, DisclosureRefused, FedCreditError, PeerError, TransportError
from fedcredit.governance.gate import Gate, House, Released, RunContext, Sent
from fedcredit.runtime.exchange.types import PeerRestarted
from fedcredit.runtime.leftovers import HeadroomMemory, HeadroomQuestion
from fedcredit.runtime.waiting import Post
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, CostKind, Declaration, Spend
from fedcredit.wire.message import Message, kind_of
from fedcredit.wire.notice import ErrorNotice

__all__ = ["PEER_ENDED", "PEER_FAILED", "SECONDARY", "PartyChannel", "PartyEnd", "Patience", "Wires", "notice_of"]

M = TypeVar("M", bound=Message)

PEER_FAILED, PEER_ENDED = "run.peer-failed", "run.peer-ended"
TIMEOUT = "run.timeout"
SECONDARY = frozenset({PEER_FAILED, PEER_ENDED})
"""Codes of errors that another party's error has caused."""

_FIRST_STAGE = "start"
_AT_ONCE = frozenset({"run.left", "run.stopped"})


class Patience(Protocol):
    """A bounded wait."""

    @property
    def seconds(self) -> float:
        """Longest wait of the kind that counts, in seconds."""
        ...

    async def wait(self, event: asyncio.Event) -> bool:
        """Waits for an event; False when the time-out has passed, True when it is worth looking again."""
        ...


class Wires(Protocol):
    """What lies between the ends of a run."""

    async def deliver(self, sender: PartyId, out: Sequence[tuple[PartyId, Released]]) -> None:
        """Takes one message, or one message for several recipients, that has left its sender's gate."""
        ...

    def patience(self) -> Patience:
        """A fresh time-out for one receive or one gather."""
        ...

    def read(self, party: PartyId, arrival: float) -> None:
        """Notes that a party has read a message that arrived at a second of the modelled clock."""
        ...

    def waits_for(self, party: PartyId) -> PartyId | None:
        """Whom a party is waiting for, as far as it is known."""
        ...


class PartyEnd:
    """Gate, stage, ledger's memory and inbox of one party in one run.

    Args:
        context: The run.
        house: The party.
        headroom: What its ledger has said it would allow, so that a run that goes on decides as it did before.
        progress: Called with (party, stage) at each change of stage.
        earlier: Messages that processes before this one let out.
    """

    def __init__(
        self,
        context: RunContext,
        house: House,
        headroom: HeadroomMemory,
        progress: Callable[[PartyId, str], None] | None = None,
        earlier: Sequence[Sent] = (),
    ) -> None:
        self.party = house.party
        self.context, self.house = context, house
        self.gate = Gate(context, house, earlier)
        self.stage = _FIRST_STAGE
        self.post = Post()
        self._headroom = headroom
        self._progress = progress

    def release(self, to: PartyId, message: Message, spend: Spend | None = None) -> Released:
        """Lets one message out of the gate in the present stage."""
        return self.gate.release(to, message, self.stage, spend)

    def notices(self, error: BaseException) -> Iterator[tuple[PartyId, Released]]:
        """This party's word to every other that it stops, as far as the gate allows it."""
        for other in self.context.roster:
            if other != self.party:
                try:
                    yield other, self.release(other, notice_of(error))
                except FedCreditError:
                    continue  # the end of the link, which follows, tells the peer without words

    async def receive(self, sender: PartyId, kind: type[M], wires: Wires, patience: Patience) -> M:
        """Waits for the next envelope of a sender and lets it in; see `fedcredit.protocol.channel.Channel.receive`."""
        if sender not in self.context.roster:
            raise PeerError("wire.stranger", f"{self.party} waits for {sender}, who is in no roster of this run")
        post, gate = self.post, self.gate
        while True:
            queue = post.queues.get(sender)
            if post.broken is not None and not (queue and _leaves_what_came(post.broken)):
                raise post.broken
            if post.notices:
                culprit, data = post.notices.popleft()
                post.stopped[culprit] = gate.admit_notice(data, culprit)
            # Whoever waited in vain is not at fault: others who wait for the same party end by their own time-out.
            told = {who: one for who, one in post.stopped.items() if who == sender or one.code != TIMEOUT}
            for culprit, notice in told.items():
                text = f"{culprit} stopped the run: {notice.text} [{notice.code}]"
                raise PeerError(PEER_FAILED, text, culprit=culprit)
            if queue:
                data, arrival = queue.popleft()
                message = gate.admit(data, sender, self.stage, kind)
                wires.read(self.party, arrival)
                return message
            if sender in post.ended:
                how = post.ended[sender]
                raise TransportError(PEER_ENDED, f"{sender} {how} and will not send {kind_of(kind)}", culprit=sender)
            post.changed.clear()
            post.waits_for = sender
            if not await patience.wait(post.changed):
                late = f"{sender} did not send {kind_of(kind)} within {patience.seconds:g} s"
                chain = _chain(wires, self.party, sender)
                raise TransportError(TIMEOUT, late + _words(chain), culprit=chain[-1])
            post.waits_for = None

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        """Takes a declaration through the gate, with the evidence of its basis."""
        if not declaration.evidence:
            declaration = replace(declaration, evidence=self.gate.evidence_of(counterparty))
        self.gate.declare(counterparty, declaration)

    def headroom(self, question: HeadroomQuestion) -> tuple[float, ...]:
        """What the ledger would still allow; after a restart, what it said the first time."""
        return self._headroom.answer(self.house.ledger, self.context.run, question)

    def enter(self, stage: str) -> None:
        """Notes that the party goes on to another stage."""
        if stage == self.stage:
            return
        self.stage = stage
        self.house.audit.append("stage", {"stage": stage})
        if self._progress is not None:
            self._progress(self.party, stage)


class PartyChannel:
    """A party's end and the wires to the others; implements `fedcredit.protocol.channel.Channel`."""

    def __init__(self, end: PartyEnd, wires: Wires) -> None:
        self._end, self._wires = end, wires

    @property
    def party(self) -> PartyId:
        """The party this end belongs to."""
        return self._end.party

    async def send(self, to: PartyId, message: Message, *, spend: Spend | None = None) -> None:
        """See `Channel.send`."""
        await self._wires.deliver(self.party, [(to, self._end.release(to, message, spend))])

    async def broadcast(self, to: Sequence[PartyId], message: Message) -> None:
        """See `Channel.broadcast`."""
        await self._wires.deliver(self.party, [(recipient, self._end.release(recipient, message)) for recipient in to])

    async def receive(self, sender: PartyId, kind: type[M]) -> M:
        """See `Channel.receive`."""
        return await self._end.receive(sender, kind, self._wires, self._wires.patience())

    async def gather(self, senders: Sequence[PartyId], kind: type[M]) -> dict[PartyId, M]:
        """See `Channel.gather`."""
        patience = self._wires.patience()
        return {sender: await self._end.receive(sender, kind, self._wires, patience) for sender in senders}

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        """See `Channel.declare`."""
        self._end.declare(counterparty, declaration)

    def headroom(
        self, counterparty: PartyId, data_version: str, basis: Basis, kind: CostKind, features: Sequence[str]
    ) -> tuple[float, ...]:
        """See `Channel.headroom`."""
        return self._end.headroom(HeadroomQuestion(counterparty, data_version, basis, kind, features))

    def stage(self, name: str) -> None:
        """See `Channel.stage`."""
        self._end.enter(name)


def notice_of(error: BaseException) -> ErrorNotice:
    """Code and text of an error as the other parties may hear it."""
    if isinstance(error, DataError):
        # What is wrong with a party's own records is for its own log: a refusal must not count or name anything.
        return ErrorNotice(code="data", text="the party's own records do not carry this run")
    if isinstance(error, DisclosureRefused):
        return ErrorNotice(code=error.code, text="a cap of its disclosure ledger would be passed")
    if isinstance(error, FedCreditError):
        line = "".join(
            one if one.isprintable() else " " for one in error.public[:1024]
        )  # as others may have made it up
        return ErrorNotice(code=error.code[:128], text=line)
    if isinstance(error, (OSError, sqlite3.Error)):  # the name of the error, never that of the file
        why = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
        reason = f" ({why})" if why else ""
        return ErrorNotice(code="run.storage", text=f"the house cannot read or write its own files{reason}")
    return ErrorNotice(code="run.internal", text="an internal error; the log of the house says more")


def _leaves_what_came(error: BaseException) -> bool:
    """Whether what came in before the link ended is still worth reading; a stop and a forgery end all at once."""
    if isinstance(error, TransportError):
        return error.code not in _AT_ONCE
    return isinstance(error, PeerRestarted)


def _chain(wires: Wires, party: PartyId, sender: PartyId) -> list[PartyId]:
    """A late sender, whom it waits for itself, and so on down the chain."""
    chain = [party, sender]
    while (next_one := wires.waits_for(chain[-1])) is not None and next_one not in chain:
        chain.append(next_one)
    return chain[1:]


def _words(chain: Sequence[PartyId]) -> str:
    return f" (it waits for {', which waits for '.join(chain[1:])})" if chain[1:] else ""
