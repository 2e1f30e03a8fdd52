"""Which primes and which plain modulus a BFV context has, and the sizes that follow; no library in it."""

from __future__ import annotations

from dataclasses import dataclass

from fedcredit.crypto import seal_format as fmt
from fedcredit.errors import BoundError

__all__ = ["MAX_PLAIN_BITS", "BfvParameters", "parameters_of"]

MAX_PLAIN_BITS = 46
"""Largest k of a plain modulus 2^k for which decryption after the switch is proven: (N + 1)/2 < q_0 / 2^(k+1)."""

_MIN_PLAIN_BITS = 2


@dataclass(frozen=True)
class BfvParameters:
    """Parameters of one BFV context at degree 8192.

    Args:
        primes: Coefficient primes: those of a fresh ciphertext, of which the switch leaves the first, and the prime of
            the key level.
        plain_modulus: t.
    """

    primes: tuple[int, ...]
    plain_modulus: int

    @property
    def plain_bits(self) -> int:
        """Bits of a value below the plain modulus."""
        return (self.plain_modulus - 1).bit_length()

    @property
    def data(self) -> tuple[int, ...]:
        """Primes of a fresh ciphertext."""
        return self.primes[:-1]

    @property
    def key_size(self) -> int:
        """Bytes of a public key: one polynomial, and the seed of the other."""
        return fmt.rows_size(self.primes) + fmt.SEED_BYTES

    @property
    def seeded_size(self) -> int:
        """Bytes of a fresh ciphertext of the key's owner: one polynomial, and the seed of the other."""
        return fmt.rows_size(self.data) + fmt.SEED_BYTES


def parameters_of(plain: int | BfvParameters) -> BfvParameters:
    """Parameters, where a number k stands for the three documented primes and a plain modulus 2^k.

    Raises:
        BoundError: a modulus 2^k that is not proven to decrypt.
    """
    if isinstance(plain, BfvParameters):
        return plain
    if not _MIN_PLAIN_BITS <= plain <= MAX_PLAIN_BITS:
        raise BoundError(
            "bfv.plain-bits", f"a plain modulus of {plain} bits; {_MIN_PLAIN_BITS}..{MAX_PLAIN_BITS} are proven"
        )
    return BfvParameters(fmt.PRIMES, 1 << plain)
