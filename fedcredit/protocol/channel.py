"""What a role is written against: a channel to the other parties of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, CostKind, Declaration, Spend
from fedcredit.wire.message import Message

__all__ = ["Channel"]

M = TypeVar("M", bound=Message)


class Channel(Protocol):
    """One party's end of a run.

    Everything sent passes the party's own gate; everything received has passed it too. All waits are bounded.
    """

    @property
    def party(self) -> PartyId:
        """The party this end belongs to."""
        ...

    async def send(self, to: PartyId, message: Message, *, spend: Spend | None = None) -> None:
        """Sends one message; a message declared with ``spends`` needs its cost, others must have none.

        The cost is booked to the recipient, or to ``spend.learner`` where the recipient only relays.

        Raises:
            PolicyDenied: the gate refuses.
            DisclosureRefused: the ledger's cap or the run's declaration would be passed.
        """
        ...

    async def broadcast(self, to: Sequence[PartyId], message: Message) -> None:
        """Sends the same message to several parties, in the order given. Messages that spend are not broadcast.

        Raises:
            PolicyDenied: the gate refuses.
        """
        ...

    async def receive(self, sender: PartyId, kind: type[M]) -> M:
        """The next message of a sender, which must be of this type and of the stage this party is in.

        Raises:
            PeerError: another kind, stage or sequence, malformed or forged bytes, or the peer stopped with an error.
            TransportError: nothing came within the time-out, or the peer has ended.
        """
        ...

    async def gather(self, senders: Sequence[PartyId], kind: type[M]) -> dict[PartyId, M]:
        """One message of this type from each sender, within one time-out together.

        Raises:
            PeerError: as :meth:`receive`.
            TransportError: as :meth:`receive`, naming the first sender that is missing.
        """
        ...

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        """Asks the party's own ledger for what a protocol will disclose at most, before anything is sent.

        Where ``declaration.evidence`` is empty, the digest of the last envelope received from the counterparty is kept
        with it: declare directly after receiving the message that carries the basis.

        Raises:
            DisclosureRefused: the cap would be passed; the text says what would still be possible.
        """
        ...

    def headroom(
        self, counterparty: PartyId, data_version: str, basis: Basis, kind: CostKind, features: Sequence[str]
    ) -> tuple[float, ...]:
        """What the party's own ledger would still allow, for each feature ("" is the whole party).

        What this run has declared but not spent yet is already taken off; infinite where caps are not enforced.
        """
        ...

    def stage(self, name: str) -> None:
        """Labels what follows in transcript, audit and progress.

        Both ends of a message must be in the same stage when it is sent and when it is received; a run starts in
        stage ``"start"``.
        """
        ...
