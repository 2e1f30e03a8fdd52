"""The answerer of group sums: commits to its grouping, then answers every vector of a conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcredit.crypto.backends import make_answerer
from fedcredit.crypto.commitment import commit_grouping
from fedcredit.crypto.group_sum import Answerer, Grouping
from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.errors import PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.messages import Answer, AskerSetup, GroupingCommitment, Hints, Request
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Cost, CostKind, Spend
from fedcredit.wire.message import encode

__all__ = ["GroupSumAnswerer", "Priced", "price_each"]


@dataclass(frozen=True)
class Priced:
    """Which features of the ledger one field of a request tells equations about.

    Args:
        equations: For each feature code, equations one field costs it.
    """

    equations: tuple[tuple[str, int], ...]

    def spend(self, request: Request, fields: int) -> Spend:
        """The price of answering a request of ``fields`` packed fields."""
        costs = tuple(Cost(CostKind.EQUATIONS, code, each * fields) for code, each in self.equations)
        return Spend(hashlib.sha256(encode(request)).hexdigest(), costs)


class GroupSumAnswerer:
    """One conversation, from the answerer's side. Made by `open`."""

    def __init__(self, channel: Channel, conversation: Conversation, asker: PartyId, answerer: Answerer) -> None:
        self._channel = channel
        self._conversation = conversation
        self._asker = asker
        self._answerer = answerer
        self._answered = 0
        self._batch = 0

    @classmethod
    async def open(
        cls, channel: Channel, conversation: Conversation, asker: PartyId, grouping: Grouping, keep: KeptSecrets
    ) -> GroupSumAnswerer:
        """Commits to the grouping, then sends its hints.

        Raises:
            BoundError: a bin has fewer rows than the grouping's minimum; nothing was sent.
        """
        grouping.check()
        matrix = grouping.codes if grouping.weights is None else np.hstack([grouping.codes, grouping.weights])
        salt = keep.entropy.take(SEED_BYTES)
        commitment = commit_grouping(matrix, salt)
        keep.escrow.record(
            "grouping", {"purpose": conversation.purpose, "salt": salt.hex(), "commitment": commitment.hex()}
        )
        await channel.send(asker, GroupingCommitment(purpose=conversation.purpose, commitment=commitment))
        setup = await channel.receive(asker, AskerSetup)
        if setup.purpose != conversation.purpose:
            raise PeerError("group_sum.purpose", f"{asker}: set-up of conversation {setup.purpose!r}")
        parameters = conversation.parameters
        reference = conversation.session.reference(conversation.purpose, parameters)
        with blaming(asker):
            answerer = make_answerer(parameters, reference, setup.setup, grouping, keep.entropy)
        await channel.send(asker, Hints(purpose=conversation.purpose, outputs=grouping.outputs, hints=answerer.hints()))
        return cls(channel, conversation, asker, answerer)

    async def answer(self, priced: Priced) -> None:
        """Answers the next batch; every answer is paid for in the ledger first.

        Raises:
            PeerError: a request is malformed or out of turn.
            DisclosureRefused: the ledger's cap would be passed.
        """
        for vector in self._conversation.plans[self._batch].vectors:
            request = await self._receive()
            with blaming(self._asker):
                body = self._answerer.answer(request.body)
            answer = Answer(purpose=request.purpose, index=request.index, body=body)
            await self._channel.send(self._asker, answer, spend=priced.spend(request, len(vector)))
        self._batch += 1

    async def answer_masked(self) -> list[bytes]:
        """Answers the next batch under uniform masks and returns them; the price is paid when they are given away."""
        masks = []
        for _ in self._conversation.plans[self._batch].vectors:
            request = await self._receive()
            with blaming(self._asker):
                body, mask = self._answerer.answer_masked(request.body)
            free = Spend(hashlib.sha256(encode(request)).hexdigest(), ())
            answer = Answer(purpose=request.purpose, index=request.index, body=body)
            await self._channel.send(self._asker, answer, spend=free)
            masks.append(mask)
        self._batch += 1
        return masks

    async def _receive(self) -> Request:
        request = await self._channel.receive(self._asker, Request)
        if request.purpose != self._conversation.purpose or request.index != self._answered:
            raise PeerError(
                "group_sum.index",
                f"{self._asker}: vector {request.index} of {request.purpose!r}, "
                f"{self._answered} of {self._conversation.purpose!r} expected",
            )
        self._answered += 1
        return request


def price_each(codes: Sequence[str]) -> Priced:
    """One equation a field for each of the features."""
    return Priced(tuple((code, 1) for code in codes))
