"""A run between houses gives what the simulation gives, whoever is killed on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcredit.governance.audit import verify
from fedcredit.runtime.house.consent import approve
from fedcredit.runtime.session import files as session_files
from fedcredit.runtime.session import node as node_session
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.travel import travelling_json, without
from fedcredit.types import COORDINATOR, PartyId, RunId

RUN = RunId("ab" * 16)
BOOST = {
    "run": {"model": "boost"},
    "boost": {"trees": 3, "depth": 2, "min_child_rows": 20},
    "privacy": {"noise_rows": 4.0},
}


def part_of(folder: Path, party: str) -> dict[str, Any]:
    (file,) = (folder / "model" / party).glob("*.json")
    return dict(json.loads(file.read_text("utf-8")))


def same_as_simulation(trial: Any, run: str, out: Path) -> None:
    simulated = simulate(trial.loaded, out)
    for party in trial.spec.parties:
        folder = trial.homes[party].runs / run
        assert part_of(folder, party) == part_of(out, party)
        assert {one.name for one in (folder / "model").iterdir()} == {party}
    bank = trial.homes[PartyId("bank")].runs / run
    assert (bank / "predictions.parquet").read_bytes() == (out / "predictions.parquet").read_bytes()
    summary = json.loads((bank / "summary.json").read_text("utf-8"))
    for key in (
        "spec_digest",
        "rows_train",
        "rows_test",
        "auc_test",
        "ks_test",
        "brier_test",
        "auc_label_holder_alone",
    ):
        assert summary[key] == simulated.summary[key]


@pytest.mark.parametrize("sections", [{}, BOOST], ids=["scorecard", "boost"])
def test_houses_and_simulation_agree(trial: Callable[..., Any], sections: Any, tmp_path: Path) -> None:
    made = trial(sections=sections)
    order = made.order(made.proposal())
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert set(ended) == {*made.spec.parties, COORDINATOR}
    same_as_simulation(made, ended[COORDINATOR].run, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["bank", "tax_office", COORDINATOR])
@pytest.mark.parametrize("at", [1, 2, 4, 9])
def test_boosting_goes_on_after_a_kill(trial: Callable[..., Any], victim: str, at: int, tmp_path: Path) -> None:
    made = trial(sections=BOOST)
    order = made.order(made.proposal())
    made.hub.kill_at[victim] = at
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert ended[victim].attempts >= 2 or made.hub.sent[victim] < at
    same_as_simulation(made, ended[COORDINATOR].run, tmp_path / "out")


def test_ledgers_charge_a_restarted_run_once(trial: Callable[..., Any], tmp_path: Path) -> None:
    made = trial(sections=BOOST)
    made.hub.kill_at[PartyId("bank")] = 9
    ended = made.play_all(made.order(made.proposal()))
    run = ended[COORDINATOR].run
    simulated = simulate(made.loaded, tmp_path / "out")
    for party in made.spec.parties:
        own = json.loads((made.homes[party].runs / run / "leakage.json").read_text("utf-8"))["ledger"][party]
        assert own == json.loads((simulated.out / "leakage.json").read_text("utf-8"))["ledger"][party]


def test_nothing_secret_is_left_and_the_logs_hold(trial: Callable[..., Any]) -> None:
    made = trial()
    ended = made.play_all(made.order(made.proposal()))
    for party, finished in ended.items():
        folder = made.homes[party].runs / finished.run
        assert verify(folder / "audit" / f"{party}.jsonl", finished.audit_head).head == finished.audit_head
        names = {one.name for one in folder.iterdir()}
        secret = {"secrets", "kept", "checkpoints", "headroom"}
        assert not names & {*secret, "attempt", "complete", "lock", "progress.json"}
        assert list((made.homes[party].state / "runs").iterdir()) == []


def test_an_ended_session_is_answered_again_with_the_same_bytes(trial: Callable[..., Any]) -> None:
    made = trial()
    order = made.order(made.proposal())
    ended = made.play_all(order)
    for party, finished in ended.items():
        assert made.play(party, order) == finished


def test_who_was_killed_at_the_very_end_ends_without_the_others(
    trial: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trial()
    proposal = made.proposal()
    order = made.order(proposal)
    dying = [True]
    well = session_files.ended_well

    def killed(part: Any, shared: bytes, finish: Any = None) -> bytes:
        if part.party == "tax_office" and dying:
            dying.pop()
            raise KeyboardInterrupt
        return well(part, shared, finish)

    monkeypatch.setattr(node_session, "ended_well", killed)
    with pytest.raises(KeyboardInterrupt):
        made.play_all(order)
    finished = made.play(PartyId("tax_office"), made.order(proposal, ended=True))
    assert finished.ok
    assert part_of(made.homes[PartyId("tax_office")].runs / finished.run, "tax_office")


def test_a_house_that_leaves_is_named(trial: Callable[..., Any]) -> None:
    made = trial()
    order = made.order(made.proposal())
    (made.homes[PartyId("customs")].state / "runs" / RUN / "stop").touch()
    ended = made.play_all(order)
    assert {one.ok for one in ended.values()} == {False}
    assert ended[PartyId("customs")].code == "run.left"
    assert {one.culprit for one in ended.values()} == {"customs"}


def test_a_party_that_never_comes_is_named_within_the_time_out(trial: Callable[..., Any]) -> None:
    made = trial(sections={"network": {"timeout_s": 1.0}})
    ended = made.play_all(made.order(made.proposal()), without=["customs"])
    assert {(one.ok, one.code, one.culprit) for one in ended.values()} == {(False, "run.timeout", "customs")}


def test_the_rest_goes_on_without_a_party_where_the_spec_says_so(trial: Callable[..., Any], tmp_path: Path) -> None:
    made = trial(sections={"network": {"timeout_s": 1.0}, "run": {"on_missing": "continue"}})
    for party in made.spec.parties:
        made.change_policy(party, any_run=False)
        approve_next(made, party)
    made.play_all(made.order(made.proposal()), without=["customs"])
    left = without(made.spec, [PartyId("customs")])
    run = RunId("cd" * 16)
    text = travelling_json(left, "records")
    stranger = made.proposal(RunId("ef" * 16), spec=text)
    assert made.consider(PartyId("bank"), stranger).state == "pending"  # nobody has approved this spec by itself
    proposal = made.proposal(run, spec=text, continues=RUN, missing=["customs"])
    ended = made.play_all(made.order(proposal), without=["customs"])
    assert all(one.ok for one in ended.values())
    summary = json.loads((made.homes[PartyId("bank")].runs / run / "summary.json").read_text("utf-8"))
    assert summary["deployed"] == {"party": "bank", "continues": RUN, "missing": ["customs"]}
    assert set(summary["parties"]) == {"bank", "tax_office"}


def approve_next(made: Any, party: PartyId) -> None:
    assert made.consider(party, made.proposal()).state == "pending"
    approve(made.homes[party], RUN)
    assert made.consider(party, made.proposal()).state == "approved"
