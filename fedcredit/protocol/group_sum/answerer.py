"""The answerer of group sums: commits to its grouping, then answers the vectors of a conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.backends import make_answerer, on_every_core
from fedcredit.crypto.commitment import commit_grouping
from fedcredit.crypto.group_sum import Answerer, Grouping
from fedcredit.crypto.packing import pack_offsets
from fedcredit.errors import BoundError, PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.messages import Answer, AskerSetup, GroupingCommitment, Hints, Request
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets, grouping_secrets
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Cost, CostKind, Spend

__all__ = ["GroupSumAnswerer", "Priced", "price_each"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Priced:
    """Which features of the ledger one field of a request tells equations about.

    Args:
        equations: For each feature code, equations one field costs it.
    """

    equations: tuple[tuple[str, int], ...]

    def spend(self, request: str, fields: int) -> Spend:
        """The price of answering a request, named by its SHA-256, of ``fields`` packed fields."""
        costs = tuple(Cost(CostKind.EQUATIONS, code, each * fields) for code, each in self.equations)
        return Spend(request, costs)


class GroupSumAnswerer:
    """One conversation, from the answerer's side. Made by `open`."""

    def __init__(
        self, channel: Channel, conversation: Conversation, asker: PartyId, answerer: Answerer, keep: KeptSecrets
    ) -> None:
        self._channel = channel
        self._conversation = conversation
        self._asker = asker
        self._answerer = answerer
        self._keep = keep
        self._next = 0

    @classmethod
    async def open(
        cls, channel: Channel, conversation: Conversation, asker: PartyId, grouping: Grouping, keep: KeptSecrets
    ) -> GroupSumAnswerer:
        """Commits to the grouping, then sends its hints.

        Raises:
            BoundError: a bin has fewer rows than the grouping's minimum, or vectors or answers of this size fit into no
                message; nothing was sent.
            IntegrityError: this conversation was begun with another grouping before.
        """
        grouping.check()
        conversation.check_sizes(grouping.outputs)
        matrix = grouping.codes if grouping.weights is None else np.hstack([grouping.codes, grouping.weights])
        salt, entropy = grouping_secrets(keep.secret, conversation, grouping)
        commitment = commit_grouping(matrix, salt)
        keep.escrow.bind("grouping", conversation.purpose, commitment.hex())
        keep.escrow.record(
            "grouping", {"purpose": conversation.purpose, "salt": salt.hex(), "commitment": commitment.hex()}
        )
        await channel.send(asker, GroupingCommitment(purpose=conversation.purpose, commitment=commitment))
        setup = await channel.receive(asker, AskerSetup)
        if setup.purpose != conversation.purpose:
            raise PeerError("group_sum.purpose", f"{asker}: set-up of conversation {setup.purpose!r}")
        with blaming(asker):
            answerer = make_answerer(
                conversation.parameters,
                conversation.reference,
                setup.setup,
                grouping,
                entropy,
                keep.within(_place(conversation.purpose)),
            )
        await channel.send(asker, Hints(purpose=conversation.purpose, outputs=grouping.outputs, hints=answerer.hints()))
        return cls(channel, conversation, asker, answerer, keep)

    async def answer(
        self,
        priced: Priced,
        *,
        batch: int | None = None,
        offsets: Sequence[Ints] | None = None,
        withheld: Bools | None = None,
    ) -> None:
        """Answers one batch; every answer is paid for in the ledger first.

        Args:
            priced: What a field costs.
            batch: Number of the batch; None for the one after the last. Numbers only rise; some may be left out.
            offsets: What is added to the sums: for each field int64 (outputs,) within the field's slack.
            withheld: bool (outputs,), outputs of which nothing is told.

        Raises:
            PeerError: a request is malformed or out of turn.
            DisclosureRefused: the ledger's cap would be passed.
            BoundError: offsets beyond the slack, or a batch out of order.
            IntegrityError: another request was answered under this number before, or this one with other noise.
        """
        number = self._take(batch)
        plan = self._conversation.plans[number]
        noise = [None] * len(plan.vectors) if offsets is None else pack_offsets(plan, offsets)
        added = [] if offsets is None else [np.ascontiguousarray(one, dtype="<i8").tobytes() for one in noise]
        for part in self._conversation.requests(number):
            request, digest = await self._receive(number, part)
            jobs = [(sealed.body, noise[at]) for at, sealed in zip(part, request.vectors, strict=True)]
            with blaming(self._asker):
                bodies = on_every_core(
                    self._conversation.parameters, lambda job: self._answerer.answer(*job, withheld), jobs
                )
            self._bind(request, digest, b"plain", *added, b"" if withheld is None else withheld.tobytes())
            answer = Answer(purpose=request.purpose, index=request.index, bodies=bodies)
            spend = priced.spend(digest, self._conversation.fields(number, part))
            await self._channel.send(self._asker, answer, spend=spend)

    async def answer_masked(self, *, batch: int | None = None) -> list[bytes]:
        """Answers a batch under uniform masks and returns them; the price is paid when they are given away."""
        number = self._take(batch)
        masks: list[bytes] = []
        for part in self._conversation.requests(number):
            request, digest = await self._receive(number, part)
            with blaming(self._asker):
                answers = [self._answerer.answer_masked(sealed.body) for sealed in request.vectors]
            self._bind(request, digest, b"masked")
            answer = Answer(purpose=request.purpose, index=request.index, bodies=[body for body, _ in answers])
            await self._channel.send(self._asker, answer, spend=Spend(digest, ()))
            masks += [mask for _, mask in answers]
        return masks

    def settled(self) -> None:
        """The asker goes on from behind all that was answered until now: it will not ask for it again."""
        self._keep.kept.drop(f"{_place(self._conversation.purpose)}/answer/")

    def _take(self, batch: int | None) -> int:
        """Number of the batch to answer, which no later one may fall below."""
        number = self._next if batch is None else batch
        if not self._next <= number < len(self._conversation.batches):
            raise BoundError(
                "group_sum.batch",
                f"{self._conversation.purpose}: batch {number} expected, {self._next} or a later one of "
                f"{len(self._conversation.batches)} is next",
            )
        self._next = number + 1
        return number

    async def _receive(self, batch: int, part: range) -> tuple[Request, str]:
        """The request of some vectors of a batch, and the SHA-256 of its bytes."""
        request = await self._channel.receive(self._asker, Request)
        purpose, index = self._conversation.purpose, self._conversation.starts[batch] + part.start
        if (request.purpose, request.index, len(request.vectors)) != (purpose, index, len(part)):
            raise PeerError(
                "group_sum.index",
                f"{self._asker}: {len(request.vectors)} vectors from {request.index} on of {request.purpose!r}, "
                f"{len(part)} from {index} on of {purpose!r} expected",
            )
        # Its bytes were canonical when they came: encoding them again gives them back, and needs no second look.
        return request, hashlib.sha256(msgspec.msgpack.encode(request)).hexdigest()

    def _bind(self, request: Request, digest: str, *added: bytes) -> None:
        """Remembers for good, before it leaves, what is answered and with what: a second answer would tell more."""
        key = f"{request.purpose}/{request.index}"
        self._keep.escrow.bind("answered", key, digest)
        parts = b"".join(len(part).to_bytes(8, "little") + part for part in added)
        self._keep.escrow.bind("answered-with", key, hashlib.sha256(parts).hexdigest())


def _place(purpose: str) -> str:
    return f"group_sum/answers/{purpose}"


def price_each(codes: Sequence[str], weight: int = 1) -> Priced:
    """One equation a field for each of the features, or as many as a field counts."""
    return Priced(tuple((code, weight) for code in codes))
