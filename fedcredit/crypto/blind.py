"""Commutative blinding: ids become points, points are multiplied by secret scalars, in any order with one result.

``k1·(k2·H(id)) = k2·(k1·H(id))``. Who has no key sees points that say nothing of the ids; only what was blinded with
all keys can be compared.

Guarantees: tokens of different runs or purposes are unrelated (the hash and the keys are their own); to whoever lacks
the key, a blinded point is pseudo-random (decisional Diffie-Hellman with H as random oracle). Every point received is
checked: non-canonical encodings and the identity are refused; the group has prime order, so there is no other point
of low order.

Not covered: a party that blinds points of its own choice learns what an honest one would with these ids, so the number
of ids is budgeted (`CostKind.IDS_ASKED`); whether a token was replaced by another; timing.

Parameters: ristretto255 (about 126 bits classical, none against a quantum computer), SHA-512, 256-bit keys.

Leakage: the length of a list.

Source: RFC 9496; RFC 9380 sections 5.3.1, 5.3.3 and appendix B; RFC 9497 section 4.1; Meadows, IEEE S&P 1986;
Huberman, Franklin, Hogg, EC 1999.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence

import numpy as np

from fedcredit.crypto.blind_group import WIDE, Bytes, each, from_uniform, reduced, times
from fedcredit.crypto.prg import Entropy
from fedcredit.errors import BoundError

__all__ = ["BlindingKey", "Pass", "domain", "expand_message", "hash_to_group"]

_LONGEST_DST = 255
_BLOCK_BYTES = 128  # of SHA-512, RFC 9380's s_in_bytes
_PRODUCT = b"FedCredit-V01-CS-ristretto255_XMD:SHA-512_R255MAP_RO_-"


def domain(purpose: str, run: str) -> bytes:
    """Domain separation tag of one purpose in one run, at most 255 bytes.

    Args:
        purpose: Name of the use.
        run: Digest and name of the run, of any length.
    """
    return _PRODUCT + purpose.encode() + b"-" + hashlib.sha256(run.encode()).hexdigest().encode()


def expand_message(message: bytes, dst: bytes) -> bytes:
    """``expand_message_xmd`` with SHA-512 to 64 bytes: one block of output.

    Args:
        message: Anything.
        dst: Domain separation tag; longer than 255 bytes it is hashed.

    Source: RFC 9380 sections 5.3.1 and 5.3.3.
    """
    return _Expander(dst).expand(message)


class _Expander:
    """Expands many messages under one tag; the zero block is absorbed once."""

    def __init__(self, dst: bytes) -> None:
        if len(dst) > _LONGEST_DST:
            dst = hashlib.sha512(b"H2C-OVERSIZE-DST-" + dst).digest()
        self._zero = hashlib.sha512(bytes(_BLOCK_BYTES))
        prime = dst + bytes([len(dst)])
        self._first = WIDE.to_bytes(2, "big") + b"\x00" + prime
        self._second = b"\x01" + prime

    def expand(self, message: bytes) -> bytes:
        """64 uniform bytes of one message."""
        state = self._zero.copy()
        state.update(message + self._first)
        return hashlib.sha512(state.digest() + self._second).digest()


def hash_to_group(items: Sequence[bytes], dst: bytes) -> Bytes:
    """Points whose discrete logarithms nobody knows.

    Args:
        items: What to hash.
        dst: Domain separation tag, for example of `domain`.

    Returns:
        uint8 (n, 32), encodings.

    Source: RFC 9380 appendix B (``ristretto255_XMD:SHA-512_R255MAP_RO_``), as RFC 9497 section 4.1 uses it.
    """
    expander = _Expander(dst)
    uniform = np.empty((len(items), WIDE), dtype=np.uint8)

    def job(first: int, last: int) -> int:
        block = b"".join([expander.expand(item) for item in items[first:last]])
        uniform[first:last] = np.frombuffer(block, dtype=np.uint8).reshape(-1, WIDE)
        return last - first

    each(len(items), job)
    return from_uniform(uniform)


class BlindingKey:
    """Secret scalar of one party for one purpose in one run; it cannot be copied, printed or stored.

    Args:
        entropy: Source of the key, derived for this purpose and run alone.
    """

    def __init__(self, entropy: Entropy) -> None:
        drawn = np.frombuffer(entropy.take(WIDE), dtype=np.uint8).reshape(1, WIDE)
        self._scalar = ctypes.create_string_buffer(reduced(drawn).tobytes(), 32)
        self._used: set[str] = set()
        if not any(self._scalar.raw):  # probability 2^-252
            raise BoundError("blind.key", "the source of randomness gave the key zero")

    def __repr__(self) -> str:
        return "BlindingKey(secret)"

    def __reduce__(self) -> str:
        raise BoundError("blind.secret", "a blinding key cannot be copied or stored")

    def start(self, purpose: str) -> Pass:
        """Begins the one pass of this key over a list.

        Args:
            purpose: Name of the list.

        Raises:
            BoundError: the list was blinded before, or the key is destroyed.
        """
        if not any(self._scalar.raw):
            raise BoundError("blind.destroyed", "the blinding key of this run is destroyed")
        if purpose in self._used:
            raise BoundError("blind.reuse", f"{purpose} was blinded before: a list passes a key once")
        self._used.add(purpose)
        return Pass(self._scalar)

    def destroy(self) -> None:
        """Overwrites the scalar; nothing can be blinded any more."""
        ctypes.memset(self._scalar, 0, len(self._scalar))


class Pass:
    """One pass of a key over a list, piece by piece."""

    def __init__(self, scalar: ctypes.Array[ctypes.c_char]) -> None:
        self._scalar = scalar

    def __repr__(self) -> str:
        return "Pass(secret)"

    def __reduce__(self) -> str:
        raise BoundError("blind.secret", "a blinding key cannot be copied or stored")

    def blind(self, points: Bytes) -> Bytes:
        """The key times each point, in the same order.

        Args:
            points: uint8 (n, 32).

        Raises:
            BoundError: the key is destroyed.
            PeerError: a point is not canonical, or the identity.
        """
        if not any(self._scalar.raw):
            raise BoundError("blind.destroyed", "the blinding key of this run is destroyed")
        return times(points, ctypes.addressof(self._scalar))
