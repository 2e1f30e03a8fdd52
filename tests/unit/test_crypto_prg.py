"""Streams and samplers: right distribution, separated labels, seeds of the right size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedcredit.crypto.prg import (
    CBD_ETA,
    SeedStream,
    SystemEntropy,
    UnsafeSeededEntropy,
    centred_binomial,
    expand,
    uniform_below,
    uniform_words,
)
from fedcredit.errors import BoundError

SEED = bytes(range(32))
SIGNIFICANCE = 1e-3  # the streams are fixed, so this never flickers


def test_expand_is_deterministic_and_separates_labels_and_seeds() -> None:
    assert expand(SEED, "a", 64) == expand(SEED, "a", 64)
    assert expand(SEED, "a", 100)[:64] == expand(SEED, "a", 64)
    streams = {expand(SEED, "a", 64), expand(SEED, "b", 64), expand(bytes(32), "a", 64)}
    assert len(streams) == 3


def test_stream_in_pieces_is_the_expansion() -> None:
    stream = SeedStream(SEED, "x")
    assert stream.take(5) + stream.take(59) == expand(SEED, "x", 64)


@pytest.mark.parametrize("seed", [b"", bytes(16), bytes(31), bytes(33)])
def test_seed_of_another_length_is_refused(seed: bytes) -> None:
    with pytest.raises(BoundError, match="32 are needed"):
        expand(seed, "x", 1)


def test_negative_and_oversized_streams_are_refused() -> None:
    with pytest.raises(BoundError):
        expand(SEED, "x", -1)
    with pytest.raises(BoundError):
        expand(SEED, "x", (1 << 37) + 1)


def test_system_entropy_gives_fresh_bytes() -> None:
    source = SystemEntropy()
    assert len(source.take(48)) == 48
    assert source.take(32) != source.take(32)


def test_seeded_entropy_repeats_and_its_children_are_independent() -> None:
    one, two = UnsafeSeededEntropy(SEED), UnsafeSeededEntropy(SEED)
    first = one.take(32)
    assert first == two.take(32)
    assert first != one.take(32)
    assert one.child("a").take(32) == two.child("a").take(32)
    assert one.child("a").take(32) != one.child("b").take(32)
    assert UnsafeSeededEntropy(SEED).child("a").take(32) != first


def test_centred_binomial_has_the_exact_distribution() -> None:
    drawn = centred_binomial(expand(SEED, "cbd", 8 * 400_000))
    assert drawn.dtype == np.int8
    assert int(np.abs(drawn).max()) <= CBD_ETA
    support = np.arange(-10, 11)
    weights = stats.binom.pmf(support + CBD_ETA, 2 * CBD_ETA, 0.5)
    counts = np.array([np.count_nonzero(drawn == value) for value in support])
    counts = np.append(counts, len(drawn) - counts.sum())
    expected = np.append(weights, 1 - weights.sum()) * len(drawn)
    assert stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


def test_centred_binomial_matches_its_definition() -> None:
    stream = expand(SEED, "cbd-twin", 8 * 50)
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, len(stream), 8)]
    mask = (1 << CBD_ETA) - 1
    twin = [(word & mask).bit_count() - (word >> CBD_ETA & mask).bit_count() for word in words]
    assert centred_binomial(stream).tolist() == twin


@pytest.mark.parametrize("bound", [1, 2, 5, 256, 257, 1000])
def test_uniform_below_is_uniform(bound: int) -> None:
    drawn = np.array(uniform_below(UnsafeSeededEntropy(SEED), bound, 20_000))
    counts = np.bincount(drawn, minlength=bound)
    assert len(counts) == bound
    if bound > 1:
        assert stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_uniform_below_reaches_both_halves_of_a_wide_range() -> None:
    bound = (1 << 78) + 12345
    drawn = uniform_below(UnsafeSeededEntropy(SEED), bound, 4000)
    assert all(0 <= value < bound for value in drawn)
    assert stats.kstest([value / bound for value in drawn], "uniform").pvalue > SIGNIFICANCE


@pytest.mark.parametrize("modulus", [3, 133_857_281, (1 << 27) - (1 << 25)])
def test_uniform_words_have_no_bias_towards_small_values(modulus: int) -> None:
    drawn = uniform_words(UnsafeSeededEntropy(SEED).take, modulus, 60_000)
    assert int(drawn.max()) < modulus
    cells = np.bincount((drawn.astype(np.uint64) * 3 // modulus).astype(np.int64), minlength=3)
    assert stats.chisquare(cells).pvalue > SIGNIFICANCE
