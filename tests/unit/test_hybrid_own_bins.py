"""Bins that several banks have in common for their own columns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, PeerError
from fedcredit.kernels.cells import keys_of_numbers, number_between, number_of_key
from fedcredit.kernels.prebin import PrebinRules, fit_prebins
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.hybrid.own_bins import OwnColumns, pooled_features
from fedcredit.protocol.pool import Alone, UnsafeLocalPools
from fedcredit.spec.model import PartySection
from fedcredit.types import PartyId, Role

RULES = PrebinRules(max_prebins=10, min_rows=50, max_categories=8)
NAMES = ("a", "b", "c")


def bank(name: str, columns: Mapping[str, pl.Series], rules: PrebinRules = RULES, special: float = -7.0) -> OwnColumns:
    rows = len(next(iter(columns.values())))
    ids = pl.Series([f"{name}{row}" for row in range(rows)])
    table = HolderTable(PartyId(name), ids, None, columns, "0" * 64)
    index = RowIndex(tuple(ids.to_list()), np.arange(rows), np.zeros(rows, np.bool_))
    party = PartySection(name=PartyId(name), role=Role.LABEL_HOLDER, source="x", special={"amount": (special,)})
    return OwnColumns("run", table, index, party, rules)


def columns(rows: int, seed: int) -> dict[str, pl.Series]:
    rng = np.random.default_rng(seed)
    amount = np.round(np.exp(8 + seed + rng.normal(size=rows)))
    amount[rng.random(rows) < 0.2] = 5000.0
    amount[rng.random(rows) < 0.1] = -7.0
    ratio = pl.Series(rng.normal(size=rows) - 0.5).to_frame("r").select(
        pl.when(pl.Series(rng.random(rows) < 0.15)).then(None).otherwise(pl.col("r")).alias("r")
    )["r"]  # fmt: skip
    state = pl.Series([f"s{code}" for code in np.minimum(rng.geometric(0.25, size=rows) + seed, 12)])
    return {"state": state, "amount": pl.Series(amount), "ratio": ratio}


def together(banks: Sequence[OwnColumns]) -> list[list[OwnFeature]]:
    async def run() -> list[list[OwnFeature]]:
        pools = UnsafeLocalPools([one.table.party for one in banks])
        return await asyncio.gather(*(pooled_features(pools.pool(one.table.party), one) for one in banks))

    return asyncio.run(run())


def joined(parts: Sequence[Mapping[str, pl.Series]]) -> dict[str, pl.Series]:
    return {name: pl.concat([part[name] for part in parts]) for name in parts[0]}


def test_banks_find_the_bins_of_all_rows_together() -> None:
    parts = [columns(rows, seed) for seed, rows in enumerate((700, 260, 90))]
    found = together([bank(name, part) for name, part in zip(NAMES, parts, strict=True)])
    whole = asyncio.run(pooled_features(Alone(PartyId("all")), bank("all", joined(parts))))
    for place, feature in enumerate(whole):
        codes = np.concatenate([features[place].codes for features in found])
        assert np.array_equal(codes, feature.codes)
        assert {features[place].shape for features in found} == {feature.shape}
        assert np.bincount(codes, minlength=feature.shape.bins).min() >= RULES.min_rows
    assert [feature.name for feature in whole] == ["amount", "ratio", "state"]


def test_quantiles_of_the_grid_are_those_of_the_rows() -> None:
    values = pl.Series("x", np.exp(np.random.default_rng(1).normal(size=20_000)))
    (feature,) = asyncio.run(pooled_features(Alone(PartyId("a")), bank("a", {"x": values})))
    exact = fit_prebins(values, np.ones(len(values), np.bool_), RULES)
    assert feature.shape.bins == exact.bins
    np.testing.assert_allclose(feature.prebins.edges, exact.edges, rtol=0.02)


def test_frequent_values_keep_bins_of_their_own() -> None:
    rng = np.random.default_rng(2)
    values = rng.choice([0.0, 1.0, 2.0, 50.0, 51.0, 1e6], size=3000, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    (feature,) = asyncio.run(pooled_features(Alone(PartyId("a")), bank("a", {"x": pl.Series(values)})))
    groups = {value: set(feature.codes[values == value].tolist()) for value in np.unique(values).tolist()}
    assert sorted(groups.values(), key=min) == [{0}, {1}, {2}, {3}, {4}, {5}]


def test_a_bank_without_a_category_has_its_bin_all_the_same() -> None:
    mine, other = pl.Series(["x"] * 100 + ["y"] * 100), pl.Series(["x"] * 100 + ["z"] * 150)
    both = [bank("a", {"kind": mine}), bank("b", {"kind": other}), bank("c", {"kind": mine.head(10)})]
    first, second, _ = (features[0] for features in together(both))
    assert first.shape.bins == second.shape.bins == 3
    assert set(first.codes.tolist()) & set(second.codes.tolist()) == {first.codes[0]}
    assert "other banks" in "".join(first.prebins.labels())


def test_a_column_with_nothing_to_tell_is_one_bin() -> None:
    (feature,) = asyncio.run(pooled_features(Alone(PartyId("a")), bank("a", {"x": pl.Series([1.0] * 30)})))
    assert feature.shape.bins == 1


@pytest.mark.parametrize("changed", ["columns", "special", "rules"])
def test_banks_that_differ_are_refused(changed: str) -> None:
    part = columns(100, 0)
    other = {
        "columns": bank("b", {**part, "more": part["amount"]}),
        "special": bank("b", part, special=-8.0),
        "rules": bank("b", part, PrebinRules(max_prebins=9, min_rows=50)),
    }[changed]
    with pytest.raises(PeerError, match="different sums"):
        together([bank("a", part), other, bank("c", part)])


def test_infinite_values_are_refused() -> None:
    with pytest.raises(DataError, match="infinite"):
        asyncio.run(pooled_features(Alone(PartyId("a")), bank("a", {"x": pl.Series([1.0, np.inf])})))


def test_no_cell_is_refined_beyond_a_quarter_of_the_least_rows() -> None:
    """The totals a bank sees have, in each refined cell, at most four parts for each ``min_rows`` rows."""
    values = pl.Series(np.random.default_rng(3).uniform(1, 2, size=1000))
    pools = UnsafeLocalPools([PartyId("a")])
    asyncio.run(pooled_features(pools.pool(PartyId("a")), bank("a", {"x": values})))
    parts = [length for what, length, _ in pools.sums if what.startswith("bins/parts")]
    assert parts
    assert max(parts) <= 4 * 1000 / RULES.min_rows


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=20))
def test_keys_are_in_the_order_of_numbers(values: list[float]) -> None:
    numbers = np.array(values)
    keys = keys_of_numbers(numbers)
    assert np.array_equal(np.argsort(keys, kind="stable"), np.argsort(numbers, kind="stable"))
    assert [number_of_key(int(key)) for key in keys] == (numbers + 0.0).tolist()
    low = int(keys.min())
    high = max(int(keys.max()), low + 1)
    assert number_of_key(low) <= number_between(low, high) < number_of_key(high)
