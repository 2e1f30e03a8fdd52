"""Where randomness comes from, and how 32 bytes of it become a stream.

Secrets come from the operating system. Everything that has to be reproduced later (an auditor's replay, a retry that
must send the same bytes) is expanded from a 32-byte seed with ChaCha20; labels keep the streams of one seed apart.

Source: RFC 8439 (ChaCha20); RFC 5869 (HKDF); Alkim et al., USENIX Security 2016 (centred binomial noise).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedcredit.errors import BoundError

__all__ = [
    "CBD_ETA",
    "SEED_BYTES",
    "Entropy",
    "SeedStream",
    "SystemEntropy",
    "UnsafeSeededEntropy",
    "centred_binomial",
    "expand",
    "uniform_below",
    "uniform_words",
]

SEED_BYTES = 32
"""Every seed has 256 bits; a shorter one would be the weakest part of all that hangs on it."""

CBD_ETA = 21
"""Width of the centred binomial: standard deviation sqrt(21/2) = 3.24, the error width of the HE standard's tables."""

_STREAM_LIMIT = 1 << 37  # bytes; ChaCha20's 32-bit block counter ends at 2^38
_ETA_MASK = np.uint64((1 << CBD_ETA) - 1)
_PRODUCT = b"fedcredit/prg/v1/"


class Entropy(Protocol):
    """A source of uniform bytes."""

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes; never the same bytes twice."""
        ...


class SystemEntropy:
    """The operating system's generator; the only one for production."""

    def take(self, size: int) -> bytes:
        """``size`` fresh bytes."""
        return os.urandom(size)


class SeedStream:
    """The stream of a secret 32-byte seed for one label, taken piece by piece; for samplers that reject.

    Args:
        seed: 32 bytes.
        label: As in `expand`; the stream's beginning is what `expand` gives.
    """

    def __init__(self, seed: bytes, label: str) -> None:
        self._stream = _keystream(_key(seed, label))

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes of the stream."""
        return self._stream(size)


class UnsafeSeededEntropy:
    """A reproducible source for simulations and tests.

    Unsafe: whoever knows the seed knows every secret drawn from it, and two objects with one seed give the same bytes.

    Args:
        seed: 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._stream = _keystream(_key(seed, "entropy"))

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes of the stream."""
        return self._stream(size)

    def child(self, label: str) -> UnsafeSeededEntropy:
        """An independent source for one purpose; the same label gives the same source."""
        return UnsafeSeededEntropy(_key(self._seed, f"child/{label}"))


def expand(seed: bytes, label: str, size: int) -> bytes:
    """Expands a seed into ``size`` bytes, the same for the same seed and label.

    Args:
        seed: 32 bytes, secret or public as the use demands.
        label: Separates the uses of one seed; streams of different labels are independent.
        size: Number of bytes, at most 2^37.

    Raises:
        BoundError: the seed has not 32 bytes, or the stream would be too long.

    Source: RFC 5869 section 2 (key of the stream); RFC 8439 section 2.4 (stream).
    """
    if size < 0 or size > _STREAM_LIMIT:
        raise BoundError("prg.size", f"a stream of {size} bytes was asked for, at most {_STREAM_LIMIT} are allowed")
    return _keystream(_key(seed, label))(size)


def centred_binomial(stream: bytes) -> NDArray[np.int8]:
    """Centred binomial values with eta = 21, one for every 8 bytes of a uniform stream.

    Each value is the difference of the weights of two 21-bit strings, so it lies in [-21, 21] always and has variance
    10.5 exactly; the other 22 bits are dropped.

    Args:
        stream: Uniform bytes, a multiple of 8.

    Returns:
        int8 (len(stream) / 8,).

    Source: Alkim et al., USENIX Security 2016, section 4.1.
    """
    words = np.frombuffer(stream, dtype="<u8")
    low = np.bitwise_count(words & _ETA_MASK).astype(np.int8)
    high = np.bitwise_count((words >> np.uint64(CBD_ETA)) & _ETA_MASK).astype(np.int8)
    return np.asarray(low - high, dtype=np.int8)


def uniform_below(entropy: Entropy, bound: int, count: int) -> list[int]:
    """``count`` independent integers uniform in [0, bound), by rejection: no bias whatever the bound."""
    size = (bound.bit_length() + 7) // 8
    mask = (1 << (bound - 1).bit_length()) - 1
    found: list[int] = []
    while len(found) < count:
        block = entropy.take(size * (count - len(found)))
        drawn = (int.from_bytes(block[at : at + size], "little") & mask for at in range(0, len(block), size))
        found.extend(value for value in drawn if value < bound)
    return found


def uniform_words(take: Callable[[int], bytes], modulus: int, count: int) -> NDArray[np.uint32]:
    """``count`` independent values uniform in [0, modulus), by rejection of masked 32-bit words.

    Args:
        take: Gives the next bytes of a uniform stream.
        modulus: In [1, 2^32).
        count: Number of values.

    Returns:
        uint32 (count,).
    """
    mask = np.uint32((1 << (modulus - 1).bit_length()) - 1)
    found = np.empty(0, dtype=np.uint32)
    while len(found) < count:
        words = np.frombuffer(take(4 * (count - len(found))), dtype="<u4") & mask
        found = np.concatenate([found, words[words < modulus]])
    return found


def _key(seed: bytes, label: str) -> bytes:
    if len(seed) != SEED_BYTES:
        raise BoundError("prg.seed", f"a seed of {len(seed)} bytes was given, {SEED_BYTES} are needed")
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=_PRODUCT + label.encode()).derive(seed)


def _keystream(key: bytes) -> Callable[[int], bytes]:
    # Zero nonce: the key is derived for this one stream and never used for another.
    context = Cipher(algorithms.ChaCha20(key, b"\x00" * 16), mode=None).encryptor()
    return lambda size: context.update(bytes(size))
