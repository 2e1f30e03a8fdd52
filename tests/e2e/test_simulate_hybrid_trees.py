"""Hybrid boosting as `fedcredit simulate` makes it: three banks, two feature holders, their secure sums, own trees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec

BANKS = ("bank_01", "bank_02", "bank_03")
SECTIONS = {
    "run": {"model": "boost"},
    "partition": {"party": "bank", "by": "size", "banks": 3, "min_rows": 300, "seed": 4},
    "boost": {"trees": 2, "bins": 8, "holder_bins": 4, "min_bin_rows": 15, "min_child_rows": 15, "growth": "leaf"},
    "privacy": {"noise_rows": 1.0, "enforce": False},
    "crypto": {"profile": "unsafe-plaintext"},
    "hybrid": {"personal_trees": 3},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, consortium: Callable[..., Path]) -> Simulation:
    config = consortium(tmp_path_factory.mktemp("trees"), rows=1500, sections=SECTIONS)
    return simulate(load_spec(config), config.parent / "out", entropy_seed=b"\x23" * 32)


def test_every_model_is_there_and_the_run_is_that_of_all_rows(run: Simulation) -> None:
    summary = run.summary
    assert summary["scores_equal_pooled_plaintext"] is True
    hybrid = summary["hybrid"]
    assert [one["key"] for one in hybrid["models"]] == ["own", "own_holders", "pooled", "hybrid", "personal"]
    assert hybrid["main"] == "personal"
    assert hybrid["sums"] > 10
    assert summary["auc_test"] > 0.5


def test_each_bank_has_a_model_of_its_own(run: Simulation) -> None:
    parts = {bank: json.loads((run.out / f"banks/{bank}/model/{bank}/trees.json").read_text()) for bank in BANKS}
    first = parts[BANKS[0]]
    for part in parts.values():
        assert len(part["trees"]) == 5
        assert part["trees"][:2] == first["trees"][:2]
    assert len({json.dumps(part["trees"][2:]) for part in parts.values()}) == 3
    assert len({part["base"] for part in parts.values()}) == 3
