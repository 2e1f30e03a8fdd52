"""Names of merged bins, as their owner reads them."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.kernels.prebin import Prebins
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.scorecard.feature_holder import HolderFeature
from fedcredit.runtime.scorecard.parts import bin_labels, holder_part
from fedcredit.spec.model import ScorecardSection
from fedcredit.types import PartyId

NUMERIC = Prebins("numeric", edges=(1.0, 2.5, 1e6), special=((-7.0, -8.0),), has_missing=True)
NAMES = Prebins("categorical", categories=(("x",), ("y", "z"), ()), has_missing=True)


def own(prebins: Prebins) -> OwnFeature:
    shape = FeatureShape(code="F1", bins=prebins.bins, ordered=prebins.ordered, monotone="")
    return OwnFeature("age", shape, prebins, np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ("group", "bins", "labels"),
    [
        ([0, 1, 2, 3, 4, 5], 6, ["<= 1", "(1, 2.5]", "(2.5, 1e+06]", "> 1e+06", "code -7, -8", "missing"]),
        ([0, 0, 1, 1, 2, 3], 4, ["<= 2.5", "> 2.5", "code -7, -8", "missing"]),
        ([0, 1, 1, 2, 2, 1], 3, ["<= 1", "(1, 1e+06], missing", "> 1e+06, code -7, -8"]),
        ([0, 0, 0, 0, 0, 0], 1, ["any value, code -7, -8, missing"]),
        ([0, 0, 0, 0, 1, 1], 2, ["any value", "code -7, -8, missing"]),
    ],
)
def test_numeric(group: list[int], bins: int, labels: list[str]) -> None:
    assert bin_labels(own(NUMERIC), group, bins) == labels


def test_numeric_prebins_that_are_no_neighbours_are_listed() -> None:
    assert bin_labels(own(NUMERIC), [0, 1, 0, 1, 1, 1], 2)[0] == "<= 1, (2.5, 1e+06]"


def test_categories() -> None:
    assert bin_labels(own(NAMES), np.array([1, 0, 1, 0]), 2) == ["y, z, missing", "x, other"]


def test_a_column_without_edges() -> None:
    single = Prebins("numeric", edges=(), has_missing=True)
    assert bin_labels(own(single), [0, 1], 2) == ["any value", "missing"]


def test_a_holder_keeps_names_woe_and_points_but_no_counts() -> None:
    group, woe, points = np.array([0, 0, 1, 1, 2, 3]), np.array([3, -2, 0, 1]), np.array([9, -8, 0, 4])
    feature = HolderFeature(own(NUMERIC), group, woe, points)
    part = holder_part([feature], ScorecardSection(), PartyId("tax"))
    (kept,) = part["features"]
    assert part["role"] == "feature_holder"
    assert part["scale"] == {"base_score": 600.0, "base_odds": 20.0, "pdo": 50.0}
    assert (kept["owner"], kept["code"], kept["name"], kept["kind"]) == ("tax", "F1", "age", "numeric")
    assert [one["points"] for one in kept["bins"]] == [9, -8, 0, 4]
    assert [one["woe"] for one in kept["bins"]] == pytest.approx([0.15, -0.1, 0.0, 0.05])
    assert {key for one in kept["bins"] for key in one} == {"label", "woe", "points"}
