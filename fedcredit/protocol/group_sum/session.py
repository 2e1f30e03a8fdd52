"""What the parties of a run agree on before any group sum, and the fields of one conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedcredit.crypto.packing import Field, PackPlan, plan
from fedcredit.crypto.prg import SEED_BYTES, Entropy
from fedcredit.crypto.profiles import PROFILES, GroupSumParameters, derive
from fedcredit.crypto.reference import check_commitment, commit, reference_seed
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.messages import NonceCommitment, NonceReveal
from fedcredit.types import PartyId

__all__ = ["Conversation", "Escrow", "KeptSecrets", "Session", "agree"]


class Escrow(Protocol):
    """Where a party keeps, in its own house, what an auditor may ask for later."""

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        """Stores an entry durably before it returns."""
        ...


@dataclass(frozen=True)
class KeptSecrets:
    """A party's randomness.

    Args:
        entropy: Source of keys and one-time seeds; the operating system, outside tests.
        replayable: Source of what an auditor must be able to repeat: order of features, noise, rounding.
        escrow: Where the party keeps seeds and salts.
    """

    entropy: Entropy
    replayable: Entropy
    escrow: Escrow


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

    @property
    def plans(self) -> tuple[PackPlan, ...]:
        """For each batch, how its fields share vectors."""
        bits = PROFILES[self.session.profile].max_sum_bits
        return tuple(plan(batch, self.rows, self.weight_bound, bits) for batch in self.batches)

    @property
    def parameters(self) -> GroupSumParameters:
        """The smallest parameters that hold every batch.

        Raises:
            BoundError: no parameters of the profile do.
        """
        bound = max(p.value_bound for p in self.plans)
        return derive(self.session.profile, self.rows, bound, self.weight_bound)


async def agree(
    channel: Channel, roster: Sequence[PartyId], run_digest: str, profile: str, entropy: Entropy
) -> Session:
    """Commits to a nonce, then reveals it; the same at every party of the roster.

    Raises:
        PeerError: a party revealed another nonce than it had committed to.
    """
    channel.stage("reference")
    nonce = entropy.take(SEED_BYTES)
    others = [party for party in roster if party != channel.party]
    await channel.broadcast(others, NonceCommitment(commitment=commit(nonce)))
    commitments = await channel.gather(others, NonceCommitment)
    await channel.broadcast(others, NonceReveal(nonce=nonce))
    reveals = await channel.gather(others, NonceReveal)
    for party in others:
        with blaming(party):
            check_commitment(commitments[party].commitment, reveals[party].nonce)
    nonces = {party: reveals[party].nonce for party in others}
    return Session(run_digest, profile, {**nonces, channel.party: nonce})
