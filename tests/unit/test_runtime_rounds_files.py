"""What lies between two visits on the disk: quick states, copies of a bank's records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedcredit.data.table import HolderTable
from fedcredit.errors import IntegrityError
from fedcredit.runtime.quick_files import QuickCheckpoints
from fedcredit.runtime.rounds.tables import BankTables, keep_tables, kept_tables
from fedcredit.types import PartyId


def table(rows: int, party: str = "bank_01") -> HolderTable:
    return HolderTable(
        party=PartyId(party),
        ids=pl.Series("id", [f"e{number}" for number in range(rows)]),
        label=(np.arange(rows) % 3 == 0).astype(np.int8),
        columns={
            "income": pl.Series("income", [None, *np.linspace(0, 1, rows - 1).tolist()]),
            "sector": pl.Series("sector", [None if number % 4 == 0 else f"s{number % 4}" for number in range(rows)]),
        },
        digest="ab" * 32,
    )


def same(one: HolderTable, other: HolderTable) -> bool:
    assert one.label is not None
    assert other.label is not None
    columns = all(one.columns[name].equals(other.columns[name], null_equal=True) for name in one.columns)
    return (
        columns
        and list(one.columns) == list(other.columns)
        and one.ids.equals(other.ids)
        and bool((one.label == other.label).all())
        and (one.party, one.digest) == (other.party, other.digest)
    )


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    mask = np.arange(9) % 2 == 0
    keep_tables(tmp_path, BankTables(table(9), mask, table(5, "public")))
    found = kept_tables(tmp_path)
    assert same(found.own, table(9))
    assert isinstance(found.held_out, np.ndarray)
    assert found.held_out.tolist() == mask.tolist()
    assert found.reference is not None
    assert same(found.reference, table(5, "public"))
    assert (found.rows_train, found.test.rows) == (4, 5)
    assert found.test.ids.to_list() == ["e0", "e2", "e4", "e6", "e8"]


def test_a_table_that_is_held_out_comes_back(tmp_path: Path) -> None:
    keep_tables(tmp_path, BankTables(table(9), table(4)))
    found = kept_tables(tmp_path)
    assert isinstance(found.held_out, HolderTable)
    assert same(found.held_out, table(4))
    assert found.reference is None
    assert (found.rows_train, found.test.rows) == (9, 4)


@pytest.mark.parametrize("name", ["about.json", "own.arrow"])
def test_damaged_copies_are_refused(tmp_path: Path, name: str) -> None:
    keep_tables(tmp_path, BankTables(table(9), table(4)))
    (tmp_path / name).write_bytes(b"no copy")
    with pytest.raises(IntegrityError, match="damaged"):
        kept_tables(tmp_path)


def test_the_last_whole_state_counts(tmp_path: Path) -> None:
    place = QuickCheckpoints(tmp_path / "bank")
    assert place.load() is None
    place.save(b"first")
    place.save(b"second")
    (tmp_path / "bank" / ".3.new").write_bytes(b"a kill left this")
    assert QuickCheckpoints(tmp_path / "bank").load() == b"second"
    assert [one.name for one in (tmp_path / "bank").iterdir() if one.name.isdecimal()] == ["2"]
    (tmp_path / "bank" / "2").write_bytes(b"x" * 40)
    with pytest.raises(IntegrityError):
        place.load()
