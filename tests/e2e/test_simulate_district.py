"""The shipped district, small: raw records of four institutions to one model, however rows are found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.data.district import DistrictSettings, build_district
from fedcredit.errors import FedCreditError
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec

CONFIGS = Path(__file__).parents[2] / "configs" / "simulations"
SMALL = ("privacy.enforce=false", "bin.min_bads=5", "bin.min_goods=5", "bin.min_prebin_rows=1", "scorecard.ridge=5.0")
"""A district of a few thousand has few defaults: what its ledgers would allow is a feature or two. Thin prebins would
be merged, and differently where decoys fill them: here none is too thin, as none is at the district's full size.
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def district(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-up") / "district"
    build_district(DistrictSettings(enterprises=8_000, seed=3), folder)
    return folder


class Runs:
    """Runs over one district, each once."""

    def __init__(self, district: Path, folder: Path) -> None:
        self._district, self._folder = district, folder
        self._known: dict[tuple[str, str], Simulation] = {}

    def of(self, name: str, align: str = "", *overrides: str) -> Simulation:
        key = (name, align)
        if key not in self._known:
            text = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
            text = text.replace("${FEDCREDIT_DISTRICT}", str(self._district))
            text = text.replace("../catalog", str(CONFIGS.parent / "catalog"))
            if align:
                text = re.sub(r"\[align\]\n(?:.+\n)+", f'[align]\nids = "uscc"\n{align}\n', text)
            path = self._folder / f"{len(self._known)}.toml"
            path.write_text(text, encoding="utf-8")
            self._known[key] = simulate(load_spec(path, (*SMALL, *overrides)), self._folder / path.stem)
        return self._known[key]


@pytest.fixture(scope="module")
def runs(district: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(district, tmp_path_factory.mktemp("runs"))


def scores(run: Simulation) -> pl.DataFrame:
    return pl.read_parquet(run.out / "predictions.parquet").sort("id")


def parts(run: Simulation) -> dict[tuple[str, str], list[tuple[Any, Any]]]:
    """Points and weight of evidence of every bin of every party's part of the model, by feature."""
    found = {}
    for path in sorted((run.out / "model").glob("*/scorecard.json")):
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        for one in features:
            if one.get("name"):
                found[path.parent.name, one["name"]] = [(bin_["points"], bin_["woe"]) for bin_ in one["bins"]]
    return found


def test_by_the_register(runs: Runs) -> None:
    summary = runs.of("district").summary
    assert summary["align"]["mode"] == "registry"
    assert summary["rows_common"] == 8_000
    assert 0 < summary["rows_train"] + summary["rows_test"] < 2_500  # one bank's borrowers
    assert summary["align"]["rows_left_out"] == 0
    assert summary["scores_equal_pooled_plaintext"] is True
    assert 0.01 < summary["positives_test"] / summary["rows_test"] < 0.08


def test_the_register_gives_the_plain_model_of_the_same_rows(runs: Runs) -> None:
    plain = runs.of("district", 'mode = "plain"\nrows = "label_holder"')
    assert scores(runs.of("district"))["id"].equals(scores(plain)["id"])
    assert np.array_equal(scores(runs.of("district"))["score"], scores(plain)["score"])


def test_blind_with_decoys_gives_the_plain_model_of_the_common_rows(runs: Runs) -> None:
    blind, plain = runs.of("district_blind"), runs.of("district_blind", 'mode = "plain"')
    summary = blind.summary
    counted = summary["rows_train"] + summary["rows_test"]
    assert summary["rows_common"] == 2 * counted  # a decoy for each customer, exactly
    assert counted == plain.summary["rows_common"]
    assert summary["scores_equal_pooled_plaintext"] is True
    assert scores(blind).equals(scores(plain))
    assert parts(blind) == parts(plain)


def test_too_few_common_rows_are_refused_without_a_number(runs: Runs) -> None:
    with pytest.raises(FedCreditError, match=r"below the floor, align\.min_overlap \[align\.below-floor\]"):
        runs.of("district_blind", 'mode = "blind"\ndecoys = 0.0\nmin_overlap = 100_000')
