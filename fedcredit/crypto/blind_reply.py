"""One bit for each entry of a list, told through parties who put the list back in order and may not read it.

The teller knows the list in its last order, the reader in its first; in between, each party undoes its own shuffle. A
bit is a pair of points ``(A, D)``: set if ``D = y·A`` for the reader's secret ``y``, else D is random. A party on the
way, once, multiplies both by a fresh scalar, which keeps the bit and makes the pair another one.

Guarantees: without ``y`` a set bit looks like any other (decisional Diffie-Hellman); after one honest party that
refreshes and shuffles, teller and reader together cannot say which entry became which, beyond what the bits say.

Not covered: a party on the way that sets or clears bits (whoever acts on a bit that should not be set is found by the
teller).

Parameters: ristretto255; a bit that is not set reads as set with probability 2^-252.

Source: ElGamal, IEEE Trans. Inf. Theory 1985; universal re-encryption, Golle et al., CT-RSA 2004.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.blind_group import POINT, SCALAR, WIDE, Bytes, reduced, times, times_base, times_each, validate
from fedcredit.crypto.prg import Entropy
from fedcredit.errors import BoundError

__all__ = ["PAIR", "ReplySecret", "refresh", "tell"]

PAIR = 2 * POINT
"""Bytes of one bit on the wire."""


class ReplySecret:
    """The reader's secret; it cannot be copied, printed or stored.

    Args:
        entropy: Source of the secret, derived for this run alone.
    """

    def __init__(self, entropy: Entropy) -> None:
        scalar = _scalars(entropy, 1)
        self._scalar = ctypes.create_string_buffer(scalar.tobytes(), SCALAR)
        self.public = times_base(scalar)[0].tobytes()

    def __repr__(self) -> str:
        return "ReplySecret(secret)"

    def __reduce__(self) -> str:
        raise BoundError("blind.secret", "the secret of replies cannot be copied or stored")

    def read(self, pairs: Bytes) -> NDArray[np.bool_]:
        """The bits of uint8 (n, 64) pairs, bool (n,).

        Raises:
            PeerError: a first point is no canonical encoding, or the identity.
        """
        expected = times(pairs[:, :POINT], ctypes.addressof(self._scalar))
        found: NDArray[np.bool_] = (expected == pairs[:, POINT:]).all(axis=1)
        return found


def tell(bits: NDArray[np.bool_], public: bytes, entropy: Entropy) -> Bytes:
    """Pairs for bits, uint8 (n, 64).

    Args:
        bits: bool (n,).
        public: The reader's public point, 32 bytes.
        entropy: Fresh for these bits.

    Raises:
        PeerError: the public point is no canonical encoding, or the identity.
    """
    key = np.frombuffer(public, dtype=np.uint8).reshape(1, POINT)
    validate(key)
    pairs = np.empty((len(bits), PAIR), dtype=np.uint8)
    scalars, others = _scalars(entropy, len(bits)), _scalars(entropy, len(bits))
    pairs[:, :POINT] = times_base(scalars)
    pairs[bits, POINT:] = times_each(np.repeat(key, int(bits.sum()), axis=0), scalars[bits])
    pairs[~bits, POINT:] = times_base(others[~bits])
    return pairs


def refresh(pairs: Bytes, entropy: Entropy) -> Bytes:
    """The same bits in other pairs, uint8 (n, 64).

    Args:
        pairs: uint8 (n, 64), of a peer.
        entropy: Fresh for these pairs.

    Raises:
        PeerError: a point is no canonical encoding, or the identity.
    """
    scalars = _scalars(entropy, len(pairs))
    fresh = np.empty_like(pairs)
    fresh[:, :POINT] = times_each(pairs[:, :POINT], scalars)
    fresh[:, POINT:] = times_each(pairs[:, POINT:], scalars)
    return fresh


def _scalars(entropy: Entropy, count: int) -> Bytes:
    """Uniform scalars, uint8 (n, 32); zero has probability 2^-252 and is refused where it would be used."""
    return reduced(np.frombuffer(entropy.take(WIDE * count), dtype=np.uint8).reshape(count, WIDE))
