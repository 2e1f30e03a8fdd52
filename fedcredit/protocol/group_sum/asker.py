"""The asker of group sums: encrypts vectors, opens answers, checks what can be checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.backends import make_asker
from fedcredit.crypto.commitment import commit_vector
from fedcredit.crypto.group_sum import Asker, PendingSum
from fedcredit.crypto.packing import pack, unpack
from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.errors import IntegrityError, PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.messages import Answer, AskerSetup, GroupingCommitment, Hints, Request
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets
from fedcredit.types import PartyId

__all__ = ["Expected", "GroupSumAsker"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Expected:
    """The shape of one answerer's matrix, known before it answers.

    Args:
        features: For each feature its code and number of bins.
        weighted: Number of weighted columns.
    """

    features: tuple[tuple[str, int], ...]
    weighted: int = 0

    @property
    def outputs(self) -> int:
        """Number of sums an answer holds."""
        return sum(bins for _, bins in self.features) + self.weighted


class GroupSumAsker:
    """One conversation, from the asker's side. Made by `open`."""

    def __init__(
        self, channel: Channel, conversation: Conversation, asker: Asker, shapes: Mapping[PartyId, Expected]
    ) -> None:
        self._channel = channel
        self._conversation = conversation
        self._asker = asker
        self._shapes = dict(shapes)
        self._asked = 0
        self._batch = 0

    @classmethod
    async def open(
        cls, channel: Channel, conversation: Conversation, shapes: Mapping[PartyId, Expected], keep: KeptSecrets
    ) -> GroupSumAsker:
        """Takes every answerer's commitment, then its hints.

        Raises:
            PeerError: an answerer's hints do not fit the shape it announced.
        """
        answerers = list(shapes)
        parameters = conversation.parameters
        asker = make_asker(parameters, conversation.session.reference(conversation.purpose, parameters), keep.entropy)
        for party, commitment in (await channel.gather(answerers, GroupingCommitment)).items():
            _check_purpose(party, commitment.purpose, conversation.purpose)
        await channel.broadcast(answerers, AskerSetup(purpose=conversation.purpose, setup=asker.setup()))
        for party, hints in (await channel.gather(answerers, Hints)).items():
            _check_purpose(party, hints.purpose, conversation.purpose)
            if hints.outputs != shapes[party].outputs:
                raise PeerError(
                    "group_sum.outputs", f"{party}: hints for {hints.outputs} sums, {shapes[party].outputs} announced"
                )
            with blaming(party):
                asker.accept_hints(party, hints.hints, hints.outputs)
        return cls(channel, conversation, asker, shapes)

    async def ask(self, columns: Sequence[Ints], keep: KeptSecrets) -> dict[PartyId, list[Ints]]:
        """Asks the next batch.

        Args:
            columns: One int64 (rows,) a field of the batch.
            keep: Source of the one-time seeds, and the escrow that gets each before its vector is sent.

        Returns:
            For each answerer, for each field, int64 (outputs,).

        Raises:
            PeerError: an answer is malformed, or its bins do not add up to the asker's own total.
        """
        plan = self._conversation.plans[self._batch]
        answers: dict[PartyId, list[Ints]] = {party: [] for party in self._shapes}
        for index, pending in await self._send(pack(plan, columns), list(self._shapes), keep):
            for party in self._shapes:
                answer = await self._receive(party, index)
                with blaming(party):
                    answers[party].append(pending.open(party, answer.body))
        sums: dict[PartyId, list[Ints]] = {}
        for party, packed in answers.items():
            with blaming(party):
                sums[party] = unpack(plan, packed)
            self._check_totals(party, columns, sums[party])
        self._batch += 1
        return sums

    async def ask_masked(self, columns: Sequence[Ints], party: PartyId, keep: KeptSecrets) -> list[bytes]:
        """Asks the next batch of one answerer that masks its answers; what is returned is uniform to this party."""
        plan = self._conversation.plans[self._batch]
        masked = []
        for index, pending in await self._send(pack(plan, columns), [party], keep):
            answer = await self._receive(party, index)
            with blaming(party):
                masked.append(pending.open_masked(party, answer.body))
        self._batch += 1
        return masked

    async def _send(
        self, vectors: Sequence[Ints], to: Sequence[PartyId], keep: KeptSecrets
    ) -> list[tuple[int, PendingSum]]:
        purpose, pending = self._conversation.purpose, []
        for vector in vectors:
            seed = keep.entropy.take(SEED_BYTES)
            commitment = commit_vector(vector, seed)
            entry: dict[str, str | int] = {
                "purpose": purpose,
                "index": self._asked,
                "seed": seed.hex(),
                "commitment": commitment.hex(),
            }
            keep.escrow.record("vector", entry)  # spent before anything is sent: a crash can not lead to a second use
            body, one = self._asker.encrypt(vector, seed)
            await self._channel.broadcast(
                to, Request(purpose=purpose, index=self._asked, commitment=commitment, body=body)
            )
            pending.append((self._asked, one))
            self._asked += 1
        return pending

    async def _receive(self, party: PartyId, index: int) -> Answer:
        answer = await self._channel.receive(party, Answer)
        _check_purpose(party, answer.purpose, self._conversation.purpose)
        if answer.index != index:
            raise PeerError("group_sum.index", f"{party}: answered vector {answer.index}, vector {index} was asked")
        return answer

    def _check_totals(self, party: PartyId, columns: Sequence[Ints], sums: Sequence[Ints]) -> None:
        for column, found in zip(columns, sums, strict=True):
            total, at = int(column.sum()), 0
            for code, bins in self._shapes[party].features:
                if int(found[at : at + bins].sum()) != total:
                    raise IntegrityError(
                        "group_sum.total", f"{party}: the bins of feature {code} do not add up to the asker's own total"
                    )
                at += bins


def _check_purpose(party: PartyId, found: str, wanted: str) -> None:
    if found != wanted:
        raise PeerError("group_sum.purpose", f"{party}: a message of conversation {found!r}, in {wanted!r} expected")
