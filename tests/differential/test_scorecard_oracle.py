"""The encrypted run is the pooled computation, integer for integer and float for float."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Runner = Callable[[Path], dict[str, Any]]
ORDERS = (("tax_office",), ("tax_office", "customs"), ("tax_office", "customs", "utility"))
LUCK = {"columns": ["luck"], "special": {}, "monotone": {}}


def equal(seen: dict[str, Any]) -> None:
    label, oracle = seen["label"], seen["oracle"]
    mine, theirs = label.fitted, oracle.fitted
    assert [(f.owner, f.code) for f in mine.features] == [(f.owner, f.code) for f in theirs.features]
    assert np.array_equal(mine.coefficients, theirs.coefficients)
    assert np.array_equal(mine.covariance, theirs.covariance)
    assert np.array_equal(mine.scores, theirs.scores)
    assert mine.base_points == theirs.base_points
    assert mine.totals == theirs.totals
    assert mine.dropped == theirs.dropped
    assert all(np.array_equal(a, b) for a, b in zip(mine.tables, theirs.tables, strict=True))
    assert label.candidates.dropped == oracle.candidates.dropped
    for found, expected in zip(label.binned.features, oracle.features, strict=True):
        assert (found.owner, found.shape) == (expected.owner, expected.shape)
        assert np.array_equal(found.merged.group, expected.merged.group)
        assert np.array_equal(found.merged.goods, expected.merged.goods)
        assert np.array_equal(found.merged.bads, expected.merged.bads)
        assert np.array_equal(found.merged.woe_units, expected.merged.woe_units)
        assert found.stability == expected.stability
    kept = {(f.owner, f.code): table for f, table in zip(mine.features, mine.tables, strict=True)}
    for party, features in seen["held"].items():
        assert [(party, one.own.shape.code) for one in features] == [place for place in kept if place[0] == party]
        for one in features:
            assert np.array_equal(one.points, kept[party, one.own.shape.code])
    assert seen["summary"]["scores_equal_pooled_plaintext"]
    assert seen["summary"]["auc_test"] == seen["summary"]["auc_pooled_plaintext"]


@pytest.mark.parametrize("holders", ORDERS, ids=len)
@pytest.mark.parametrize("fit", ["moments", "one-step", "mle"])
def test_each_fit_and_number_of_holders(
    tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner, fit: str, holders: tuple[str, ...]
) -> None:
    sections = {"scorecard": {"fit": fit}, "crypto": {"profile": "unsafe-plaintext"}}
    equal(looked_into(consortium(tmp_path, holders=holders, rows=700, seed=len(holders), sections=sections)))


@pytest.mark.parametrize("profile", ["rlwe-8192", "bfv-8192"])
def test_each_cipher(tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner, profile: str) -> None:
    seen = looked_into(consortium(tmp_path, holders=ORDERS[1], rows=700, sections={"crypto": {"profile": profile}}))
    equal(seen)
    assert seen["summary"]["encryption"]["enabled"]
    assert seen["summary"]["encryption"]["profile"] == profile


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["rlwe-8192", "bfv-8192"])
@pytest.mark.parametrize("fit", ["moments", "one-step", "mle"])
@pytest.mark.parametrize("seed", range(2))
def test_each_cipher_with_each_fit(
    tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner, profile: str, fit: str, seed: int
) -> None:
    sections = {"crypto": {"profile": profile}, "scorecard": {"fit": fit}}
    equal(looked_into(consortium(tmp_path, holders=ORDERS[2], rows=1500, seed=seed, sections=sections)))


@pytest.mark.parametrize("fit", ["moments", "one-step", "mle"])
@pytest.mark.parametrize("without", ["bank", "tax_office", "holders"])
def test_parties_with_nothing_to_say(
    tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner, fit: str, without: str
) -> None:
    """A party none of whose columns is chosen, the label holder included, leaves the run whole."""
    silent = ORDERS[1] if without == "holders" else (without,)
    sections = {"scorecard": {"fit": fit, "min_iv": 0.06}, "crypto": {"profile": "unsafe-plaintext"}}
    parties = dict.fromkeys(silent, LUCK)
    seen = looked_into(consortium(tmp_path, holders=ORDERS[1], rows=1200, sections=sections, parties=parties))
    equal(seen)
    assert not {f.owner for f in seen["label"].fitted.features} & set(silent)
    assert (seen["summary"]["auc_label_holder_alone"] is None) == (without == "bank")


@pytest.mark.parametrize(
    "rules",
    [{"max_vif": 1.05}, {"max_correlation": 0.3}, {"max_features": 3}, {"max_features": 1}, {"max_stability": 0.02}],
    ids=str,
)
def test_each_selection_rule(
    tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner, rules: dict[str, float]
) -> None:
    sections = {"scorecard": rules, "crypto": {"profile": "unsafe-plaintext"}}
    seen = looked_into(consortium(tmp_path, rows=900, sections=sections))
    equal(seen)
    assert seen["label"].dropped


@pytest.mark.parametrize("privacy", [{"enforce": True}, {"enforce": True, "max_bins_returned": 7}], ids=str)
def test_under_caps(
    tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner, privacy: dict[str, Any]
) -> None:
    sections = {"privacy": privacy, "crypto": {"profile": "unsafe-plaintext"}}
    seen = looked_into(consortium(tmp_path, rows=800, sections=sections))
    equal(seen)
    assert {one.reason for one in seen["label"].dropped} & {"equations", "bins"}
