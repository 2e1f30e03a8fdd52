"""A party's columns as bins, and what is made of the counts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import bin_feature, count_labels, order_of_features, prebin
from fedcredit.protocol.bin.label_holder import check_classes
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.scorecard.roles import prebin_rules
from fedcredit.spec.model import BinSection, PartySection
from fedcredit.types import PartyId

N = 600
TAX = PartyId("tax")
RULES = BinSection(prebins=6, max_bins=4, min_goods=5, min_bads=5, min_prebin_rows=30)
CUTS = prebin_rules(RULES)


def index(seed: int = 0) -> RowIndex:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(N)[:500]
    return RowIndex(tuple(f"i{row}" for row in rows), rows.astype(np.int64), rng.random(500) < 0.3)


def table(**columns: pl.Series) -> HolderTable:
    ids = pl.Series("id", [f"i{row}" for row in range(N)])
    return HolderTable(TAX, ids, None, {name: one.alias(name) for name, one in columns.items()}, "0" * 64)


def section(**keys: object) -> PartySection:
    return PartySection.model_validate({"name": "tax", "role": "feature_holder", "source": "x.csv", **keys})


NUMBERS = pl.Series(np.random.default_rng(1).normal(size=N))
NAMES = pl.Series(np.random.default_rng(2).choice(["x", "y", "z"], size=N))


def test_codes_follow_the_common_order() -> None:
    at = index()
    (own,) = prebin(table(a=NUMBERS), at, section(), CUTS, [0])
    assert own.shape.code == "F1"
    assert own.shape.bins == own.shape.ordered == own.prebins.bins == 6
    assert own.codes.dtype == np.int32
    assert np.array_equal(own.codes, own.prebins.apply(NUMBERS.gather(pl.Series(at.rows))))


def test_the_split_does_not_shape_the_bins() -> None:
    """The label holder may choose the split: bins that followed it would tell it about chosen rows."""
    at = index()
    other = RowIndex(at.ids, at.rows, ~at.test)
    (first,), (second,) = (prebin(table(a=NUMBERS), split, section(), CUTS, [0]) for split in (at, other))
    assert first.prebins == second.prebins
    assert np.array_equal(first.codes, second.codes)


def test_codes_are_given_in_the_order_drawn() -> None:
    columns = {f"c{number}": NUMBERS + number for number in range(11)}
    order = [10, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9]
    found = prebin(table(**columns), index(), section(), CUTS, order)
    assert [(one.name, one.shape.code) for one in found[:2]] == [("c10", "F01"), ("c3", "F02")]
    assert len({one.shape.code for one in found}) == 11


def test_kinds_special_codes_and_directions() -> None:
    coded = NUMBERS.to_numpy().copy()
    coded[::5] = -77.0
    columns = {"a": pl.Series(coded), "b": NAMES, "c": NUMBERS.clone().scatter(list(range(0, N, 4)), None)}
    party = section(special={"a": [-77]}, monotone={"a": "increasing", "c": "auto"})
    a, b, c = prebin(table(**columns), index(), party, CUTS, [0, 1, 2])
    assert a.prebins.special == ((-77.0,),)
    assert (a.shape.monotone, b.shape.monotone, c.shape.monotone) == ("increasing", "", "auto")
    assert b.shape.ordered == 0
    assert b.shape.bins == 3
    assert c.prebins.has_missing
    assert c.shape.bins == c.shape.ordered + 1


@pytest.mark.parametrize("rest", [9.0, None])
def test_a_column_with_nothing_to_tell_on_the_common_rows_becomes_one_bin(rest: float | None) -> None:
    """A refusal would tell the label holder, who can choose the common rows, something about them."""
    at = index()
    common = set(at.rows.tolist())
    values = [3.0 if row in common else rest for row in range(N)]
    empty = [rest if row in common else 3.0 for row in range(N)]
    for column in (values, empty):
        (own,) = prebin(table(a=pl.Series(column, dtype=pl.Float64)), at, section(), CUTS, [0])
        assert own.shape.bins == 1
        assert not own.codes.any()
        binned = bin_feature(TAX, own.shape, count_labels(own.codes, 1, np.arange(500) % 3 == 0, at), RULES)
        assert binned.merged.bins == 1
        assert binned.merged.iv == 0.0


def test_order_of_features_is_a_uniform_permutation() -> None:
    entropy = UnsafeSeededEntropy(b"\x07" * 32)
    drawn = [tuple(order_of_features(3, entropy)) for _ in range(3000)]
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 1e-4
    assert order_of_features(0, entropy) == []
    assert order_of_features(1, entropy) == [0]


def test_counts_and_bins_from_them() -> None:
    at = index()
    bad = np.random.default_rng(3).random(500) < 0.4
    (own,) = prebin(table(a=NUMBERS), at, section(), CUTS, [0])
    counts = count_labels(own.codes, own.shape.bins, bad, at)
    for code in range(own.shape.bins):
        rows = own.codes == code
        assert counts.bads[code] == (rows & bad & at.train).sum()
        assert counts.rows[code] == (rows & at.train).sum()
        assert counts.test_rows[code] == (rows & at.test).sum()
    binned = bin_feature(TAX, own.shape, counts, RULES)
    assert binned.code == "F1"
    assert binned.merged.bins <= RULES.max_bins
    assert int(binned.merged.goods.sum() + binned.merged.bads.sum()) == int(at.train.sum())
    assert binned.stability >= 0


def test_a_direction_asked_for_is_kept() -> None:
    at = index()
    risky = 1 / (1 + np.exp(3 * NUMBERS.to_numpy()[at.rows]))  # safer as the value grows
    bad = np.random.default_rng(4).random(500) < risky
    (own,) = prebin(table(a=NUMBERS), at, section(), CUTS, [0])
    counts = count_labels(own.codes, own.shape.bins, bad, at)
    shapes = {
        wanted: FeatureShape(code="F1", bins=own.shape.bins, ordered=own.shape.ordered, monotone=wanted)
        for wanted in ("decreasing", "increasing", "auto")
    }
    falling = bin_feature(TAX, shapes["decreasing"], counts, RULES).merged
    assert falling.bins > 1
    assert (np.diff(falling.woe) > 0).all()
    assert bin_feature(TAX, shapes["increasing"], counts, RULES).merged.bins == 1  # there is no such order in the data
    assert np.array_equal(bin_feature(TAX, shapes["auto"], counts, RULES).merged.woe_units, falling.woe_units)


def test_classes_are_checked_on_both_sides_of_the_split() -> None:
    at = index()
    bad = np.random.default_rng(5).random(500) < 0.4
    goods, bads = check_classes(bad, at, RULES)
    assert (goods, bads) == (int((~bad & at.train).sum()), int((bad & at.train).sum()))
    for labels, text in (
        (bad & at.test, "0 bads among the common training rows, at least 5 needed"),
        (bad | at.train, "0 goods among the common training rows, at least 5 needed"),
        (bad & at.train, r"0 of \d+ held-out rows are bad"),
        (bad | at.test, "both classes needed"),
    ):
        with pytest.raises(DataError, match=text):
            check_classes(labels, at, RULES)
