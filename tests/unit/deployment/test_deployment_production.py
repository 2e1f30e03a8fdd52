"""Runs on real records between houses: rows by a public register, draws from secrets, consent by people."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.runtime.party_end import PartyEnd
from fedcredit.runtime.runs.proposal import SessionOrder, check_approval, check_proposal, signed_approval
from fedcredit.runtime.session.files import EPHEMERAL, kept_secret, public_of, unfinished_files
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import parse_spec
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct, kind_of

RUN = RunId("ab" * 16)
BANK, TAX = PartyId("bank"), PartyId("tax_office")
IN_OPEN = re.compile(rb"E[0-9]{5}")


def simulated(made: Any, out: Path) -> Path:
    """The same run over the same records and register on one machine."""
    content = made.spec.model_dump(mode="json", exclude_none=True)
    content["run"]["mode"] = "simulation"
    return simulate(dataclasses.replace(made.loaded, spec=parse_spec(content)), out).out


def features(folder: Path, party: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Features of a party's part of the model by owner and name; codes are drawn for each run."""
    (file,) = (folder / "model" / party).glob("*.json")
    content = json.loads(file.read_text("utf-8"))
    return {(one["owner"], one["name"]): one for one in content["features"] if one["name"]}


def held(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text("utf-8")))


def kinds_of(made: Any) -> set[str]:
    """Kinds of all messages that the parties of the spec have sent."""
    logs = [made.homes[party].runs / RUN / "audit" / f"{party}.jsonl" for party in made.spec.parties]
    entries = [json.loads(line) for log in logs for line in log.read_text("utf-8").splitlines()]
    return {entry["kind"] for entry in entries if entry["event"] == "sent"}


@pytest.mark.slow
def test_houses_in_production_give_the_model_of_the_simulation(production: Callable[..., Any], tmp_path: Path) -> None:
    made = production()
    proposal = made.approve_all()
    order = made.order(proposal)
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    out = simulated(made, tmp_path / "out")
    bank = made.homes[BANK].runs / RUN
    # Sums under encryption are exact: who counts, bins, their evidence and what is selected do not follow draws.
    mine, theirs = held(bank), held(out)
    for key in ("rows_train", "rows_test", "positives_train", "positives_test"):
        assert mine[key] == theirs[key]
    for party in made.spec.parties:
        found, wanted = features(made.homes[party].runs / RUN, party), features(out, party)
        assert found.keys() == wanted.keys()
        assert found
        for name, one in found.items():
            assert one["cuts"] == wanted[name]["cuts"]
            assert [part["woe"] for part in one["bins"]] == [part["woe"] for part in wanted[name]["bins"]]
    # A fit's totals carry noise and are rounded at random, here from each house's own secrets.
    scores, same = (pl.read_parquet(folder / "predictions.parquet").sort("id") for folder in (bank, out))
    assert scores["id"].to_list() == same["id"].to_list()
    assert np.corrcoef(scores["score"].to_numpy(), same["score"].to_numpy())[0, 1] > 0.99
    assert mine["auc_test"] == pytest.approx(theirs["auc_test"], abs=0.02)
    # Nobody but the bank knows who its customers are, how many, or which are held out; the coordinator learns no id.
    assert held(made.homes[TAX].runs / RUN)["rows"] == 1320
    assert not {"rows_train", "positives_train"} & held(made.homes[TAX].runs / RUN).keys()
    kinds = kinds_of(made)
    assert {"align.register", "select.rows"} < kinds
    assert not kinds & {"align.ids", "align.index"}
    assert {one.shared for one in ended.values()} == {b""}
    carried = b"".join([proposal, order, *((made.homes[p].runs / RUN / "finished.bin").read_bytes() for p in ended)])
    assert IN_OPEN.search(carried) is None
    assert b"register.csv" not in carried


@pytest.mark.slow
def test_houses_in_production_find_their_rows_blindly(production: Callable[..., Any], tmp_path: Path) -> None:
    align = {"mode": "blind", "decoys": 1.0, "min_overlap": 50}
    made = production(sections={"align": align})
    records = made.folder / "records" / "bank.csv"
    records.write_text("\n".join([*records.read_text().splitlines()[:501], ""]))  # others know more than its customers
    for party in ("tax_office", "customs"):
        made.change_records(party, registry=None)  # who draws no decoys needs none
    ended = made.play_all(made.order(made.approve_all()))
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    out = simulated(made, tmp_path / "out")
    mine, theirs = held(made.homes[BANK].runs / RUN), held(out)
    for key in ("rows_train", "rows_test", "positives_train", "positives_test"):
        assert mine[key] == theirs[key]
    rows = held(made.homes[TAX].runs / RUN)["rows"]
    assert rows == 2 * (mine["rows_train"] + mine["rows_test"])
    assert mine["auc_test"] == pytest.approx(theirs["auc_test"], abs=0.05)
    assert not kinds_of(made) & {"align.ids", "align.index", "align.register"}
    assert (made.home("bank").state / "secrets" / "decoys").stat().st_mode & 0o777 == 0o600


def approval_of(made: Any, party: PartyId, proposal: bytes) -> Any:
    decision = made.consider(party, proposal)
    assert decision.state == "approved", (decision.code, decision.text)
    roster = made.home(party).roster
    checked = check_proposal(proposal, roster, datetime.now(UTC))
    return check_approval(decision.approval, party, checked, roster)


def test_an_approval_names_the_register_and_nothing_of_the_records(production: Callable[..., Any]) -> None:
    made = production(rows=200)
    proposal = made.approve_all()
    found = [approval_of(made, party, proposal) for party in made.spec.parties]
    assert len({one.register for one in found}) == 1
    assert len(found[0].register) == 64
    assert {one.records for one in found} == {""}
    # the order of the file is no other register
    file = made.home("tax_office").folder / "register.csv"
    head, *ids = file.read_text().splitlines()
    file.write_text("\n".join([head, *reversed(ids)]))
    assert approval_of(made, TAX, proposal).register == found[0].register


def test_a_house_with_another_register_is_named_before_anything_is_sent(production: Callable[..., Any]) -> None:
    made = production(rows=200)
    file = made.home("tax_office").folder / "register.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    order = made.order(made.approve_all())
    for party in (*made.spec.parties, COORDINATOR):
        ended = made.play(party, order)
        assert (ended.ok, ended.code, ended.messages) == (False, "run.register", 0)
        assert "tax_office has approved this run with another register" in ended.text
        assert "than bank" in ended.text
    assert made.hub.seen == []


def test_a_register_that_is_lost_with_the_approval_is_missed(production: Callable[..., Any]) -> None:
    made = production(rows=200)
    proposal = made.approve_all()
    order = decode_struct(SessionOrder, made.order(proposal), "order")
    home = made.home("tax_office")
    checked = check_proposal(proposal, home.roster, datetime.now(UTC))
    ephemeral = public_of(kept_secret(unfinished_files(home, RUN), EPHEMERAL))
    silent = signed_approval(home, checked, ephemeral, "")
    approvals = [silent if party == TAX else raw for party, raw in zip(checked.roster, order.approvals, strict=True)]
    ended = made.play(BANK, encode_struct(SessionOrder(proposal=proposal, approvals=approvals)))
    assert (ended.ok, ended.code) == (False, "run.register")
    assert "tax_office has approved this run with no register" in ended.text


def test_a_register_that_changes_after_the_approval(production: Callable[..., Any]) -> None:
    made = production(rows=400, sections={"network": {"timeout_s": 5.0}})
    proposal = made.approve_all()
    order = made.order(proposal)
    file = made.home("tax_office").folder / "register.csv"
    whole = file.read_text()
    file.write_text(whole + "E99999\n")
    ended = made.play_all(order)
    assert (ended[TAX].ok, ended[TAX].code) == (False, "run.register")
    assert "tax_office: its register has changed since it approved this run" in ended[TAX].text
    assert {one.culprit for party, one in ended.items() if party != TAX} == {"tax_office"}
    again = made.consider(TAX, proposal)
    assert (again.state, again.code) == ("denied", "run.register")
    file.write_text(whole)
    assert made.consider(TAX, proposal).state == "approved"


def test_a_run_on_a_register_needs_one_in_every_house(production: Callable[..., Any]) -> None:
    made = production(rows=200)
    made.change_records("tax_office", registry=None)
    decision = made.consider(TAX, made.proposal())
    assert (decision.state, decision.code) == ("denied", "proposal.registry")
    assert decision.text.startswith("data.records.registry: missing in node.toml; name the file of public ids")


def test_what_is_wrong_with_a_register_stays_in_the_house(production: Callable[..., Any]) -> None:
    made = production(rows=200)
    made.approve_all()
    (made.home("bank").folder / "register.csv").write_text("id\nE00001\nE00001\n")
    decision = made.consider(BANK, made.proposal())
    assert (decision.state, decision.code) == ("denied", "data")
    assert decision.text == "the party's own records do not carry this run"
    assert made.refusals("bank")[-1]["code"].startswith("data.")


CATALOG = """format = 1
holder = "tax"
title = "Tax office"
about = "Who pays."
ids = "text"
rows = "payers"

[tables.payers]
about = "One row a payer."
period = "static"
id = "id"
duplicates = "last"
columns.id = { type = "id", about = "id" }
columns.turnover_1 = { type = "number", about = "turnover" }
columns.sector_1 = { type = "category", about = "sector" }

[features.turnover]
kind = "value"
table = "payers"
column = "turnover_1"
about = "turnover"
reason = "turnover {value}"

[features.sector]
kind = "value"
table = "payers"
column = "sector_1"
about = "sector"
reason = "sector {value}"
"""


def test_derived_features_are_those_of_the_catalogue_that_was_approved_with(production: Callable[..., Any]) -> None:
    derived = {
        "source": "raw",
        "catalog": "tax.toml",
        "as_of": "2025-12-31",
        "columns": ["turnover", "sector"],
        "special": {},
        "monotone": {},
    }
    made = production(rows=400, parties={"tax_office": derived}, sections={"network": {"timeout_s": 5.0}})
    folder = made.home("tax_office").folder
    (folder / "raw").mkdir()
    (made.folder / "records" / "tax_office.csv").rename(folder / "raw" / "payers.csv")
    (folder / "tax.toml").write_text(CATALOG)
    missing = made.consider(TAX, made.proposal())
    assert (missing.state, missing.code) == ("denied", "proposal.catalog")
    assert "missing in node.toml, against the run, whose columns are derived" in missing.text
    made.change_records("tax_office", source="raw", catalog="tax.toml")
    order = made.order(made.approve_all())
    (folder / "tax.toml").write_text(CATALOG.replace('"turnover {value}"', '"turnover of {value}"'))
    ended = made.play_all(order)
    assert (ended[TAX].ok, ended[TAX].code) == (False, "run.catalog")
    assert "tax_office: its catalog has changed since it approved this run" in ended[TAX].text
    again = made.consider(TAX, made.proposal())
    assert (again.state, again.code) == ("denied", "run.catalog")
    (folder / "tax.toml").write_text(CATALOG)
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    part = json.loads((made.homes[TAX].runs / RUN / "model" / TAX / "scorecard.json").read_text("utf-8"))
    assert {one["name"] for one in part["features"]} <= {"turnover", "sector"}


def test_what_is_wrong_with_a_catalogue_stays_in_the_house(production: Callable[..., Any]) -> None:
    derived = {"source": "raw", "catalog": "tax.toml", "as_of": "2025-12-31", "columns": ["a"], "special": {}}
    made = production(
        rows=60,
        parties={"tax_office": {**derived, "monotone": {}}},
        sections={"run": {"mode": "simulation"}, "privacy": {"enforce": True}},
    )
    made.change_policy(TAX, mode="simulation", any_run=True)
    made.change_records("tax_office", source="raw", catalog="secret_place.toml")
    decision = made.consider(TAX, made.proposal())
    assert (decision.state, decision.code) == ("denied", "data")
    assert "secret_place" not in decision.text
    assert "secret_place" in made.refusals("tax_office")[-1]["text"]


@pytest.mark.parametrize(
    ("align", "policy", "code"),
    [
        ({}, {"align_modes": ["blind"]}, "policy.align"),
        ({"mode": "blind"}, {"align_modes": ["registry"]}, "policy.align"),
        ({"mode": "blind", "decoys": 0.0}, {}, "policy.decoys"),
        ({"mode": "blind", "decoys": 0.5}, {}, "policy.decoys"),
        ({"mode": "blind", "decoys": 1.0}, {"min_decoys": 2.0}, "policy.decoys"),
        ({}, {}, ""),
        ({"mode": "blind", "decoys": 1.0}, {}, ""),
        ({"mode": "blind", "decoys": 0.0}, {"min_decoys": 0.0}, ""),
    ],
    ids=[
        "registry-not",
        "blind-not",
        "no-decoys",
        "few-decoys",
        "more-decoys",
        "registry",
        "blind",
        "no-decoys-wanted",
    ],
)
def test_a_policy_says_how_rows_may_be_found(
    production: Callable[..., Any], align: dict[str, Any], policy: dict[str, Any], code: str
) -> None:
    made = production(rows=60, sections={"align": align})
    made.change_policy(BANK, **policy)
    decision = made.consider(BANK, made.proposal())
    assert (decision.state, decision.code) == (("denied", code) if code else ("pending", ""))


def test_a_policy_that_is_tightened_after_the_approval_counts(production: Callable[..., Any]) -> None:
    made = production(rows=60)
    order = made.order(made.approve_all())
    made.change_policy(BANK, align_modes=["blind"])
    ended = made.play(BANK, order)
    assert (ended.ok, ended.code) == (False, "policy.align")


def test_a_killed_run_goes_on(production: Callable[..., Any]) -> None:
    made = production(rows=400)
    order = made.order(made.approve_all())
    made.hub.kill_at[TAX] = 1
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert ended[TAX].attempts == 2


@pytest.mark.slow
def test_a_run_that_has_chosen_rows_goes_on(production: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = production(rows=400)
    order = made.order(made.approve_all())
    release = PartyEnd.release
    chosen: list[PartyId] = []

    def kills(self: Any, to: PartyId, message: Any, spend: Any = None) -> Any:
        if kind_of(type(message)) == "select.rows" and not chosen:
            chosen.append(to)
            made.hub.kill_at[TAX] = made.hub.sent[TAX] + 1
        return release(self, to, message, spend)

    monkeypatch.setattr(PartyEnd, "release", kills)
    ended = made.play_all(order)
    assert chosen
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert ended[BANK].attempts == 2
    kept = [made.homes[party].runs / RUN / "kept" for party in made.spec.parties]
    assert not any(folder.exists() for folder in kept)
