"""The ledger's data version names a source, not a selection of its columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fedcredit.data.load import load_table
from fedcredit.spec.model import PartySection
from fedcredit.types import PartyId, Role

ROWS = {"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0], "w": ["u", "v", None], "n": [4, 5, 6]}


def section(name: str, columns: tuple[str, ...]) -> PartySection:
    return PartySection(name=PartyId("p"), role=Role.FEATURE_HOLDER, source=name, columns=columns)


def test_another_choice_of_columns_is_the_same_data(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).write_csv(tmp_path / "t.csv")
    versions = {load_table(section("t.csv", columns), tmp_path).digest for columns in (("x",), ("x", "n"), ("w",))}
    assert len(versions) == 1


@pytest.mark.parametrize("column", ["x", "w", "n"])
def test_one_changed_value_of_any_column_is_other_data(tmp_path: Path, column: str) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "t.parquet")
    other = {"x": [1.0, 2.0, 9.0], "w": ["u", "v", "z"], "n": [4, 5, 9]}
    pl.DataFrame({**ROWS, column: other[column]}).write_parquet(tmp_path / "u.parquet")
    one, two = (load_table(section(f"{name}.parquet", ("x",)), tmp_path).digest for name in "tu")
    assert one != two
