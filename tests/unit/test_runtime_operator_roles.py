"""Operators act on their own runs; an admin of the signed roster on all; whoever is refused is named and recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from fedcredit.errors import SpecError
from fedcredit.runtime.house.roster import Member, MemberKind, parse_roster
from fedcredit.runtime.runs.operator_api import Answer, FetchRequest, OperatorApi, RunRequest
from fedcredit.runtime.runs.operator_roles import OPERATOR_EVENT, SUBMITTED_TEXT, owner_of
from fedcredit.runtime.runs.registry import Registry, RunState
from fedcredit.types import PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

if TYPE_CHECKING:
    from tests.unit import renewal_town as towns
else:
    sys.path.insert(0, str(Path(__file__).parent))
    import renewal_town as towns

LOG: Any = structlog.wrap_logger(structlog.testing.CapturingLogger())
SPEC = '{"party": [{"name": "bank"}]}'


@pytest.fixture
def town(tmp_path: Path) -> towns.Town:
    return towns.Town(tmp_path).begin()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Registry]:
    one = Registry(tmp_path / "registry.sqlite")
    yield one
    one.close()


def submitted(book: Registry, by: str, continues: str = "") -> RunId:
    run = book.submit(SPEC, "r", "d" * 64, "scorecard", "loans", continues=continues)
    if by:
        book.event(run, by, OPERATOR_EVENT, SUBMITTED_TEXT)
    return run


def asked(api: OperatorApi, name: str, caller: Member, run: str) -> Answer:
    request = FetchRequest(run=run) if name == "Fetch" else RunRequest(run=run)
    return decode_struct(Answer, api.answer(name, caller, encode_struct(request)), "an answer")


@pytest.mark.parametrize("name", ["Stop", "Resume", "Fetch"])
def test_an_operator_acts_on_its_own_runs(town: towns.Town, book: Registry, name: str) -> None:
    roster = town.opened("coordinator").roster
    api, ops = OperatorApi(book, roster, LOG), roster.member("ops")
    other = replace(ops, name=PartyId("olga"))
    run = submitted(book, "ops")
    if name == "Resume":
        book.stop(run)
    before = book.get(run)
    answer = asked(api, name, other, run)
    assert (answer.kind, answer.code) == ("PolicyDenied", "operator.role")
    assert f"submitted by ops; olga may {name.lower()} its own runs" in answer.text
    assert (book.get(run).state, book.get(run).detail) == (before.state, before.detail)
    (noted,) = [one for one in book.events(run) if one.event == "refused"]
    assert (noted.party, noted.text) == ("olga", f"olga may not {name.lower()} it: submitted by ops")
    assert asked(api, name, ops, run).code == ""
    after = {"Stop": RunState.STOPPED, "Resume": RunState.SUBMITTED, "Fetch": before.state}
    assert book.get(run).state is after[name]


@pytest.mark.parametrize("name", ["Stop", "Resume", "Fetch"])
def test_an_admin_acts_on_all(town: towns.Town, book: Registry, name: str) -> None:
    roster = town.opened("coordinator").roster
    api, admin = OperatorApi(book, roster, LOG), replace(roster.member("ops"), name=PartyId("olga"), admin=True)
    for by in ("ops", ""):
        run = submitted(book, by)
        if name == "Resume":
            book.stop(run)
        assert asked(api, name, admin, run).code == ""


def test_everybody_looks(town: towns.Town, book: Registry) -> None:
    roster = town.opened("coordinator").roster
    api, other = OperatorApi(book, roster, LOG), replace(roster.member("ops"), name=PartyId("olga"))
    assert asked(api, "Get", other, submitted(book, "ops")).code == ""


def test_whose_run_goes_on_keeps_its_owner(book: Registry) -> None:
    first = submitted(book, "ops")
    second = submitted(book, "", continues=first)
    assert owner_of(book, submitted(book, "", continues=second)) == "ops"
    assert owner_of(book, submitted(book, "")) == ""
    claimed = submitted(book, "")
    book.event(claimed, "olga", OPERATOR_EVENT, "resumed it")
    assert owner_of(book, claimed) == "", "who resumed it did not submit it"


def test_a_role_is_in_the_signed_roster_and_can_be_taken_away(town: towns.Town) -> None:
    plain = (town.home("ops") / "roster.json").read_bytes()
    assert b"admin" not in plain, "rosters without roles are as they were"
    town.provision(ops={"admin": True})
    town.pin("ops", "coordinator")
    home = town.opened("coordinator")
    assert (home.roster.version, home.roster.member("ops").admin) == (2, True)
    assert [one.name for one in home.roster.members.values() if one.admin] == ["ops"]
    data = (town.home("coordinator") / "roster.json").read_bytes()
    with pytest.raises(Exception, match="changed after it was signed"):
        parse_roster(data.replace(b'"admin":true,', b""), None, "roster")
    town.provision(ops={"admin": True})
    assert town.opened("coordinator").roster.version == 2
    town.pin("ops")
    assert town.opened("ops").roster.version == 2, "the same input changes nothing"
    town.provision()
    town.pin("coordinator")
    assert (town.opened("coordinator").roster.version, town.opened("coordinator").roster.member("ops").admin) == (
        3,
        False,
    )


def test_only_operators_have_roles(town: towns.Town) -> None:
    with pytest.raises(Exception, match="admin is for operators"):
        town.spec(bank={"admin": True})
    bank = town.opened("bank").member
    assert bank.kind is MemberKind.NODE
    with pytest.raises(SpecError, match="operators alone can be admin"):
        replace(bank, admin=True)
