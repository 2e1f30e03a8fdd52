"""Transforms and kernels against slow literal twins."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto import hint_sums, residues, ring
from fedcredit.crypto.profiles import PROFILES
from fedcredit.errors import PeerError

PRIMES = PROFILES["rlwe-8192"].primes
N = 8192
RING = ring.ring_for(PRIMES, N)
P = np.array(PRIMES, dtype=np.int64)


def negacyclic(dense: NDArray[np.int64], sparse: NDArray[np.int64], p: int) -> NDArray[np.int64]:
    """Schoolbook product modulo X^N + 1 and p; one factor with few non-zero coefficients."""
    out = np.zeros(N, dtype=np.int64)
    for shift in np.nonzero(sparse)[0]:
        turned = np.concatenate([-dense[N - shift :], dense[: N - shift]])
        out = (out + turned * (sparse[shift] % p)) % p
    return out


def sparse_polynomial(generator: np.random.Generator, bound: int) -> NDArray[np.int64]:
    out = np.zeros(N, dtype=np.int64)
    places = np.append(generator.integers(0, N, 20), [0, N - 1, N // 8, N // 8 - 1])
    out[places] = generator.integers(-bound, bound + 1, len(places))
    return out


@pytest.mark.parametrize("bound", [1, 21, min(PRIMES) - 1])
def test_product_by_transform_is_the_schoolbook_product(bound: int) -> None:
    generator = np.random.default_rng(bound)
    left = generator.integers(-bound, bound + 1, N)
    right = sparse_polynomial(generator, bound)
    transformed = [ring.forward(RING, value.astype(np.int32)) for value in (left, right)]
    product = ring.inverse_products(RING, transformed[0][None], transformed[1])[0]
    for at, p in enumerate(PRIMES):
        assert np.array_equal(product[at], negacyclic(left % p, right, p))


def test_transform_is_linear_reduced_and_sends_one_to_ones() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.integers(-1000, 1001, (2, N)).astype(np.int32)
    total = (ring.forward(RING, a).astype(np.int64) + ring.forward(RING, b)) % P[:, None]
    assert np.array_equal(ring.forward(RING, a + b), total)
    one = np.zeros(N, dtype=np.int32)
    one[0] = 1
    assert np.array_equal(ring.forward(RING, one), np.ones((5, N), dtype=np.uint32))


def test_constants_have_the_order_the_transform_needs() -> None:
    x = np.zeros(N, dtype=np.int32)
    x[1] = 1
    roots = ring.forward(RING, x)[0].astype(np.int64)
    assert len(set(roots.tolist())) == N
    assert all(pow(root, N, PRIMES[0]) == PRIMES[0] - 1 for root in roots[:50].tolist())


@pytest.mark.parametrize("blocks", [1, 3, 600])
def test_hints_of_bins_equal_products_summed_one_by_one(blocks: int) -> None:
    # 600 products of these sizes do not fit into 64 bits: the reduction on the way is needed.
    generator = np.random.default_rng(blocks)
    rows, bins = (blocks - 1) * N + 77, 3
    codes = generator.choice([0, 0, 0, 1, 1, 2], rows).astype(np.uint16)
    codes[: min(rows, 70)] = 2
    blind = generator.integers(-21, 22, (bins, 2, N)).astype(np.int8)
    low = np.zeros_like(P) if blocks < 600 else P - 1000
    reference = np.tile(generator.integers(low[:, None], P[:, None], (5, N)).astype(np.uint32), (blocks, 1, 1))
    reference[0] = generator.integers(0, P[:, None], (5, N))
    alpha = generator.integers(0, P[None, :, None], (2, 5, N)).astype(np.uint32)
    masks = np.zeros((bins, blocks, N // 8), dtype=np.uint8)
    hint_sums.bin_masks(codes, 0, masks)
    found = hint_sums.bin_hints(RING, masks, blind, reference, alpha)
    k = 1
    total = np.zeros((5, N), dtype=np.int64)
    marks = np.zeros(blocks * N, dtype=np.int32)
    marks[:rows] = codes == k
    for block in range(blocks):
        w = ring.forward(RING, np.ascontiguousarray(marks[block * N : (block + 1) * N][::-1]))
        total = (total + reference[block].astype(np.int64) * w) % P[:, None]
    for m in range(2):
        u = ring.forward(RING, blind[k, m].astype(np.int32))
        total = (total + alpha[m].astype(np.int64) * u) % P[:, None]
    one = np.ones((5, N), dtype=np.uint32)
    assert np.array_equal(found[k], ring.inverse_products(RING, total.astype(np.uint32)[None], one)[0])
    weights = np.where(codes == k, 1, 0).astype(np.int32)
    assert np.array_equal(hint_sums.weight_hint(RING, weights, blind[k], reference, alpha), found[k])


def test_sums_of_residues_equal_numpy() -> None:
    generator = np.random.default_rng(5)
    rows, bins = 5000, (4, 300)
    values = np.zeros((rows, 8), dtype=np.uint32)
    values[:, :5] = generator.integers(0, P, (rows, 5))
    codes = np.stack([generator.integers(0, count, rows) for count in bins]).astype(np.uint16)
    out = np.zeros(304 * 8, dtype=np.uint64)
    hint_sums.sum_codes(values, codes, np.array([0, 4], dtype=np.int64), out)
    want = np.zeros((304, 8), dtype=np.uint64)
    for column, offset in zip(codes, (0, 4), strict=True):
        np.add.at(want, column.astype(np.int64) + offset, values.astype(np.uint64))
    assert np.array_equal(out.reshape(-1, 8), want)


def test_weighted_sums_hold_at_the_largest_weights_and_residues() -> None:
    rows = 5000
    values = np.zeros((rows, 8), dtype=np.uint32)
    values[:, :5] = P - 1
    for weights in (np.full(rows, 1 << 24), np.full(rows, -(1 << 24)), np.arange(rows) * 3000 - 7_000_000):
        out = np.zeros(8, dtype=np.uint64)
        hint_sums.sum_weights(values, weights.astype(np.int32), RING.primes, out)
        total = int(weights.sum())
        assert out[:5].tolist() == [total * (p - 1) % p for p in PRIMES]


def test_dot_products_are_exact_at_their_bounds() -> None:
    polynomials = np.tile((P - 1)[None, :, None], (2, 1, N)).astype(np.int32)
    for factor in (21, -21):
        dots = hint_sums.dot_small(polynomials, np.full(N, factor, dtype=np.int32))
        assert dots.tolist() == [[factor * N * (p - 1) for p in PRIMES]] * 2
        blind = np.full((3, 2, N), factor, dtype=np.int8)
        assert hint_sums.dot_tiny(blind, polynomials).tolist() == [[2 * factor * N * (p - 1) for p in PRIMES]] * 3


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 1001])
def test_packed_residues_come_back_and_lie_where_the_format_says(rows: int) -> None:
    generator = np.random.default_rng(rows)
    values = generator.integers(0, P, (rows, 5)).astype(np.uint32)
    data = residues.pack_residues(values)
    assert len(data) == residues.packed_size(rows * 5) == -(-rows * 135 // 8)
    twin = sum(int(value) << (27 * i) for i, value in enumerate(values.reshape(-1)))
    assert int.from_bytes(data, "little") == twin
    back = residues.unpack_residues(memoryview(data), RING.primes, (rows, 8, 1), "x")[..., 0]
    assert np.array_equal(back[:, :5], values)
    assert not back[:, 5:].any()


def test_unpacking_refuses_what_packing_cannot_have_made() -> None:
    values = np.zeros((3, 5), dtype=np.uint32)
    good = residues.pack_residues(values)
    bad: list[bytes] = [good[:-1], good + b"\x00", b"", good[:-1] + b"\x80"]
    for at, p in enumerate(PRIMES):
        raised = values.copy()
        raised[2, at] = p
        bad.append(residues.pack_residues(raised))
    for data in bad:
        with pytest.raises(PeerError):
            residues.unpack_residues(memoryview(data), RING.primes, (3, 5, 1), "x")
    residues.unpack_residues(memoryview(good), RING.primes, (3, 5, 1), "x")
