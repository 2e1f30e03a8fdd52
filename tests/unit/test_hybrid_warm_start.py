"""What a bank that joins later is given, and what it refuses."""

from __future__ import annotations

import asyncio
import hashlib

import numpy as np
import polars as pl
import pytest

from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, IntegrityError, PeerError
from fedcredit.kernels.prebin import Prebins
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature, LabelCounts
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.hybrid.warm_start import CommonFeature, CommonScorecard, WarmDecisions, common_scorecard
from fedcredit.protocol.scorecard.fit import FittedScorecard
from fedcredit.spec.horizontal import HybridSection
from fedcredit.spec.model import BinSection
from fedcredit.types import PartyId

TAX, BANK = PartyId("tax_office"), PartyId("bank")
OWN = CommonFeature("", "F1", "amount", Prebins("numeric", edges=(1.0, 2.0)), (0, 0, 1), (-4, 6), 0.2, 0.9)
HELD = CommonFeature("tax_office", "F3", "", None, (0, 1), (-10, 8), 0.3, 1.1)
COMMON = CommonScorecard((OWN, HELD))


def counted(owner: PartyId, code: str, goods: list[int], bads: list[int]) -> CountedFeature:
    shape = FeatureShape(code=code, bins=len(goods), ordered=len(goods), monotone="")
    rows = np.array(goods) + np.array(bads)
    return CountedFeature(owner, shape, LabelCounts(np.array(bads), rows, rows))


def merged(features: list[CountedFeature], woe_rows: float = 100.0) -> list[BinnedFeature]:
    decisions = WarmDecisions(COMMON, BANK, HybridSection(woe_rows=woe_rows))
    return asyncio.run(decisions.merge(features, BinSection()))


def test_it_survives_the_way_and_nothing_else_does() -> None:
    assert CommonScorecard.decode(COMMON.encode(), COMMON.digest()) == COMMON
    with pytest.raises(IntegrityError, match="not the one"):
        CommonScorecard.decode(COMMON.encode() + b" ", COMMON.digest())
    broken = COMMON.encode().replace(b"features", b"futures!")
    with pytest.raises(IntegrityError, match="cannot be read"):
        CommonScorecard.decode(broken, hashlib.sha256(broken).hexdigest())


def test_bins_are_the_given_ones_with_own_counts() -> None:
    own, held, other = merged(
        [
            counted(BANK, "F1", [10, 20, 30], [5, 5, 5]),
            counted(TAX, "F3", [30, 30], [10, 5]),
            counted(TAX, "F1", [30, 30], [10, 5]),
        ],
        woe_rows=0.0,
    )
    assert own.merged.group.tolist() == [0, 0, 1]
    assert (own.merged.goods.tolist(), own.merged.bads.tolist()) == ([30, 30], [10, 5])
    assert (own.merged.woe_units.tolist(), held.merged.woe_units.tolist()) == ([-4, 6], [-10, 8])
    assert (other.merged.bins, other.merged.iv) == (1, 0.0)


@pytest.mark.parametrize(("woe_rows", "nearer"), [(1e9, "pool"), (1e-6, "own")])
def test_own_woe_lies_between_the_pools_and_the_banks(woe_rows: float, nearer: str) -> None:
    held = merged([counted(BANK, "F1", [1, 1, 1], [1, 1, 1]), counted(TAX, "F3", [300, 100], [100, 300])],
                  woe_rows=woe_rows)[1]  # fmt: skip
    assert held.merged.woe_units.tolist() == ([-10, 8] if nearer == "pool" else [22, -22])


def test_a_holder_that_cuts_otherwise_is_refused() -> None:
    own = counted(BANK, "F1", [1, 1, 1], [1, 1, 1])
    with pytest.raises(PeerError, match="F3 is not cut"):
        merged([own, counted(TAX, "F3", [30, 30, 1], [10, 5, 1])])
    with pytest.raises(PeerError, match="F3 is not cut"):
        merged([own])


def test_own_columns_are_cut_as_the_others_did() -> None:
    ids = pl.Series(["x", "y", "z"])
    table = HolderTable(BANK, ids, None, {"amount": pl.Series([0.5, 1.5, 9.0])}, "0" * 64)
    index = RowIndex(("z", "y", "x"), np.array([2, 1, 0]), np.zeros(3, np.bool_))
    (feature,) = COMMON.own_features(table, index)
    assert (feature.name, feature.codes.tolist()) == ("amount", [2, 1, 0])
    with pytest.raises(DataError, match="no column 'amount'"):
        COMMON.own_features(HolderTable(BANK, ids, None, {}, "0" * 64), index)


def test_a_scorecard_of_one_bank_is_no_start() -> None:
    none = np.zeros(1, np.int64)
    alone = FittedScorecard((), np.zeros(1), np.eye(1), 0, (), none, (), 0)
    with pytest.raises(DataError, match="of one bank"):
        common_scorecard(BANK, [], alone)
