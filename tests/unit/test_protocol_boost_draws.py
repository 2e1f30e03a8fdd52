"""Chance that can be repeated."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.crypto.noise import exact_sd, noise_bound
from fedcredit.protocol.boost.draws import HolderDraws, LabelDraws, sampled_columns

HOLDER, LABEL = HolderDraws(b"\x01" * 32), LabelDraws(b"\x02" * 32)


@pytest.mark.parametrize(
    ("features", "share", "count"),
    [
        (8, 0.5, 4),
        (8, 0.25, 2),
        (9, 0.5, 4),
        (10, 0.31, 3),
        (5, 0.01, 1),
        (1, 0.5, 1),
        (7, 1.0, 7),
        (0, 0.5, 0),
        (0, 1, 0),
    ],
)
def test_a_share_of_the_columns(features: int, share: float, count: int) -> None:
    for tree in range(5):
        chosen = sampled_columns(bytes(32), tree, features, share)
        assert chosen.dtype == np.bool_
        assert chosen.shape == (features,)
        assert int(chosen.sum()) == count


def test_columns_are_drawn_evenly_and_anew_for_each_tree() -> None:
    drawn = np.stack([HOLDER.columns(tree, 10, 0.3) for tree in range(2000)])
    counts = drawn.sum(axis=0)
    assert abs(counts - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)
    assert len(np.unique(drawn, axis=0)) > 110  # of 120 subsets
    assert np.array_equal(HOLDER.columns(7, 10, 0.3), HOLDER.columns(7, 10, 0.3))
    assert any(not np.array_equal(HOLDER.columns(t, 10, 0.3), LABEL.columns(t, 10, 0.3)) for t in range(5))


def test_noise_is_another_one_for_every_node_and_sum() -> None:
    drawn = {
        (batch, slot, field): HOLDER.noise(batch, slot, 50, 100.0)[field]
        for batch in range(3)
        for slot in range(3)
        for field in range(2)
    }
    kept = [tuple(one.tolist()) for one in drawn.values()]
    assert len(set(kept)) == len(kept)
    assert np.array_equal(HOLDER.noise(1, 2, 50, 100.0)[1], drawn[1, 2, 1])
    assert not np.array_equal(HolderDraws(b"\x03" * 32).noise(1, 2, 50, 100.0)[1], drawn[1, 2, 1])


def test_noise_is_as_wide_as_asked() -> None:
    g, h = HOLDER.noise(0, 0, 40_000, 508.0)
    for one in (g, h):
        assert one.dtype == np.int64
        assert abs(float(one.std()) / exact_sd(508.0) - 1) < 0.02
        assert abs(float(one.mean())) < 5 * 508 / 200
        assert np.abs(one).max() <= noise_bound(508.0)
    assert abs(float(np.corrcoef(g, h)[0, 1])) < 0.03


def test_no_noise() -> None:
    for one in HOLDER.noise(3, 1, 7, 0.0):
        assert one.tolist() == [0] * 7


def test_uniforms() -> None:
    first, second = LABEL.rounding(4, 20_000)
    rows = LABEL.rows(4, 20_000)
    for one in (first, second, rows):
        assert one.min() >= 0
        assert one.max() < 1
        assert abs(float(one.mean()) - 0.5) < 0.02
        assert abs(float(one.var()) - 1 / 12) < 0.005
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rows)
    assert not np.array_equal(first, LABEL.rounding(5, 20_000)[0])
    assert np.array_equal(first, LABEL.rounding(4, 20_000)[0])
    assert np.array_equal(first[:100], LABEL.rounding(4, 100)[0])


def test_rows_set_aside() -> None:
    aside = LABEL.validation(20_000, 0.2)
    assert abs(float(aside.mean()) - 0.2) < 0.02
    assert np.array_equal(aside, LABEL.validation(20_000, 0.2))
    assert not (aside & ~LABEL.validation(20_000, 0.3)).any()
