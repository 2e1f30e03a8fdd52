"""Trees of eight real lenders: what the shipped configuration promises. Slow; needs FEDCREDIT_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec

CONFIG = Path(__file__).parents[2] / "configs" / "simulations" / "sba_hybrid_trees.toml"
FAST = ("crypto.profile=unsafe-plaintext",)  # the model is the same; that it is, is tested elsewhere


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_own_trees_on_common_ones_serve_every_lender(tmp_path: Path) -> None:
    if not os.environ.get("FEDCREDIT_DATA"):
        pytest.skip("FEDCREDIT_DATA is not set: the public files are not on this machine")
    summary = simulate(load_spec(CONFIG, FAST), tmp_path / "out").summary
    found = {one["key"]: one["auc"] for one in summary["hybrid"]["models"]}
    assert summary["scores_equal_pooled_plaintext"] is True
    assert found["personal"] >= 0.705
    assert found["personal"] >= found["own_holders"]
    assert found["personal"] > found["hybrid"] + 0.01
    assert found["hybrid"] > found["pooled"]
