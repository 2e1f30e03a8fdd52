"""Shamir's shares of 32-byte secrets over a prime field: any ``threshold`` of them give the secret, fewer nothing.

A secret s is the value at 0 of a polynomial of degree ``threshold - 1`` whose other coefficients are uniform below p;
the share of the holder at place x (1, 2, ...) is the value at x.

Guarantees: fewer than ``threshold`` shares are uniform and independent of the secret: for each candidate secret exactly
one polynomial of that degree goes through them and it, and all coefficients are equally likely. Recovery is linear,
``s = sum of w_x * share_x`` with public weights, so that shares which were blinded by adding uniform field elements can
be combined by somebody who learns neither shares nor secret.

Not covered: a holder that gives a wrong share; whoever recovers compares with something it knows of the secret.

Parameters: p = 2^257 - 93, prime; secrets are all integers below 2^256; shares of 33 bytes, little-endian, below p.

Source: Shamir, Communications of the ACM 22 (1979); docs/adr/0013-secure-sum.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedcredit.crypto.prg import SEED_BYTES, Entropy, uniform_below
from fedcredit.errors import BoundError, PeerError

__all__ = [
    "FIELD_PRIME",
    "MOST_HOLDERS",
    "SHARE_BYTES",
    "combine",
    "read_share",
    "secret_of",
    "split",
    "weighted",
    "weights",
    "write_share",
]

FIELD_PRIME = (1 << 257) - 93
"""The largest prime below 2^257: every secret of 32 bytes is an element of the field."""

SHARE_BYTES = 33
"""Bytes of one share."""

MOST_HOLDERS = 1 << 16
"""Most shares of one secret; places must be distinct and not 0 modulo p."""


_STRIDE = 32


def split(secret: bytes, threshold: int, holders: int, entropy: Entropy) -> list[int]:
    """Shares of a secret for holders at places 1, 2, ...

    Args:
        secret: 32 bytes.
        threshold: Shares that are needed, in [1, holders].
        holders: Number of shares, at most 2^16.
        entropy: Source of the coefficients; all that the shares belong to has to be bound in it.

    Returns:
        One integer below p for each holder.

    Raises:
        BoundError: another length, or no such threshold.
    """
    if len(secret) != SEED_BYTES:
        raise BoundError("shares.secret", f"a secret of {len(secret)} bytes was given, {SEED_BYTES} are needed")
    if not 1 <= threshold <= holders <= MOST_HOLDERS:
        raise BoundError("shares.threshold", f"{threshold} of {holders} shares; 1 <= threshold <= holders <= 2^16")
    coefficients = uniform_below(entropy, FIELD_PRIME, threshold - 1)
    constant = int.from_bytes(secret, "little")
    found = []
    for place in range(1, holders + 1):
        value = 0
        for at in range(0, len(coefficients), _STRIDE):  # Horner's rule, highest power first, seldom reduced
            for coefficient in coefficients[at : at + _STRIDE]:
                value = (value + coefficient) * place
            value %= FIELD_PRIME
        found.append((value + constant) % FIELD_PRIME)
    return found


def weights(places: Sequence[int]) -> list[int]:
    """Weights with which shares at these places add up to the secret.

    Args:
        places: Distinct, each in [1, 2^16]; as many as the threshold or more.

    Raises:
        BoundError: none, one twice, or one out of range.
    """
    if not places or len(set(places)) != len(places) or not 1 <= min(places) <= max(places) <= MOST_HOLDERS:
        raise BoundError("shares.places", f"{len(places)} places; distinct ones between 1 and 2^16 are needed")
    found = []
    for own in places:
        above = below = 1
        for other in places:
            if other != own:
                above = above * other % FIELD_PRIME
                below = below * (other - own) % FIELD_PRIME
        found.append(above * pow(below, -1, FIELD_PRIME) % FIELD_PRIME)
    return found


def combine(shares: Mapping[int, int]) -> int:
    """The field element that some shares, by place, stand for: the secret, where there are enough of them."""
    places = sorted(shares)
    return weighted(weights(places), (shares[place] for place in places))


def weighted(factors: Iterable[int], shares: Iterable[int]) -> int:
    """Sum of shares times weights, modulo p."""
    return sum(factor * share for factor, share in zip(factors, shares, strict=True)) % FIELD_PRIME


def secret_of(value: int) -> bytes:
    """The 32 bytes a field element stands for.

    Raises:
        PeerError: it is no secret: a share was wrong.
    """
    if not 0 <= value < 1 << (8 * SEED_BYTES):
        raise PeerError("shares.secret", "shares do not add up to a secret: one of them is not what was handed out")
    return value.to_bytes(SEED_BYTES, "little")


def write_share(share: int) -> bytes:
    """33 bytes, little-endian."""
    return share.to_bytes(SHARE_BYTES, "little")


def read_share(data: bytes) -> int:
    """A field element from untrusted bytes.

    Raises:
        PeerError: another length, or not below p.
    """
    value = int.from_bytes(data, "little")
    if len(data) != SHARE_BYTES or value >= FIELD_PRIME:
        raise PeerError("shares.share", f"a share of {len(data)} bytes; {SHARE_BYTES}, below the prime, are needed")
    return value
