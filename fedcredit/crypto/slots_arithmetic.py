"""Arithmetic of the slots: values to polynomials and back, uniform residues, floods; compiled, or a few calls of numpy.

A polynomial modulo t with t = 1 mod 2N is known by its values at the N primitive 2N-th roots of unity, its *slots*;
products of polynomials are products of slots. Which root is which slot is opaque and the same for everyone.

Values are data; the compiled code has no branch on them but the corrections of a remainder.

Source: Smart and Vercauteren, DCC 71 (2014) (slots); Longa and Naehrig, CANS 2016 (transform); V. Shoup's NTL
(products with a fixed factor).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.lanes import compiled
from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.slots_parameters import FLOOD_BITS, MODULUS, PARAMETERS

__all__ = ["centred", "from_slots", "residues_of", "to_slots", "uniform_flood", "uniform_residues"]

U64 = NDArray[np.uint64]

_T = np.uint64(MODULUS)
_WORD = 1 << 64
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_INVERSE = np.uint64(pow(DEGREE, -1, MODULUS))
_INVERSE_QUOTIENT = np.uint64(pow(DEGREE, -1, MODULUS) * _WORD // MODULUS)
_HIGH_BITS = FLOOD_BITS + 1 - 64


def residues_of(values: NDArray[np.int64]) -> U64:
    """Integers modulo t, uint64 below t."""
    return np.asarray(np.asarray(values, dtype=np.int64) % MODULUS, dtype=np.uint64)


def centred(residues: U64) -> NDArray[np.int64]:
    """The integer of least absolute value of each residue."""
    values = residues.astype(np.int64)
    return np.asarray(np.where(values > MODULUS // 2, values - MODULUS, values))


def uniform_residues(entropy: Entropy, count: int) -> U64:
    """``count`` independent values uniform modulo t, by rejection: no bias."""
    mask = np.uint64((1 << MODULUS.bit_length()) - 1)
    found = np.empty(0, dtype=np.uint64)
    while len(found) < count:
        words = np.frombuffer(entropy.take(8 * (count - len(found))), dtype="<u8") & mask
        found = np.concatenate([found, words[words < _T]])
    return found


def from_slots(values: U64) -> U64:
    """Polynomials with these slots; uint64 (blocks, 8192) modulo t, both."""
    out = values.copy()
    _inverse(out, _tables())
    return out


def to_slots(coefficients: U64) -> U64:
    """Slots of these polynomials; uint64 (blocks, 8192) modulo t, both."""
    out = coefficients.copy()
    _forward(out, _tables())
    return out


def uniform_flood(entropy: Entropy, count: int = DEGREE) -> U64:
    """Integers uniform in [-2^114, 2^114), each modulo every data prime.

    The width is a power of two, so that bits are cut off a uniform word and nothing is biased.

    Args:
        entropy: The operating system's.
        count: How many.

    Returns:
        uint64 (data primes, count).
    """
    words = np.frombuffer(entropy.take(16 * count), dtype="<u8").astype(np.uint64).reshape(count, 2)
    words[:, 1] &= np.uint64((1 << _HIGH_BITS) - 1)
    out = np.empty((len(PARAMETERS.data), count), dtype=np.uint64)
    for row, prime in zip(out, PARAMETERS.data, strict=True):
        factor = _WORD % prime
        constants = [prime, factor, factor * _WORD // prime, prime - (1 << FLOOD_BITS) % prime]
        _reduce(words, np.array(constants, dtype=np.uint64), row)
    return out


@lru_cache(maxsize=1)
def _tables() -> U64:
    """Uint64 (4, 8192): powers of a 2N-th root and of its inverse in bit-reversed order, each with its quotient."""
    base = next(g for g in range(2, MODULUS) if pow(g, (MODULUS - 1) // 2, MODULUS) == MODULUS - 1)
    root = pow(base, (MODULUS - 1) // (2 * DEGREE), MODULUS)
    bits = DEGREE.bit_length() - 1
    rows = []
    for one in (root, pow(root, -1, MODULUS)):
        powers = [1]
        for _ in range(DEGREE - 1):
            powers.append(powers[-1] * one % MODULUS)
        ordered = [powers[int(format(place, f"0{bits}b")[::-1], 2)] for place in range(DEGREE)]
        rows += [ordered, [power * _WORD // MODULUS for power in ordered]]
    return np.array(rows, dtype=np.uint64)


@compiled
def _times(x: np.uint64, factor: np.uint64, quotient: np.uint64, p: np.uint64) -> np.uint64:
    """Value times factor modulo p, in [0, 2p), for any 64-bit value; quotient = floor(factor * 2^64 / p)."""
    a, b = x >> _SHIFT, x & _LOW
    c, d = quotient >> _SHIFT, quotient & _LOW
    middle = a * d + ((b * d) >> _SHIFT)
    high = a * c + (middle >> _SHIFT) + (((middle & _LOW) + b * c) >> _SHIFT)
    return x * factor - high * p


@compiled
def _once(value: np.uint64, p: np.uint64) -> np.uint64:
    """A value below 2p, below p."""
    return value - p if value >= p else value


@compiled
def _forward(blocks: U64, tables: U64) -> None:
    for x in blocks:
        stage, span = 1, x.size
        while stage < x.size:
            span //= 2
            for i in range(stage):
                w, wq = tables[0, stage + i], tables[1, stage + i]
                for j in range(2 * i * span, (2 * i + 1) * span):
                    u, v = x[j], _once(_times(x[j + span], w, wq, _T), _T)
                    x[j] = _once(u + v, _T)
                    x[j + span] = _once(u + _T - v, _T)
            stage *= 2


@compiled
def _inverse(blocks: U64, tables: U64) -> None:
    for x in blocks:
        stage, span = x.size // 2, 1
        while stage > 0:
            for i in range(stage):
                w, wq = tables[2, stage + i], tables[3, stage + i]
                for j in range(2 * i * span, (2 * i + 1) * span):
                    u, v = x[j], x[j + span]
                    x[j] = _once(u + v, _T)
                    x[j + span] = _once(_times(u + _T - v, w, wq, _T), _T)
            stage //= 2
            span *= 2
        for j in range(x.size):
            x[j] = _once(_times(x[j], _INVERSE, _INVERSE_QUOTIENT, _T), _T)


@compiled
def _reduce(words: U64, constants: U64, out: U64) -> None:
    p, factor, quotient, offset = constants
    for j in range(out.size):
        out[j] = (_times(words[j, 1], factor, quotient, p) + words[j, 0] % p + offset) % p
