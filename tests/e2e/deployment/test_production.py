"""Houses in processes of their own, in production: a public register, raw tables, secret draws, people who say yes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tomli_w

from fedcredit.data.district import DistrictSettings, build_district
from fedcredit.governance.audit import verify
from fedcredit.runtime.simulate import simulate
from fedcredit.runtime.wire_proof.needles import Needles, file_pieces
from fedcredit.spec.load import parse_spec
from fedcredit.types import COORDINATOR, RunId

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = RunId("ab" * 16)
PLACES = {
    "bank": "bank_1.sqlite",
    "tax_office": "tax_office.sqlite",
    "electricity": "electricity",
    "social_insurance": "social_insurance.sqlite",
}


def configured(folder: Path) -> Path:
    """The configuration of a run over four houses of a district."""
    parties = []
    for name, place in PLACES.items():
        role = {"role": "label_holder", "label": "defaulted"} if name == "bank" else {"role": "feature_holder"}
        catalog = str(CONFIGS / "catalog" / f"{name}.toml")
        parties.append({"name": name, **role, "source": place, "catalog": catalog, "as_of": "2025-12-31", "id": "uscc"})
    content = {
        "run": {"name": "district", "mode": "production"},
        "align": {"mode": "registry", "ids": "uscc", "registry": "register.csv.gz"},
        "party": parties,
        "bin": {"prebins": 8, "max_bins": 4, "min_prebin_rows": 40},
        "scorecard": {"min_iv": 0.0, "max_stability": 9.0},
    }
    (folder / "run.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    return folder / "run.toml"


def part(folder: Path, party: str) -> dict[tuple[str, str], Any]:
    """Cuts and evidence of a party's own features by name; codes are drawn for each run."""
    content = json.loads((folder / "model" / party / "scorecard.json").read_text("utf-8"))
    named = [one for one in content["features"] if one["name"]]
    return {one["name"]: (one["cuts"], [bin_["woe"] for bin_ in one["bins"]]) for one in named}


def telling(codes: Needles, folder: Path) -> list[str]:
    """Files of a folder that name an enterprise."""
    return [str(one) for one in folder.rglob("*") if one.is_file() and codes.find(file_pieces(one))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_district_in_production(houses: Callable[..., Any], tmp_path: Path) -> None:
    records = tmp_path / "district"
    build_district(DistrictSettings(enterprises=16_000, default_rate=0.2), records)
    made = houses(configured(records))
    made.start_exchange()
    made.open_run(RUN)
    order = made.order(RUN)
    for party in made.parties:
        made.start_program(party, RUN, order)
    ended = made.all_finished(RUN)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}

    content = made.loaded.spec.model_dump(mode="json", exclude_none=True)
    content["run"]["mode"] = "simulation"
    same = simulate(dataclasses.replace(made.loaded, spec=parse_spec(content)), tmp_path / "out")
    bank = made.homes["bank"].runs / RUN
    summary = json.loads((bank / "summary.json").read_text("utf-8"))
    assert summary["mode"] == "production"
    for key in ("rows_train", "rows_test", "positives_train", "positives_test"):
        assert summary[key] == same.summary[key]
    assert summary["auc_test"] == pytest.approx(same.summary["auc_test"], abs=0.05)
    found = 0
    for party in PLACES:
        own, wanted = part(made.homes[party].runs / RUN, party), part(same.out, party)
        both = own.keys() & wanted.keys()
        found += len(both)
        assert {name: own[name] for name in both} == {name: wanted[name] for name in both}
    assert found >= 3
    scores, theirs = (pl.read_parquet(folder / "predictions.parquet").sort("id") for folder in (bank, same.out))
    assert scores["id"].to_list() == theirs["id"].to_list()
    assert np.corrcoef(scores["score"].to_numpy(), theirs["score"].to_numpy())[0, 1] > 0.95

    register = pl.read_csv(records / "register.csv.gz").to_series().to_list()
    codes = Needles({code.encode(): "an enterprise" for code in register})
    assert telling(codes, bank) == [str(bank / "predictions.parquet")]
    for party, finished in ended.items():
        folder = made.homes[party].runs / RUN
        assert verify(folder / "audit" / f"{party}.jsonl", finished.audit_head).head == finished.audit_head
        assert finished.shared == b""
        assert party == "bank" or telling(codes, folder) == []
    assert telling(codes, made.homes[COORDINATOR].folder) == []
    assert codes.find([order]) == {}
