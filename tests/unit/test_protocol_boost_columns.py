"""All columns in one order, and what of them is known to whom."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.errors import DataError
from fedcredit.kernels.prebin import Prebins
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.boost.columns import UNCAPPED, FeatureList, code_matrix, direction, usable
from fedcredit.protocol.boost.messages import TreeShape
from fedcredit.types import PartyId

BANK, TAX, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "customs"))


def own(code: str, bins: int, ordered: int | None = None, monotone: str = "") -> OwnFeature:
    shape = FeatureShape(code=code, bins=bins, ordered=bins if ordered is None else ordered, monotone=monotone)  # type: ignore[arg-type]
    codes = np.arange(20, dtype=np.int32) % bins
    return OwnFeature(f"column {code}", shape, Prebins(kind="numeric"), codes)


def announced(code: str, bins: int, thresholds: int = 3) -> TreeShape:
    return TreeShape(code=code, bins=bins, ordered=bins, monotone="", thresholds=thresholds)


OWN = [own("F1", 4), own("F2", 1), own("F3", 3, 0)]
SHAPES = {
    CUSTOMS: [announced("F1", 5, 2), announced("F2", 1, 0), announced("F3", 2, 0)],
    TAX: [announced("F1", 1, 0), announced("F2", 6)],
}


def test_the_order_of_the_model() -> None:
    listed = FeatureList.of(BANK, OWN, SHAPES, 3)
    names = [(one.owner, one.code, one.foreign, one.thresholds) for one in listed.features]
    assert names == [
        ("bank", "F1", False, None),
        ("bank", "F3", False, None),
        ("customs", "F1", True, 2),
        ("customs", "F3", True, 0),
        ("tax", "F2", True, 3),
    ]


def test_places() -> None:
    listed = FeatureList.of(BANK, OWN, SHAPES, 3)
    assert [listed.of_party(party) for party in (BANK, CUSTOMS, TAX)] == [[0, 1], [2, 3], [4]]
    assert listed.bins_of(CUSTOMS) == (5, 1, 2)
    assert (listed.announced(CUSTOMS), listed.announced(TAX)) == ([0, 2], [1])
    assert listed.outputs_in_model(CUSTOMS).tolist() == [True] * 5 + [False] + [True] * 2
    assert listed.outputs_in_model(TAX).tolist() == [False] + [True] * 6


@pytest.mark.parametrize(
    ("cap", "said", "kept"), [(None, UNCAPPED, None), (None, 7, 7), (3, 3, 3), (3, 1, 1), (3, 0, 0), (None, 0, 0)]
)
def test_thresholds(cap: int | None, said: int, kept: int | None) -> None:
    """A ledger may leave less than the spec allows, also where the spec sets no cap."""
    listed = FeatureList.of(BANK, [], {TAX: [announced("F1", 4, said)]}, cap)
    assert listed.features[0].thresholds == kept


def test_a_party_with_nothing_to_split() -> None:
    listed = FeatureList.of(BANK, [own("F1", 1)], {TAX: [announced("F1", 3)], CUSTOMS: [announced("F1", 1)]}, 3)
    assert [one.owner for one in listed.features] == ["tax"]
    assert (listed.of_party(CUSTOMS), listed.announced(CUSTOMS)) == ([], [])
    assert listed.outputs_in_model(CUSTOMS).tolist() == [False]


def test_nobody_has_anything_to_split() -> None:
    with pytest.raises(DataError, match="nothing can be split"):
        FeatureList.of(BANK, [own("F1", 1)], {TAX: [announced("F1", 1)]}, 3)


@pytest.mark.parametrize(("bins", "kind"), [(256, np.uint8), (257, np.uint16), (2, np.uint8)])
def test_codes_in_the_smallest_type(bins: int, kind: type) -> None:
    rows = np.array([3, 1, 19])
    matrix = code_matrix([own("F1", bins), own("F2", 1), own("F3", 2)], rows)
    assert matrix.dtype == kind
    assert matrix.tolist() == [[row % bins for row in (3, 1, 19)], [1, 1, 1]]


def test_no_codes() -> None:
    assert code_matrix([own("F1", 1)], np.arange(5)).shape == (0, 5)
    assert code_matrix([], np.arange(5)).shape == (0, 5)


def test_directions() -> None:
    assert direction(own("F1", 3, 3, "increasing")) == "increasing"
    assert direction(own("F1", 3, 3, "auto")) == ""
    assert direction(own("F1", 3, 0, "decreasing")) == ""
    assert [usable(one) for one in OWN] == [True, False, True]
