"""Bitmaps against sums: honest ones pass, crude lies are named, and noise is allowed for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.errors import IntegrityError
from fedcredit.kernels.tree_grower import Columns
from fedcredit.kernels.tree_model import Split, TreeFeature, left_bits
from fedcredit.protocol.boost.agreement import RoundSums
from fedcredit.protocol.boost.draws import HolderDraws
from fedcredit.protocol.boost.plan import BoostPlan
from fedcredit.spec.model import BoostSection, PrivacySection

ROWS = 900
FEATURES = (
    TreeFeature("bank", "F1", 7, 7),
    TreeFeature("tax", "F1", 4, 4, foreign=True),
    TreeFeature("customs", "F1", 6, 5, foreign=True),
)
FOREIGN = (1, 2)
RNG = np.random.default_rng(5)
CODES = {place: RNG.permutation(np.arange(ROWS) % FEATURES[place].bins) for place in FOREIGN}
SPLITS = (Split(1, (0,)), Split(2, (0, 1, 5)), Split(2, (0, 1, 2, 3, 4)))


def plan(noise_rows: float, min_bin_rows: int = 100) -> BoostPlan:
    return BoostPlan(BoostSection(min_bin_rows=min_bin_rows), PrivacySection(noise_rows=noise_rows))


def sums_of(column: NDArray[np.int64]) -> NDArray[np.int64]:
    parts = [np.bincount(CODES[f], weights=column, minlength=FEATURES[f].bins) for f in FOREIGN]
    return np.concatenate(parts).astype(np.int64)


def answered(questions: int, noise_units: float = 0.0, seed: int = 0) -> RoundSums:
    """Nodes of equal size with no row in common, and a last part that nobody asked for."""
    node = np.random.default_rng(seed).integers(0, questions + 1, ROWS)
    draws, asked, told = HolderDraws(bytes([seed]) * 32), [], []
    for place in range(questions):
        g = np.where(node == place, np.random.default_rng([seed, place]).integers(-127, 128, ROWS), 0)
        h = np.where(node == place, np.random.default_rng([seed, place]).integers(0, 128, ROWS), 0)
        noise = draws.noise(0, place, 10, noise_units)
        asked.append(Columns(g, h))
        told.append((sums_of(g) + noise[0], sums_of(h) + noise[1]))
    return RoundSums(asked, told)


def honest() -> dict[Split, Any]:
    return {split: left_bits(split, CODES[split.feature]) for split in SPLITS}


@pytest.mark.parametrize("questions", [0, 1, 4])
def test_honest_bitmaps_pass(questions: int) -> None:
    answered(questions).check(FEATURES, honest(), plan(0.0))
    answered(questions).check(FEATURES, {}, plan(0.0))


@pytest.mark.parametrize("questions", [1, 4])
def test_noise_is_no_lie(questions: int) -> None:
    noisy = plan(4.0)
    for seed in range(40):
        answered(questions, noisy.noise_units, seed).check(FEATURES, honest(), noisy)


def refused(found: RoundSums, bits: dict[Split, Any], of: BoostPlan) -> str:
    with pytest.raises(IntegrityError) as caught:
        found.check(FEATURES, bits, of)
    assert caught.value.code == "boost.bitmap"
    return caught.value.public


@pytest.mark.parametrize("split", SPLITS)
def test_one_row_moved(split: Split) -> None:
    found, bits = answered(1), honest()
    asked = np.flatnonzero(found.questions[0].g)
    bits[split] = bits[split].copy()
    bits[split][asked[3]] ^= True
    owner = FEATURES[split.feature].owner
    assert refused(found, bits, plan(0.0)) == (
        f"{owner}: a bitmap of feature F1 does not fit the sums that were answered"
    )


def test_a_row_that_was_not_asked_is_not_seen() -> None:
    found, bits = answered(1), honest()
    free = np.flatnonzero((found.questions[0].g == 0) & (found.questions[0].h == 0))
    bits[SPLITS[0]] = bits[SPLITS[0]].copy()
    bits[SPLITS[0]][free[0]] ^= True
    found.check(FEATURES, bits, plan(0.0))


@pytest.mark.parametrize("field", range(2))
def test_a_lie_about_either_sum(field: int) -> None:
    found = answered(2)
    lied = [[one.copy() for one in pair] for pair in found.sums]
    lied[1][field][0] += 1  # bin 0 of tax
    lied[1][field][1] -= 1
    again = RoundSums(found.questions, [(g, h) for g, h in lied])
    assert refused(again, honest(), plan(0.0)).startswith("tax: a bitmap of feature F1")


def test_a_lie_beyond_the_noise() -> None:
    noisy = plan(0.5)
    found, bits = answered(1, noisy.noise_units), honest()
    bits[SPLITS[0]] = ~bits[SPLITS[0]]
    assert refused(found, bits, noisy).startswith("tax")


@pytest.mark.parametrize("questions", [0, 1])
def test_a_side_smaller_than_a_bin(questions: int) -> None:
    """However much noise there is, and whether anything was asked or not."""
    much = plan(10_000.0)
    for bits in (np.zeros(ROWS, np.bool_), np.ones(ROWS, np.bool_), np.arange(ROWS) < 99, np.arange(ROWS) >= 99):
        text = refused(answered(questions), {SPLITS[1]: bits}, much)
        assert text == "customs: a bitmap of feature F1 has fewer rows on a side than a bin may have"
    answered(questions).check(FEATURES, {SPLITS[1]: np.arange(ROWS) < 100}, much)
