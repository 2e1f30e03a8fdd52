"""The kernels of the hinted group sum: hints of bins, sums of residues, dot products with one coefficient.

All are exact integer code without a secret-dependent table of the asker's: the answerer's memory accesses follow its
own bins, the asker's follow nothing.

Source: docs/adr/0002-hinted-group-sum.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.lanes import LANES, accumulate, add, compiled, copy, fold
from fedcredit.crypto.ring import U32, Ring, forward_into, inverse_into, tail_stages

__all__ = ["bin_hints", "bin_masks", "dot_small", "dot_tiny", "encode_rows", "sum_codes", "sum_weights", "weight_hint"]

_LAZY = 127  # products below 2^56 accumulated between two reductions: 128 * 2^56 = 2^63
_TILE = 2048  # rows whose residues stay in the cache while every feature is summed


@compiled
def bin_masks(codes: NDArray[np.uint16], first: int, masks: NDArray[np.uint8]) -> None:
    """Marks where the 0/1 polynomials of some bins have their ones: row c of a block at coefficient N - 1 - c.

    Args:
        codes: uint16 (rows,), bin of each row in one feature.
        first: First bin wanted.
        masks: uint8 (bins, J, N/8), zero; bit b of place j stands for coefficient b * N/8 + j.
    """
    size = masks.shape[2]
    degree = size * LANES
    for block in range(masks.shape[1]):
        start = block * degree
        for c in range(min(degree, codes.size - start)):
            k = np.int64(codes[start + c]) - first
            if 0 <= k < masks.shape[0]:
                place = degree - 1 - c
                masks[k, block, place % size] |= np.uint8(1 << (place // size))


@compiled
def _blinded(ring: Ring, at: int, blind: NDArray[np.int8], alpha: U32, total: NDArray[np.uint64], x: U32) -> None:
    """Sets total to alpha_1 u + alpha_2 u', transformed, unreduced; x is lost."""
    scratch = np.empty_like(x)
    total[:] = 0
    for m in range(2):
        forward_into(ring, at, blind[m].astype(np.int32), x, scratch)
        for j in range(0, x.size, LANES):
            accumulate(total, j, x, j, alpha[m, at], j)


@compiled
def _add_product(ring: Ring, at: int, x: U32, fixed: U32, total: NDArray[np.uint64], pending: int) -> int:
    """Adds x times fixed, pointwise, and reduces the total when it has taken up as many products as it holds."""
    for j in range(0, x.size, LANES):
        accumulate(total, j, x, j, fixed, j)
    if pending + 1 < _LAZY:
        return pending + 1
    _reduce(ring, at, total, x)
    total[:] = x
    return 1


@compiled
def _reduce(ring: Ring, at: int, total: NDArray[np.uint64], x: U32) -> None:
    """Sets x to the total, below 2p."""
    for j in range(0, x.size, LANES):
        fold(total, x, j, ring.folding[at], ring.primes[at])


@compiled
def _bin_hints(
    ring: Ring, masks: NDArray[np.uint8], blind: NDArray[np.int8], reference: U32, alpha: U32, out: U32
) -> None:
    bins, blocks, size = masks.shape
    total = np.empty(size * LANES, np.uint64)
    x = np.empty(total.size, np.uint32)
    for k in range(bins):
        for at in range(ring.primes.size):
            ready = ring.ready[at]
            _blinded(ring, at, blind[k], alpha, total, x)
            pending = 2
            for block in range(blocks):
                mask = masks[k, block]
                if not mask.any():
                    continue
                for j in range(size):
                    copy(x, j * LANES, ready, np.int64(mask[j]) * LANES)
                tail_stages(ring, at, x)
                pending = _add_product(ring, at, x, reference[block, at], total, pending)
            _reduce(ring, at, total, x)
            inverse_into(ring, at, x, out[k, at])


def bin_hints(ring: Ring, masks: NDArray[np.uint8], blind: NDArray[np.int8], reference: U32, alpha: U32) -> U32:
    """Hints of some bins: sum_j a_j w_kj + alpha_1 u_k + alpha_2 u'_k.

    Args:
        ring: Constants.
        masks: uint8 (bins, J, N/8) from `bin_masks`.
        blind: int8 (bins, 2, N), u_k and u'_k.
        reference: uint32 (J, L, N), a_j in transformed order.
        alpha: uint32 (2, L, N), transformed order.

    Returns:
        uint32 (bins, L, N), natural order, reduced.
    """
    out = np.empty((len(masks), len(ring.primes), ring.degree), dtype=np.uint32)
    _bin_hints(ring, masks, blind, reference, alpha, out)
    return out


@compiled
def _weight_hint(
    ring: Ring, polynomials: NDArray[np.int32], blind: NDArray[np.int8], reference: U32, alpha: U32, out: U32
) -> None:
    total = np.empty(polynomials.shape[1], np.uint64)
    x, scratch = np.empty(total.size, np.uint32), np.empty(total.size, np.uint32)
    for at in range(ring.primes.size):
        _blinded(ring, at, blind, alpha, total, x)
        pending = 2
        for block in range(polynomials.shape[0]):
            forward_into(ring, at, polynomials[block], x, scratch)
            pending = _add_product(ring, at, x, reference[block, at], total, pending)
        _reduce(ring, at, total, x)
        inverse_into(ring, at, x, out[at])


def weight_hint(ring: Ring, weights: NDArray[np.int32], blind: NDArray[np.int8], reference: U32, alpha: U32) -> U32:
    """Hint of one weighted column; as `bin_hints`, for weights int32 (rows,) and blind int8 (2, N); uint32 (L, N)."""
    polynomials = np.zeros((len(reference), ring.degree), dtype=np.int32)
    polynomials.reshape(-1)[: len(weights)] = weights
    out = np.empty((len(ring.primes), ring.degree), dtype=np.uint32)
    _weight_hint(ring, np.ascontiguousarray(polynomials[:, ::-1]), blind, reference, alpha, out)
    return out


@compiled
def sum_codes(residues: U32, codes: NDArray[np.uint16], offsets: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """Adds the residues of every row to its bin of each feature, unreduced: exact up to 2^37 rows.

    Args:
        residues: uint32 (rows, 8), the last lanes zero.
        codes: uint16 (features, rows).
        offsets: int64 (features,), place of each feature's first bin.
        out: uint64 (bins * 8,).
    """
    flat = residues.reshape(-1)
    for start in range(0, codes.shape[1], _TILE):
        end = min(start + _TILE, codes.shape[1])
        for feature in range(codes.shape[0]):
            column, offset = codes[feature], offsets[feature]
            for i in range(start, end):
                add(out, (offset + np.int64(column[i])) * LANES, flat, i * LANES)


@compiled
def sum_weights(residues: U32, weights: NDArray[np.int32], primes: U32, out: NDArray[np.uint64]) -> None:
    """Sums of weight times residue of each row, modulo each prime.

    A tile adds up at most 2^11 products below 2^27 * 2^24: no overflow of a signed 64-bit word.

    Args:
        residues: uint32 (rows, 8).
        weights: int32 (rows,), absolute values up to 2^24.
        primes: uint32 (L,).
        out: uint64 (8,), zero; set to the reduced sums.
    """
    for start in range(0, weights.size, _TILE):
        end = min(start + _TILE, weights.size)
        for at in range(primes.size):
            total = np.int64(0)
            for i in range(start, end):
                total += np.int64(weights[i]) * np.int64(residues[i, at])
            p = np.int64(primes[at])
            out[at] = np.uint64((np.int64(out[at]) + total % p + p) % p)


@compiled
def dot_small(polynomials: NDArray[np.int32], factor: NDArray[np.int32]) -> NDArray[np.int64]:
    """Dot products of residues below 2^27 with one vector of values up to 21: below 2^45, so exact without reduction.

    Args:
        polynomials: int32 (outputs, L, N).
        factor: int32 (N,).

    Returns:
        int64 (outputs, L).
    """
    out = np.empty(polynomials.shape[:2], np.int64)
    for k in range(polynomials.shape[0]):
        for at in range(polynomials.shape[1]):
            row, total = polynomials[k, at], np.int64(0)
            for i in range(factor.size):
                total += np.int64(row[i]) * np.int64(factor[i])
            out[k, at] = total
    return out


@compiled
def dot_tiny(polynomials: NDArray[np.int8], factors: NDArray[np.int32]) -> NDArray[np.int64]:
    """Dot products of blinding polynomials with residues: below 2^46, so exact without reduction.

    Args:
        polynomials: int8 (outputs, 2, N).
        factors: int32 (2, L, N), residues below 2^27.

    Returns:
        int64 (outputs, L), summed over the two.
    """
    outputs, pairs, degree = polynomials.shape
    out = np.zeros((outputs, factors.shape[1]), np.int64)
    for k in range(outputs):
        for m in range(pairs):
            row = polynomials[k, m].astype(np.int32)
            for at in range(factors.shape[1]):
                other, total = factors[m, at], np.int64(0)
                for i in range(degree):
                    total += np.int64(row[i]) * np.int64(other[i])
                out[k, at] += total
    return out


@compiled
def encode_rows(
    products: U32,
    values: NDArray[np.int64],
    errors: NDArray[np.int8],
    scale: NDArray[np.int64],
    primes: U32,
    out: U32,
) -> None:
    """Ciphertext rows: minus product, plus error, plus scale times value, modulo each prime.

    Args:
        products: uint32 (J, L, N), reduced: row i is coefficient i % N of block i // N.
        values: int64 (rows,).
        errors: int8 (rows,).
        scale: int64 (L,), reduced.
        primes: uint32 (L,).
        out: uint32 (at least rows, L); the first rows are set.
    """
    degree = products.shape[2]
    for i in range(values.size):
        block, c = i // degree, i % degree
        for at in range(primes.size):
            p = np.int64(primes[at])
            value = values[i] % p  # floors: in [0, p) for negative values too
            value = value * scale[at] + np.int64(errors[i]) + p + p - np.int64(products[block, at, c])
            out[i, at] = np.uint32(value % p)
