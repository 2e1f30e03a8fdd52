"""Encrypted group sums through BFV equal the plain sums, exactly, at the proven bounds and for skewed groupings."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto.bfv_sum import BfvAnswerer, BfvAsker, Resources, unmask
from fedcredit.crypto.group_sum import Answerer, Asker, Grouping
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.profiles import BFV_8192, capacity, derive


def plain_sums(grouping: Grouping, values: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = [
        int(values[grouping.codes[:, feature] == code].sum())
        for feature, bins in enumerate(grouping.bins)
        for code in range(bins)
    ]
    if grouping.weights is not None:
        sums += (grouping.weights.T.astype(np.int64) @ values).tolist()
    return np.array(sums)


def draw_grouping(
    generator: np.random.Generator, rows: int, bins: tuple[int, ...], columns: int, bound: int
) -> Grouping:
    """Every bin holds a row; nearly all other rows sit in one bin of each feature."""
    codes = np.empty((rows, len(bins)), dtype=np.int32)
    for feature, count in enumerate(bins):
        codes[:, feature] = np.where(generator.random(rows) < 0.9, count - 1, generator.integers(0, count, rows))
        codes[generator.permutation(rows)[:count], feature] = np.arange(count)
    if not columns:
        return Grouping(codes, bins)
    weights = generator.integers(-bound, bound + 1, (rows, columns)).astype(np.int32)
    weights[:, 0] = bound  # the largest sum that the bound allows
    return Grouping(codes, bins, weights, bound)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_sums_are_exact_for_any_shape(data: st.DataObject) -> None:
    rows = data.draw(st.sampled_from([1, 5, 1023, 1024, 1025, 2500]))
    bins = tuple(data.draw(st.lists(st.integers(1, min(rows, 9)), min_size=1, max_size=4)))
    columns = data.draw(st.integers(0, 3))
    weight_bound = data.draw(st.sampled_from([1, 7, 1000])) if columns else 1
    largest = capacity(BFV_8192, rows, weight_bound)
    bound = data.draw(st.sampled_from([1, 127, largest]))
    generator = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    grouping = draw_grouping(generator, rows, bins, columns, weight_bound)
    extreme = data.draw(st.sampled_from([-bound, 0, bound]))
    values = np.full(rows, extreme) if extreme else generator.integers(-bound, bound + 1, rows)
    parameters = derive(BFV_8192, rows, bound, weight_bound)
    asker: Asker = BfvAsker(parameters)
    with BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy()) as owned:
        answerer: Answerer = owned
        asker.accept_hints("p", answerer.hints(), grouping.outputs)
        request, pending = asker.encrypt(values, os.urandom(32))
        assert np.array_equal(pending.open("p", answerer.answer(request)), plain_sums(grouping, values))
        masked_request, masked_pending = asker.encrypt(values, os.urandom(32))
        masked, mask = answerer.answer_masked(masked_request)
        left = masked_pending.open_masked("p", masked)
        assert np.array_equal(unmask(parameters, left, mask), plain_sums(grouping, values))


@pytest.mark.parametrize("resources", [Resources(1), Resources(1, 0), Resources(1, 300_000), Resources(3)], ids=str)
def test_workers_and_memory_change_nothing(resources: Resources) -> None:
    generator = np.random.default_rng(5)
    grouping = draw_grouping(generator, 2100, (7, 11, 3), 4, 3)
    parameters = derive(BFV_8192, 2100, 100, 3)
    asker = BfvAsker(parameters)
    asker.accept_hints("p", b"", grouping.outputs)
    with BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy(), resources) as answerer:
        for _ in range(2):
            values = generator.integers(-100, 101, 2100)
            request, pending = asker.encrypt(values, os.urandom(32))
            assert np.array_equal(pending.open("p", answerer.answer(request)), plain_sums(grouping, values))


def test_several_answerers_share_one_request() -> None:
    generator = np.random.default_rng(6)
    parameters = derive(BFV_8192, 300, 50)
    asker = BfvAsker(parameters)
    groupings = {name: draw_grouping(generator, 300, bins, 0, 1) for name, bins in {"a": (3, 9), "b": (20,)}.items()}
    for name, grouping in groupings.items():
        asker.accept_hints(name, b"", grouping.outputs)
    values = generator.integers(-50, 51, 300)
    request, pending = asker.encrypt(values, os.urandom(32))
    for name, grouping in groupings.items():
        answerer = BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy())
        assert np.array_equal(pending.open(name, answerer.answer(request)), plain_sums(grouping, values))


@pytest.mark.parametrize("masked", [False, True])
def test_holder_noise_is_added_to_the_sums(masked: bool) -> None:
    generator = np.random.default_rng(7)
    grouping = draw_grouping(generator, 500, (4, 6), 0, 1)
    parameters = derive(BFV_8192, 500, 60, 1, sum_slack=1000)
    noise = generator.integers(-1000, 1001, grouping.outputs)
    noise[:2] = [1000, -1000]
    values = np.full(500, 60)
    asker = BfvAsker(parameters)
    asker.accept_hints("p", b"", grouping.outputs)
    answerer = BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy())
    request, pending = asker.encrypt(values, os.urandom(32))
    if masked:
        answer, mask = answerer.answer_masked(request, noise)
        sums = unmask(parameters, pending.open_masked("p", answer), mask)
    else:
        sums = pending.open("p", answerer.answer(request, noise))
    assert np.array_equal(sums, plain_sums(grouping, values) + noise)


@pytest.mark.slow
def test_a_realistic_size_is_exact() -> None:
    generator = np.random.default_rng(8)
    grouping = draw_grouping(generator, 21_000, (32,) * 12, 2, 20)
    bound = capacity(BFV_8192, 21_000, 20)
    parameters = derive(BFV_8192, 21_000, bound, 20)
    asker = BfvAsker(parameters)
    asker.accept_hints("p", b"", grouping.outputs)
    with BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy()) as answerer:
        for values in (np.full(21_000, bound), generator.integers(-bound, bound + 1, 21_000)):
            request, pending = asker.encrypt(values, os.urandom(32))
            assert np.array_equal(pending.open("p", answerer.answer(request)), plain_sums(grouping, values))
