"""What the parties of a run agree on before any group sum, what each keeps, and the fields of one conversation."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.backends import answer_size, request_size
from fedcredit.crypto.commitment import content_digest
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.kept import Once
from fedcredit.crypto.packing import Field, PackPlan, plan
from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.profiles import PROFILES, GroupSumParameters, derive
from fedcredit.crypto.reference import check_commitment, commit, reference_seed
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Kept, NothingKept
from fedcredit.protocol.group_sum.messages import LARGEST_ANSWER, LARGEST_REQUEST, NonceCommitment, NonceReveal
from fedcredit.types import PartyId

__all__ = ["Conversation", "Escrow", "KeptSecrets", "Session", "agree", "grouping_secrets", "vector_seed"]

_COMFORTABLE = 1 << 28  # bytes of a request that holds several vectors; a run holds a few copies of one in memory
_ENVELOPE = 1 << 10  # names, numbers and lengths of a request
_EACH = 1 << 6  # commitment and lengths of one of its vectors


class Escrow(Protocol):
    """Where a party keeps, in its own house, what an auditor may ask for later."""

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        """Stores an entry durably before it returns."""
        ...

    def bind(self, what: str, key: str, digest: str) -> None:
        """Ties a key to a digest for good, durably before it returns; again with the same digest changes nothing.

        Raises:
            IntegrityError: the key was bound to another digest before, in this process or an earlier one.
        """
        ...


@dataclass(frozen=True)
class KeptSecrets:
    """A party's randomness and its memory.

    Args:
        secret: The run's secret, from which keys and one-time seeds are derived.
        replayable: Source of what an auditor must be able to repeat: order of features, noise, rounding.
        escrow: Where the party keeps seeds and salts, and remembers what it has asked and answered.
        kept: Where it keeps what the cipher library draws: no process after this one could make it again.
    """

    secret: RunSecret
    replayable: Entropy
    escrow: Escrow
    kept: Kept = field(default_factory=NothingKept)

    def once(self, name: str, about: bytes, make: Callable[[], bytes]) -> bytes:
        """What the library draws, made once in a run and on the disk when this returns; see `Kept.once`.

        The escrow knows its digest for good: what was lost is never made a second time.

        Raises:
            IntegrityError: it was made from something else before, is damaged, or is gone.
        """
        body = self.kept.once(name, about, make)
        self.escrow.bind("kept", name, hashlib.sha256(body).hexdigest())
        return body

    def all_once(self, name: str, about: bytes, make: Callable[[], list[bytes]]) -> list[bytes]:
        """Several bodies of one message; see `once`."""
        kept = self.once(name, about, lambda: msgspec.msgpack.encode(make()))
        return msgspec.msgpack.decode(kept, type=list[bytes])

    def within(self, place: str) -> Once:
        """`once` with names that begin with a place."""
        return lambda name, about, make: self.once(f"{place}/{name}", about, make)


@dataclass(frozen=True)
class Session:
    """The agreement of one run.

    Args:
        run_digest: Digest of the run's configuration and identity.
        profile: Encryption profile.
        nonces: Every party's revealed share of the reference strings.
    """

    run_digest: str
    profile: str
    nonces: Mapping[PartyId, bytes]

    def reference(self, purpose: str, parameters: GroupSumParameters) -> bytes:
        """Seed of the reference string of one conversation; each grouping has its own."""
        return reference_seed(
            self.run_digest,
            sorted(self.nonces),
            parameters.digest(),
            {str(party): nonce for party, nonce in self.nonces.items()},
            purpose,
        )


@dataclass(frozen=True)
class Conversation:
    """One asker's requests over one grouping: everything both sides derive from the spec.

    Args:
        session: The run's agreement.
        purpose: Unique name of the conversation in the run.
        batches: The fields asked together, batch by batch, in order.
        rows: Number of rows.
        weight_bound: Largest weight of the answerers' matrices.
    """

    session: Session
    purpose: str
    batches: tuple[tuple[Field, ...], ...]
    rows: int
    weight_bound: int = 1

    @cached_property
    def plans(self) -> tuple[PackPlan, ...]:
        """For each batch, how its fields share vectors."""
        bits = PROFILES[self.session.profile].max_sum_bits
        made: dict[tuple[Field, ...], PackPlan] = {}
        for batch in self.batches:
            if batch not in made:
                made[batch] = plan(batch, self.rows, self.weight_bound, bits)
        return tuple(made[batch] for batch in self.batches)

    @cached_property
    def parameters(self) -> GroupSumParameters:
        """The smallest parameters that hold every batch, the answerers' noise included.

        Raises:
            BoundError: no parameters of the profile do.
        """
        bound, slack = max(p.value_bound for p in self.plans), max(p.sum_slack for p in self.plans)
        return derive(self.session.profile, self.rows, bound, self.weight_bound, slack)

    @cached_property
    def reference(self) -> bytes:
        """Seed of the reference string: 32 bytes that follow from the run, its nonces, the sizes and the purpose."""
        return self.session.reference(self.purpose, self.parameters)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """For each batch, the number of its first vector: a batch that is left out leaves its numbers unused."""
        return tuple(itertools.accumulate((len(p.vectors) for p in self.plans[:-1]), initial=0))

    def check_sizes(self, outputs: int) -> None:
        """Refuses sizes that no message holds; nothing has been sent by then.

        Args:
            outputs: Most sums of an answerer.

        Raises:
            BoundError: an encrypted vector is larger than a request may be, or the answers to one request are larger
                than an answer may be.
        """
        size = request_size(self.parameters) + _EACH + _ENVELOPE
        if size > LARGEST_REQUEST:
            raise BoundError(
                "group_sum.request-size",
                f"{self.purpose}: a vector of {self.rows} rows makes a request of {size} bytes with "
                f"{self.session.profile}, at most {LARGEST_REQUEST} are declared",
            )
        most = max(len(part) for batch in range(len(self.batches)) for part in self.requests(batch))
        size = most * (answer_size(self.parameters, outputs) + _EACH) + _ENVELOPE
        if size > LARGEST_ANSWER:
            raise BoundError(
                "group_sum.answer-size",
                f"{self.purpose}: {outputs} sums of {most} vectors make an answer of {size} bytes with "
                f"{self.session.profile}, at most {LARGEST_ANSWER} are declared; use fewer bins or smaller batches",
            )

    @cached_property
    def vectors_per_request(self) -> int:
        """Most vectors of one request: as many as fit into 256 MiB, at least one."""
        return max(1, (_COMFORTABLE - _ENVELOPE) // (request_size(self.parameters) + _EACH))

    def requests(self, batch: int) -> tuple[range, ...]:
        """The requests of a batch, each as numbers of vectors within the batch: one, unless the batch is very large."""
        count, most = len(self.plans[batch].vectors), self.vectors_per_request
        return tuple(range(at, min(at + most, count)) for at in range(0, count, most))

    def fields(self, batch: int, vectors: range) -> int:
        """Number of fields that some vectors of a batch carry."""
        return sum(len(self.plans[batch].vectors[vector]) for vector in vectors)


def vector_seed(secret: RunSecret, conversation: Conversation, index: int, vector: NDArray[np.int64]) -> bytes:
    """The one-time seed of a vector, 32 bytes.

    It binds the reference string too: one seed under two strings would give two encryptions with one secret and one
    error, whose difference prints the secret.

    Args:
        secret: The asker's.
        conversation: Whose reference string it is encrypted under.
        index: Number of the vector in the conversation.
        vector: int64 (rows,), packed.
    """
    number = index.to_bytes(8, "little")
    return secret.derive("group_sum/vector", conversation.reference, number, content_digest(vector))


def grouping_secrets(secret: RunSecret, conversation: Conversation, grouping: Grouping) -> tuple[bytes, Entropy]:
    """Salt of the commitment to a grouping, and the source of its blinding and floods.

    Bound to every cell of the grouping and to the reference string: blinding used for two groupings under one string
    would print the rows that moved.
    """
    shape = repr((grouping.bins, grouping.weight_bound)).encode()
    weights = b"" if grouping.weights is None else content_digest(grouping.weights)
    bound = (conversation.reference, shape, content_digest(grouping.codes), weights)
    return secret.derive("group_sum/grouping-salt", *bound), secret.entropy("group_sum/answerer", *bound)


async def agree(
    channel: Channel, roster: Sequence[PartyId], run_digest: str, profile: str, keep: KeptSecrets
) -> Session:
    """Commits to a nonce, then reveals it; the same at every party of the roster.

    A party that starts again has the same nonce, which the others know by then. So it holds them to the commitments of
    the first time: else the one that chooses last could choose the reference string among as many as it can compute.

    Raises:
        PeerError: a party revealed another nonce than it had committed to.
        IntegrityError: a party committed to another nonce in an earlier attempt at this run.
    """
    channel.stage("reference")
    nonce = keep.secret.derive("group_sum/nonce", run_digest.encode())
    others = [party for party in roster if party != channel.party]
    await channel.broadcast(others, NonceCommitment(commitment=commit(nonce)))
    commitments = await channel.gather(others, NonceCommitment)
    for party in others:
        keep.escrow.bind("nonce", f"{run_digest}/{party}", commitments[party].commitment.hex())
    await channel.broadcast(others, NonceReveal(nonce=nonce))
    reveals = await channel.gather(others, NonceReveal)
    for party in others:
        with blaming(party):
            check_commitment(commitments[party].commitment, reveals[party].nonce)
    nonces = {**{party: reveals[party].nonce for party in others}, channel.party: nonce}
    for party in sorted(nonces):
        keep.escrow.record("nonce", {"run": run_digest, "party": party, "nonce": nonces[party].hex()})
    return Session(run_digest, profile, nonces)
