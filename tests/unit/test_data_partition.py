"""One table taken apart into those of several banks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.data.load import load_table, load_tables
from fedcredit.data.partition import partition_rows
from fedcredit.errors import DataError
from fedcredit.spec.horizontal import PartitionSection
from fedcredit.spec.load import LoadedSpec, parse_spec
from fedcredit.types import PartyId

ROWS = 3000
LENDERS = ["north", "south", "east", "west", "hills"]
BANK, OTHER = PartyId("bank_02"), PartyId("bank_01")
WEIGHTS = [0.4, 0.3, 0.2, 0.06, 0.04]


def section(by: str, **keys: Any) -> PartitionSection:
    return PartitionSection.model_validate({"party": "bank", "by": by, "banks": 4, **keys})


def records(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    lender = rng.choice(LENDERS, size=rows, p=WEIGHTS)
    return pl.DataFrame(
        {
            "id": [f"E{number}" for number in range(rows)],
            "bad": (rng.random(rows) < 0.2).astype(int),
            "lender": [None if luck < 0.02 else str(one) for one, luck in zip(lender, rng.random(rows), strict=True)],
            "size": rng.normal(size=rows).round(3),
            "local": [1.0 if one == "hills" else 0.0 for one in lender],
        }
    )


def parts(frame: pl.DataFrame, of: PartitionSection) -> list[list[str]]:
    """Ids of each bank."""
    label = frame["bad"].to_numpy().astype(np.int8)
    column = frame["lender"] if of.by == "column" else None
    ids = frame["id"].to_list()
    return [[ids[row] for row in rows] for rows in partition_rows(of, frame["id"], label, column, "party bank")]


ALL = [section("dirichlet"), section("size"), section("iid")]


@pytest.mark.parametrize("of", ALL, ids=lambda of: of.by)
def test_every_row_is_in_one_bank(of: PartitionSection) -> None:
    frame = records()
    banks = parts(frame, of)
    assert len(banks) == 4
    assert sorted(one for bank in banks for one in bank) == sorted(frame["id"].to_list())


@pytest.mark.parametrize("of", [*ALL, section("column", column="lender")], ids=lambda of: of.by)
def test_the_order_of_rows_decides_nothing(of: PartitionSection) -> None:
    frame = records()
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=5)
    assert shuffled["id"].to_list() != frame["id"].to_list()
    assert [set(bank) for bank in parts(frame, of)] == [set(bank) for bank in parts(shuffled, of)]


@pytest.mark.parametrize("of", ALL, ids=lambda of: of.by)
def test_rows_keep_their_order_and_the_seed_decides(of: PartitionSection) -> None:
    frame = records()
    banks = parts(frame, of)
    assert banks == [sorted(bank, key=lambda one: int(one[1:])) for bank in banks]
    other = of.model_copy(update={"seed": 1})
    assert parts(frame, other) != banks


def test_pinned_so_that_every_machine_and_version_agrees() -> None:
    frame = records(40)
    first = {of.by: " ".join(one.removeprefix("E") for one in parts(frame, of)[0]) for of in ALL}
    assert first == {
        "dirichlet": "3 8 10 13 18 19 21 24 27 35",
        "size": "2 3 8 10 14 18 19 20 21 24 25 27 31 35",
        "iid": "3 8 10 18 19 24 25 27 31 35",
    }


def test_a_bank_for_each_of_the_largest_values() -> None:
    frame = records()
    banks = parts(frame, section("column", column="lender"))
    lender = dict(zip(frame["id"].to_list(), frame["lender"].to_list(), strict=True))
    assert [{lender[one] for one in bank} for bank in banks] == [{"north"}, {"south"}, {"east"}, {"west"}]
    counts = frame["lender"].drop_nulls().value_counts()
    assert [len(bank) for bank in banks] == sorted(counts["count"].to_list(), reverse=True)[:4]


def test_values_of_one_size_are_ordered_by_name() -> None:
    frame = pl.DataFrame(
        {"id": list("abcdefg"), "bad": [0, 1] * 3 + [0], "lender": ["z", "y", "x", "z", "y", "x", "w"]}
    )
    banks = parts(frame, section("column", column="lender", banks=3))
    assert banks == [["c", "f"], ["b", "e"], ["a", "d"]]


def test_numbers_and_blanks_as_values() -> None:
    label = np.array([0, 1, 0, 1, 0, 1, 0], dtype=np.int8)
    column = pl.Series("code", [" 7", "7", "", "8", "9", None, "9 "])
    found = partition_rows(section("column", column="code", banks=3), pl.Series(list("abcdefg")), label, column, "p")
    assert [rows.tolist() for rows in found] == [[0, 1], [4, 6], [3]]


def test_dirichlet_shares_spread_with_small_alpha_and_agree_with_large() -> None:
    frame = records()
    bad = dict(zip(frame["id"].to_list(), frame["bad"].to_list(), strict=True))
    rate = float(frame["bad"].mean())  # type: ignore[arg-type]

    def spread(alpha: float) -> float:
        of = section("dirichlet", banks=20, alpha=alpha)
        banks = parts(frame, of)
        assert {len(bank) for bank in banks} == {ROWS // 20}
        return float(np.std([np.mean([bad[one] for one in bank]) for bank in banks]))

    few, some, many = spread(0.05), spread(5.0), spread(1e6)
    assert few > some > many
    assert many < 0.005
    # of Dir(alpha p) the share of bads is Beta with this variance
    assert few == pytest.approx(np.sqrt(rate * (1 - rate) / 1.05), rel=0.25)
    assert some == pytest.approx(np.sqrt(rate * (1 - rate) / 6.0), rel=0.35)


def test_sizes_follow_the_power_law() -> None:
    sizes = [len(bank) for bank in parts(records(), section("size", alpha=1.0))]
    assert sizes == pytest.approx([ROWS / k / (1 + 1 / 2 + 1 / 3 + 1 / 4) for k in (1, 2, 3, 4)], abs=2)
    even = [len(bank) for bank in parts(records(), section("iid"))]
    assert even == [ROWS // 4] * 4
    floor = [len(bank) for bank in parts(records(), section("size", alpha=50.0, min_rows=200))]
    assert floor == [ROWS - 600, 200, 200, 200]


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (section("iid", min_rows=751), "use 750 or less"),
        (section("size", min_rows=751), "use 750 or less"),
        (section("dirichlet", banks=999, min_rows=4), "use 3 or less"),
        (section("column", column="lender", banks=6), "has 5 values with at least 1 rows, 6 banks were asked for"),
        (section("column", column="lender", min_rows=500), "has 3 values with at least 500 rows"),
    ],
)
def test_too_few_rows_are_refused(of: PartitionSection, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parts(records(), of)
    assert caught.value.code == "data.partition"
    assert "party bank" in str(caught.value)


def loaded(folder: Path, frame: pl.DataFrame, partition: dict[str, Any], **bank: Any) -> LoadedSpec:
    frame.write_csv(folder / "all.csv")
    holder = records(seed=1).select("id", pl.col("size").alias("turnover"))
    holder.write_csv(folder / "tax.csv")
    content = {
        "run": {"name": "x", "mode": "simulation"},
        "align": {"mode": "plain"},
        "party": [
            {"name": "bank", "role": "label_holder", "source": "all.csv", "label": "bad", **bank},
            {"name": "tax", "role": "feature_holder", "source": "tax.csv"},
        ],
        "partition": {"party": "bank", **partition},
    }
    return LoadedSpec(parse_spec(content), folder, folder / "run.toml")


def test_banks_get_their_parts_and_the_dividing_column_is_no_feature(tmp_path: Path) -> None:
    frame = records()
    spec = loaded(tmp_path, frame, {"by": "column", "column": "lender", "banks": 3})
    tables = load_tables(spec)
    assert list(tables) == ["bank_01", "bank_02", "bank_03", "tax"]
    assert tables[PartyId("tax")].rows == ROWS
    for name, lender in zip(("bank_01", "bank_02", "bank_03"), LENDERS, strict=False):
        own = frame.filter(pl.col("lender") == lender)
        table = tables[PartyId(name)]
        assert table.party == name
        assert table.ids.to_list() == own["id"].to_list()
        assert table.label is not None
        assert table.label.tolist() == own["bad"].to_list()
        assert not table.label.flags.writeable
        assert list(table.columns) == ["size", "local"]
        assert table.columns["size"].to_list() == own["size"].to_list()
        assert table.columns["local"].n_unique() == 1  # constant at this bank, not in the source: no error
    assert len({table.digest for table in tables.values()}) == 4


def test_a_part_has_the_digest_of_its_own_records(tmp_path: Path) -> None:
    frame = records()
    whole = load_tables(loaded(tmp_path, frame, {"by": "column", "column": "lender", "banks": 3}))
    other = frame.filter(pl.col("lender").is_in(["north", "south", "east"]) | pl.col("lender").is_null())
    again = load_tables(loaded(tmp_path, other, {"by": "column", "column": "lender", "banks": 3}, columns=["size"]))
    assert whole[BANK].digest == again[BANK].digest
    changed = frame.with_columns(pl.when(pl.col("lender") == "south").then(9.0).otherwise(pl.col("size")).alias("size"))
    third = load_tables(loaded(tmp_path, changed, {"by": "column", "column": "lender", "banks": 3}))
    assert third[BANK].digest != whole[BANK].digest
    assert third[OTHER].digest == whole[OTHER].digest


def test_a_source_of_many_banks_is_read_and_divided_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(*arguments: Any) -> Any:
        calls.append("divided")
        return partition_rows(*arguments)

    monkeypatch.setattr("fedcredit.data.load.partition_rows", counted)
    spec = loaded(tmp_path, records(), {"by": "dirichlet", "banks": 9})
    tables = load_tables(spec)
    assert calls == ["divided"]
    assert sum(table.rows for table in tables.values() if table.label is not None) == ROWS


def test_a_part_without_a_partition_is_refused(tmp_path: Path) -> None:
    spec = loaded(tmp_path, records(), {"by": "iid", "banks": 3})
    with pytest.raises(DataError, match="party bank_02: part"):
        load_table(spec.spec.party[1], tmp_path)


def test_an_unknown_dividing_column_is_named(tmp_path: Path) -> None:
    spec = loaded(tmp_path, records(), {"by": "column", "column": "lendr", "banks": 3})
    with pytest.raises(DataError, match=r"party bank: partition.column: .*'lendr'; did you mean \"lender\""):
        load_tables(spec)
