"""What a run says it disclosed, and how good it says it is, computed again from its own files."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve

from fedcredit.governance.ledger import LedgerLine
from fedcredit.protocol.scorecard.roles import SCHEMAS
from fedcredit.runtime.accounts import disclosure, leakage_steps, ledger_numbers
from fedcredit.runtime.quality import measure
from fedcredit.runtime.simulate import Simulation
from fedcredit.types import PartyId


def line(counterparty: str, equations: float, cap: float | None, bits: float, noise: float = 0.0) -> LedgerLine:
    return LedgerLine(
        counterparty=PartyId(counterparty),
        data_version="v",
        equations=equations,
        equations_feature="a",
        equations_cap=cap,
        row_bits=bits,
        row_bits_cap=36,
        feature_bits=2,
        feature_bits_cap=3,
        bins_returned=2 * equations,
        bins_returned_cap=cap,
        noise_rows=noise,
    )


def test_the_summary_has_the_worst_figure_beside_the_smallest_cap() -> None:
    reports = {PartyId("a"): [line("bank", 5, 12, 9.5)], PartyId("b"): [line("bank", 7, 10, 3.0, 4.0)]}
    found = disclosure(reports, -50.0)
    assert (found["equations_per_feature"], found["cap"]) == (7, 10)
    assert (found["bits_per_row"], found["bits_per_row_cap"]) == (9.5, 36)
    assert (found["bins_returned"], found["bins_returned_cap"]) == (14, 10)
    assert found["noise_rows"] == 0.0  # the least noise, for it protects least
    assert found["statistical_leak_log2"] == -50.0


def test_no_cap_is_no_number() -> None:
    found = disclosure({PartyId("a"): [line("bank", 5, None, 1.0)]}, None)
    assert found["cap"] is None
    assert found["statistical_leak_log2"] is None
    assert disclosure({}, None)["equations_per_feature"] == 0.0
    (numbers,) = ledger_numbers({PartyId("a"): [line("bank", 5, None, 1.0)]})["a"]
    assert numbers["equations"] == {"largest": 5, "cap": None}
    assert numbers["counterparty"] == "bank"


def test_every_step_of_every_protocol_is_listed() -> None:
    kinds = {declared.kind for schema in SCHEMAS for declared in schema.messages}
    steps = leakage_steps([schema.name for schema in SCHEMAS], kinds)
    assert {step["message"] for step in steps} == kinds
    assert all(step["learns"] and step["bound"] for step in steps)


def test_a_message_that_was_not_sent_is_no_step() -> None:
    steps = leakage_steps([schema.name for schema in SCHEMAS], {"bin.basis", "select.rows"})
    assert {step["message"] for step in steps} == {"bin.basis", "select.rows"}
    assert leakage_steps(["align", "bin"], {"select.rows"}) == []


def test_the_leak_of_the_cipher_itself_is_negligible(small_run: Simulation) -> None:
    leak = small_run.summary["disclosure"]["statistical_leak_log2"]
    assert -200 < leak < -40
    assert math.isfinite(leak)


def test_measures_are_the_librarys(small_run: Simulation) -> None:
    rows = pl.read_parquet(small_run.out / "predictions.parquet")
    bad, score = rows["label"].to_numpy(), rows["score"].to_numpy()
    probability = rows["sample_probability"].to_numpy()
    found = measure(bad, -score, probability)
    assert found["auc"] == pytest.approx(roc_auc_score(bad, -score), abs=1e-12)
    false, true, _ = roc_curve(bad, -score)
    assert found["ks"] == pytest.approx((true - false).max(), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(bad, probability), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(bad, probability), abs=1e-9)
    assert found["gini"] == pytest.approx(2 * found["auc"] - 1)
    assert found == small_run.summary["metrics"]["federated"]


def test_the_calibration_line_is_a_regression_on_the_logit(small_run: Simulation) -> None:
    rows = pl.read_parquet(small_run.out / "predictions.parquet")
    probability = rows["sample_probability"].to_numpy()
    logit = np.log(probability / (1 - probability))[:, None]
    library = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(logit, rows["label"].to_numpy())
    line_of = small_run.summary["calibration"]
    assert line_of["slope"] == pytest.approx(float(library.coef_[0, 0]), rel=1e-4)
    assert line_of["intercept"] == pytest.approx(float(library.intercept_[0]), abs=1e-4)


def test_probabilities_are_those_of_the_points(small_run: Simulation) -> None:
    rows = pl.read_parquet(small_run.out / "predictions.parquet")
    logit = (rows["score"].to_numpy() - 600) * math.log(2) / 50 + math.log(20)
    assert rows["sample_probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(logit)), abs=1e-12)


def test_alone_is_a_scorecard_of_the_banks_columns(small_run: Simulation) -> None:
    rows = pl.read_parquet(small_run.out / "predictions.parquet")
    alone = small_run.summary["auc_label_holder_alone"]
    assert alone == pytest.approx(roc_auc_score(rows["label"].to_numpy(), -rows["score_alone"].to_numpy()), abs=1e-12)
    bank = json.loads((small_run.out / "model" / "bank" / "scorecard.json").read_text())
    assert {one["owner"] for one in bank["features"]} == {"bank", "tax_office", "customs"}
    for one in bank["features"]:
        z = one["coefficient"] / one["standard_error"]
        assert one["p_value"] == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=1e-6, abs=1e-12)
        assert one["sign_ok"] == (one["coefficient"] > 0)
