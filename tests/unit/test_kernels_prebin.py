from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.prebin import PrebinRules, Prebins, fit_prebins


def everything(rows: int) -> NDArray[np.bool_]:
    return np.ones(rows, dtype=np.bool_)


def numbers(values: Sequence[float | None]) -> pl.Series:
    return pl.Series("x", values, dtype=pl.Float64)


def fit(column: pl.Series, rules: PrebinRules) -> Prebins:
    return fit_prebins(column, everything(len(column)), rules)


def sizes(prebins: Prebins, column: pl.Series) -> list[int]:
    return [int(rows) for rows in np.bincount(prebins.apply(column), minlength=prebins.bins)]


def test_distinct_values_are_cut_into_equal_groups() -> None:
    column = numbers([float(v) for v in range(1, 13)])
    prebins = fit(column, PrebinRules(max_prebins=4, min_rows=1))
    assert prebins.edges == (3.0, 6.0, 9.0)
    assert prebins.ordered == prebins.bins == 4
    assert sizes(prebins, column) == [3, 3, 3, 3]


def test_edges_are_upper_inclusive_and_hold_for_unseen_numbers() -> None:
    prebins = Prebins("numeric", edges=(1.0, 2.0))
    assert prebins.apply(numbers([-1e9, 1.0, 1.0000001, 2.0, 1e9])).tolist() == [0, 0, 1, 1, 2]
    assert prebins.apply(np.array([-np.inf, np.inf])).tolist() == [0, 2]
    assert prebins.apply(numbers([1.0])).dtype == np.int32


def test_a_value_with_many_rows_gets_one_bin_and_the_rest_share_what_is_left() -> None:
    column = numbers([0.0] * 60 + [float(v) for v in range(1, 41)])
    prebins = fit(column, PrebinRules(max_prebins=5, min_rows=5))
    assert prebins.edges[0] == 0.0
    assert sizes(prebins, column) == [60, 10, 10, 10, 10]


def test_the_cut_is_the_nearest_to_an_equal_share() -> None:
    column = numbers([1.0] * 9 + [2.0] * 8 + [3.0] * 13)
    prebins = fit(column, PrebinRules(max_prebins=3, min_rows=5))
    assert sizes(prebins, column) == [9, 8, 13]
    assert fit(column, PrebinRules(max_prebins=2, min_rows=5)).edges == (2.0,)


def test_thin_tail_is_not_left_over() -> None:
    column = numbers([1.0] * 10 + [2.0] * 10 + [3.0])
    prebins = fit(column, PrebinRules(max_prebins=10, min_rows=2))
    assert sizes(prebins, column) == [10, 11]


def test_special_codes_and_missing_values_have_their_bins_last() -> None:
    column = numbers([float(v) for v in range(40)] + [-7.0] * 10 + [-8.0] * 12 + [None] * 11 + [float("nan")])
    prebins = fit(column, PrebinRules(max_prebins=2, min_rows=10, special=(-7.0, -8.0)))
    assert prebins.special == ((-8.0,), (-7.0,))
    assert prebins.has_missing
    assert prebins.labels() == ["<= 19", "> 19", "code -8", "code -7", "missing"]
    assert sizes(prebins, column) == [20, 20, 12, 10, 12]


def test_a_rare_special_code_counts_as_missing() -> None:
    column = numbers([float(v) for v in range(40)] + [-7.0] * 3 + [None] * 8)
    prebins = fit(column, PrebinRules(max_prebins=2, min_rows=10, special=(-7.0,)))
    assert prebins.as_missing == (-7.0,)
    assert prebins.special == ()
    assert sizes(prebins, column) == [20, 20, 11]


def test_rare_missing_values_join_the_bin_of_the_median() -> None:
    column = numbers([float(v) for v in range(30)] + [-7.0] * 3 + [None] * 2)
    prebins = fit(column, PrebinRules(max_prebins=3, min_rows=10, special=(-7.0,)))
    assert not prebins.has_missing
    assert prebins.fallback == 1
    assert sizes(prebins, column) == [10, 15, 10]


def test_missing_values_seen_later_go_to_the_fallback() -> None:
    prebins = fit(numbers([float(v) for v in range(30)]), PrebinRules(max_prebins=3, min_rows=10))
    assert prebins.apply(numbers([None, float("nan"), 0.0])).tolist() == [1, 1, 0]


def test_only_the_fitted_rows_are_looked_at() -> None:
    column = numbers([float(v) for v in range(100)])
    rows = np.arange(100) < 50
    prebins = fit_prebins(column, rows, PrebinRules(max_prebins=2, min_rows=10))
    assert prebins.edges == (24.0,)
    assert sizes(prebins, column) == [25, 75]


def test_categories_by_falling_count_then_name() -> None:
    column = pl.Series("job", ["b"] * 5 + ["a"] * 5 + ["c"] * 7 + ["d"] * 2 + ["e"] * 2 + [None] * 4, dtype=pl.String)
    prebins = fit(column, PrebinRules(min_rows=4))
    assert prebins.categories == (("c",), ("a",), ("b",), ())
    assert prebins.ordered == 0
    assert prebins.labels() == ["c", "a", "b", "other", "missing"]
    assert sizes(prebins, column) == [7, 5, 5, 4, 4]
    assert prebins.apply(pl.Series(["never seen", "a", None])).tolist() == [3, 1, 4]


def test_a_thin_rest_takes_the_rarest_category_in() -> None:
    column = pl.Series("job", ["a"] * 9 + ["b"] * 6 + ["c"] * 5 + ["d"] + [None], dtype=pl.String)
    prebins = fit(column, PrebinRules(min_rows=5))
    assert prebins.categories == (("a",), ("b",), ())
    assert sizes(prebins, column) == [9, 6, 7]


def test_unseen_names_without_an_other_bin() -> None:
    with_missing = fit(pl.Series(["a"] * 9 + ["b"] * 6 + [None] * 5), PrebinRules(min_rows=5))
    assert with_missing.apply(pl.Series(["z", "b"])).tolist() == [2, 1]
    without = fit(pl.Series(["b"] * 9 + ["a"] * 6), PrebinRules(min_rows=5))
    assert without.apply(pl.Series(["z", None, "a"], dtype=pl.String)).tolist() == [0, 0, 1]


def test_the_number_of_category_bins_is_capped() -> None:
    column = pl.Series([name for k, name in enumerate("abcdefgh") for _ in range(20 - k)])
    prebins = fit(column, PrebinRules(min_rows=5, max_categories=4))
    assert prebins.categories == (("a",), ("b",), ("c",), ())
    assert fit(column, PrebinRules(min_rows=5, max_categories=8)).bins == 8


def test_coded_numbers_as_names() -> None:
    column = numbers([3.0] * 6 + [1.5] * 5 + [None] * 5)
    prebins = fit(column, PrebinRules(min_rows=5, categorical=True))
    assert prebins.categories == (("3",), ("1.5",))
    assert sizes(prebins, column) == [6, 5, 5]
    assert prebins.apply(pl.Series([3, 3, 4])).tolist() == [0, 0, 2]


def test_labels_of_grouped_names_are_short() -> None:
    prebins = Prebins("categorical", categories=(("a", "b", "c", "d", "e"), ("f",)))
    assert prebins.labels() == ["a, b, c and 2 more", "f"]
    assert Prebins("numeric", has_missing=True).labels() == ["any value", "missing"]
    assert Prebins("numeric", edges=(1.0, 2.5)).labels() == ["<= 1", "(1, 2.5]", "> 2.5"]


def test_numpy_columns_and_booleans() -> None:
    column = np.array([0.0, 1.0] * 10)
    prebins = fit_prebins(column, everything(20), PrebinRules(min_rows=10))
    assert prebins.edges == (0.0,)
    names = np.array(["x", "y", None] * 10, dtype=object)
    assert fit_prebins(names, everything(30), PrebinRules(min_rows=10)).bins == 3
    flags = pl.Series([True, False] * 10)
    assert fit(flags, PrebinRules(min_rows=10)).bins == 2


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([1.0] * 40, "data.column-constant"),
        ([None] * 40, "data.column-empty"),
        ([float("nan")] * 40, "data.column-empty"),
        ([1.0] * 5 + [None] * 40, "data.column-empty"),
        ([-7.0] * 40, "data.column-empty"),
        ([float(v) for v in range(19)], "data.column-constant"),
        ([float("inf")] + [float(v) for v in range(40)], "data.column-infinite"),
    ],
)
def test_columns_without_two_groups_are_named(values: list[float | None], code: str) -> None:
    with pytest.raises(DataError, match="'x'") as caught:
        fit(numbers(values), PrebinRules(min_rows=10, special=(-7.0,)))
    assert caught.value.code == code


@pytest.mark.parametrize("names", [["a"] * 40, ["a", "b"] + [None] * 40, [str(v) for v in range(30)]])
def test_names_without_two_groups_are_named(names: list[str | None]) -> None:
    with pytest.raises(DataError) as caught:
        fit(pl.Series("job", names, dtype=pl.String), PrebinRules(min_rows=10))
    assert caught.value.code == "data.column-constant"


def test_text_under_a_numeric_grouping_is_an_error() -> None:
    with pytest.raises(DataError, match="needs numbers"):
        Prebins("numeric", edges=(1.0,)).apply(pl.Series(["a"]))


def test_shapes_are_checked() -> None:
    with pytest.raises(DataError, match="fit_rows"):
        fit_prebins(numbers([1.0, 2.0]), everything(3), PrebinRules())
    with pytest.raises(DataError, match="dimensions"):
        fit_prebins(np.zeros((2, 2)), everything(2), PrebinRules())


@pytest.mark.parametrize(
    "wrong", [{"max_prebins": 0}, {"min_rows": 0}, {"max_categories": 1}, {"special": (float("nan"),)}]
)
def test_rules_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        PrebinRules(**wrong)  # type: ignore[arg-type]


def test_a_million_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=1_000_000)
    values[::7] = 0.0
    column = pl.Series("x", values)
    names = pl.Series("s", rng.integers(0, 60, 1_000_000)).cast(pl.String)
    for each in (column, names):
        start = time.process_time()
        prebins = fit(each, PrebinRules())
        codes = prebins.apply(each)
        assert time.process_time() - start < 20  # 0.1 s on an idle machine
        assert np.bincount(codes).min() >= 100
