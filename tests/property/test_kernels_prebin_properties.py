from __future__ import annotations

import random

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.prebin import PrebinRules, fit_prebins

SPECIAL = (-7.0, -8.0, -9.0)
values = st.one_of(
    st.none(),
    st.sampled_from(SPECIAL),
    st.integers(0, 6).map(float),
    st.floats(-100, 100, allow_nan=False),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[pl.Series, NDArray[np.bool_], PrebinRules]:
    weighted = draw(st.lists(st.tuples(values, st.integers(1, 12)), min_size=1, max_size=40))
    flat = [value for value, times in weighted for _ in range(times)]
    categorical = draw(st.booleans())
    if categorical and draw(st.booleans()):
        column = pl.Series("x", [None if v is None else f"name {v:g}" for v in flat], dtype=pl.String)
    else:
        column = pl.Series("x", flat, dtype=pl.Float64)
    seed = draw(st.integers(0, 2**32 - 1))
    rows = np.random.default_rng(seed).random(len(flat)) < draw(st.sampled_from([0.5, 0.9, 1.1]))
    rules = PrebinRules(
        max_prebins=draw(st.integers(1, 8)),
        min_rows=draw(st.integers(1, 30)),
        special=SPECIAL,
        categorical=categorical,
        max_categories=draw(st.integers(2, 8)),
    )
    return column, rows, rules


@settings(max_examples=400, deadline=None)
@given(cases())
def test_no_bin_is_undersized_and_every_row_has_one(case: tuple[pl.Series, NDArray[np.bool_], PrebinRules]) -> None:
    column, rows, rules = case
    try:
        prebins = fit_prebins(column, rows, rules)
    except DataError as error:
        assert error.code in {"data.column-constant", "data.column-empty"}  # noqa: PT017  one of two names is right
        return
    codes = prebins.apply(column)
    assert codes.dtype == np.int32
    assert codes.shape == rows.shape
    assert int(codes.min()) >= 0
    assert int(codes.max()) < prebins.bins
    counts = np.bincount(codes[rows], minlength=prebins.bins)
    assert prebins.bins >= 2
    assert int(counts.min()) >= rules.min_rows
    assert len(prebins.labels()) == prebins.bins
    assert 0 <= prebins.fallback < prebins.bins
    if prebins.kind == "numeric":
        assert prebins.ordered <= rules.max_prebins
        assert list(prebins.edges) == sorted(set(prebins.edges))
        ordinary = column.is_not_null().to_numpy() & ~column.is_in(SPECIAL).fill_null(value=False).to_numpy()
        of_value = column.to_numpy()[ordinary]
        order = np.argsort(of_value)
        assert np.all(np.diff(codes[ordinary][order]) >= 0)
        assert np.all(codes[ordinary] < prebins.ordered)
    else:
        assert prebins.ordered == 0
        assert len(prebins.categories) <= rules.max_categories


@settings(max_examples=100, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    case: tuple[pl.Series, NDArray[np.bool_], PrebinRules], shuffler: random.Random
) -> None:
    column, rows, rules = case
    places = list(range(len(column)))
    shuffler.shuffle(places)
    try:
        prebins = fit_prebins(column, rows, rules)
    except DataError:
        return
    assert fit_prebins(column[places], rows[places], rules) == prebins
