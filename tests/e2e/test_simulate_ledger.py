"""Budgets over many runs: spent is spent, a refusal says what and how much, a restart gains nothing."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcredit.errors import DisclosureRefused
from fedcredit.protocol.scorecard.plan import plan_fit
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec

Make = Callable[..., Path]
REFUSAL = re.compile(
    r"^equations on feature '(?P<feature>\w+)' for bank: asked (?P<asked>\d+), spent (?P<spent>\d+), cap (?P<cap>\d+), "
    r"still possible (?P<left>\d+)"
)


def rows_of(ledger: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(ledger)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def equations(ledger: Path) -> dict[str, float]:
    """Equations spent on each feature, all runs together."""
    found = rows_of(ledger, "SELECT feature, amount FROM totals WHERE kind = 'equations'")
    return {feature: amount / 1000 for feature, amount in found}


def test_every_equation_is_charged_and_no_other(small_run: Simulation) -> None:
    """Counted from the transcript and the model alone: three to bin, one a product, two a round."""
    lines = [json.loads(line) for line in (small_run.out / "transcript.jsonl").read_text().splitlines()]
    bank = json.loads((small_run.out / "model" / "bank" / "scorecard.json").read_text())
    late = {"correlation", "vif"}  # dropped after the products were paid for, if another holder's
    tried = {(one["owner"], one["code"]) for one in bank["features"]}
    tried |= {
        (one["owner"], one["code"]) for one in bank["dropped"] if one["reason"] in late and one["owner"] != "bank"
    }
    assert len(tried) == small_run.summary["fit"]["features_tried"]
    for party in ("tax_office", "customs"):
        steps = [line for line in lines if line["type"] == "scorecard.step" and line["recipient"] == party]
        rounds = len(steps) - 1
        assert rounds == small_run.summary["fit"]["totals"]
        charged = equations(small_run.out / "ledger" / f"{party}.sqlite")
        mine = sum(owner == party for owner, _ in tried)
        assert sorted(charged.values()) == [3.0] * (4 - mine) + [3.0 + len(tried) - 1 + 2 * rounds] * mine
    assert small_run.summary["disclosure"]["equations_per_feature"] == 3 + len(tried) - 1 + 2 * rounds


def test_declared_is_never_less_than_spent(small_run: Simulation) -> None:
    for party in ("bank", "tax_office", "customs"):
        found = rows_of(small_run.out / "ledger" / f"{party}.sqlite", "SELECT kind, declared, spent FROM allowances")
        assert found
        assert all(spent <= declared for _, declared, spent in found)
        exact = {declared == spent for kind, declared, spent in found if kind in {"equations", "bins_returned"}}
        assert exact == {True}  # known before the run; bits depend on the points


def test_bits_of_a_row_are_within_what_was_declared(small_run: Simulation) -> None:
    plan = plan_fit(load_spec(small_run.out / "spec.toml").spec.scorecard)
    for party in ("tax_office", "customs"):
        ledger = small_run.out / "ledger" / f"{party}.sqlite"
        ((bits,),) = rows_of(ledger, "SELECT amount FROM totals WHERE kind = 'row_bits'")
        assert 0 < bits / 1000 <= max(12.0, plan.rounds * plan.bits_per_total)


def test_bins_returned_are_those_of_the_model(small_run: Simulation) -> None:
    bank = json.loads((small_run.out / "model" / "bank" / "scorecard.json").read_text())
    for party in ("tax_office", "customs"):
        ledger = small_run.out / "ledger" / "bank.sqlite"
        query = f"SELECT amount FROM totals WHERE kind = 'bins_returned' AND counterparty = '{party}'"
        ((amount,),) = rows_of(ledger, query)
        bins = sum(len(one["bins"]) for one in bank["features"] if one["owner"] == party)
        dropped = any(one["owner"] == party for one in bank["dropped"])
        assert amount / 1000 >= bins if dropped else amount / 1000 == bins


@pytest.fixture
def spending(tmp_path: Path, consortium: Make) -> Path:
    privacy = {"enforce": True, "ledger_dir": "ledgers"}
    return consortium(tmp_path, rows=1200, sections={"privacy": privacy, "crypto": {"profile": "unsafe-plaintext"}})


def test_runs_until_the_budget_is_spent(spending: Path, tmp_path: Path) -> None:
    caps, error = set(), None
    for number in range(12):
        try:
            summary = simulate(load_spec(spending), tmp_path / f"run-{number}").summary
        except DisclosureRefused as refused:
            error = refused
            break
        caps.add(summary["disclosure"]["cap"])
        assert summary["ledger_scope"] == "all runs with these ledgers"
        assert summary["disclosure"]["equations_per_feature"] <= summary["disclosure"]["cap"]
        assert summary["disclosure"]["bins_returned"] <= summary["disclosure"]["bins_returned_cap"]
        assert summary["scores_equal_pooled_plaintext"]
    assert error is not None
    assert number >= 1
    assert error.exit_code == 3
    assert "\n" not in str(error)
    found = REFUSAL.match(error.public)
    assert found is not None, error.public
    figures = {name: int(found[name]) for name in ("asked", "spent", "cap", "left")}
    assert caps == {figures["cap"]}
    assert figures["asked"] == 3
    assert figures["left"] == figures["cap"] - figures["spent"] < 3


def test_a_restart_gains_nothing_and_leaves_evidence_only(spending: Path, tmp_path: Path) -> None:
    loaded = load_spec(spending, ["privacy.max_equations=20"])
    simulate(loaded, tmp_path / "first")
    for number in range(8):
        try:
            simulate(loaded, tmp_path / f"more-{number}")
        except DisclosureRefused:
            break
    ledgers = {party: tmp_path / "ledgers" / f"{party}.sqlite" for party in ("tax_office", "customs")}
    for number in range(3):
        with pytest.raises(DisclosureRefused):
            simulate(loaded, tmp_path / f"again-{number}")
        assert not (tmp_path / f"again-{number}").exists()
        (kept,) = tmp_path.glob(f"again-{number}.failed-*")
        assert {one.name for one in kept.iterdir()} == {"audit", "escrow", "spec.toml"}
        assert (kept / "audit" / "heads.json").is_file()
    for ledger in ledgers.values():
        assert all(spent <= 20 for spent in equations(ledger).values())
    assert list(tmp_path.glob(".*")) == []


def test_a_failed_run_keeps_its_own_ledger(tmp_path: Path, consortium: Make) -> None:
    privacy = {"enforce": True, "max_equations": 2}
    config = consortium(tmp_path, rows=700, sections={"privacy": privacy, "crypto": {"profile": "unsafe-plaintext"}})
    with pytest.raises(DisclosureRefused, match="asked 3, spent 0, cap 2, still possible 2"):
        simulate(load_spec(config), tmp_path / "o")
    (kept,) = tmp_path.glob("o.failed-*")
    assert {one.name for one in kept.iterdir()} == {"audit", "escrow", "ledger", "spec.toml"}


def test_shuffled_records_are_the_same_data_to_the_ledger(tmp_path: Path, consortium: Make) -> None:
    privacy = {"enforce": True, "ledger_dir": str(tmp_path / "ledgers"), "max_equations": 20}
    sections = {"privacy": privacy, "crypto": {"profile": "unsafe-plaintext"}}
    ledger = tmp_path / "ledgers" / "customs.sqlite"
    spent = []
    for shuffle in (0, 9):
        config = consortium(tmp_path / str(shuffle), rows=1200, sections=sections, shuffle=shuffle)
        try:
            simulate(load_spec(config), tmp_path / f"out-{shuffle}")
        except DisclosureRefused:
            assert shuffle
        spent.append(equations(ledger))
    assert len(rows_of(ledger, "SELECT DISTINCT data_version FROM totals")) == 1
    assert all(spent[1][name] >= spent[0][name] for name in spent[0])
