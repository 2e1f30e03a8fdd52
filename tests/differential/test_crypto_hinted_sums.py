"""Hinted sums equal plain sums, exactly, at the proven bounds and for every skew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto.backends import make_answerer, make_asker, unmask
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.packing import Field, pack, plan, unpack
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.profiles import capacity, derive, sum_capacity

REFERENCE = bytes(range(32))
SEED = b"\x05" * 32


def plain(grouping: Grouping, values: NDArray[np.int64]) -> list[int]:
    """The literal twin, in Python integers."""
    out = []
    for feature, bins in enumerate(grouping.bins):
        out += [sum(values[grouping.codes[:, feature] == k].tolist()) for k in range(bins)]
    if grouping.weights is not None:
        for weights in grouping.weights.T:
            out.append(sum(w * v for w, v in zip(weights.tolist(), values.tolist(), strict=True)))
    return out


def encrypted(profile: str, grouping: Grouping, values: NDArray[np.int64], bound: int) -> tuple[list[int], list[int]]:
    """Sums by an answer, and by a masked one."""
    parameters = derive(profile, grouping.rows, bound, grouping.weight_bound)
    entropy = UnsafeSeededEntropy(SEED)
    asker = make_asker(parameters, REFERENCE, entropy.child("asker"))
    answerer = make_answerer(parameters, REFERENCE, asker.setup(), grouping, entropy.child("answerer"))
    hints = answerer.hints()
    asker.accept_hints("a", hints, grouping.outputs)
    asker.accept_hints("b", hints, grouping.outputs)
    request, pending = asker.encrypt(values, entropy.take(32))
    masked, mask = answerer.answer_masked(request)
    uncovered = unmask(parameters, pending.open_masked("b", masked), mask)
    return pending.open("a", answerer.answer(request)).tolist(), uncovered.tolist()


def skewed(generator: np.random.Generator, rows: int, bins: int, share: float) -> NDArray[np.int32]:
    """Codes with that share of the rows in one bin and no bin empty."""
    codes = np.where(generator.random(rows) < share, bins - 1, generator.integers(0, bins, rows))
    codes[generator.permutation(rows)[:bins]] = np.arange(bins)
    return codes.astype(np.int32)


def extreme(generator: np.random.Generator, kind: str, rows: int, bound: int) -> NDArray[np.int64]:
    if kind == "random":
        return generator.integers(-bound, bound, rows, endpoint=True)
    signs = {"top": [1], "bottom": [-1], "alternating": [-1, 1]}[kind]
    return np.asarray(generator.choice(signs, rows) * bound, dtype=np.int64)


kinds = st.sampled_from(["top", "bottom", "alternating", "random"])


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(8, 300),
    bins=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    share=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    columns=st.integers(0, 2),
    weight_bound=st.sampled_from([1, 3, 1 << 14]),
    kind=kinds,
    seed=st.integers(0, 2**32),
)
def test_any_grouping_at_the_proven_bound(
    rows: int, bins: list[int], share: float, columns: int, weight_bound: int, kind: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    codes = np.stack([skewed(generator, rows, count, share) for count in bins], axis=1)
    weights = extreme(generator, kind, rows * columns, weight_bound).reshape(rows, columns).astype(np.int32)
    grouping = Grouping(codes, tuple(bins), weights if columns else None, weight_bound)
    bound = capacity("rlwe-8192", rows, weight_bound)
    values = extreme(generator, kind, rows, bound)
    want = plain(grouping, values)
    assert encrypted("rlwe-8192", grouping, values, bound) == (want, want)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(8, 200), bound=st.integers(1, 1 << 20), kind=kinds, seed=st.integers(0, 2**32))
def test_any_bound_has_parameters_that_decode(rows: int, bound: int, kind: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    grouping = Grouping(skewed(generator, rows, 4, 0.9)[:, None], (4,))
    values = extreme(generator, kind, rows, bound)
    want = plain(grouping, values)
    assert encrypted("rlwe-8192", grouping, values, bound) == (want, want)


@pytest.mark.parametrize("rows", [1, 8191, 8192, 8193, 16384, 20001])
def test_every_block_boundary(rows: int) -> None:
    generator = np.random.default_rng(rows)
    bins = min(rows, 5)
    codes = np.stack([skewed(generator, rows, bins, 0.9), np.zeros(rows, dtype=np.int32)], axis=1)
    codes[:, 0] = np.sort(codes[:, 0])  # whole blocks without a row of some bins
    weights = extreme(generator, "random", rows, 1 << 14)[:, None].astype(np.int32)
    grouping = Grouping(codes, (bins, 1), weights, 1 << 14)
    bound = capacity("rlwe-8192", rows, 1 << 14)
    values = extreme(generator, "random", rows, bound)
    want = plain(grouping, values)
    assert encrypted("rlwe-8192", grouping, values, bound) == (want, want)


@pytest.mark.parametrize("profile", ["rlwe-8192", "unsafe-plaintext", "bfv-8192"])
def test_every_back_end_gives_the_same_packed_sums(profile: str) -> None:
    generator = np.random.default_rng(17)
    rows = 700
    codes = np.stack([skewed(generator, rows, count, 0.9) for count in (4, 9)], axis=1)
    weights = generator.integers(-4, 5, (rows, 1)).astype(np.int32)
    grouping = Grouping(codes, (4, 9), weights, 4)
    made = plan([Field(127), Field(32)], rows, 4, sum_capacity(profile, rows, 4).sum_bits)
    columns = [generator.integers(-127, 128, rows), generator.integers(0, 33, rows)]
    sums = []
    for vector in pack(made, columns):
        answered, masked = encrypted(profile, grouping, vector, made.value_bound)
        assert answered == masked
        sums.append(np.array(answered))
    assert [found.tolist() for found in unpack(made, sums)] == [plain(grouping, column) for column in columns]


@pytest.mark.parametrize("kind", ["top", "bottom", "random"])
def test_a_million_rows_with_nearly_all_in_one_bin(kind: str) -> None:
    generator = np.random.default_rng(23)
    rows = 1_000_000
    grouping = Grouping(skewed(generator, rows, 4, 0.97)[:, None], (4,))
    bound = capacity("rlwe-8192", rows)
    values = extreme(generator, kind, rows, bound)
    want = plain(grouping, values)
    assert encrypted("rlwe-8192", grouping, values, bound) == (want, want)
