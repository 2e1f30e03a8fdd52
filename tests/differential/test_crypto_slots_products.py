"""Sums over chosen rows of products of two holders' columns: equal to numpy, and shares that say nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto import slots, slots_products
from fedcredit.crypto.prg import SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.slots_arithmetic import centred, residues_of
from fedcredit.crypto.slots_parameters import MODULUS, VALUE_BOUND
from fedcredit.crypto.slots_products import Vectors, joined, masked_column, negated, shade, share_sums
from fedcredit.errors import BoundError, PeerError

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Views:
    """What each party sees that others made, opened as far as it can."""

    label_columns: list[U64]
    label_shares: U64
    holder_shares: U64
    result: I64
    masks: list[U64] = field(default_factory=list)


class Parties:
    """L and P with a key pair each; Q has none."""

    def __init__(self) -> None:
        self.label, self.holder = slots.SlotsSecret(), slots.SlotsSecret()

    def run(self, chosen: I64, left: I64, right: I64, bound: int) -> Views:
        label, holder, entropy = self.label, self.holder, SystemEntropy()
        request = label.encrypt(chosen)  # 1: L to P
        selection = slots.Selection(label.public_bytes(), request)
        shades = [shade(selection, entropy) for _ in left.T]  # 2: P to L
        answers = [masked_column(selection, column, r) for column, r in zip(left.T, shades, strict=True)]
        opened = [label.open_masked(request, answer) for answer in answers]
        of_label = [label.encrypt_vector(one) for one in opened]  # 3: L and P to Q
        of_holder = [holder.encrypt_vector(r) for r in shades]
        to_label, to_holder = share_sums(  # 4: Q to L and to P
            Vectors(label.public_bytes(), of_label), Vectors(holder.public_bytes(), of_holder), right, entropy
        )
        own = label.open_sums(of_label, to_label, right.shape[1])
        other = holder.open_sums(of_holder, to_holder, right.shape[1])  # 5: P to L
        return Views(opened, own, other, joined(own, other, bound), shades)


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties()


@settings(max_examples=5, deadline=None)
@given(
    rows=st.one_of(st.integers(1, 30), st.integers(DEGREE - 1, DEGREE + 1), st.just(2 * DEGREE + 1)),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 1 << 30),
)
def test_sums_of_products_are_exact(parties: Parties, rows: int, shape: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, 2, rows)
    left, right = (generator.integers(-100, 101, (rows, count)) for count in shape)
    views = parties.run(chosen, left, right, rows * 100 * 100)
    assert np.array_equal(views.result, (left * chosen[:, None]).T @ right)


@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_up_to_the_bound_are_exact(parties: Parties, sign: int) -> None:
    rows = 2 * DEGREE
    left = np.full((rows, 1), 3 * 5592, np.int64)  # 3 * 5592 * 1000 * 16384 = 0.999644 of the bound
    right = np.full((rows, 1), sign * 1000)
    right[0, 0] += sign * ((VALUE_BOUND - 3 * 5592 * 1000 * rows) // (3 * 5592))
    views = parties.run(np.ones(rows, np.int64), left, right, VALUE_BOUND)
    assert views.result.tolist() == [[int((left * right).sum())]]
    assert VALUE_BOUND - abs(int(views.result[0, 0])) < 3 * 5592


def test_weights_are_as_good_as_a_choice(parties: Parties) -> None:
    generator = np.random.default_rng(2)
    weights, left, right = (
        generator.integers(-50, 51, 300),
        generator.integers(-9, 10, (300, 2)),
        generator.integers(-9, 10, (300, 2)),
    )
    views = parties.run(weights, left, right, 300 * 50 * 81)
    assert np.array_equal(views.result, (left * weights[:, None]).T @ right)


def chi_square(residues: U64) -> float:
    counts = np.bincount((residues.astype(object) * 64 // MODULUS).astype(np.int64), minlength=64)
    return float(((counts - len(residues) / 64) ** 2 / (len(residues) / 64)).sum())


def test_what_is_seen_on_the_way_is_uniform(parties: Parties) -> None:
    """Constants are the worst case; each view is held against what it would be without its mask."""
    rows, ones = 2 * DEGREE, np.ones((2 * DEGREE, 1), np.int64)
    views = parties.run(np.ones(rows, np.int64), ones, ones, rows)
    assert chi_square(views.label_columns[0]) < 140  # 63 degrees of freedom: once in 10^7
    assert chi_square(views.masks[0]) < 140
    total = (views.label_columns[0] + views.masks[0]) % np.uint64(MODULUS)
    assert (total == 1).all()


def test_shares_are_fresh_and_uniform(parties: Parties) -> None:
    """The same sums many times: shares of both sides spread over all residues, their sums do not."""
    rows, label, holder = 4, parties.label, parties.holder
    vectors = (
        [label.encrypt_vector(residues_of(np.arange(rows)))],
        [holder.encrypt_vector(residues_of(np.ones(rows, np.int64)))],
    )
    pair = Vectors(label.public_bytes(), vectors[0]), Vectors(holder.public_bytes(), vectors[1])
    columns = np.tile(np.array([[1], [2], [-3], [4]]), 64)
    to_label, to_holder = share_sums(*pair, columns, SystemEntropy())
    own, other = label.open_sums(vectors[0], to_label, 64), holder.open_sums(vectors[1], to_holder, 64)
    assert (joined(own, other, 100) == 2 - 6 + 12 + 1 + 2 - 3 + 4).all()
    for share in (own[0], other[0]):
        assert len(np.unique(share)) == 64
        counts = np.bincount((share * np.uint64(4) // np.uint64(MODULUS)).astype(int), minlength=4)
        assert 0 < counts.min() <= counts.max() < 38  # 16 each, sd 3.5


def test_masks_come_from_the_entropy_given(parties: Parties) -> None:
    request = parties.label.encrypt(np.array([1, 0]))
    selection = slots.Selection(parties.label.public_bytes(), request)
    drawn = [shade(selection, UnsafeSeededEntropy(b"r" * 32)) for _ in range(2)]
    assert np.array_equal(drawn[0], drawn[1])
    source = UnsafeSeededEntropy(b"r" * 32)
    first, second = (shade(selection, source) for _ in range(2))
    assert not (first == second).any()


def test_shares_that_do_not_fit_are_refused() -> None:
    good = np.zeros((2, 3), np.uint64)
    for other in (good[:1], good.astype(np.int64), good + np.uint64(MODULUS)):
        with pytest.raises(PeerError, match="shares of shape"):
            joined(good, other, 5)  # type: ignore[arg-type]
    assert joined(good + np.uint64(5), good, 5).tolist() == [[5] * 3] * 2
    with pytest.raises(PeerError, match="outside the bound"):
        joined(good + np.uint64(6), good, 5)
    with pytest.raises(BoundError, match="are proven"):
        joined(good, good, VALUE_BOUND + 1)


def test_vectors_that_do_not_match_are_refused(parties: Parties) -> None:
    label, holder, one = parties.label, parties.holder, np.ones(3, np.uint64)
    vector = label.encrypt_vector(one)
    pair = Vectors(label.public_bytes(), [vector, vector]), Vectors(holder.public_bytes(), [holder.encrypt_vector(one)])
    with pytest.raises(PeerError, match="2 vectors of one and 1 of the other"):
        share_sums(*pair, np.ones((3, 1), np.int64), SystemEntropy())


def test_minus_of_residues() -> None:
    values = np.array([0, 1, MODULUS - 1], np.uint64)
    assert negated(values).tolist() == [0, MODULUS - 1, 1]
    assert centred(values).tolist() == [0, 1, -1]
    assert set(slots_products.__all__) >= {"shade", "masked_column", "share_sums", "joined"}
