"""The sources of a made-up district: the tables the catalogues describe, the faults that were meant, the same again."""

from __future__ import annotations

import gzip
import json
import sqlite3
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from fedcredit.catalog.load import load_catalog
from fedcredit.cli import app, main
from fedcredit.data.district import DistrictSettings, build_district, content_digests
from fedcredit.data.district.write import ParquetSink, SqliteSink, digest_of, read_back
from fedcredit.errors import DataError
from fedcredit.kernels.uscc import normalise

CATALOGS = Path(__file__).parents[2] / "configs" / "catalog"
SMALL = DistrictSettings(enterprises=1200, seed=7)
BANKS = [f"bank_{number}" for number in range(1, 7)]
OTHERS = ["tax_office", "electricity", "water", "gas", "social_insurance", "market_regulation"]
MONTHLY = [("bank_1", "flows"), ("bank_1", "repayments"), ("tax_office", "returns"), ("electricity", "usage")]
MONTHLY += [("water", "usage"), ("gas", "usage"), ("social_insurance", "contributions")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("district")
    build_district(SMALL, made)
    return made


def facts(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "district.json").read_text("utf-8"))
    return read


def table(folder: Path, holder: str, name: str) -> pl.DataFrame:
    return read_back(folder / facts(folder)["holders"][holder]["source"], name)


def valid(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(normalise(frame["uscc"])).drop_nulls("uscc")


@pytest.mark.parametrize("holder", [*BANKS, *OTHERS])
def test_tables_and_columns_are_those_of_the_catalogue(folder: Path, holder: str) -> None:
    catalog = load_catalog(CATALOGS / f"{'bank' if holder in BANKS else holder}.toml")
    written = facts(folder)["holders"][holder]["tables"]
    required = {name for name, about in catalog.tables.items() if about.required}
    assert required <= set(written) <= set(catalog.tables)
    for name in written:
        assert set(table(folder, holder, name).columns) <= set(catalog.tables[name].columns)
        needed = {column for column, about in catalog.tables[name].columns.items() if about.required}
        assert needed <= set(table(folder, holder, name).columns)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_records_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    again = build_district(SMALL, tmp_path / "again")
    assert again.facts == facts(folder)
    assert (tmp_path / "again" / "register.csv.gz").read_bytes() == (folder / "register.csv.gz").read_bytes()
    other = build_district(DistrictSettings(enterprises=1200, seed=8), tmp_path / "other")
    for holder, about in other.facts["holders"].items():
        for name, digest in about["tables"].items():
            assert digest != facts(folder)["holders"][holder]["tables"][name]


def test_what_stands_in_the_sources_is_what_was_digested(folder: Path) -> None:
    found = content_digests(folder)
    said = {
        f"{holder}/{name}": digest["content_sha256"]
        for holder, about in facts(folder)["holders"].items()
        for name, digest in about["tables"].items()
    }
    assert found == said


def test_a_changed_record_changes_the_digest(tmp_path: Path) -> None:
    build_district(DistrictSettings(enterprises=500, seed=3), tmp_path)
    before = content_digests(tmp_path)
    with sqlite3.connect(tmp_path / "bank_1.sqlite") as connection:
        connection.execute("UPDATE customers SET account_kind = 'basic' WHERE account_kind = 'general'")
    connection.close()
    changed = {name for name, digest in content_digests(tmp_path).items() if digest != before[name]}
    assert changed == {"bank_1/customers"}


def test_the_register_is_everybody_once_in_order(folder: Path) -> None:
    lines = gzip.decompress((folder / "register.csv.gz").read_bytes()).decode("ascii").splitlines()
    codes = pl.Series("uscc", lines[1:])
    assert lines[0] == "uscc"
    assert len(codes) == codes.n_unique() == SMALL.enterprises
    assert codes.is_sorted()
    assert normalise(codes).equals(codes)
    assert set(pl.read_parquet(folder / "truth.parquet")["uscc"]) == set(codes)


def test_codes_carry_the_check_digit_of_the_organisation_code_and_a_division_that_is_not_assigned(folder: Path) -> None:
    codes = pl.read_parquet(folder / "truth.parquet")["uscc"]
    for code in codes.head(200):
        worth = sum(
            int(letter, 36) * weight for letter, weight in zip(code[8:16], (3, 7, 9, 10, 5, 8, 4, 2), strict=True)
        )
        assert code[16] == "0123456789X0"[(11 - worth % 11)]
        assert code[:8] == "91379901"


def test_each_holder_knows_its_share(folder: Path) -> None:
    holders = facts(folder)["holders"]
    shares = {name: holders[name]["enterprises"] / SMALL.enterprises for name in OTHERS}
    wanted = [0.92, 0.85, 0.80, 0.35, 0.75, 0.99]
    assert list(shares.values()) == pytest.approx(wanted, abs=0.001)
    sizes = [holders[name]["enterprises"] for name in BANKS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == round(1200 * 60 / 210)


def test_banks_share_customers(folder: Path) -> None:
    first, second = (valid(table(folder, name, "customers"))["uscc"] for name in BANKS[:2])
    both = first.is_in(second.implode()).sum()
    assert 0.05 * len(second) < both < 0.9 * len(second)


@pytest.mark.parametrize(("holder", "name"), MONTHLY, ids=[f"{holder}-{name}" for holder, name in MONTHLY])
def test_series_have_24_months_up_to_the_as_of_month_and_three_after(folder: Path, holder: str, name: str) -> None:
    months = table(folder, holder, name)["month"].unique().sort()
    assert months[0] == "2024-01-01"
    assert months[-1] == "2026-03-01"
    assert len(months) == 27


@pytest.mark.parametrize(("holder", "name"), MONTHLY, ids=[f"{holder}-{name}" for holder, name in MONTHLY])
def test_series_are_misspelt_corrected_and_lacking_in_small_part(folder: Path, holder: str, name: str) -> None:
    frame = table(folder, holder, name)
    spelt = normalise(frame["uscc"])
    assert 0.001 < (spelt != frame["uscc"]).fill_null(value=True).mean() < 0.03  # type: ignore[operator]
    assert 0 < spelt.null_count() < 0.015 * len(frame)
    right = valid(frame)
    repeated = len(right) - right.select("uscc", "month").n_unique()
    assert 0.001 < repeated / len(right) < 0.02


def test_a_correction_stands_after_what_it_corrects(folder: Path) -> None:
    frame = valid(table(folder, "electricity", "usage")).with_row_index("row")
    twice = frame.filter(pl.struct("uscc", "month").is_duplicated()).sort("uscc", "month", "row")
    first = twice.group_by("uscc", "month", maintain_order=True).first()
    last = twice.group_by("uscc", "month", maintain_order=True).last()
    assert len(first) > 20
    assert ((first["kwh"] * 10 - last["kwh"]).abs() < 1.0).all()
    assert first["bill"].equals(last["bill"])


def test_some_records_are_booked_late(folder: Path) -> None:
    months = table(folder, "water", "usage")["month"]
    late = (months < months.cum_max()).mean()
    assert isinstance(late, float)
    assert 0.01 < late < 0.04


def test_no_record_is_older_than_its_enterprise(folder: Path) -> None:
    firms = valid(table(folder, "market_regulation", "firms")).select("uscc", "established_on")
    returns = valid(table(folder, "tax_office", "returns")).join(firms, on="uscc")
    assert (returns["month"] > returns["established_on"]).all()
    penalties = valid(table(folder, "market_regulation", "penalties")).join(firms, on="uscc")
    assert (penalties["on"] > penalties["established_on"]).all()
    born = valid(table(folder, "market_regulation", "firms"))
    years = born["established_on"].str.to_date() - born["legal_person_born"].str.to_date()
    assert (years.dt.total_days() >= 18 * 365).all()


def test_defaults_reach_one_year_past_the_as_of_date_and_no_further(folder: Path) -> None:
    days = pl.concat([table(folder, name, "defaults")["defaulted_on"] for name in BANKS])
    assert days.max() <= "2026-12-31"  # type: ignore[operator]
    assert (days > "2025-12-31").sum() > 5
    assert (days <= "2025-12-31").sum() > 5


def test_banks_agree_who_defaulted_up_to_days_and_none_moves_it_over_the_as_of_date(folder: Path) -> None:
    frames = [valid(table(folder, name, "defaults")).with_columns(pl.lit(name).alias("bank")) for name in BANKS]
    truth = pl.read_parquet(folder / "truth.parquet").select("uscc", pl.col("defaulted_on").alias("true"))
    every = pl.concat(frames).join(truth, on="uscc")
    assert (every["defaulted_on"] >= every["true"]).all()
    assert ((every["defaulted_on"] > "2025-12-31") == (every["true"] > "2025-12-31")).all()


def test_a_running_loan_for_every_borrower_and_some_granted_later(folder: Path) -> None:
    loans = table(folder, "bank_1", "loans")
    ends = loans.with_columns(
        pl.col("granted_on").str.to_date().dt.offset_by(pl.col("term_months").cast(pl.String) + "mo").alias("end")
    )
    running = ends.filter((pl.col("granted_on") <= "2025-12-31") & (pl.col("end") > date(2025, 12, 31)))
    assert running["uscc"].n_unique() >= 0.97 * loans["uscc"].n_unique()
    assert (loans["granted_on"] > "2025-12-31").any()
    assert loans["loan_id"].n_unique() == len(loans)


def test_arrears_and_payments_have_open_ends(folder: Path) -> None:
    arrears = table(folder, "tax_office", "arrears")
    assert 0 < arrears["cleared_on"].null_count() < len(arrears)
    assert arrears.drop_nulls().select((pl.col("cleared_on") > pl.col("since")).all()).item()
    assert table(folder, "social_insurance", "contributions")["paid_on"].null_count() > 0
    grades = table(folder, "tax_office", "grades")
    assert set(grades["grade"]) == {"A", "B", "M", "C", "D"}
    assert set(grades["year"]) == {2023, 2024}


def test_as_of_moves_every_date(tmp_path: Path) -> None:
    build_district(DistrictSettings(enterprises=500, seed=3, as_of=date(2024, 6, 30)), tmp_path)
    months = table(tmp_path, "bank_1", "flows")["month"]
    assert months.min() == "2022-07-01"
    assert months.max() == "2024-09-01"
    assert table(tmp_path, "bank_1", "defaults")["defaulted_on"].max() <= "2025-06-30"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"enterprises": 499}, "district.enterprises"),
        ({"enterprises": 2_000_001}, "district.enterprises"),
        ({"seed": -1}, "district.seed"),
        ({"default_rate": 0.5}, "district.rate"),
        ({"as_of": date(2025, 12, 30)}, "district.as-of"),
        ({"as_of": date(1999, 12, 31)}, "district.as-of"),
    ],
    ids=["few", "many", "seed", "rate", "day", "year"],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(DataError) as caught:
        DistrictSettings(**wrong)
    assert caught.value.code == code


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        build_district(SMALL, tmp_path)
    with pytest.raises(DataError, match="not empty"):
        ParquetSink(tmp_path)
    with pytest.raises(DataError, match="exists"):
        SqliteSink(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_pieces_of_a_table_do_not_change_its_digest(tmp_path: Path) -> None:
    frame = pl.DataFrame({"uscc": ["a", None, "c"], "amount": [1.5, None, 0.0], "count": [1, 2, 3]})
    with SqliteSink(tmp_path / "x.sqlite") as whole, ParquetSink(tmp_path / "y") as pieces:
        whole.append("t", frame)
        for row in range(3):
            pieces.append("t", frame[row : row + 1])
        digests = {sink.digests["t"].hexdigest() for sink in (whole, pieces)}
    read = [read_back(tmp_path / "x.sqlite", "t"), read_back(tmp_path / "y", "t")]
    assert digests == {digest_of(frame)} == {digest_of(one) for one in read}
    assert read[0].equals(frame)
    moved = frame.with_columns(pl.Series("uscc", ["a", "c", None]))
    assert digest_of(moved) != digest_of(frame)


def test_a_table_that_is_not_there_is_named(folder: Path) -> None:
    for place in (folder / "bank_1.sqlite", folder / "water", folder / "nowhere.sqlite"):
        with pytest.raises(DataError, match="nothing"):
            read_back(place, "nothing")


@pytest.mark.slow
def test_command_writes_a_district_and_shows_who_knows_how_many(tmp_path: Path) -> None:
    out = tmp_path / "made"
    result = CliRunner().invoke(app, ["data", "district", "--enterprises", "500", "--seed", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "bank_1" in result.output
    assert "district.json" in result.output
    assert {"bank_6.sqlite", "gas", "register.csv.gz", "truth.parquet"} <= {path.name for path in out.iterdir()}
    arguments = ["data", "district", "--enterprises", "500", "--seed", "2", "--out", str(tmp_path / "more"), "--json"]
    assert json.loads(CliRunner().invoke(app, arguments).stdout) == facts(out)


def test_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "district", "--out", str(tmp_path), "--as-of", "2025-13-01"]) == 2
    assert "YYYY-MM-DD" in capsys.readouterr().err
    assert main(["data", "district", "--out", str(tmp_path), "--enterprises", "3"]) == 2
    assert "500" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
