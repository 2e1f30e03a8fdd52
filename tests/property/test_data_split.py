"""The split is a function of id, seed and fraction alone; ids and digests do not depend on the form of a table."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fedcredit.data import split
from fedcredit.data.columns import to_ids
from fedcredit.data.table import table_digest

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.lists(TEXT, min_size=1, max_size=30, unique=True)
SEEDS = st.integers(0, 2**63 - 1)


@given(IDS, SEEDS, st.floats(0.01, 0.99), st.randoms(use_true_random=False))
def test_split_is_the_same_in_any_order(ids: list[str], seed: int, fraction: float, random: object) -> None:
    mask = dict(zip(ids, split.test_mask(ids, seed, fraction), strict=True))
    shuffled = sorted(ids, key=lambda identity: hashlib.sha256(f"{random}{identity}".encode()).digest())
    again = split.test_mask(pl.Series(shuffled, dtype=pl.String), seed, fraction)
    assert [mask[identity] for identity in shuffled] == again.tolist()


@given(IDS, SEEDS, st.floats(0.01, 0.5))
def test_larger_fraction_holds_out_a_superset(ids: list[str], seed: int, fraction: float) -> None:
    small, large = split.test_mask(ids, seed, fraction), split.test_mask(ids, seed, min(0.99, 1.7 * fraction))
    assert not (small & ~large).any()


def test_split_is_pinned_and_near_the_fraction() -> None:
    ids = [str(i) for i in range(20_000)]
    mask = split.test_mask(ids, 7, 0.3)
    # 4 standard deviations of a binomial share
    assert abs(mask.mean() - 0.3) < 4 * (0.3 * 0.7 / len(ids)) ** 0.5
    assert np.flatnonzero(mask)[:8].tolist() == [9, 17, 18, 19, 23, 27, 28, 29]
    assert 0.4 < (mask == split.test_mask(ids, 8, 0.3)).mean() < 0.7


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1, max_size=20, unique=True))
def test_ids_are_the_same_text_from_every_type(numbers: list[int]) -> None:
    expected = [str(number) for number in numbers]
    for series in (
        pl.Series("id", numbers, dtype=pl.Int64),
        pl.Series("id", [float(number) for number in numbers], dtype=pl.Float64),
        pl.Series("id", [f" {number}\t" for number in numbers], dtype=pl.String),
    ):
        assert to_ids(series, "here").to_list() == expected


COLUMN = st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4)
WORDS = st.lists(st.none() | TEXT, min_size=4, max_size=4)
ORDER = st.permutations(range(4))


def digest(ids: list[str], label: list[int], columns: dict[str, pl.Series], order: list[int]) -> str:
    moved = {name: column.gather(order) for name, column in columns.items()}
    return table_digest(pl.Series(ids, dtype=pl.String).gather(order), np.array(label, np.int8)[order], moved)


@given(COLUMN, WORDS, ORDER)
def test_digest_ignores_the_order_of_rows_and_columns(
    numbers: list[float | None], words: list[str | None], order: list[int]
) -> None:
    ids, label = ["d", "b", "a", "c"], [0, 1, 1, 0]
    columns = {"n": pl.Series(numbers, dtype=pl.Float64), "w": pl.Series(words, dtype=pl.String)}
    base = digest(ids, label, columns, [0, 1, 2, 3])
    assert digest(ids, label, dict(reversed(columns.items())), order) == base


@given(WORDS, WORDS)
def test_different_texts_have_different_digests(one: list[str | None], two: list[str | None]) -> None:
    ids = pl.Series(["a", "b", "c", "d"])
    digests = [table_digest(ids, None, {"w": pl.Series(words, dtype=pl.String)}) for words in (one, two)]
    assert (digests[0] == digests[1]) == (one == two)


@given(COLUMN, COLUMN)
def test_different_numbers_have_different_digests(one: list[float | None], two: list[float | None]) -> None:
    ids = pl.Series(["a", "b", "c", "d"])
    digests = [table_digest(ids, None, {"n": pl.Series(numbers, dtype=pl.Float64)}) for numbers in (one, two)]
    assert (digests[0] == digests[1]) == (one == two)


def test_digest_tells_label_names_and_kinds_apart(tmp_path: Path) -> None:
    ids = pl.Series(["a", "b"])
    numbers, words = pl.Series([1.0, 2.0]), pl.Series(["1", "2"])
    label = np.array([0, 1], np.int8)
    digests = [
        table_digest(ids, None, {"x": numbers}),
        table_digest(ids, None, {"y": numbers}),
        table_digest(ids, None, {"x": words}),
        table_digest(ids, label, {"x": numbers}),
        table_digest(ids, 1 - label, {"x": numbers}),
        table_digest(pl.Series(["a", "c"]), None, {"x": numbers}),
        table_digest(ids, None, {"x": numbers, "y": numbers}),
    ]
    assert len(set(digests)) == len(digests)
    assert not list(tmp_path.iterdir())
