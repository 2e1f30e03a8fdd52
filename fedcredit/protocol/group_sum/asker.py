"""The asker of group sums: encrypts vectors, opens answers, checks what can be checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.backends import make_asker, on_every_core
from fedcredit.crypto.commitment import commit_vector
from fedcredit.crypto.group_sum import Asker, PendingSum
from fedcredit.crypto.packing import Field, pack, unpack
from fedcredit.errors import BoundError, IntegrityError, PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.messages import (
    Answer,
    AskerSetup,
    GroupingCommitment,
    Hints,
    Request,
    SealedVector,
)
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets, vector_seed
from fedcredit.types import PartyId

__all__ = ["Expected", "GroupSumAsker"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_DEVIATIONS = 8.0  # honest noise is that far off once in 3 * 10^13 sums; see `fedcredit.crypto.noise`


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
        self._next = 0

    @classmethod
    async def open(
        cls, channel: Channel, conversation: Conversation, shapes: Mapping[PartyId, Expected], keep: KeptSecrets
    ) -> GroupSumAsker:
        """Takes every answerer's commitment, then its hints.

        Raises:
            BoundError: vectors or answers of this size fit into no message; nothing was sent.
            PeerError: an answerer's hints do not fit the shape it announced.
            IntegrityError: an answerer sent other hints in an earlier attempt at this run.
        """
        answerers = list(shapes)
        conversation.check_sizes(max((shape.outputs for shape in shapes.values()), default=0))
        reference = conversation.reference
        entropy, once = keep.secret.entropy("group_sum/asker", reference), keep.within(_place(conversation.purpose))
        asker = make_asker(conversation.parameters, reference, entropy, once)
        commitments = await channel.gather(answerers, GroupingCommitment)
        for party, commitment in commitments.items():
            _check_purpose(party, commitment.purpose, conversation.purpose)
        await channel.broadcast(answerers, AskerSetup(purpose=conversation.purpose, setup=asker.setup()))
        for party, hints in (await channel.gather(answerers, Hints)).items():
            _check_purpose(party, hints.purpose, conversation.purpose)
            if hints.outputs != shapes[party].outputs:
                raise PeerError(
                    "group_sum.outputs", f"{party}: hints for {hints.outputs} sums, {shapes[party].outputs} announced"
                )
            name = _digest(commitments[party].commitment, hints.hints)
            keep.escrow.bind("hints-of", f"{conversation.purpose}/{party}", name)
            with blaming(party):
                asker.accept_hints(party, hints.hints, hints.outputs)
        return cls(channel, conversation, asker, shapes)

    async def ask(
        self,
        columns: Sequence[Ints],
        keep: KeptSecrets,
        *,
        batch: int | None = None,
        to: Sequence[PartyId] | None = None,
        withheld: Mapping[PartyId, Bools] | None = None,
    ) -> dict[PartyId, list[Ints]]:
        """Asks one batch, all its vectors in one message unless that would be very large.

        Args:
            columns: One int64 (rows,) a field of the batch.
            keep: Source of the one-time seeds, and the escrow that gets each before its vector is sent.
            batch: Number of the batch; None for the one after the last. Numbers only rise; some may be left out.
            to: Whom to ask; None for all answerers.
            withheld: For each answerer that withholds outputs, bool (outputs,): which.

        Returns:
            For each answerer asked, for each field, int64 (outputs,); 0 where withheld.

        Raises:
            BoundError: a batch out of order, an unknown answerer, or columns that do not fit the batch.
            PeerError: an answer is malformed.
            IntegrityError: bins do not add up to the asker's own total; or, before this attempt at the run, another
                vector was asked under the same number or another answer was given to it.
        """
        parties = list(self._shapes) if to is None else list(to)
        hidden = dict(withheld or {})
        if not {*parties, *hidden} <= self._shapes.keys():
            raise BoundError("group_sum.answerer", f"{self._conversation.purpose}: asks parties without hints")
        number = self._take(batch)
        plan, fields = self._conversation.plans[number], self._conversation.batches[number]
        packed: dict[PartyId, list[Ints]] = {party: [] for party in parties}
        for request, pending in self._sealed(number, pack(plan, columns), keep):
            for party, answer in (await self._exchange(request, parties, keep)).items():
                with blaming(party):
                    packed[party] += self._opened(party, pending, answer, hidden.get(party))
        sums: dict[PartyId, list[Ints]] = {}
        for party, found in packed.items():
            with blaming(party):
                sums[party] = unpack(plan, found)
            self._check_totals(party, zip(fields, columns, sums[party], strict=True), hidden.get(party))
        return sums

    async def ask_masked(
        self, columns: Sequence[Ints], party: PartyId, keep: KeptSecrets, *, batch: int | None = None
    ) -> list[bytes]:
        """Asks a batch of one answerer that masks its answers; what is returned is uniform to this party."""
        number = self._take(batch)
        masked: list[bytes] = []
        for request, pending in self._sealed(number, pack(self._conversation.plans[number], columns), keep):
            answers = await self._exchange(request, [party], keep)
            with blaming(party):
                for one, body in zip(pending, answers[party].bodies, strict=True):
                    masked.append(one.open_masked(party, body))
        return masked

    def settled(self, keep: KeptSecrets) -> None:
        """Nobody will ask for the vectors of this conversation again that were asked until now: the state is saved."""
        keep.kept.drop(f"{_place(self._conversation.purpose)}/vector/")

    def _take(self, batch: int | None) -> int:
        """Number of the batch to ask, which no later one may fall below."""
        number = self._next if batch is None else batch
        if not self._next <= number < len(self._conversation.batches):
            raise BoundError(
                "group_sum.batch",
                f"{self._conversation.purpose}: batch {number} asked, {self._next} or a later one of "
                f"{len(self._conversation.batches)} is next",
            )
        self._next = number + 1
        return number

    def _sealed(
        self, batch: int, vectors: Sequence[Ints], keep: KeptSecrets
    ) -> Iterator[tuple[Request, list[PendingSum]]]:
        """The requests of a batch, one by one: only one of them is held at a time."""
        purpose, first = self._conversation.purpose, self._conversation.starts[batch]
        for part in self._conversation.requests(batch):
            jobs = [(vectors[at], *self._seed(first + at, vectors[at], keep)) for at in part]
            sealed = on_every_core(self._conversation.parameters, lambda job: self._asker.encrypt(job[0], job[1]), jobs)
            bodies = [
                SealedVector(commitment=commitment, body=body)
                for (_, _, commitment), (body, _) in zip(jobs, sealed, strict=True)
            ]
            yield Request(purpose=purpose, index=first + part.start, vectors=bodies), [one for _, one in sealed]

    def _seed(self, index: int, vector: Ints, keep: KeptSecrets) -> tuple[bytes, bytes]:
        """The vector's seed and the commitment to both, in the escrow and spent before anything is sent."""
        purpose = self._conversation.purpose
        seed = vector_seed(keep.secret, self._conversation, index, vector)
        commitment = commit_vector(vector, seed)
        keep.escrow.bind("asked", f"{purpose}/{index}", commitment.hex())
        entry: dict[str, str | int] = {
            "purpose": purpose,
            "index": index,
            "seed": seed.hex(),
            "commitment": commitment.hex(),
        }
        keep.escrow.record("vector", entry)
        return seed, commitment

    async def _exchange(self, request: Request, parties: Sequence[PartyId], keep: KeptSecrets) -> dict[PartyId, Answer]:
        """Sends a request to all, then takes each one's answer, for good: who may try again reads the secret."""
        await self._channel.broadcast(parties, request)
        answers = {}
        for party in parties:
            answer = await self._channel.receive(party, Answer)
            _check_purpose(party, answer.purpose, request.purpose)
            if answer.index != request.index or len(answer.bodies) != len(request.vectors):
                raise PeerError(
                    "group_sum.index",
                    f"{party}: {len(answer.bodies)} answers from vector {answer.index} on, "
                    f"{len(request.vectors)} from vector {request.index} on were asked",
                )
            keep.escrow.bind("answer-of", f"{request.purpose}/{request.index}/{party}", _digest(*answer.bodies))
            answers[party] = answer
        return answers

    def _opened(
        self, party: PartyId, pending: Sequence[PendingSum], answer: Answer, withheld: Bools | None
    ) -> list[Ints]:
        jobs = zip(pending, answer.bodies, strict=True)
        return on_every_core(self._conversation.parameters, lambda job: job[0].open(party, job[1], withheld), jobs)

    def _check_totals(self, party: PartyId, fields: Iterable[tuple[Field, Ints, Ints]], withheld: Bools | None) -> None:
        for field, column, found in fields:
            total, at = int(column.sum()), 0
            for code, bins in self._shapes[party].features:
                shown = withheld is None or not withheld[at : at + bins].any()
                if shown and abs(int(found[at : at + bins].sum()) - total) > _tolerance(field, bins):
                    raise IntegrityError(
                        "group_sum.total", f"{party}: the bins of feature {code} do not add up to the asker's own total"
                    )
                at += bins


def _tolerance(field: Field, bins: int) -> float:
    """How far the sum over a feature's bins may lie from the total: by the answerer's noise, and by nothing else."""
    hard = float(field.slack * bins)
    return min(hard, _DEVIATIONS * field.deviation * math.sqrt(bins)) if field.deviation > 0 else hard


def _place(purpose: str) -> str:
    return f"group_sum/asks/{purpose}"


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _check_purpose(party: PartyId, found: str, wanted: str) -> None:
    if found != wanted:
        raise PeerError("group_sum.purpose", f"{party}: a message of conversation {found!r}, in {wanted!r} expected")
