from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedcredit.kernels.points import PointScale, integer_points, logit_of_points, split_points, total_points

number = st.floats(-5, 5)


@st.composite
def scorecards(draw: st.DrawFn) -> tuple[PointScale, float, list[float], list[list[float]], list[list[int]]]:
    scale = PointScale(draw(st.floats(0, 1000)), draw(st.floats(0.1, 100)), draw(st.floats(1, 200)))
    tables = draw(st.lists(st.lists(number, min_size=1, max_size=8), min_size=1, max_size=40))
    coefficients = [draw(number) for _ in tables]
    rows = draw(st.integers(1, 5))
    codes = [[draw(st.integers(0, len(table) - 1)) for _ in range(rows)] for table in tables]
    return scale, draw(number), coefficients, tables, codes


@given(scorecards(), st.booleans())
def test_points_sum_to_the_logit(
    card: tuple[PointScale, float, list[float], list[list[float]], list[list[int]]],
    spread: bool,
) -> None:
    scale, intercept, coefficients, tables, codes = card
    points = split_points(scale, intercept, coefficients, tables, spread=spread)
    columns = [np.array(column) for column in codes]
    logit = np.full(columns[0].size, intercept)
    for slope, table, column in zip(coefficients, tables, columns, strict=True):
        logit += slope * np.array(table)[column]
    total = total_points(points, columns)
    np.testing.assert_allclose(total, scale.offset + scale.factor * logit, rtol=0, atol=1e-9 * scale.factor)
    np.testing.assert_allclose(logit_of_points(scale, total), logit, rtol=0, atol=1e-9)
    rounded = total_points(integer_points(points), columns)
    assert np.abs(rounded - total).max() <= (len(tables) + 1) / 2 + 1e-6
