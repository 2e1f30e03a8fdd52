"""Boosting on the public sets: what the shipped configurations promise. Slow; needs FEDCREDIT_DATA."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec

CONFIGS = Path(__file__).parents[2] / "configs" / "simulations"
SETS = sorted(path.stem.removesuffix("_boost") for path in CONFIGS.glob("*_boost.toml"))

NEAR = 0.002
"""AUC that quantisation, its draws, and ties may move against the library on the same bins."""

LEAST = {"taiwan": 0.765, "sba": 0.750, "taiwan_peers": 0.765, "polish": 0.93, "german": 0.78, "credit_data": 0.83}
"""AUC that each set must reach."""

GAIN = {"taiwan": 0.04, "sba": 0.025, "taiwan_peers": 0.008, "polish": 0.03, "german": 0.01, "credit_data": 0.15}
"""AUC that the holders' columns bring at least."""

PRICE = 0.003
"""AUC that noise, caps and coarse bins may cost, on average over seeds."""

FAST = ("crypto.profile=unsafe-plaintext",)  # the model is the same; that it is, is tested elsewhere

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Runs:
    """Each run once in a session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, ...], Mapping[str, Any]] = {}

    def of(self, name: str, *overrides: str) -> Mapping[str, Any]:
        if not os.environ.get("FEDCREDIT_DATA"):
            pytest.skip("FEDCREDIT_DATA is not set: the public files are not on this machine")
        key = (name, *overrides)
        if key not in self._known:
            loaded = load_spec(CONFIGS / f"{name}_boost.toml", overrides)
            self._known[key] = simulate(loaded, self._folder / str(len(self._known))).summary
        return self._known[key]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("real"))


def test_every_set_has_its_figures() -> None:
    assert set(SETS) == set(LEAST) == set(GAIN)


@pytest.mark.parametrize("name", SETS)
def test_encrypted_is_pooled(runs: Runs, name: str) -> None:
    summary = runs.of(name)
    assert summary["encryption"]["enabled"] is True
    assert summary["encryption"]["security_bits"] >= 128
    assert summary["model_equals_pooled_plaintext"] is True
    assert summary["scores_equal_pooled_plaintext"] is True
    assert summary["auc_test"] == summary["auc_pooled_plaintext"]


@pytest.mark.parametrize("name", SETS)
def test_as_good_as_the_library(runs: Runs, name: str) -> None:
    """Where nothing is held back, as good; else it is behind by what protection may cost."""
    summary = runs.of(name)
    behind = summary["auc_pooled_reference"] - summary["auc_test"]
    if summary["boost"]["noise_rows"] == 0 and summary["boost"]["thresholds_cap"] is None:
        assert abs(behind) <= NEAR
        assert abs(summary["auc_pooled_reference"] - summary["auc_pooled_unprotected"]) <= NEAR
    assert behind <= NEAR + PRICE


@pytest.mark.parametrize("name", ["taiwan", "sba"])
def test_unprotected_is_the_library_but_for_its_rounding(runs: Runs, name: str) -> None:
    """On average over the draws of 8-bit rounding; and with fine gradients, tree by tree."""
    apart = []
    for seed in (7, 8, 9, 10, 11):
        summary = runs.of(name, *FAST, f"run.seed={seed}")
        apart.append(summary["auc_pooled_unprotected"] - summary["auc_pooled_reference"])
    assert abs(sum(apart) / len(apart)) <= NEAR, apart
    fine = runs.of(name, *FAST, "privacy.gradient_bits=16", "boost.min_child_rows=1")
    assert abs(fine["auc_pooled_unprotected"] - fine["auc_pooled_reference"]) <= 2e-4


@pytest.mark.parametrize("name", SETS)
def test_better_than_the_label_holder_alone(runs: Runs, name: str) -> None:
    summary = runs.of(name)
    assert summary["auc_test"] >= LEAST[name]
    assert summary["auc_test"] - summary["auc_label_holder_alone"] >= GAIN[name]


@pytest.mark.parametrize("name", ["taiwan", "sba"])
def test_what_protection_costs(runs: Runs, name: str) -> None:
    costs = []
    for seed in (7, 8, 9):
        summary = runs.of(name, *FAST, f"run.seed={seed}")
        assert summary["boost"]["noise_rows"] >= 4
        assert summary["boost"]["thresholds_cap"] == 3
        assert summary["model_equals_pooled_plaintext"] is True
        costs.append(summary["auc_pooled_unprotected"] - summary["auc_test"])
    assert sum(costs) / len(costs) <= PRICE, costs


@pytest.mark.parametrize("name", ["taiwan", "sba"])
def test_the_cipher_has_no_say_in_the_model(runs: Runs, name: str) -> None:
    assert runs.of(name)["model_digest"] == runs.of(name, *FAST)["model_digest"]
