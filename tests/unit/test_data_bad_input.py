"""Every kind of bad record is one DataError of one line that names party and column and holds no value of a row."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.data.load import load_table
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.spec.model import PartySection

GOOD = "id,y,a,s\n1,0,1.5,x\n2,1,2.5,y\n3,0,,x\n4,1,9.5,\n"


def section(source: str, **keys: Any) -> PartySection:
    content = {"name": "bank", "role": "label_holder", "source": source, "label": "y", **keys}
    return PartySection.model_validate({key: value for key, value in content.items() if value is not None})


def load(folder: Path, text: str, **keys: Any) -> HolderTable:
    (folder / "t.csv").write_text(text)
    return load_table(section("t.csv", **keys), folder)


def fault(folder: Path, text: str | bytes | None, name: str = "t.csv", **keys: Any) -> str:
    if text is not None:
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError) as caught:
        load_table(section(name, **keys), folder)
    line = str(caught.value)
    assert "\n" not in line
    assert "bank" in line
    assert caught.value.exit_code == 2
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # a parser's text may hold a row
    return line


def test_good_table_loads(tmp_path: Path) -> None:
    table = load(tmp_path, GOOD)
    assert table.ids.to_list() == ["1", "2", "3", "4"]
    assert table.label is not None
    assert table.label.tolist() == [0, 1, 0, 1]
    assert table.columns["a"].to_list() == [1.5, 2.5, None, 9.5]
    assert table.columns["s"].to_list() == ["x", "y", "x", None]
    assert table.rows == 4


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("id,y,a\n", ["no rows"]),
        ("id,y,a,a\n1,0,1,1\n", ["2 columns named 'a'"]),
        ("id,y,\n1,0,1\n", ["without a name"]),
        ("id,y,a\n1,0,1\n2,1\n", ["as many fields as the header"]),
        ("id,y,a\n1,0,1\n2,1,77,4\n", ["as many fields as the header"]),
        (b"id,y,a\n1,0,\xff\n", ["UTF-8"]),
        ("key,y,a\n1,0,1\n2,1,2\n", ["no column 'id'", "row_number"]),
        ("idd,y,a\n1,0,1\n2,1,2\n", ["no column 'id'", '"idd"']),
        ("id,z,a\n1,0,1\n2,1,2\n", ["label", "no column 'y'"]),
        ("id,y,a\n7,0,1\n7,1,2\n7,1,3\n8,1,3\n", ["'id' repeats in 2 of 4 rows", "unique"]),
        ("id,y,a\n7,0,1\n,1,2\n", ["'id' is missing in 1 of 2 rows"]),
        ("id,y,a\n1,0,1\n2,,2\n", ["'y' is missing in 1 of 2 rows"]),
        ("id,y,a\n1,0,1\n2,NaN,2\n", ["'y' is missing in 1 of 2 rows"]),
        ("id,y,a\n1,0,1\n2,2,2\n3,1,1\n", ["'y' has 3 distinct values", "0 and 1 only"]),
        ("id,y,a\n1,good,1\n2,bad,2\n", ["'y' is text with 2 distinct values", "0 and 1 only"]),
        ("id,y,a\n1,0,1\n2,0.5,2\n", ["'y' has 2 distinct values"]),
        ("id,y,a\n1,1,1\n2,1,2\n", ["one class only"]),
        ("id,y,a\n1,0,5\n2,1,5\n", ["'a' has the same value in every row"]),
        ("id,y,a\n1,0,k\n2,1,k\n", ["'a' has the same value in every row"]),
        ("id,y,a,b\n1,0,,1\n2,1,NaN,2\n", ["'a' has no value in any row"]),
        ("id,y,a\n1,0,inf\n2,1,2\n", ["'a' is infinite in 1 of 2 rows"]),
        ("id,y,a\n1,0,-inf\n2,1,2\n", ["'a' is infinite"]),
        ("id,y,a\n1,0,7\n2,1,seven\n3,1,8\n", ["'a' mixes numbers and text (text in 1 of 3 rows)", "categorical"]),
        ("id,y\n1,0\n2,1\n", ["no feature column"]),
    ],
)
def test_bad_csv(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    line = fault(tmp_path, text)
    for part in parts:
        assert part in line
    assert "seven" not in line


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path, None, "absent.csv")


def test_folder_and_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a folder" in fault(tmp_path, None, "folder")
    assert "unknown ending" in fault(tmp_path, "x", "t.xlsx")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "t.csv").write_text(GOOD)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "Permission denied" in fault(tmp_path, None)


@pytest.mark.parametrize(("content", "kept"), [(b"", 0), (GOOD.encode(), -9), (b"x", 12)], ids=["plain", "cut", "head"])
def test_corrupt_archive(tmp_path: Path, content: bytes, kept: int) -> None:
    content = gzip.compress(content)[:kept] or b"plain"
    assert "no whole gzip file" in fault(tmp_path, content, "t.csv.gz")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\x00" * 64 + b"PAR1"])
def test_corrupt_parquet(tmp_path: Path, content: bytes) -> None:
    assert "no readable Parquet file" in fault(tmp_path, content, "t.parquet")


def test_missing_parquet(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path, None, "absent.parquet")


def test_unknown_column_suggests_the_nearest(tmp_path: Path) -> None:
    line = fault(tmp_path, "id,y,income,b\n1,0,1,1\n2,1,2,2\n", columns=["incone"])
    assert "columns: the source has no column 'incone'" in line
    assert 'did you mean "income"?' in line


@pytest.mark.parametrize("key", ["categorical", "special", "monotone"])
def test_keys_about_unknown_columns(tmp_path: Path, key: str) -> None:
    value: Any = {"categorical": ["aa"], "special": {"aa": [1]}, "monotone": {"aa": "increasing"}}[key]
    line = fault(tmp_path, GOOD, **{key: value})
    assert f"{key}: no feature 'aa'" in line


@pytest.mark.parametrize(("key", "value"), [("special", {"s": [1]}), ("monotone", {"s": "auto"})])
def test_keys_about_numbers_on_text(tmp_path: Path, key: str, value: Any) -> None:
    assert f"{key}: column 's' holds text" in fault(tmp_path, GOOD, **{key: value})


def test_unset_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDCREDIT_NOWHERE", raising=False)
    assert "FEDCREDIT_NOWHERE is not set" in fault(tmp_path, None, "${FEDCREDIT_NOWHERE}/t.csv")
    monkeypatch.setenv("FEDCREDIT_NOWHERE", "")
    assert "FEDCREDIT_NOWHERE is not set" in fault(tmp_path, None, "${FEDCREDIT_NOWHERE}/t.csv")


def test_set_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCREDIT_SOMEWHERE", str(tmp_path))
    (tmp_path / "t.csv").write_text(GOOD)
    assert load_table(section("${FEDCREDIT_SOMEWHERE}/t.csv"), Path("/nowhere")).rows == 4


def test_types_that_are_no_features(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, 2], "y": [0, 1], "d": ["2020-01-01", "2020-01-02"], "b": [b"1", b"2"]})
    frame = frame.with_columns(pl.col("d").str.to_date())
    frame.drop("b").write_parquet(tmp_path / "d.parquet")
    frame.drop("d").write_parquet(tmp_path / "b.parquet")
    frame.rename({"y": "z", "d": "y"}).write_parquet(tmp_path / "y.parquet")
    frame.rename({"id": "k", "d": "id"}).write_parquet(tmp_path / "i.parquet")
    assert "column 'd' is of type Date" in fault(tmp_path, None, "d.parquet")
    assert "column 'b' is of type Binary" in fault(tmp_path, None, "b.parquet")
    assert "label column 'y' is of type Date" in fault(tmp_path, None, "y.parquet")
    assert "id column 'id' is of type Date" in fault(tmp_path, None, "i.parquet")


def test_fractional_ids(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1.0, 2.5], "y": [0, 1], "a": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    assert "numbers that are not whole" in fault(tmp_path, None, "t.parquet")


def test_missing_numeric_ids(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1.0, float("nan")], "y": [0, 1], "a": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    assert "'id' is missing in 1 of 2 rows" in fault(tmp_path, None, "t.parquet")


@pytest.mark.parametrize(
    ("header", "rows", "part"),
    [
        ("@attribute a numeric\n@attribute y {0,1}", "1,0\n2,1,3", "1 data rows do not have 2 fields"),
        ("@attribute a numeric\n@attribute y {0,1}", "{0 1}", "sparse rows are not supported"),
        ("@attribute a numeric\n@attribute y {0,1}", "one,0\n2,1", "'a' has 1 values that its @attribute"),
        ("@attribute a numeric\n@attribute y {0,1}", "1,0\n2,5", "'y' has 1 values that its @attribute"),
        ("@attribute a string\n@attribute y {0,1}", "1,0", "neither numeric nor nominal"),
        ("@attribute a date 'yyyy'\n@attribute y {0,1}", "1,0", "neither numeric nor nominal"),
        ("@attribute a numeric\n@attribute a numeric", "1,0", "2 columns named 'a'"),
    ],
)
def test_bad_arff(tmp_path: Path, header: str, rows: str, part: str) -> None:
    assert part in fault(tmp_path, f"@relation r\n{header}\n@data\n{rows}\n", "t.arff", id="row_number")


def test_arff_without_data_section(tmp_path: Path) -> None:
    assert "no @data section" in fault(tmp_path, "id,y,a\n1,0,1\n", "t.arff")
    assert "not UTF-8" in fault(tmp_path, b"\xff", "t.arff")
