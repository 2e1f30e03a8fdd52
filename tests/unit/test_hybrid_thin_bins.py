"""Bins that are thin at one bank lend their rows to a neighbour; the bins stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcredit.kernels.thin_bins import join_thin


def moved(counts: list[int], ordered: int, home: int, least: int) -> list[int]:
    return [int(bin_) for bin_ in join_thin(np.array(counts, np.int64), ordered, home, least)]


def test_thin_ordered_bins_join_the_next() -> None:
    assert moved([3, 4, 5, 20, 2, 1], ordered=6, home=0, least=10) == [2, 2, 2, 3, 3, 3]


def test_thin_codes_and_missing_go_home() -> None:
    assert moved([30, 30, 4, 50, 0], ordered=2, home=1, least=10) == [0, 1, 1, 3, 4]


def test_thin_categories_go_to_the_other_bin() -> None:
    assert moved([30, 4, 8, 2], ordered=0, home=3, least=10) == [0, 3, 3, 3]
    assert moved([30, 4, 0, 2], ordered=0, home=3, least=10) == [0, 0, 2, 0]


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.integers(0, 12),
    st.integers(0, 11),
    st.integers(1, 40),
)
def test_no_bin_keeps_a_few(counts: list[int], ordered: int, home: int, least: int) -> None:
    ordered, home = min(ordered, len(counts)), home % len(counts)
    goes = np.array(moved(counts, ordered, home, least))
    after = np.bincount(goes, weights=counts, minlength=len(counts))
    assert after.sum() == sum(counts)
    enough = (after == 0) | (after >= least)
    assert enough.all() or ((after > 0).sum() == 1 and sum(counts) < least)


@pytest.mark.parametrize("least", [1, 5])
def test_bins_that_are_full_stay(least: int) -> None:
    assert moved([5, 6, 7], ordered=3, home=0, least=least) == [0, 1, 2]
