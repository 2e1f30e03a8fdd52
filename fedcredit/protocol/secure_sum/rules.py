"""What all members of a secure sum and the relay agree on, and the digests by which they notice that they do not."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from fedcredit.crypto.boxes import joined
from fedcredit.crypto.masks import MaskRoster
from fedcredit.crypto.secure_sum import MOST_ENCRYPTED, SumShape, threshold, word_bits
from fedcredit.errors import BoundError, PeerError, TransportError
from fedcredit.protocol.secure_sum.messages import Fresh, Joined
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey, VerifyKey

__all__ = [
    "FIRST",
    "Identity",
    "SignedIdentity",
    "SumRules",
    "UnsafeUnsigned",
    "about",
    "check_floor",
    "check_names",
    "history_digest",
    "join_text",
    "list_digest",
    "mask_roster",
    "place_of",
    "roster_digest",
    "welcome_digest",
]

FIRST = 1
"""Number of the first sum."""

_LABEL = b"fedcredit/secure_sum/v1"


@dataclass(frozen=True)
class SumRules:
    """The rules of one series of sums.

    Args:
        run: Name of the run.
        banks: All banks that may take part.
        profile: ``masked+he``, or ``masked`` where the relay learns the totals.
        min_banks: Fewest banks of a total.
        colluding: Banks that may work together with the relay against another.
        name: Of the series, where a run has several.

    Raises:
        BoundError: fewer banks than a total needs, one twice, or more than the profile carries.
    """

    run: str
    banks: tuple[PartyId, ...]
    profile: Literal["masked+he", "masked"] = "masked+he"
    min_banks: int = 3
    colluding: int = 1
    name: str = "sums"

    def __post_init__(self) -> None:
        if len(set(self.banks)) != len(self.banks):
            raise BoundError("secure_sum.banks", "a bank is named twice among those of a secure sum")
        if self.encrypted and len(self.banks) > MOST_ENCRYPTED:
            raise BoundError(
                "secure_sum.banks",
                f"{len(self.banks)} banks under profile masked+he; at most {MOST_ENCRYPTED}, masked takes more",
            )
        self.threshold(len(self.banks))

    @property
    def encrypted(self) -> bool:
        """Whether the relay is kept from the totals."""
        return self.profile == "masked+he"

    @property
    def floor(self) -> int:
        """Fewest banks of a total; at least two of them are honest."""
        return max(self.min_banks, self.colluding + 2, 3)

    def threshold(self, holders: int) -> int:
        """Shares that open a secret which was shared among so many; also the fewest survivors.

        Raises:
            BoundError: code ``secure_sum.floor``, below the floor.
        """
        return threshold(holders, self.colluding, self.floor)

    def shape(self, length: int, bound: int, members: int) -> SumShape:
        """Size of a sum of so many members.

        Raises:
            BoundError: it cannot be exact.
        """
        return SumShape(length, bound, word_bits(members, bound))

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that name these rules."""
        numbers = f"{self.profile}/{self.min_banks}/{self.colluding}".encode()
        banks = [bank.encode() for bank in sorted(self.banks)]
        return hashlib.sha256(joined(_LABEL, self.run.encode(), self.name.encode(), numbers, *banks)).digest()


class Identity(Protocol):
    """How a bank shows that a key is its own, and sees that another's is."""

    def sign(self, data: bytes) -> bytes:
        """A signature of at most 64 bytes under the bank's key of the run's roster."""
        ...

    def check(self, party: PartyId, data: bytes, signature: bytes) -> None:
        """Verifies another bank's signature.

        Raises:
            PeerError: it is not that bank's.
        """
        ...


class SignedIdentity:
    """Identity by the keys that sign envelopes.

    Args:
        key: The bank's own.
        keys: Public keys of all banks.
    """

    def __init__(self, key: SigningKey, keys: Mapping[PartyId, VerifyKey]) -> None:
        self._key, self._keys = key, dict(keys)

    def sign(self, data: bytes) -> bytes:
        """See `Identity.sign`."""
        return self._key.sign(data)

    def check(self, party: PartyId, data: bytes, signature: bytes) -> None:
        """See `Identity.check`."""
        if party not in self._keys:
            raise PeerError("secure_sum.stranger", f"{party} has no signing key in this run", culprit=party)
        self._keys[party].check(signature, data, party)


class UnsafeUnsigned:
    """No signatures: whoever carries the keys is believed.

    Unsafe where the relay is not trusted to pass keys on as they are: it could stand between any two banks.
    """

    def sign(self, data: bytes) -> bytes:  # noqa: ARG002 - the interface's
        """Nothing."""
        return b""

    def check(self, party: PartyId, data: bytes, signature: bytes) -> None:
        """Believes everyone."""


def join_text(rules: SumRules, party: PartyId, key: bytes) -> bytes:
    """What a bank signs when it joins."""
    return joined(_LABEL, b"join", rules.digest, party.encode(), key)


def welcome_digest(rules: SumRules, members: Sequence[Joined]) -> bytes:
    """Names a first roster by its members and their keys; boxes of the first sum are bound to it."""
    keys = [part for one in members for part in (one.party.encode(), one.key)]
    return hashlib.sha256(joined(_LABEL, b"welcome", rules.digest, *keys)).digest()


def check_floor(rules: SumRules, holders: int, left: int) -> int:
    """Fewest survivors of a sum whose secrets were shared among so many.

    Args:
        rules: Of the sums.
        holders: Banks that hold shares.
        left: Banks that are left.

    Raises:
        TransportError: code ``secure_sum.floor``, fewer are left.
    """
    try:
        needed = rules.threshold(holders)
    except BoundError as error:
        raise TransportError(error.code, error.public) from None
    if left < needed:
        raise TransportError(
            "secure_sum.floor", f"{left} of {holders} banks are left, {needed} are needed; no sum opens"
        )
    return needed


def check_names(names: Sequence[str], among: Sequence[str], what: str) -> None:
    """Refuses a list of banks that is not sorted, names one twice, or names one that is not ``among`` those known.

    Raises:
        PeerError: saying which.
    """
    if list(names) != sorted(set(names)):
        raise PeerError("secure_sum.roster", f"{what}: banks must be sorted, each once")
    strangers = sorted(set(names) - set(among))
    if strangers:
        raise PeerError("secure_sum.stranger", f"{what}: {strangers[0]} is not among the banks it may name")


def roster_digest(
    rules: SumRules, number: int, base: Sequence[str], fresh: Sequence[Fresh], history: bytes = b""
) -> bytes:
    """Names the roster of a sum: who holds shares, who takes part, their fresh keys, and what they have opened before.

    Args:
        rules: Of the sums.
        number: Of the sum.
        base: Holders of shares.
        fresh: Who takes part, with their keys.
        history: `history_digest` of the sums before; members that were told other totals are of another roster.
    """
    holders = [name.encode() for name in base]
    keys = [part for one in fresh for part in (one.party.encode(), one.pair_key, one.seed_digest)]
    parts = (joined(*holders), joined(*keys), history)
    return hashlib.sha256(joined(_LABEL, b"roster", rules.digest, number.to_bytes(8, "big"), *parts)).digest()


def history_digest(group: bytes, before: bytes, listed: bytes, total: bytes) -> bytes:
    """Names all totals that a member has opened: what it brings next follows from them.

    A relay that told members different totals could have all but one bring what it knows, and read that one's vector
    off the next total. As it is, they do not open each other's boxes.

    Source: D. Pasquini, D. Francati, G. Ateniese, Eluding secure aggregation in federated learning via model
    inconsistency, CCS 2022.

    Args:
        group: The group's key: the relay sees digests that follow from this one, and is not to try totals on them.
        before: Of the sums before; empty before the first.
        listed: `list_digest` of whose vectors are in the total.
        total: int64, little-endian.
    """
    text = joined(_LABEL, b"history", before, listed, hashlib.sha256(total).digest())
    return hmac.digest(group, text, "sha256")


def about(roster: bytes, what: str, length: int, bound: int) -> bytes:
    """Names one sum: its roster and what is summed. Members that do not agree on it cannot open each other's boxes."""
    numbers = f"{length}/{bound}".encode()
    return hashlib.sha256(joined(_LABEL, b"about", roster, what.encode(), numbers)).digest()


def list_digest(context: bytes, survivors: Sequence[str]) -> bytes:
    """Names a list of survivors of a sum."""
    return hashlib.sha256(joined(_LABEL, b"survivors", context, *(name.encode() for name in survivors))).digest()


def mask_roster(rules: SumRules, context: bytes, keys: Mapping[str, bytes]) -> MaskRoster:
    """The roster under which a sum is masked.

    Raises:
        PeerError: a key that is none, or that two members share.
    """
    return MaskRoster(rules.run, f"{rules.name}/{context.hex()}", keys)


def place_of(context: bytes, number: int, writer: str, reader: str, fresh: tuple[bytes, bytes]) -> bytes:
    """What a box of shares for a sum belongs to: the roster it was made under, both ends, and the keys it shares."""
    return joined(_LABEL, b"box", context, number.to_bytes(8, "big"), writer.encode(), reader.encode(), *fresh)
