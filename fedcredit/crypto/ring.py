"""Arithmetic in R_p = Z_p[X]/(X^N + 1) for 27-bit primes p, compiled; the only place with a transform.

Layout. The first three transform stages act on the natural order; then lane b of position j holds what was at
``b * N/8 + j``, and all later stages stay within a lane, so that every stage is the same vector code with one twiddle
factor a lane. The transformed order is opaque: transformed polynomials only meet each other, pointwise.

0/1 polynomials, of which the hints are made, skip the first three stages: those combine the eight coefficients at
``j, j + N/8, ...`` alone, so eight bits index a table of 256 ready results.

Ranges. Values stay below 4p < 2^29 between stages. Products of a value below 4p and one below p are below 2^56 and are
accumulated unreduced, 128 at a time, in 64 bits.

Source: Harvey, J. Symb. Comput. 60 (2014); Longa & Naehrig, CANS 2016 (negacyclic transform).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.lanes import LANES, butterfly, compiled, inverse_butterfly, scale

__all__ = ["U32", "Ring", "forward", "forward_into", "inverse_into", "inverse_products", "ring_for", "tail_stages"]

U32 = NDArray[np.uint32]
_F, _FQ, _I, _IQ = 0, 1, 2, 3  # rows of a twiddle table: forward factors and quotients, inverse factors and quotients


class Ring(NamedTuple):
    """Constants of the transforms modulo each prime; every factor w comes with floor(w * 2^32 / p).

    A named tuple, because compiled kernels take those.

    Attributes:
        degree: N.
        primes: uint32 (L,).
        head: uint32 (L, 4, 64): twiddle factors of the stages in natural order, one row of eight lanes each.
        tail: uint32 (L, 4, N): of the stages within lanes.
        scaling: uint32 (L, 2, 8): 1/N, and its quotient.
        ready: uint32 (L, 2048): the first three stages of every eight bits.
        folding: uint32 (L, 3): constants of `lanes.fold`.
    """

    degree: int
    primes: U32
    head: U32
    tail: U32
    scaling: U32
    ready: U32
    folding: U32


@lru_cache(maxsize=4)
def ring_for(primes: tuple[int, ...], degree: int) -> Ring:
    """Constants for these primes, each below 2^27 and 1 modulo 2 * degree; computed once a process.

    Source: Longa & Naehrig, CANS 2016, section 2 (powers of a 2N-th root in bit-reversed order).
    """
    count, bits = len(primes), degree.bit_length() - 1
    head = np.zeros((count, 4, LANES, LANES), dtype=np.uint32)
    tail = np.zeros((count, 4, degree // LANES, LANES), dtype=np.uint32)
    scaling = np.zeros((count, 2, LANES), dtype=np.uint32)
    ready = np.zeros((count, 256, LANES), dtype=np.uint32)
    folding = np.zeros((count, 3), dtype=np.uint32)
    order = np.array([int(format(i, f"0{bits}b")[::-1], 2) for i in range(degree)])
    for at, p in enumerate(primes):
        root = _root(p, degree)
        for row, base in ((_F, root), (_I, pow(root, -1, p))):
            powers = np.ones(degree, dtype=np.uint64)
            for i in range(bits):  # doubling: the powers from 2^i on are the powers before, times base^(2^i)
                powers[1 << i : 2 << i] = powers[: 1 << i] * np.uint64(pow(base, 1 << i, p)) % np.uint64(p)
            factors = powers[order]
            for kind, table in ((row, factors), (row + 1, (factors << np.uint64(32)) // np.uint64(p))):
                head[at, kind] = table[:LANES, None]
                for stage in (1 << i for i in range(bits - 3)):
                    rows = LANES * stage + np.arange(LANES) * stage + np.arange(stage)[:, None]
                    tail[at, kind, stage : 2 * stage] = table[rows]
        inverse_degree, power = pow(degree, -1, p), (1 << 32) % p
        scaling[at] = np.array([inverse_degree, (inverse_degree << 32) // p])[:, None]
        folding[at] = power, (power << 32) // p, (1 << 32) // p
        ready[at] = _ready(p, [int(w) for w in head[at, _F, :, 0]])
    shape = (count, 4, -1)
    return Ring(
        degree=degree,
        primes=np.array(primes, dtype=np.uint32),
        head=head.reshape(shape),
        tail=tail.reshape(shape),
        scaling=scaling,
        ready=ready.reshape(count, -1),
        folding=folding,
    )


def _root(p: int, degree: int) -> int:
    """A primitive 2N-th root of unity: a non-residue to the power (p - 1) / 2N."""
    base = next(g for g in range(2, p) if pow(g, (p - 1) // 2, p) == p - 1)
    return pow(base, (p - 1) // (2 * degree), p)


def _ready(p: int, factors: list[int]) -> U32:
    """The first three stages of every 0/1 choice of the eight coefficients that they combine."""
    x = (np.arange(256)[:, None] >> np.arange(LANES)) & 1
    span = LANES
    for stage in (1, 2, 4):
        span //= 2
        for i in range(stage):
            low, high = slice(2 * i * span, (2 * i + 1) * span), slice((2 * i + 1) * span, (2 * i + 2) * span)
            u, v = x[:, low].copy(), x[:, high] * factors[stage + i] % p
            x[:, low], x[:, high] = (u + v) % p, (u - v) % p
    return x.astype(np.uint32)


@compiled
def tail_stages(ring: Ring, at: int, x: U32) -> None:
    """The forward stages within lanes modulo prime ``at``, on x (N,) in place; from and to [0, 4p)."""
    w, wq, p = ring.tail[at, _F], ring.tail[at, _FQ], ring.primes[at]
    size = x.size // LANES
    stage, span = 1, size
    while stage < size:
        span //= 2
        for i in range(stage):
            for j in range(2 * i * span, (2 * i + 1) * span):
                butterfly(x, j * LANES, (j + span) * LANES, w, wq, (stage + i) * LANES, p)
        stage *= 2


@compiled
def forward_into(ring: Ring, at: int, values: NDArray[np.int32], x: U32, scratch: U32) -> None:
    """Transforms small signed values (N,) into x (N,), transformed order, below 4p; scratch (N,) is lost."""
    w, wq, p = ring.head[at, _F], ring.head[at, _FQ], ring.primes[at]
    for i in range(values.size):
        scratch[i] = np.uint32(values[i] + np.int32(p)) if values[i] < 0 else np.uint32(values[i])
    stage, span = 1, x.size
    while stage < LANES:
        span //= 2
        for i in range(stage):
            for j in range(2 * i * span, (2 * i + 1) * span, LANES):
                butterfly(scratch, j, j + span, w, wq, (stage + i) * LANES, p)
        stage *= 2
    size = x.size // LANES
    for j in range(size):
        for b in range(LANES):
            x[j * LANES + b] = scratch[b * size + j]
    tail_stages(ring, at, x)


@compiled
def inverse_into(ring: Ring, at: int, x: U32, out: U32) -> None:
    """Transforms x (N,), transformed order, below 2p, into out (N,), natural order, below p; x is lost."""
    w, wq, p = ring.tail[at, _I], ring.tail[at, _IQ], ring.primes[at]
    size = x.size // LANES
    stage, span = size // 2, 1
    while stage > 0:
        for i in range(stage):
            for j in range(2 * i * span, (2 * i + 1) * span):
                inverse_butterfly(x, j * LANES, (j + span) * LANES, w, wq, (stage + i) * LANES, p)
        stage //= 2
        span *= 2
    for j in range(size):
        for b in range(LANES):
            out[b * size + j] = x[j * LANES + b]
    w, wq = ring.head[at, _I], ring.head[at, _IQ]
    stage, span = LANES // 2, size
    while stage > 0:
        for i in range(stage):
            for j in range(2 * i * span, (2 * i + 1) * span, LANES):
                inverse_butterfly(out, j, j + span, w, wq, (stage + i) * LANES, p)
        stage //= 2
        span *= 2
    for j in range(0, out.size, LANES):
        scale(out, j, ring.scaling[at, 0], ring.scaling[at, 1], 0, p)


@compiled
def _forward_all(ring: Ring, values: NDArray[np.int32], out: U32) -> None:
    scratch = np.empty(values.size, np.uint32)
    for at in range(ring.primes.size):
        forward_into(ring, at, values, out[at], scratch)
        for i in range(values.size):
            out[at, i] %= ring.primes[at]


def forward(ring: Ring, values: NDArray[np.int32]) -> U32:
    """Transforms one polynomial of small coefficients modulo every prime.

    Args:
        ring: Constants.
        values: int32 (N,), absolute values below every prime.

    Returns:
        uint32 (L, N), transformed order, reduced.
    """
    out = np.empty((len(ring.primes), ring.degree), dtype=np.uint32)
    _forward_all(ring, values, out)
    return out


@compiled
def _products(ring: Ring, fixed: U32, factor: U32, quotient: U32, out: U32) -> None:
    scratch = np.empty(factor.shape[1], np.uint32)
    for block in range(fixed.shape[0]):
        for at in range(ring.primes.size):
            scratch[:] = fixed[block, at]
            for j in range(0, scratch.size, LANES):
                scale(scratch, j, factor[at], quotient[at], j, ring.primes[at])
            inverse_into(ring, at, scratch, out[block, at])


def inverse_products(ring: Ring, fixed: U32, factor: U32) -> U32:
    """Products of fixed polynomials with one factor, back in natural order.

    Args:
        ring: Constants.
        fixed: uint32 (J, L, N), transformed order, reduced.
        factor: uint32 (L, N), transformed order, reduced.

    Returns:
        uint32 (J, L, N), natural order, reduced.
    """
    out = np.empty_like(fixed)
    quotient = ((factor.astype(np.uint64) << np.uint64(32)) // ring.primes[:, None].astype(np.uint64)).astype(np.uint32)
    _products(ring, fixed, factor, quotient, out)
    return out
