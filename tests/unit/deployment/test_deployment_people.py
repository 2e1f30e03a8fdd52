"""Four eyes: a run starts when as many different people want it as the policy says; one who does not is enough."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.governance.policy import Policy, load_policy
from fedcredit.runtime.house import people
from fedcredit.runtime.house.consent import approve, consented, deny, known_runs, view_of
from fedcredit.runtime.house.people import DECISIONS_FILE, Person, this_person
from fedcredit.runtime.runs.proposal import check_proposal
from fedcredit.types import PartyId

BANK = PartyId("bank")


def person(user: str, name: str = "") -> Person:
    return Person(user=user, known_by="login", name=name, when="2026-01-01T00:00:00+00:00")


@pytest.fixture
def made(trial: Callable[..., Any]) -> Any:
    """A bank whose policy asks for two people."""
    one = trial(rows=200)
    path = one.home("bank").policy
    path.write_text(path.read_text().replace("any_run = true", "approvals = 2"))
    return one


def run_of(made: Any) -> str:
    return str(known_runs(made.home("bank"))[0].known.run)


def test_one_is_not_enough_and_two_are(made: Any) -> None:
    raw = made.proposal()
    assert made.consider(BANK, raw).state == "pending"
    home, run = made.home("bank"), run_of(made)
    approve(home, run, person("anna"))
    assert made.consider(BANK, raw).state == "pending"
    view = view_of(home, known_runs(home)[0].known)
    assert (view.state, view.people, view.needed) == ("pending", ("anna",), 2)
    approve(home, run, person("anna", "Anna once more"))
    assert made.consider(BANK, raw).state == "pending", "the same person twice is one person"
    approve(home, run, person("boris", "Boris"))
    assert made.consider(BANK, raw).state == "approved"
    view = known_runs(home)[0]
    assert (view.state, view.people) == ("approved", ("anna", "boris"))


def test_one_who_denies_is_enough_and_all_begin_again(made: Any) -> None:
    raw = made.proposal()
    made.consider(BANK, raw)
    home, run = made.home("bank"), run_of(made)
    approve(home, run, person("anna"))
    approve(home, run, person("boris"))
    deny(home, run, person("clara"))
    assert made.consider(BANK, raw).code == "consent.denied"
    approve(home, run, person("anna"))
    assert made.consider(BANK, raw).state == "pending", "what was approved before the denial is not counted"
    approve(home, run, person("boris"))
    assert made.consider(BANK, raw).state == "approved"


def test_everything_is_on_record(made: Any) -> None:
    made.consider(BANK, made.proposal())
    home, run = made.home("bank"), run_of(made)
    approve(home, run, person("anna", "Anna A."))
    deny(home, run, person("boris"))
    lines = [json.loads(line) for line in (home.logs / DECISIONS_FILE).read_text().splitlines()]
    assert [(one["decision"], one["user"], one["name"], one["known_by"]) for one in lines] == [
        ("approved", "anna", "Anna A.", "login"),
        ("denied", "boris", "", "login"),
    ]
    assert {one["run"] for one in lines} == {run}
    assert (home.logs / DECISIONS_FILE).stat().st_mode & 0o777 == 0o600


def test_two_at_once_are_both_counted(made: Any) -> None:
    raw = made.proposal()
    made.consider(BANK, raw)
    home, run = made.home("bank"), run_of(made)
    users = [f"user{number}" for number in range(8)]
    threads = [threading.Thread(target=approve, args=(home, run, person(user))) for user in users]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(known_runs(home)[0].people) == users


def test_a_tightened_policy_counts_what_was_said_before(made: Any) -> None:
    """A word of one person does not carry a policy that asks for two by now."""
    raw = made.proposal()
    made.consider(BANK, raw)
    home, run = made.home("bank"), run_of(made)
    approve(home, run, person("anna"))
    checked = check_proposal(raw, home.roster, datetime.now(UTC))
    policy = load_policy(home.policy)
    assert consented(home, checked, policy.model_copy(update={"approvals": 1}))
    assert not consented(home, checked, policy)
    assert not consented(home, checked, policy.model_copy(update={"runs": (checked.proposal.spec_digest,)}))
    assert consented(home, checked, policy.model_copy(update={"approvals": 1, "runs": (checked.proposal.spec_digest,)}))


def test_a_word_of_before_is_that_of_one(made: Any) -> None:
    raw = made.proposal()
    made.consider(BANK, raw)
    home, run = made.home("bank"), run_of(made)
    approve(home, run, person("anna"))
    (path,) = (home.state / "approvals").glob("*.json")
    content = json.loads(path.read_text())
    del content["people"]
    path.write_text(json.dumps(content))
    assert known_runs(home)[0].people == ("",)
    approve(home, run, person("boris"))
    assert made.consider(BANK, raw).state == "pending", "nobody knows whether that was Boris"


@pytest.mark.parametrize("value", ["0", "-1", "21", "2.0", '"2"', "true"])
def test_numbers_that_are_none(tmp_path: Path, value: str) -> None:
    (tmp_path / "policy.toml").write_text(f"approvals = {value}\n")
    with pytest.raises(SpecError, match="approvals"):
        load_policy(tmp_path / "policy.toml")


def test_a_policy_for_everything_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('mode = "simulation"\nany_run = true\napprovals = 2\n')
    with pytest.raises(SpecError, match="approvals = 2 needs any_run = false"):
        load_policy(tmp_path / "policy.toml")
    assert Policy().approvals == 1
    with pytest.raises(PolicyDenied):
        Policy().check_run("d", datetime.now(UTC))


def test_a_person_is_who_logged_in_whatever_they_became(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = tmp_path / "loginuid"
    monkeypatch.setattr(people, "_LOGIN", login)
    monkeypatch.setattr(people, "_named", lambda number: f"user{number}")
    monkeypatch.setattr(os, "getuid", lambda: 7)
    monkeypatch.setenv("SUDO_UID", "1001")
    login.write_text("1000")
    assert (this_person("  Anna\n A. ").user, this_person("  Anna\n A. ").name) == ("user1000", "Anna A.")
    assert this_person().known_by == "login"
    login.write_text("4294967295")
    assert (this_person().user, this_person().known_by) == ("user1001", "sudo")
    monkeypatch.delenv("SUDO_UID")
    assert (this_person().user, this_person().known_by) == ("user7", "process")
    login.unlink()
    assert this_person().user == "user7"
    for name in ("x" * 81, "a\x1b[31m"):
        with pytest.raises(SpecError):
            this_person(name)
