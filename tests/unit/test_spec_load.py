"""Files, overrides, writing, digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcredit.errors import SpecError
from fedcredit.spec.digest import canonical_json, spec_digest
from fedcredit.spec.load import load_spec, parse_toml
from fedcredit.spec.write import absolute, spec_toml

TEXT = """
[run]
name = "t"
mode = "simulation"
[[party]]
name = "bank"
role = "label_holder"
source = "data/bank.csv"
label = "y"
[[party]]
name = "tax_office"
role = "feature_holder"
source = "${FEDCREDIT_DATA}/tax.csv"
special = { score = [-7, -8] }
"""


def test_load_gives_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TEXT)
    loaded = load_spec(path, ["bin.max_bins=5"])
    assert loaded.base == tmp_path.resolve()
    assert loaded.spec.bin.max_bins == 5
    assert loaded.spec.party[1].special == {"score": (-7.0, -8.0)}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "no such file"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[run", "not valid TOML"),
        (b"#" * (1 << 20) + b"#", "1 MiB"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=part) as caught:
        load_spec(path)
    assert str(path) in caught.value.public
    assert "\n" not in str(caught.value)


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path)


def test_overrides_take_toml_values_and_bare_text() -> None:
    spec = parse_toml(
        TEXT,
        overrides=[
            "scorecard.fit=moments",
            'crypto.profile="bfv-8192"',
            "scorecard.base_score = 500",
            "party.bank.columns=['a', 'b.c']",
            "party.bank.monotone.b.c=increasing",
            "party.bank.source=new.csv",
            "split.test_from=2006-01-01",
            "split.time=when",
        ],
    )
    assert spec.scorecard.fit == "moments"
    assert spec.crypto.profile == "bfv-8192"
    assert spec.scorecard.base_score == 500.0
    assert spec.label_holder.columns == ("a", "b.c")
    assert spec.label_holder.monotone == {"b.c": "increasing"}
    assert spec.label_holder.source == "new.csv"
    assert spec.split.test_from == "2006-01-01"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("bin.max_bins", "section.key=value"),
        ("bin=3", "section.key=value"),
        ("=3", "section.key=value"),
        ("bin..x=3", "section.key=value"),
        ("bim.max_bins=3", 'did you mean "bin"'),
        ("party.bnk.id=x", 'did you mean "bank"'),
        ("party.bank=x", "no such party|section.key=value|did you mean"),
        ("run.name.x=3", "no table"),
    ],
)
def test_malformed_overrides(override: str, part: str) -> None:
    with pytest.raises(SpecError, match=part) as caught:
        parse_toml(TEXT, overrides=[override])
    assert "--set" in caught.value.public


def test_written_spec_has_every_default_and_reads_back() -> None:
    spec = parse_toml(TEXT)
    text = spec_toml(spec)
    assert "min_prebin_rows = 100" in text
    again = parse_toml(text)
    assert again == spec
    assert spec_digest(again) == spec_digest(spec)


def test_written_spec_runs_from_anywhere(tmp_path: Path) -> None:
    spec = parse_toml(TEXT, overrides=["split.test_ids=ids.txt", "privacy.ledger_dir=ledger"])
    again = parse_toml(spec_toml(spec, base=tmp_path))
    assert again.party[0].source == str(tmp_path / "data/bank.csv")
    assert again.party[1].source == "${FEDCREDIT_DATA}/tax.csv"
    assert again.split.test_ids == str(tmp_path / "ids.txt")
    assert again.privacy.ledger_dir == str(tmp_path / "ledger")
    assert spec_digest(again) == spec_digest(spec)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b.csv", "{base}/a/b.csv"),
        ("/a/b.csv", "/a/b.csv"),
        ("known:german", "known:german"),
        ("${X}/b.csv", "${X}/b.csv"),
        ("sqlite:///a.db", "sqlite:///{base}/a.db"),
        ("sqlite:////a.db", "sqlite:////a.db"),
        ("sqlite:///${X}/a.db", "sqlite:///${X}/a.db"),
        ("sqlite://", "sqlite://"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_absolute_sources(tmp_path: Path, source: str, expected: str) -> None:
    assert absolute(source, tmp_path) == expected.replace("{base}", str(tmp_path.resolve()))


def test_digest_leaves_out_places_and_nothing_else() -> None:
    base = spec_digest(parse_toml(TEXT))
    same = ["party.bank.source=x.parquet", "privacy.ledger_dir=l", "party.bank.source=known:german"]
    for override in same:
        assert spec_digest(parse_toml(TEXT, overrides=[override])) == base
    query = ['party.bank.source="sqlite:///a.db"', "party.bank.query=select 1"]
    assert spec_digest(parse_toml(TEXT, overrides=query)) == base
    other = ["run.seed=1", "party.bank.id=key", "split.test_ids=i.txt", "bin.smoothing=0.25", "party.bank.label=z"]
    digests = {spec_digest(parse_toml(TEXT, overrides=[override])) for override in other}
    assert len(digests | {base}) == len(other) + 1


def test_digest_names_no_place() -> None:
    content = canonical_json(parse_toml(TEXT, overrides=["split.test_ids=held/out.txt"]))
    for word in (b"bank.csv", b"FEDCREDIT_DATA", b"out.txt"):
        assert word not in content


def test_digest_is_pinned() -> None:
    """A change of this value is a change of every run's identity: raise the format number with it."""
    assert spec_digest(parse_toml(TEXT)) == "5b04ac1ace191fefcc122647fc1b30c33938ffb785636a3adaeaee59d3a3aa56"
    assert spec_digest(parse_toml(TEXT, overrides=["scorecard.pdo=50"])) == spec_digest(parse_toml(TEXT))
