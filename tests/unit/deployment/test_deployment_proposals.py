"""Proposals that a house must refuse: forged, stale, of another consortium, or outside what it has allowed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fedcredit.errors import PeerError
from fedcredit.runtime.runs import proposal as said
from fedcredit.runtime.runs.proposal import Proposal, check_finished, check_proposal, signed_finished
from fedcredit.runtime.session.coordinator import run_session as coordinate
from fedcredit.runtime.session.node import run_session
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import parse_spec
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.message import decode_struct, encode_struct

BANK, TAX = PartyId("bank"), PartyId("tax_office")
NOW = datetime.now(UTC)


def signed(trial: Any, content: bytes, by: str = COORDINATOR) -> bytes:
    signature = trial.home(by).identity.sign(said._PROPOSAL + content)
    return encode_struct(said._Signed(content=content, signature=signature))


def inside(raw: bytes) -> Proposal:
    return decode_struct(Proposal, decode_struct(said._Signed, raw, "signed").content, "proposal")


def forged(trial: Any, by: str = COORDINATOR, **changes: Any) -> bytes:
    """A proposal with other content, signed all the same."""
    return signed(trial, msgspec.msgpack.encode(msgspec.structs.replace(inside(trial.proposal()), **changes)), by)


def with_spec(trial: Any, change: Callable[[dict[str, Any]], None], *, honest_digest: bool = True) -> bytes:
    """A proposal of a changed spec, under its own digest where it has one."""
    content = json.loads(inside(trial.proposal()).spec)
    change(content)
    changes: dict[str, Any] = {"spec": json.dumps(content).encode()}
    if honest_digest:
        changes["spec_digest"] = spec_digest(parse_spec(content, "test"))
    return forged(trial, **changes)


def assert_refused(trial: Any, party: PartyId, raw: bytes, code: str, inside_code: str = "") -> str:
    """The house refuses by name, writes it down, and makes nothing of the run."""
    before = len(trial.refusals(party))
    decision = trial.consider(party, raw)
    assert (decision.state, decision.code) == ("denied", code), decision.text
    assert decision.approval == b""
    (line,) = trial.refusals(party)[before:]
    assert (line["event"], line["code"], line["bytes"]) == ("proposal refused", inside_code or code, len(raw))
    assert not (trial.home(party).folder / "state" / "runs" / inside_run(raw)).exists()
    return str(decision.text)


def inside_run(raw: bytes) -> str:
    try:
        return inside(raw).run
    except PeerError:
        return "none"


@pytest.fixture
def made(trial: Callable[..., Any]) -> Any:
    return trial(rows=200)


def test_an_honest_proposal_is_approved(made: Any) -> None:
    assert made.consider(BANK, made.proposal()).state == "approved"
    assert made.refusals("bank") == []


@pytest.mark.parametrize("by", ["bank", "tax_office", "operations"])
def test_proposals_of_others_than_the_coordinator(made: Any, by: str) -> None:
    assert_refused(made, BANK, forged(made, by=by), "wire.signature")


def test_no_bit_of_a_proposal_can_be_changed(made: Any) -> None:
    raw = made.proposal()
    for place in range(0, len(raw), 41):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << (place % 8)
        decision = made.consider(BANK, bytes(flipped))
        assert decision.state == "denied"
        assert decision.code in {"wire.malformed", "wire.not-canonical", "wire.signature"}
    assert made.refusals("bank")


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80", b"\x91" * 5000, b"x" * ((1 << 22) + 1)])
def test_garbage(made: Any, raw: bytes) -> None:
    decision = made.consider(BANK, raw)
    assert decision.state == "denied"
    assert decision.code in {"wire.malformed", "wire.oversize"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": "0.0.1"}, "proposal.version"),
        ({"roster_digest": "0" * 64}, "proposal.roster"),
        ({"spec_digest": "0" * 64}, "proposal.digest"),
        ({"made": (NOW - timedelta(days=31)).isoformat()}, "proposal.time"),
        ({"expires": (NOW + timedelta(days=31)).isoformat()}, "proposal.time"),
        ({"expires": "9999-12-31T23:59:59-12:00"}, "proposal.time"),
        ({"made": "0001-01-01T00:00:00+14:00"}, "proposal.time"),
        ({"made": "2026-01-01T00:00:00"}, "proposal.time"),
        ({"made": "yesterday"}, "proposal.time"),
        ({"run": "../../../../tmp/x"}, "wire.malformed"),
        ({"run": "ab" * 15 + "a\n"}, "wire.malformed"),
        ({"run": "AB" * 16}, "wire.malformed"),
        ({"run": "ab" * 16 + "\n"}, "wire.malformed"),
        ({"continues": "../proposals/x", "missing": ["customs"]}, "wire.malformed"),
        ({"continues": "\n", "missing": ["customs"]}, "wire.malformed"),
        ({"continues": "cd" * 16}, "proposal.continues"),
        ({"missing": ["customs"]}, "proposal.continues"),
        ({"missing": ["x"] * 65, "continues": "cd" * 16}, "wire.malformed"),
    ],
    ids=[f"case-{number}" for number in range(18)],
)
def test_content_that_no_proposal_has(made: Any, changes: dict[str, Any], code: str) -> None:
    assert_refused(made, BANK, forged(made, **changes), code)


def test_times(made: Any) -> None:
    old = {
        "made": (NOW - timedelta(days=30, seconds=1)).isoformat(),
        "expires": (NOW - timedelta(seconds=1)).isoformat(),
    }
    assert_refused(made, BANK, forged(made, **old), "proposal.expired")
    now = datetime.now(UTC)  # a suite may come here many minutes after this file was read
    ahead = made.proposal(made=now + timedelta(minutes=8))
    assert "set the clocks" in assert_refused(made, BANK, ahead, "proposal.clock")
    assert made.consider(BANK, made.proposal(made=now + timedelta(minutes=4))).state == "approved"


def rename(content: dict[str, Any], old: str, new: str) -> None:
    for party in content["party"]:
        if party["name"] == old:
            party["name"] = new


@pytest.mark.parametrize(
    ("new", "code"), [("ministry", "roster.unknown"), ("operations", "proposal.party"), ("coordinator", "spec.invalid")]
)
def test_parties_that_are_no_nodes_of_the_consortium(made: Any, new: str, code: str) -> None:
    honest = new != "coordinator"
    raw = with_spec(made, lambda content: rename(content, "customs", new), honest_digest=honest)
    if honest:
        assert_refused(made, BANK, raw, code)
    else:
        assert made.consider(BANK, raw).state == "denied"


def test_a_house_that_is_not_in_the_run(made: Any) -> None:
    def drop(content: dict[str, Any]) -> None:
        content["party"] = [one for one in content["party"] if one["name"] != "customs"]

    assert_refused(made, PartyId("customs"), with_spec(made, drop), "proposal.party")


def place(key: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        if key == "source":
            content["party"][0]["source"] = "/etc/passwd"
        elif key == "two":
            content["party"][0]["source"] = "data:others"
        elif key == "database":
            content["party"][0].update(source="sqlite:///x.db", query="select 1")
        elif key == "no-name":
            for party in content["party"]:
                party["source"] = "data:"
        elif key == "ledger":
            content["privacy"]["ledger_dir"] = "/var/tmp"
        elif key == "registry":
            content["align"].update(mode="registry", registry="/etc/passwd")
        elif key == "catalog":
            content["party"][0].update(catalog="/etc/passwd", as_of="2025-12-31")
        else:
            content["split"]["test_ids"] = "/etc/passwd"

    return change


@pytest.mark.parametrize("key", ["source", "two", "database", "no-name", "ledger", "test_ids", "registry", "catalog"])
def test_places_of_records_do_not_travel(made: Any, key: str) -> None:
    assert_refused(made, BANK, with_spec(made, place(key)), "spec.places")


@pytest.mark.parametrize(
    "spec",
    [
        b"{}",
        b"[]",
        b"[" * 100_000,
        b"nonsense",
        b'{"run": NaN}',
        b'{"\\ud800\\u001b[2J": 1}',
        b" " * ((1 << 20) + 1),
        b"\xff\xfe",
    ],
)
def test_specs_that_are_none(made: Any, spec: bytes) -> None:
    decision = made.consider(BANK, forged(made, spec=spec))
    assert decision.state == "denied"
    assert decision.code.startswith("spec.")
    assert made.refusals("bank")[-1]["code"] == decision.code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mode": "production", "any_run": False, "enforce": True}, "policy.mode"),
        ({"enforce": True}, "policy.enforce"),
        ({"protocols": ["align", "bin"]}, "policy.protocol"),
        ({"counterparties": ["tax_office", "coordinator"]}, "policy.counterparty"),
        ({"counterparties": ["tax_office", "customs"]}, "policy.counterparty"),
        ({"expires": NOW - timedelta(days=1)}, "policy.expiry"),
        ({"mode": "nonsense"}, "policy.invalid"),
    ],
    ids=["mode", "enforce", "protocols", "no-bank", "no-coordinator", "expires", "nonsense"],
)
def test_what_the_policy_does_not_allow(made: Any, changes: dict[str, Any], code: str) -> None:
    made.change_policy("bank", **changes)
    assert_refused(made, BANK, made.proposal(), code)


def test_without_a_policy_nothing_is_approved(made: Any) -> None:
    made.home("bank").policy.unlink()
    assert_refused(made, BANK, made.proposal(), "policy.expiry")


def test_a_policy_for_trials_says_nothing_about_production(trial: Callable[..., Any]) -> None:
    sections = {
        "run": {"mode": "production"},
        "align": {"mode": "registry", "registry": "all.csv"},
        "privacy": {"enforce": True},
    }
    made = trial(rows=200, sections=sections)
    assert_refused(made, BANK, made.proposal(), "policy.mode")


def test_the_house_knows_its_own_role_and_records(made: Any) -> None:
    home = made.home("bank")
    settings = home.node.model_copy(update={"role": Role.FEATURE_HOLDER})
    made.homes[BANK] = dataclasses.replace(home, settings=settings)
    assert_refused(made, BANK, made.proposal(), "proposal.role")
    made.homes[BANK] = home

    def others(content: dict[str, Any]) -> None:
        for party in content["party"]:
            party["source"] = "data:secret_project"

    text = assert_refused(made, BANK, with_spec(made, others), "proposal.data")
    assert "known are" not in text  # nor which records there are: the house's own log says it
    assert "records" in made.refusals("bank")[-1]["text"]


def test_what_is_wrong_with_the_records_stays_in_the_house(made: Any) -> None:
    (made.folder / "records" / "bank.csv").write_text("id,bad\nE1,7\n")
    text = assert_refused(made, BANK, made.proposal(), "data", "data.label")
    assert text == "the party's own records do not carry this run"
    assert "bank.csv" not in text
    assert made.refusals("bank")[-1]["text"] != text


def test_ends_of_others_and_of_other_runs(made: Any) -> None:
    finished = said.Finished(party="bank", run="ab" * 16, ok=True)
    roster = made.home(COORDINATOR).roster
    raw = signed_finished(made.home("bank"), finished)
    assert check_finished(raw, BANK, RunId("ab" * 16), roster) == finished
    for party, run, code in ((TAX, "ab" * 16, "wire.signature"), (BANK, "cd" * 16, "finished.other")):
        with pytest.raises(PeerError) as caught:
            check_finished(raw, party, RunId(run), roster)
        assert (caught.value.code, caught.value.culprit) == (code, party)
    lying = signed_finished(made.home("tax_office"), finished)
    with pytest.raises(PeerError, match="another run"):
        check_finished(lying, TAX, RunId("ab" * 16), roster)


def test_decisions_of_others(made: Any) -> None:
    home = made.home(COORDINATOR)
    checked = check_proposal(made.proposal(), home.roster, datetime.now(UTC))
    of_tax = encode_struct(made.consider(TAX, checked.raw))
    with pytest.raises(PeerError, match="in the name of another"):
        said.read_decision(of_tax, BANK, checked, home.roster)
    stolen = msgspec.structs.replace(made.consider(TAX, checked.raw), party="bank")
    with pytest.raises(PeerError) as caught:
        said.read_decision(encode_struct(stolen), BANK, checked, home.roster)
    assert caught.value.code == "wire.signature"


@pytest.mark.parametrize("session", [run_session, coordinate], ids=["node", "coordinator"])
def test_garbage_for_an_order(made: Any, session: Callable[..., bytes]) -> None:
    party = "bank" if session is run_session else COORDINATOR
    with pytest.raises(PeerError) as caught:
        session(made.home(party), b"\x00garbage")
    assert caught.value.code == "wire.malformed"
    assert made.refusals(party)[-1]["code"] == "wire.malformed"
