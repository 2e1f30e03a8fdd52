"""Known public sets: pinned, found, refused when changed; the shipped configurations fit them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fedcredit.data.known import (
    DATA_VARIABLE,
    KnownSet,
    column_meanings,
    find_known,
    known_path,
    known_sets,
    read_known,
)
from fedcredit.data.load import load_table, load_tables
from fedcredit.errors import DataError
from fedcredit.spec.load import load_spec
from fedcredit.spec.model import PartySection

CONFIGS = Path(__file__).parents[2] / "configs" / "simulations"
NAMES = sorted(known_sets())


def skip_unless_here(known: KnownSet) -> None:
    try:
        here = known_path(known).is_file()
    except DataError:
        here = False
    if not here:
        pytest.skip(f"{known.name} is not on this machine")


@pytest.mark.parametrize("name", NAMES)
def test_registry_is_complete(name: str) -> None:
    known = find_known(name)
    assert len(known.sha256) == 64
    assert (known.file is None) != (known.package_item is None)
    assert known.licence
    assert known.origin
    assert known.label is None or known.label in known.columns
    assert set(known.not_features) <= set(known.columns)
    assert known.rows >= 1000


@pytest.mark.parametrize("name", NAMES)
def test_set_is_as_the_registry_says(name: str) -> None:
    known = find_known(name)
    skip_unless_here(known)
    content = {"name": "p", "source": f"known:{name}", "id": known.id}
    role = {"role": "feature_holder"} if known.label is None else {"role": "label_holder", "label": known.label}
    table = load_table(PartySection.model_validate(content | role), Path())
    assert table.rows == known.rows
    apart = {known.id, known.label, *known.not_features}
    assert set(table.columns) == set(column_meanings(known)) - apart
    if table.label is not None:
        assert 0 < table.label.mean() <= 0.5


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match='did you mean "german"'):
        find_known("germany")


def test_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        known_sets()["german"] = find_known("german")  # type: ignore[index]
    with pytest.raises(TypeError):
        find_known("german").words["good"] = 1  # type: ignore[index]


def test_unset_folder_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DataError, match=f"{DATA_VARIABLE} is not set; set it to the folder that holds german.csv.gz"):
        read_known(find_known("german"))


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match="known:german: no such file"):
        read_known(find_known("german"))


def test_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    (tmp_path / "german.csv.gz").write_bytes(gzip.compress(b"creditability\ngood\n"))
    with pytest.raises(DataError, match="not the pinned 5c20c8d7a8c4") as caught:
        read_known(find_known("german"))
    assert caught.value.code == "data.checksum"


def test_changed_package_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credit_data.pkl.compress"
    path.write_bytes(b"anything")
    monkeypatch.setattr("fedcredit.data.known.known_path", lambda _: path)

    def opened(_: bytes) -> None:
        pytest.fail("opened before the checksum was compared")

    monkeypatch.setattr("fedcredit.data.known._unpack", opened)
    with pytest.raises(DataError, match="not the pinned"):
        read_known(find_known("credit-data"))


def test_package_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"fedcredit\[demo\]"):
        read_known(find_known("credit-data"))


def test_derived_columns_of_the_loans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    text = (
        "id,bank_state,state,sba_appv,gr_appv,naics,franchise_code\n"
        "a,CA,CA,50.0,100.0,722110,1\nb,NC,CA,25.0,100.0,0,2\nc,,CA,10.0,10.0,111998,0\n"
    )
    content = gzip.compress(text.encode())
    (tmp_path / "sba30k.derived.csv.gz").write_bytes(content)
    raw = read_known(replace(find_known("sba-30k"), sha256=hashlib.sha256(content).hexdigest()))
    assert raw.frame["guar_share"].to_list() == [0.5, 0.25, 1.0]
    assert raw.frame["naics2"].to_list() == ["72", None, "11"]
    assert raw.frame["franchise"].to_list() == ["no", "yes", "no"]
    assert raw.frame["same_state"].to_list() == ["yes", "no", None]
    assert raw.frame["naics2"].dtype == pl.String
    assert "naics2" not in raw.text  # digits that are a category, not a number


def test_descriptions_are_shown_if_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    known = find_known("polish-5year")
    assert column_meanings(known) == dict(known.columns)
    path = tmp_path / str(known.descriptions)
    path.write_text(json.dumps({"features": {"A7": {"name": "EBIT / Total Assets"}}}))
    assert column_meanings(known)["Attr7"] == "EBIT / Total Assets"
    path.write_text("[]")
    with pytest.raises(DataError, match="no file of descriptions"):
        column_meanings(known)


def test_label_words_hold_for_the_label_of_the_set_only() -> None:
    skip_unless_here(find_known("credit-data"))
    party = {"name": "p", "role": "label_holder", "source": "known:credit-data", "id": "rownames", "label": "Records"}
    with pytest.raises(DataError, match="'Records' is text with 2 distinct values"):
        load_table(PartySection.model_validate(party), Path())


KNOWN = sorted(path for path in CONFIGS.glob("*.toml") if not path.stem.startswith("district"))
"""The made-up district's tables are unlike each other on purpose; its own tests hold its configurations."""


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.stem)
def test_shipped_configuration_fits_its_records(path: Path) -> None:
    loaded = load_spec(path)
    for party in loaded.spec.party:
        assert party.source.startswith("known:")
        skip_unless_here(find_known(party.source.removeprefix("known:")))
    tables = load_tables(loaded)
    if loaded.spec.several_banks:  # each bank has customers of its own
        assert all(tables[bank.name].label is not None for bank in loaded.spec.banks)
        return
    label = tables[loaded.spec.label_holder.name].label
    assert label is not None
    assert all(table.rows == len(label) for table in tables.values())
    assert {frozenset(table.ids.to_list()) for table in tables.values()} == {
        frozenset(tables[loaded.spec.label_holder.name].ids.to_list())
    }


def test_shipped_configurations_are_all_there() -> None:
    names = {path.stem for path in CONFIGS.glob("*.toml")}
    scorecards = {"credit_data", "taiwan", "sba", "polish", "german"}
    boosted = {f"{name}_boost" for name in ("taiwan", "taiwan_peers", "sba", "polish", "german")}
    assert {"demo"} | boosted | {f"{name}_scorecard" for name in scorecards} <= names


def test_ratios_are_each_at_one_party() -> None:
    spec = load_spec(CONFIGS / "polish_scorecard.toml").spec
    columns = [name for party in spec.party for name in party.columns or ()]
    assert sorted(columns) == sorted(f"Attr{i}" for i in range(1, 65))


def test_shipped_configurations_name_no_machine() -> None:
    for path in CONFIGS.glob("*.toml"):
        assert os.sep + "work" not in path.read_text("utf-8")
