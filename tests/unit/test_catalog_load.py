"""Catalogue files: the shipped ones are whole, wrong ones get one line that names file and key, leaks are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedcredit.catalog.load import load_catalog, parse_catalog
from fedcredit.catalog.model import Catalog
from fedcredit.errors import SpecError

FOLDER = Path(__file__).parents[2] / "configs" / "catalog"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))

RAW_TABLES = {  # what the sources of a district hold
    "bank": {
        "customers": "uscc name opened_on account_kind",
        "flows": "uscc month sales_receipts purchases payroll taxes financing_in financing_out transactions payers "
        "payees top_payer_share balance_end",
        "loans": "uscc loan_id granted_on amount rate term_months collateral",
        "repayments": "uscc month due paid days_late",
        "defaults": "uscc defaulted_on",
    },
    "tax_office": {
        "taxpayers": "uscc name registered_on industry vat_kind",
        "returns": "uscc month vat_sales tax_due tax_paid paid_on buyers sellers top_buyer_share export_rebate",
        "grades": "uscc year graded_on grade",
        "arrears": "uscc since cleared_on amount",
    },
    "electricity": {
        "accounts": "uscc name address supplied_from capacity_kva state",
        "usage": "uscc month kwh peak_kwh bill paid paid_on",
        "breaches": "uscc on kind",
    },
    "water": {
        "accounts": "uscc name opened_on address prepaid own_meter",
        "usage": "uscc month volume_m3 bill paid arrears",
    },
    "gas": {
        "accounts": "uscc name opened_on address prepaid own_meter",
        "usage": "uscc month volume_m3 bill paid arrears",
    },
    "social_insurance": {
        "employers": "uscc name registered_on",
        "contributions": "uscc month insured contribution paid_on",
        "deferrals": "uscc month amount",
    },
    "market_regulation": {
        "firms": "uscc name established_on industry town registered_capital legal_person_born firm_size",
        "penalties": "uscc on kind amount",
        "judgments": "uscc on amount role enforced",
        "patents": "uscc on",
    },
}


def electricity() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "electricity.toml").read_text("utf-8"))


def refused(raw: Mapping[str, Any]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_catalog(tomli_w.dumps(raw), "some.toml")
    text = str(caught.value)
    assert text.startswith("some.toml: ")
    assert "\n" not in text
    return caught.value


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_catalogue_is_whole(name: str) -> None:
    catalog = load_catalog(FOLDER / f"{name}.toml")
    assert catalog.holder == name
    assert catalog.ids == "uscc"
    assert len(catalog.features) >= 8
    assert all(len(feature.reason) > 12 and len(feature.about) > 8 for feature in catalog.features.values())
    used = {part.table for feature in catalog.features for part in catalog.resolved(feature)}
    label = {catalog.label.table, catalog.label.population} if catalog.label else set()
    idle = {table for table, about in catalog.tables.items() if about.required} - used - label
    assert idle == set(), "a required table that nothing reads"


def test_eleven_kinds_of_institution_are_described() -> None:
    assert SHIPPED == [
        "agriculture", "bank", "customs", "electricity", "gas", "housing_fund", "market_regulation",
        "medical_insurance", "social_insurance", "tax_office", "water",
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(RAW_TABLES))
def test_raw_tables_are_described_column_by_column(name: str) -> None:
    catalog = load_catalog(FOLDER / f"{name}.toml")
    for table, columns in RAW_TABLES[name].items():
        assert set(catalog.tables[table].columns) == set(columns.split())
    assert all(not catalog.tables[table].required for table in set(catalog.tables) - set(RAW_TABLES[name]))


def test_only_the_label_of_a_bank_looks_ahead() -> None:
    labels = {name: load_catalog(FOLDER / f"{name}.toml").label for name in SHIPPED}
    assert [name for name, label in labels.items() if label is not None] == ["bank"]
    assert labels["bank"] is not None
    assert (labels["bank"].column, labels["bank"].horizon_months) == ("defaulted_on", 12)


def change(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(raw: dict[str, Any]) -> None:
        for key in path[:-1]:
            raw = raw.setdefault(key, {})
        if to is None:
            del raw[path[-1]]
        else:
            raw[path[-1]] = to

    return edit


LEVEL = {"kind": "level", "table": "usage", "column": "kwh", "about": "x", "reason": "x"}
LEAKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "negative skip": change("features", "kwh_level", "skip", to=-1),
    "negative window": change("features", "kwh_level", "months", to=-3),
    "negative recent": change("features", "kwh_trend", "recent", to=-3),
    "lead": change("features", "kwh_level", "lead", to=1),
    "window_to": change("features", "kwh_level", "window_to", to=2),
    "offset": change("features", "kwh_level", "offset", to=-2),
    "horizon": change("features", "breaches", "horizon_months", to=12),
    "label-only column": change("tables", "usage", "columns", "kwh", "label_only", to=True),
    "label-only part of a sum": change("tables", "usage", "columns", "bill", "label_only", to=True),
    "label-only time column": change("tables", "breaches", "columns", "on", "label_only", to=True),
    "overwritten column": change("tables", "accounts", "columns", "capacity_kva", "overwritten", to=True),
    "overwritten since": change("tables", "accounts", "columns", "supplied_from", "overwritten", to=True),
    "monthly table without time": change("tables", "usage", "time", to=None),
    "event table without time": change("tables", "breaches", "time", to=None),
    "state of today": change(
        "features", "state", to={"kind": "value", "table": "accounts", "column": "state", "about": "x", "reason": "x"}
    ),
}


@pytest.mark.parametrize("name", sorted(LEAKS))
def test_definition_that_looks_past_the_as_of_day_is_refused(name: str) -> None:
    raw = electricity()
    LEAKS[name](raw)
    error = refused(raw)
    assert error.code == "catalog.future"
    assert error.exit_code == 2


def test_default_as_a_feature_is_refused() -> None:
    raw = tomllib.loads((FOLDER / "bank.toml").read_text("utf-8"))
    raw["features"]["ever"] = {"kind": "count", "table": "defaults", "about": "x", "reason": "x"}
    assert refused(raw).code == "catalog.future"


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown key": (change("titel", to="x"), 'titel: unknown key; did you mean "title"?'),
    "unknown key of a table": (
        change("tables", "usage", "duplicate", to="last"), "tables.usage.duplicate: unknown key; did you mean",
    ),
    "unknown key of a column": (
        change("tables", "usage", "columns", "kwh", "units", to="x"),
        'tables.usage.columns.kwh.units: unknown key; did you mean "unit"?',
    ),
    "unknown key of a feature": (
        change("features", "kwh_level", "month", to=3), 'features.kwh_level.month: unknown key; did you mean "months"?',
    ),
    "unknown kind": (
        change("features", "kwh_level", "kind", to="levels"),
        'features.kwh_level.kind: unknown kind; did you mean "level"?',
    ),
    "no kind": (change("features", "kwh_level", "kind", to=None), "features.kwh_level.kind: missing; name one of"),
    "missing key": (change("tables", "usage", "about", to=None), "tables.usage.about: missing; add it"),
    "wrong type": (change("features", "kwh_level", "months", to="12"), 'months: found "12"; use a whole number'),
    "too small": (change("features", "kwh_level", "months", to=0), "months: found 0; use a number of at least 1"),
    "wrong word": (
        change("tables", "usage", "duplicates", to="first"), 'found "first"; use one of "last", "sum", "error"',
    ),
    "unknown table": (
        change("features", "kwh_level", "table", to="usages"), 'kwh_level.table: no table "usages"; did you mean',
    ),
    "unknown column": (
        change("features", "kwh_level", "column", to="kw"), 'table "usage" has no column "kw"; did you mean "kwh"?',
    ),
    "unknown rows": (change("rows", to="account"), 'rows: no table "account"; did you mean "accounts"?'),
    "column of another type": (
        change("features", "kwh_level", "column", to="paid_on"), 'column "paid_on" is of type "date"; "flag" or',
    ),
    "table of another period": (
        change("features", "kwh_level", "table", to="accounts"),
        '"accounts" is of period "static"; kind "level" needs a table of period "monthly"',
    ),
    "window longer than the history": (
        change("features", "kwh_level", "months", to=25), "reaches 25 months back, and the monthly tables hold 24",
    ),
    "unknown placeholder": (
        change("features", "kwh_level", "reason", to="is {kwh}"), "has {kwh}; known are {value}, {percent}, {change}",
    ),
    "open brace": (change("features", "kwh_level", "reason", to="is {"), "has a brace that is not closed"),
    "unknown part": (change("features", "load", "top", to="kwh_lvl"), 'no feature "kwh_lvl"; did you mean'),
    "part is itself": (change("features", "load", "top", to="load"), '"load" is a quotient itself'),
    "two thresholds": (
        change("features", "kwh_low_months", "below", to=1.0), "give exactly one of below, above and part",
    ),
    "since of no table": (
        change("features", "months_missed", "since", to="supplied_from"), "write table.column, a date of a static",
    ),
    "since of a monthly table": (
        change("features", "months_missed", "since", to="usage.paid_on"), "is no date of a static table",
    ),
    "unknown known": (
        change("tables", "usage", "columns", "paid", "known", to="payed_on"), 'no column "payed_on"; did you mean',
    ),
    "before without known": (
        change("tables", "usage", "columns", "bill", "before", to=0.0), "given without `known`",
    ),
    "lag of events": (change("tables", "breaches", "lag", to=1), 'given for a table of period "event"'),
    "time of another type": (
        change("tables", "usage", "time", to="kwh"), 'column "kwh" is of type "number"; a column of',
    ),
    "optional id": (
        change("tables", "usage", "columns", "uscc", "required", to=False), "false for the id of the table; remove it",
    ),
    "optional rows": (change("tables", "accounts", "required", to=False), "false for the table that gives the rows"),
    "computed of a date": (
        change("tables", "usage", "computed", "odd", to={"plus": ["paid_on"], "about": "x"}),
        'column "paid_on" is of type "date"; a column of type "number" is needed',
    ),
    "computed twice": (
        change("tables", "usage", "computed", "kwh", to={"plus": ["bill"], "about": "x"}), "is the name of a column",
    ),
    "where of a number": (
        change("features", "breaches", "where", to={"on": ["x"]}), 'column "on" is of type "date"; "category"',
    ),
    "name of a feature": (change("features", "KWH", to=LEVEL), "use 1 to 63 of the characters a-z 0-9 _"),
    "values of a number": (
        change("tables", "usage", "columns", "kwh", "values", to=["a"]), "it is for categories",
    ),
    "range of a date": (
        change("tables", "usage", "columns", "paid_on", "min", to=1.0), "they are for numbers",
    ),
    "slope of two months": (
        change("features", "kwh_slope", to={**LEVEL, "kind": "trend", "of": "slope", "recent": 1, "earlier": 1}),
        "a slope needs at least 3 months",
    ),
    "open without end": (
        change("features", "breaches", to={"kind": "open", "table": "breaches", "about": "x", "reason": "x"}),
        "give exactly one of until (a date) and term (months)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistake_is_named_in_one_line(name: str) -> None:
    edit, right = MISTAKES[name]
    raw = electricity()
    edit(raw)
    error = refused(raw)
    assert right in str(error)
    assert error.code.startswith("catalog.")


def test_label_must_name_the_date_of_its_table() -> None:
    raw = tomllib.loads((FOLDER / "bank.toml").read_text("utf-8"))
    raw["label"]["column"] = "granted_on"
    assert "is not the time column" in str(refused(raw))


def test_files_that_are_no_catalogue(tmp_path: Path) -> None:
    for name, content, code in (
        ("a.toml", b"\xff", "file"),
        ("b.toml", b"x = ", "toml"),
        ("c.toml", b"", "missing-key"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SpecError) as caught:
            load_catalog(path)
        assert caught.value.code == f"catalog.{code}"
        assert name in str(caught.value)
    with pytest.raises(SpecError, match="no such file"):
        load_catalog(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_catalog(tmp_path)


def test_catalogue_is_frozen() -> None:
    catalog = load_catalog(FOLDER / "gas.toml")
    assert Catalog.model_validate(catalog.model_dump()) == catalog
    with pytest.raises(ValueError, match="frozen"):
        catalog.holder = "x"  # type: ignore[misc]
