"""Pairwise masks that cancel in a sum: each party's vector alone is uniform, the sum over the roster is exact.

Every two parties of a roster agree on a key by X25519, derive from it one stream for this run, round and roster, and
one of them adds it, the other subtracts it, modulo a power of two or any other modulus.

Guarantees: a masked vector is uniform to everyone but a coalition of *all* other members of the roster; a roster that
differs in one name or key gives unrelated masks. Duplicate, non-canonical and low-order public keys are refused.

Not covered: who owns a public key (signed envelopes say so); a sum whose members disagree on the roster does not
cancel and is garbage, so callers let every member sign the roster's digest.

Parameters: X25519, HKDF-SHA256, ChaCha20 with a 256-bit key used for one stream.

Source: RFC 7748 (X25519, section 6.1 on the zero check); RFC 5869 (HKDF); RFC 8439 (ChaCha20); Bonawitz et al., CCS
2017, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedcredit.crypto.prg import Entropy
from fedcredit.errors import BoundError, PeerError

__all__ = ["MaskKey", "MaskRoster"]

_KEY_BYTES = 32
_FIELD_PRIME = (1 << 255) - 19
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
"""All canonical points whose product with any clamped key is zero: of order 1, 2, 4 and 8 on the curve or its twist."""

_MAX_BITS = 64
_MAX_MODULUS = 1 << 63
_MAX_VALUES = 1 << 32
_LABEL = b"fedcredit/masks/v1"


@dataclass(frozen=True)
class MaskRoster:
    """Who masks together, and for what; all members must hold the same one.

    Args:
        run: Name of the run.
        round: Name of the sum within the run, used for one sum only.
        keys: Public mask key of each member, 32 bytes by name; at least two members.

    Raises:
        BoundError: fewer than two members.
        PeerError: a key of wrong length, non-canonical, of low order, or that two members share; names the member.
    """

    run: str
    round: str
    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if len(self.keys) < 2:
            raise BoundError("masks.roster", f"a roster of {len(self.keys)} was given, at least 2 members are needed")
        object.__setattr__(self, "keys", dict(self.keys))  # the caller's mapping may change, a roster may not
        owners: dict[bytes, str] = {}
        for name, key in sorted(self.keys.items()):
            if len(key) != _KEY_BYTES or int.from_bytes(key, "little") >= _FIELD_PRIME:
                raise PeerError("masks.key", f"mask key of {name}: no canonical X25519 public key of 32 bytes")
            if int.from_bytes(key, "little") in _LOW_ORDER:
                raise _low_order(name)
            if key in owners:
                raise PeerError("masks.duplicate", f"mask key of {name}: the same as that of {owners[key]}")
            owners[key] = name

    def digest(self) -> bytes:
        """32 bytes that name run, round, members and keys."""
        parts = [self.run.encode(), self.round.encode()]
        for name, key in sorted(self.keys.items()):
            parts += [name.encode(), key]
        return hashlib.sha256(_joined(_LABEL + b"/roster", *parts)).digest()


class MaskKey:
    """Secret key of one party for its masks; it cannot be copied or stored.

    Args:
        entropy: Source of the key; the operating system's in production.
    """

    def __init__(self, entropy: Entropy) -> None:
        self._secret = X25519PrivateKey.from_private_bytes(entropy.take(_KEY_BYTES))
        self._public = self._secret.public_key().public_bytes_raw()
        self._used: set[bytes] = set()

    def __repr__(self) -> str:
        return "MaskKey(secret)"

    def __reduce__(self) -> str:
        raise BoundError("masks.secret", "a mask key cannot be copied or stored")

    def public_bytes(self) -> bytes:
        """The public key, 32 bytes."""
        return self._public

    def mask(self, roster: MaskRoster, own: str, size: int, modulus_bits: int) -> NDArray[np.uint64]:
        """This party's mask: the sum of its streams with all others, whose sum over the roster is zero.

        A roster is used once: a second vector under the same mask would give away the difference of the two. A retry
        sends the bytes of the first attempt again.

        Args:
            roster: Who masks together.
            own: This party's name in the roster.
            size: Number of values.
            modulus_bits: k; masks are uniform modulo 2^k, in [1, 64].

        Returns:
            uint64 (size,), each below 2^modulus_bits.

        Raises:
            BoundError: sizes out of range, or the roster was used before.
            PeerError: the roster does not hold this party under this key.
        """
        if not (1 <= modulus_bits <= _MAX_BITS and 0 <= size <= _MAX_VALUES):
            raise BoundError(
                "masks.size", f"{size} masks of {modulus_bits} bits; up to 2^32 of 1..64 bits are possible"
            )
        total = np.zeros(size, dtype=np.uint64)
        for adds, key, info in self._pairs(roster, own, b"/pair", bytes([modulus_bits])):
            stream = np.frombuffer(_stream(key, info)(8 * size), dtype="<u8").astype(np.uint64)
            # Low k bits of a uniform word are uniform: no bias. uint64 wraps modulo 2^64, a multiple of t.
            total = total + stream if adds else total - stream
        return total & np.uint64((1 << modulus_bits) - 1)

    def mask_below(self, roster: MaskRoster, own: str, size: int, modulus: int) -> NDArray[np.uint64]:
        """As `mask`, modulo any number: uniform in [0, modulus) without bias, the sum over the roster 0 modulo it.

        Args:
            roster: Who masks together; used once, by this or by `mask`.
            own: This party's name in the roster.
            size: Number of values.
            modulus: In [2, 2^63].

        Returns:
            uint64 (size,), each below ``modulus``.

        Raises:
            BoundError: sizes out of range, or the roster was used before.
            PeerError: the roster does not hold this party under this key.
        """
        if not (2 <= modulus <= _MAX_MODULUS and 0 <= size <= _MAX_VALUES):
            raise BoundError("masks.size", f"{size} masks modulo {modulus}; up to 2^32 modulo 2..2^63 are possible")
        total, t = np.zeros(size, dtype=np.uint64), np.uint64(modulus)
        for adds, key, info in self._pairs(roster, own, b"/pair-below", modulus.to_bytes(8, "little")):
            stream = _below(_stream(key, info), modulus, size)
            total = (total + (stream if adds else t - stream)) % t
        return total

    def _pairs(self, roster: MaskRoster, own: str, use: bytes, modulus: bytes) -> Iterator[tuple[bool, bytes, bytes]]:
        """For each other member: whether this party adds, the secret shared, and what the stream is for."""
        if roster.keys.get(own) != self._public:
            raise PeerError("masks.roster", f"the roster does not name {own} with this party's mask key")
        digest = roster.digest()
        if digest in self._used:
            raise BoundError("masks.reuse", f"round {roster.round} was masked before; a retry resends the same bytes")
        self._used.add(digest)
        for name, key in sorted(roster.keys.items()):
            if name == own:
                continue
            low, high = sorted((own, name))
            info = _joined(_LABEL + use, digest, low.encode(), high.encode(), modulus)
            yield own == low, _agree(self._secret, key, name), info  # the party that comes first by name adds


def _agree(secret: X25519PrivateKey, public: bytes, name: str) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # all-zero result: RFC 7748, section 6.1
        raise _low_order(name) from None


def _low_order(name: str) -> PeerError:
    return PeerError("masks.low-order", f"mask key of {name}: a point of low order")


def _stream(shared: bytes, info: bytes) -> Callable[[int], bytes]:
    key = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(shared)
    # Zero nonce: the key is derived for this one stream.
    context = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return lambda size: context.update(bytes(size))


def _below(stream: Callable[[int], bytes], modulus: int, size: int) -> NDArray[np.uint64]:
    """Rejects the words of as many bits as ``modulus - 1`` has that are not below it; both ends reject the same."""
    bits = np.uint64((1 << (modulus - 1).bit_length()) - 1)
    found = np.empty(0, dtype=np.uint64)
    while len(found) < size:
        words = np.frombuffer(stream(8 * (size - len(found))), dtype="<u8") & bits
        found = np.concatenate([found, words[words < np.uint64(modulus)]])
    return found


def _joined(*parts: bytes) -> bytes:
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])
