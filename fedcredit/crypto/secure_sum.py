"""Secure sum of integer vectors: double masks, and over them encryption under a key that the adder does not have.

Member i sends ``y_i = x_i + p_i + s_i mod 2^k``: p_i are pair masks that cancel over the roster (`masks`), s_i is the
stream of its own seed b_i. Once it is settled whose vectors arrived, the members give shares of b_i of those and of the
pair secret of the others; from these everything but the sum of x is taken off (`open_total`).

Guarantees: with a threshold from `threshold`, a coalition of the adder and up to ``colluding`` members learns the total
over at least ``least - colluding`` other members, whatever it tells to whom, and of any single vector nothing: of each
member the others either give shares of b_i or of its pair secret, and never enough of both. A vector that comes late
stays under s_i. Totals are exact: ``members * bound < 2^(k-1)``.
Under profile masked+he the adder alone learns nothing at all: it sees ciphertexts, and shares under a pad.

Not covered: a member that brings a wrong vector; who owns the keys from which boxes are sealed (signatures say so).

Parameters: k in [16, 64]. Ciphertexts: N = 8192, one data prime q of 60 bits and a key-level prime of 60 (120 of 218
that the HE standard allows for 128-bit security), t = 2^46, secret uniform ternary. Words of up to 46 bits are
encrypted as they are: 2^k divides t. Wider ones are split into two limbs of 32 bits, whose sums stay below
256 * 2^32 < t. The second half of a ciphertext is expanded from a seed. A fresh coefficient has error at most 21 + 1/2
and q/t is rational, so wraps cost nothing: 256 of them have at most 5504 < q/2t = 8192.

Source: Bonawitz et al., CCS 2017, section 4 (double masking); docs/adr/0013-secure-sum.md (proofs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.bfv import KeylessContext, SecretContext
from fedcredit.crypto.bfv_parameters import MAX_PLAIN_BITS, BfvParameters
from fedcredit.crypto.fixed_point import check_no_overflow
from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import SEED_BYTES, SeedStream, expand
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.ternary import uniform_ternary
from fedcredit.errors import BoundError, PeerError

__all__ = [
    "MOST_ENCRYPTED",
    "MOST_MEMBERS",
    "MOST_VALUES",
    "CipherAdder",
    "GroupCipher",
    "SumShape",
    "add_words",
    "body_size",
    "mask_vector",
    "masks_left",
    "pair_key",
    "read_total",
    "read_words",
    "seed_digest",
    "threshold",
    "word_bits",
    "write_words",
]

MOST_MEMBERS = 1024
"""Most members of a sum."""

MOST_ENCRYPTED = 256
"""Most members of a sum of ciphertexts; keeps their noise below what decrypts."""

MOST_VALUES = 1 << 24
"""Most values of one vector."""

_MIN_BITS, _MAX_BITS = 16, 64
_PARAMETERS = BfvParameters((1152921504606748673, 1152921504606830593), 1 << MAX_PLAIN_BITS)
_LIMB = 32
_BODY, _TOTAL = b"mask", b"msum"


@dataclass(frozen=True)
class SumShape:
    """Size of one sum; the same at all members.

    Args:
        length: Values of a vector, in [1, 2^24].
        bound: Largest absolute value of a member.
        bits: k, from `word_bits`.
    """

    length: int
    bound: int
    bits: int

    def __post_init__(self) -> None:
        """Refuses what no sum can have.

        Raises:
            BoundError: naming the sizes.
        """
        if not (1 <= self.length <= MOST_VALUES and self.bound >= 1 and _MIN_BITS <= self.bits <= _MAX_BITS):
            sizes = f"{self.length} values within {self.bound} in words of {self.bits} bits"
            raise BoundError("secure_sum.shape", f"{sizes}; up to 2^24 in words of 16 to 64 are possible")

    @property
    def mask(self) -> np.uint64:
        """2^bits - 1."""
        return np.uint64((1 << self.bits) - 1)


def threshold(members: int, colluding: int, least: int) -> int:
    """Shares that open a secret: the fewest with which no coalition learns a total over too few.

    With h = members - colluding honest members, each answering about one list of at least t survivors that all saw the
    same roster, ``t > (members + colluding) / 2`` keeps both secrets of one member from being opened, and what is
    opened is a total over at least ``h (2t - members - colluding) / (t - colluding)`` honest ones.

    Args:
        members: Holders of shares.
        colluding: Members that may collude with the adder.
        least: Fewest members of a total; ``least - colluding`` of them honest, at least two.

    Returns:
        t in [least, members].

    Raises:
        BoundError: fewer members than ``least``, more than are proven, or a total over one honest member would do.

    Source: docs/adr/0013-secure-sum.md.
    """
    if not (0 <= colluding <= least - 2 and least <= members <= MOST_MEMBERS):
        wanted = f"{max(least, colluding + 2)} to {MOST_MEMBERS} are needed"
        raise BoundError("secure_sum.floor", f"{members} banks are left, of which {colluding} may collude; {wanted}")
    honest = members - colluding
    for shares in range(least, members + 1):
        margin = 2 * shares - members - colluding
        if margin > 0 and honest * margin > (least - colluding - 1) * (shares - colluding):
            return shares
    return members


def word_bits(members: int, bound: int) -> int:
    """k, for words in which totals of ``members`` values within ``bound`` do not wrap.

    Raises:
        BoundError: more than 64 bits would be needed.
    """
    bits = max(_MIN_BITS, (members * max(bound, 1)).bit_length() + 1)
    if bits > _MAX_BITS:
        raise BoundError(
            "secure_sum.bound", f"{members} values within {bound} need {bits} bits, {_MAX_BITS} are possible"
        )
    check_no_overflow(members, max(bound, 1), bits)
    return bits


class _Given:
    """Bytes that are there already, as a source for a key."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        return self._data[:size]


def pair_key(secret: bytes) -> MaskKey:
    """The key of pair masks that a 32-byte secret is."""
    return MaskKey(_Given(secret))


def seed_digest(seed: bytes) -> bytes:
    """32 bytes that bind a member to its seed and say nothing of it: the seed has 256 bits."""
    return hashlib.sha256(b"fedcredit/secure_sum/seed/v1" + seed).digest()


def mask_vector(
    values: NDArray[np.int64], key: MaskKey, seed: bytes, roster: MaskRoster, own: str, shape: SumShape
) -> NDArray[np.uint64]:
    """``x + pair masks + stream of the seed`` modulo 2^k.

    Args:
        values: int64 (length,), within the bound.
        key: Pair key, of this sum only.
        seed: 32 bytes, of this sum only.
        roster: Who masks together.
        own: This member.
        shape: Of the sum.

    Returns:
        uint64 (length,), each below 2^k.

    Raises:
        BoundError: a value beyond the bound, another shape or type, or a roster masked before.
    """
    if values.dtype != np.int64 or values.shape != (shape.length,):
        raise BoundError(
            "secure_sum.shape", f"{values.dtype} of shape {values.shape}; int64 ({shape.length},) is needed"
        )
    if int(values.max()) > shape.bound or int(values.min()) < -shape.bound:
        raise BoundError("secure_sum.value", f"a value exceeds the bound of {shape.bound}")
    pairs = key.mask(roster, own, shape.length, shape.bits)
    return (values.astype(np.uint64) + pairs + _stream(seed, _label(roster), shape)) & shape.mask


def masks_left(
    seeds: Mapping[str, bytes], secrets: Mapping[str, bytes], roster: MaskRoster, shape: SumShape
) -> NDArray[np.uint64]:
    """What is left on the sum of the vectors of those in ``seeds`` besides the total, uint64 (length,) modulo 2^k.

    Pair masks of the whole roster cancel, so those of the members that are there are minus those of the others.

    Args:
        seeds: Opened seeds of the members whose vectors are in the sum.
        secrets: Opened pair secrets of all others of the roster.
        roster: Who masked together.
        shape: Of the sum.

    Raises:
        PeerError: a secret is not that of the member's public key.
    """
    left = np.zeros(shape.length, dtype=np.uint64)
    label = _label(roster)
    for seed in seeds.values():
        left += _stream(seed, label, shape)
    for name, secret in secrets.items():
        left -= pair_key(secret).mask(roster, name, shape.length, shape.bits)
    return left & shape.mask


def read_total(summed: NDArray[np.uint64], members: int, shape: SumShape) -> NDArray[np.int64]:
    """The total as signed integers.

    Args:
        summed: uint64 (length,) modulo 2^k, with no mask left.
        members: Members whose vectors are in it.
        shape: Of the sum.

    Raises:
        PeerError: a total that no values within the bound give: somebody's bytes were not what they should be.
    """
    shift = np.uint64(64 - shape.bits)
    total = (summed << shift).astype(np.int64) >> np.int64(64 - shape.bits)  # the sign is bit k - 1
    if max(int(total.max()), -int(total.min())) > members * shape.bound:
        raise PeerError(
            "secure_sum.range", f"a total exceeds {members} times the bound of {shape.bound}: a mask does not cancel"
        )
    return total


def write_words(words: NDArray[np.uint64], bits: int) -> bytes:
    """Words below 2^bits, little-endian, in as many bytes each as hold them."""
    width = (bits + 7) // 8
    return np.ascontiguousarray(words, dtype="<u8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def read_words(data: bytes, shape: SumShape) -> NDArray[np.uint64]:
    """As `write_words` wrote them, uint64 (length,).

    Raises:
        PeerError: another length, or a word that is not below 2^bits.
    """
    width = (shape.bits + 7) // 8
    if len(data) != width * shape.length:
        raise PeerError("secure_sum.length", f"a vector of {len(data)} bytes, {width * shape.length} expected")
    raw = np.zeros((shape.length, 8), dtype=np.uint8)
    raw[:, :width] = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    words = raw.reshape(-1).view("<u8").astype(np.uint64)
    if bool((words & ~shape.mask).any()):
        raise PeerError("secure_sum.word", f"a word of a vector is not below 2^{shape.bits}")
    return words


def add_words(bodies: Iterable[bytes], shape: SumShape) -> NDArray[np.uint64]:
    """Sum of masked vectors modulo 2^k.

    Raises:
        PeerError: a malformed vector.
    """
    total = np.zeros(shape.length, dtype=np.uint64)
    for body in bodies:
        total += read_words(body, shape)
    return total & shape.mask


class GroupCipher:
    """Encrypts and decrypts under the secret that all members derive from their group key.

    Args:
        group: 32 bytes that the members have and the adder has not; of one run.
    """

    def __init__(self, group: bytes) -> None:
        self._context = SecretContext(_PARAMETERS, uniform_ternary(SeedStream(group, "secure_sum/bfv").take))

    def __repr__(self) -> str:
        return "GroupCipher(secret)"

    def encrypt(self, words: NDArray[np.uint64], shape: SumShape) -> bytes:
        """Ciphertexts of a masked vector; fresh randomness of the operating system each time.

        Args:
            words: uint64 (length,), each below 2^k.
            shape: Of the sum.
        """
        blocks = (self._context.encrypt_seeded(block) for block in _blocks(words, shape))
        return self._context.seal(_BODY, b"".join(blocks))

    def decrypt(self, total: bytes, shape: SumShape) -> NDArray[np.uint64]:
        """The sum of masked vectors modulo 2^k, uint64 (length,), from what `CipherAdder.add` gave.

        Raises:
            PeerError: malformed.
        """
        context, size = self._context, self._context.full_size()
        body = context.open(_TOTAL, total, _count(shape) * size)
        parts = [context.decrypt(context.read_full(body[at : at + size])) for at in range(0, len(body), size)]
        each = len(parts) // _limbs(shape)
        limbs = [np.concatenate(parts[at : at + each])[: shape.length] for at in range(0, len(parts), each)]
        words = limbs[0] if len(limbs) == 1 else limbs[0] + (limbs[1] << np.uint64(_LIMB))
        return words & shape.mask


class CipherAdder:
    """Adds encrypted vectors without any key."""

    def __init__(self) -> None:
        self._context = KeylessContext(_PARAMETERS)

    def check(self, body: bytes, shape: SumShape) -> None:
        """Refuses a vector of another length, kind or parameters, or a damaged one, with a `PeerError`."""
        self._context.open(_BODY, body, _count(shape) * _PARAMETERS.seeded_size)

    def add(self, bodies: Sequence[bytes], shape: SumShape) -> bytes:
        """The sum of vectors, for `GroupCipher.decrypt`.

        Raises:
            BoundError: none, or more than the noise allows.
            PeerError: malformed.
        """
        if not 1 <= len(bodies) <= MOST_ENCRYPTED:
            raise BoundError("secure_sum.parts", f"{len(bodies)} vectors were given, 1..{MOST_ENCRYPTED} can be added")
        context, size = self._context, _PARAMETERS.seeded_size
        opened = [context.open(_BODY, body, _count(shape) * size) for body in bodies]
        sums = []
        for at in range(0, len(opened[0]), size):
            total = context.read_fresh(opened[0][at : at + size])
            for body in opened[1:]:
                context.add(total, context.read_fresh(body[at : at + size]))
            sums.append(context.write_full(total))
        return context.seal(_TOTAL, b"".join(sums))


def body_size(shape: SumShape, *, encrypted: bool) -> int:
    """Bytes of one member's vector."""
    if encrypted:
        return KeylessContext.HEADER_BYTES + _count(shape) * _PARAMETERS.seeded_size
    return (shape.bits + 7) // 8 * shape.length


def _label(roster: MaskRoster) -> str:
    return f"secure_sum/self/{roster.digest().hex()}"


def _stream(seed: bytes, label: str, shape: SumShape) -> NDArray[np.uint64]:
    if len(seed) != SEED_BYTES:
        raise BoundError("secure_sum.seed", f"a seed of {len(seed)} bytes was given, {SEED_BYTES} are needed")
    words = np.frombuffer(expand(seed, label, 8 * shape.length), dtype="<u8").astype(np.uint64)
    return words & shape.mask  # low bits of a uniform word are uniform


def _limbs(shape: SumShape) -> int:
    return 1 if shape.bits <= MAX_PLAIN_BITS else 2


def _count(shape: SumShape) -> int:
    return _limbs(shape) * -(-shape.length // DEGREE)


def _blocks(words: NDArray[np.uint64], shape: SumShape) -> Iterator[NDArray[np.uint64]]:
    low = np.uint64((1 << _LIMB) - 1)
    limbs = [words] if _limbs(shape) == 1 else [words & low, words >> np.uint64(_LIMB)]
    for limb in limbs:
        for at in range(0, shape.length, DEGREE):
            yield limb[at : at + DEGREE]
