"""What the people of a house decide, and that it covers exactly what they saw."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from fedcredit.errors import SpecError
from fedcredit.governance.policy import load_policy
from fedcredit.runtime.house.consent import approve, deny, find_proposal, known_runs, run_policy
from fedcredit.runtime.house.settings import DataSource
from fedcredit.runtime.house.word import word_file
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import parse_spec
from fedcredit.spec.travel import travelling_json, without
from fedcredit.types import PartyId, RunId

BANK = PartyId("bank")
FIRST, SECOND, THIRD = (RunId(two * 16) for two in ("ab", "cd", "ef"))
OTHER = {"seed": 4}


@pytest.fixture
def made(trial: Callable[..., Any]) -> Any:
    found = trial(rows=200, sections={"run": {"on_missing": "continue"}})
    for party in found.spec.parties:
        found.change_policy(party, any_run=False)
    return found


def other_spec(made: Any, **run: Any) -> str:
    content = json.loads(travelling_json(made.spec, "records"))
    content["run"].update(run or OTHER)
    return json.dumps(content)


def state(made: Any, run: RunId, party: PartyId = BANK) -> str:
    return {one.known.run: one.state for one in known_runs(made.home(party))}[run]


def test_people_are_asked_and_their_word_counts(made: Any) -> None:
    assert made.consider(BANK, made.proposal()).state == "pending"
    assert state(made, FIRST) == "pending"
    approve(made.home("bank"), FIRST[:8])
    assert state(made, FIRST) == "approved"
    assert made.consider(BANK, made.proposal()).state == "approved"
    deny(made.home("bank"), FIRST)
    decision = made.consider(BANK, made.proposal())
    assert (decision.state, decision.code) == ("denied", "consent.denied")
    assert made.refusals("bank")[-1]["code"] == "consent.denied"


def test_a_run_keeps_its_name_to_itself(made: Any) -> None:
    made.consider(BANK, made.proposal())
    seen = find_proposal(made.home("bank"), FIRST)
    swapped = made.consider(BANK, made.proposal(spec=other_spec(made)))
    assert (swapped.state, swapped.code) == ("denied", "proposal.changed")
    assert approve(made.home("bank"), FIRST) == seen == find_proposal(made.home("bank"), FIRST)
    assert made.consider(BANK, made.proposal(spec=other_spec(made))).code == "proposal.changed"


def test_a_name_keeps_its_keys_to_itself_even_where_the_proposal_was_thrown_away(made: Any) -> None:
    made.consider(BANK, made.proposal())
    approve(made.home("bank"), FIRST)
    made.consider(BANK, made.proposal())
    for file in (made.home("bank").state / "proposals").iterdir():
        file.unlink()
    made.change_policy("bank", any_run=True)
    assert made.consider(BANK, made.proposal(spec=other_spec(made))).code == "proposal.changed"


def test_beginnings_of_names(made: Any) -> None:
    home = made.home("bank")
    runs = [RunId("aaaaaaaa" + "0" * 24), RunId("aaaaaaaa" + "1" * 24)]
    made.consider(BANK, made.proposal(runs[0]))
    made.consider(BANK, made.proposal(runs[1], spec=other_spec(made)))
    for decide in (approve, deny):
        with pytest.raises(SpecError, match="several"):
            decide(home, "aaaaaaaa")
        for wanted in ("", "aaaa", "bbbbbbbb", "../x", "*"):
            with pytest.raises(SpecError, match="no such run"):
                decide(home, wanted)
    assert [state(made, run) for run in runs] == ["pending", "pending"]
    approve(home, runs[1].upper())
    assert [state(made, run) for run in runs] == ["pending", "approved"]


def test_a_run_named_like_a_digest_is_ambiguous(made: Any) -> None:
    home, digest = made.home("bank"), spec_digest(made.spec)
    made.consider(BANK, made.proposal())
    made.consider(BANK, made.proposal(RunId(digest[:32]), spec=other_spec(made)))
    with pytest.raises(SpecError, match="several"):
        approve(home, digest[:12])
    assert approve(home, digest).run == FIRST


def test_consent_is_for_the_records_that_were_named(made: Any) -> None:
    home = made.home("bank")
    more = {**home.node.data, "secret": DataSource(source=home.node.data["records"].source)}
    made.homes[BANK] = dataclasses.replace(home, settings=home.node.model_copy(update={"data": more}))
    made.consider(BANK, made.proposal())
    approve(made.home("bank"), FIRST)
    elsewhere = made.proposal(SECOND, spec=travelling_json(made.spec, "secret"))
    assert made.consider(BANK, elsewhere).state == "pending"
    with pytest.raises(SpecError, match="several"):
        approve(made.home("bank"), spec_digest(made.spec))
    made.change_policy("bank", runs=[spec_digest(made.spec)])  # a digest does not say on which records
    assert made.consider(BANK, elsewhere).state == "pending"
    made.homes[BANK] = home
    assert made.consider(BANK, made.proposal(THIRD)).state == "approved"


def smaller(made: Any, spec: str | None = None) -> str:
    full = made.spec if spec is None else parse_spec(json.loads(spec), "test")
    return travelling_json(without(full, [PartyId("customs")]), "records")


def going_on(made: Any, spec: str | None = None, run: RunId = SECOND, before: RunId = FIRST) -> bytes:
    return bytes(made.proposal(run, spec=smaller(made, spec), continues=before, missing=["customs"]))


def test_a_run_goes_on_only_from_one_that_was_wanted(made: Any) -> None:
    home = made.home("bank")
    assert made.consider(BANK, going_on(made)).state == "pending"  # nobody knows the first
    made.consider(BANK, made.proposal())
    assert made.consider(BANK, going_on(made)).state == "pending"
    approve(home, FIRST)
    assert made.consider(BANK, going_on(made)).state == "approved"
    assert state(made, SECOND) == "approved"
    deny(home, FIRST)
    decision = made.consider(BANK, going_on(made))
    assert (decision.state, decision.code) == ("denied", "consent.denied")
    assert state(made, SECOND) == "denied"


def test_a_run_does_not_go_on_as_another_one(made: Any) -> None:
    made.consider(BANK, made.proposal())
    approve(made.home("bank"), FIRST)
    made.consider(BANK, made.proposal())
    made.consider(BANK, made.proposal(spec=other_spec(made)))  # refused; must not take the first one's place
    assert made.consider(BANK, going_on(made, other_spec(made))).state == "pending"
    made.consider(BANK, made.proposal(THIRD, spec=other_spec(made)))
    assert made.consider(BANK, going_on(made, other_spec(made), RunId("12" * 16), THIRD)).state == "pending"


def test_two_runs_cannot_go_on_from_each_other(made: Any) -> None:
    made.consider(BANK, going_on(made, run=FIRST, before=SECOND))
    assert made.consider(BANK, going_on(made, run=SECOND, before=FIRST)).state == "pending"


def test_a_damaged_word_is_no_word(made: Any) -> None:
    made.consider(BANK, made.proposal())
    approve(made.home("bank"), FIRST)
    (word,) = (made.home("bank").state / "approvals").iterdir()
    whole = word.read_bytes()
    for damaged in (whole[:-5], b"", b"\xff", whole.replace(b"records", b"recordz")):
        word.write_bytes(damaged)
        decision = made.consider(BANK, made.proposal())
        assert (decision.state, decision.code) == ("denied", "consent.damaged")
        assert state(made, FIRST) == "pending"
    approve(made.home("bank"), FIRST)
    assert made.consider(BANK, made.proposal()).state == "approved"


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "x" * 5000])
def test_names_of_records_are_no_paths(made: Any, name: str) -> None:
    file = word_file(made.home("bank").state / "approvals", "0" * 64, name)
    assert file.parent == made.home("bank").state / "approvals"
    assert len(file.name) < 100


def test_the_caps_of_the_house_stay_in_force_in_a_run(made: Any) -> None:
    caps = {"equations": 20.0, "row_bits": 9.0, "bins_returned": 7.0, "ids_asked": 3000.0}
    made.change_policy(BANK, caps=caps)
    spec = made.spec.model_copy(update={"privacy": made.spec.privacy.model_copy(update={"max_equations": 30})})
    policy = load_policy(made.home("bank").policy)
    assert run_policy(policy, spec, "0" * 64).caps.model_dump() == caps
