"""`fedcredit simulate` of a small boosted run ends with a report for every party, each in its own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcredit.attack.sample import Sample, write_sample
from fedcredit.cli import main

SECTIONS = "[boost]\ntrees = 12\ndepth = 2\nholder_bins = 8\nmin_bin_rows = 20\nmin_child_rows = 20\n"
OWN = {"bank": ("bank_0", "bank_1"), "tax_office": ("tax_office_0", "tax_office_1"), "utility": ("utility_0",)}


@pytest.mark.parametrize(
    ("overrides", "head"),
    [
        ((), "<strong>ENCRYPTED</strong>"),
        pytest.param(
            ("privacy.early_stopping=2", "privacy.noise_rows=0.0", "boost.trees=4"),
            "<strong>RESULTS UNPROTECTED</strong>",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_party_gets_its_report(tmp_path: Path, overrides: tuple[str, ...], head: str) -> None:
    write_sample(tmp_path, Sample(1500, {party: len(names) for party, names in OWN.items()}, sections=SECTIONS))
    out = tmp_path / "out"
    sets = [word for one in ("run.model=boost", *overrides) for word in ("--set", one)]
    assert main(["simulate", str(tmp_path / "run.toml"), "--out", str(out), "--json", *sets]) == 0
    pages = {"bank": out / "report.html"} | {
        party: out / "model" / party / "report.html" for party in OWN if party != "bank"
    }
    for party, path in pages.items():
        text = path.read_text(encoding="utf-8")
        assert head in text
        others = [name for other, names in OWN.items() if other != party for name in names]
        assert [name for name in others if name in text] == []
    trees = json.loads((out / "model" / "tax_office" / "trees.json").read_text(encoding="utf-8"))
    holder = pages["tax_office"].read_text(encoding="utf-8")
    assert [one["name"] for one in trees["features"] if one["name"] not in holder] == []
    assert trees["splits"]
    label = trees["splits"][0]["label"].replace(" <= ", " ≤ ")
    assert label in holder
    assert label not in pages["bank"].read_text(encoding="utf-8")
