"""A hybrid run as `fedcredit simulate` makes it: three banks, two feature holders, one scorecard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from fedcredit.cli import app
from fedcredit.errors import FedCreditError
from fedcredit.governance.audit import verify_directory
from fedcredit.kernels.metrics import auc
from fedcredit.report.build import build_report
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec

BANKS = ("bank_01", "bank_02", "bank_03")
HOLDERS = ("tax_office", "customs")
ENTROPY = b"\x22" * 32
PARTS = {
    "partition": {"party": "bank", "by": "size", "banks": 3, "min_rows": 250, "seed": 4},
    "bin": {"prebins": 6, "max_bins": 4, "min_goods": 5, "min_bads": 5, "min_prebin_rows": 5},
    "network": {"timeout_s": 60.0},
}

Consortium = Callable[..., Path]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, consortium: Consortium) -> Path:
    return consortium(tmp_path_factory.mktemp("hybrid"), rows=1500, sections=PARTS)


@pytest.fixture(scope="module")
def run(config: Path) -> Simulation:
    return simulate(load_spec(config), config.parent / "out", entropy_seed=ENTROPY, finish=build_report_of)


def build_report_of(folder: Path) -> None:
    build_report(folder)


def test_every_bank_has_the_scorecard_of_the_same_steps_in_the_clear(run: Simulation) -> None:
    assert run.summary["hybrid"]["equal_pooled_plaintext"] is True
    assert [bank["name"] for bank in run.summary["hybrid"]["banks"]] == list(BANKS)


def test_all_models_are_compared_on_the_same_rows(run: Simulation) -> None:
    predictions = pl.read_parquet(run.out / "predictions.parquet")
    for bank in run.summary["hybrid"]["banks"]:
        rows = predictions.filter(pl.col("bank") == bank["name"])
        assert rows.height == bank["rows_test"]
        for key in ("own", "own_holders", "pooled", "hybrid", "personal"):
            assert auc(rows["label"].to_numpy(), rows[f"risk_{key}"].to_numpy()) == pytest.approx(bank["auc"][key])


def test_the_mean_counts_banks_by_their_rows(run: Simulation) -> None:
    banks = run.summary["hybrid"]["banks"]
    rows = sum(bank["rows_test"] for bank in banks)
    for model in run.summary["hybrid"]["models"]:
        assert model["auc"] == pytest.approx(sum(b["auc"][model["key"]] * b["rows_test"] for b in banks) / rows)


def test_no_bank_hears_of_another_but_through_the_coordinator(run: Simulation) -> None:
    for line in (run.out / "transcript.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        assert not (entry["sender"] in BANKS and entry["recipient"] in BANKS)


def test_what_holders_answer_is_counted_for_each_bank(run: Simulation) -> None:
    ledger = json.loads((run.out / "leakage.json").read_text("utf-8"))["ledger"]
    for holder in HOLDERS:
        assert sorted(line["counterparty"] for line in ledger[holder]) == list(BANKS)
        assert all(line["equations"]["largest"] > 0 for line in ledger[holder])


def test_each_network_has_its_own_chained_audit_logs(run: Simulation) -> None:
    whole = verify_directory(run.out / "audit")
    for name in (*BANKS, "sums"):
        assert f"{name}/coordinator" in whole
        assert verify_directory(run.out / "audit" / name).keys() == {
            key.removeprefix(f"{name}/") for key in whole if key.startswith(f"{name}/")
        }
    done = CliRunner().invoke(app, ["audit", "verify", str(run.out)])
    assert done.exit_code == 0, done.output


def test_a_changed_log_of_any_network_is_found(run: Simulation, tmp_path: Path) -> None:
    shutil.copytree(run.out / "audit", tmp_path / "audit")
    log = tmp_path / "audit" / "sums" / "bank_02.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"sums"', b'"summ"', 1))
    with pytest.raises(FedCreditError, match="bank_02"):
        verify_directory(tmp_path / "audit")
    log.unlink()
    with pytest.raises(FedCreditError, match="sums/bank_02"):
        verify_directory(tmp_path / "audit")


def test_banks_keep_their_own_parts(run: Simulation) -> None:
    cards = {}
    for bank in BANKS:
        folder = run.out / "banks" / bank
        assert (folder / "model" / bank / "scorecard.json").exists()
        assert not any((folder / "model" / other).exists() for other in BANKS if other != bank)
        cards[bank] = json.loads((folder / "model" / bank / "scorecard.json").read_text("utf-8"))
    kept = {bank: [f["code"] for f in card["features"]] for bank, card in cards.items()}
    assert kept["bank_01"] == kept["bank_02"] == kept["bank_03"]


@pytest.mark.slow
def test_same_records_same_scores(run: Simulation, config: Path) -> None:
    again = simulate(load_spec(config), config.parent / "again")
    columns = ["bank", "id", "risk_personal", "risk_hybrid", "risk_own_holders"]
    first, second = (pl.read_parquet(one.out / "predictions.parquet").select(columns) for one in (run, again))
    assert first.equals(second)


def test_the_report_tells_what_taking_part_brings(run: Simulation) -> None:
    page = (run.out / "report.html").read_text("utf-8")
    assert "3 banks and tax_office and customs" in page
    assert "Bank by bank" in page
    for bank in BANKS:
        assert bank in page


@pytest.mark.slow
def test_the_terminal_shows_every_bank(config: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", str(config), "--out", str(config.parent / "shown")])
    assert done.exit_code == 0, done.output
    for word in (*BANKS, "mean", "secure sums (masked+he)", "Exact"):
        assert word in done.output


def test_what_a_hybrid_run_cannot_do_is_said(config: Path, tmp_path: Path) -> None:
    with pytest.raises(FedCreditError, match="hybrid runs know their rows"):
        simulate(load_spec(config, ["align.mode=blind", "align.min_overlap=10"]), tmp_path / "out")
    with pytest.raises(FedCreditError, match="starts anew"):
        simulate(load_spec(config), tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


def test_a_bank_with_too_few_defaults_is_named_and_nothing_is_left(config: Path, tmp_path: Path) -> None:
    with pytest.raises(FedCreditError, match=r"goods|bads"):
        simulate(load_spec(config, ["bin.min_bads=400"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
