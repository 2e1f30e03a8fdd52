"""Visits and rounds over a stub protocol: the same bytes again, who stays away is named, a driver that dies goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedcredit.errors import FedCreditError, IntegrityError, PeerError, TransportError
from fedcredit.runtime.rounds.bank import Letter, VisitAnswer, VisitQuestion
from fedcredit.runtime.rounds.driver import FileSteps, RoundLimits, Taken
from fedcredit.types import PartyId
from fedcredit.wire.message import decode_struct, encode_struct

if TYPE_CHECKING:
    from tests.e2e.rounds import rounds_stub as stub
else:
    sys.path.append(str(Path(__file__).parents[1] / "e2e" / "rounds"))
    import rounds_stub as stub

QUICK = RoundLimits(round_s=0.3, again_s=0.05)
FIRST = encode_struct(VisitQuestion(run=stub.RUN, number=1, letters=[]))


def test_rounds_add_what_plain_adding_adds(tmp_path: Path) -> None:
    town, taken = stub.Town(tmp_path, 5, 4), list[Taken]()
    with town.driver(town.at_once) as (driver, relay):
        asyncio.run(driver.through(listen=taken.append))
    assert relay.totals == stub.expected(range(1, 6), 4)
    assert driver.done == set(town.banks)
    assert [one.number for one in taken] == [1, 2, 3, 4, 5]
    assert not driver.lost
    lines = [json.loads(one) for one in (tmp_path / "audit" / "bank_01.jsonl").read_text().splitlines()]
    assert [one["event"] for one in lines][:3] == ["stage", "sent", "stage"]
    assert [one["sequence"] for one in lines if one["event"] == "sent"] == [0, 1, 2, 3], "links go on over visits"


def test_the_same_question_gives_the_same_bytes(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 3, 2)
    answer = town.visit(town.banks[0], FIRST)
    assert town.visit(town.banks[0], FIRST) == answer
    assert decode_struct(VisitAnswer, answer, "answer").number == 1
    lines = (tmp_path / "audit" / "bank_01.jsonl").read_text().splitlines()
    assert len([one for one in lines if '"sent"' in one]) == 1, "nothing left twice"


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (VisitQuestion(run=stub.RUN, number=3, letters=[]), "visit.number"),
        (VisitQuestion(run="cd" * 16, number=2, letters=[]), "visit.run"),
        (VisitQuestion(run=stub.RUN, number=1, letters=[Letter(kind="stub.total", data=b"x")]), "visit.changed"),
        (VisitQuestion(run=stub.RUN, number=2, letters=[Letter(kind="stub.none", data=b"x")]), "visit.kind"),
        (VisitQuestion(run=stub.RUN, number=2, letters=[Letter(kind="stub.total", data=b"x")]), "wire."),
    ],
)
def test_what_is_out_of_turn_or_forged_is_refused(tmp_path: Path, question: VisitQuestion, code: str) -> None:
    town = stub.Town(tmp_path, 3, 2)
    first = town.visit(town.banks[0], FIRST)
    with pytest.raises(PeerError) as error:
        town.visit(town.banks[0], encode_struct(question))
    assert error.value.code.startswith(code)
    assert town.visit(town.banks[0], FIRST) == first, "a refused visit changes nothing"


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 3, 2)
    town.visit(town.banks[0], FIRST)
    place = tmp_path / "checkpoints" / town.banks[0]
    place.write_bytes(place.read_bytes()[:-1] + b"\xff")
    with pytest.raises(IntegrityError):
        town.visit(town.banks[0], FIRST)


def test_a_bank_that_stays_away_is_named_and_left_out(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 5, 3)

    async def visit(party: PartyId, question: bytes) -> bytes:
        if party == "bank_02" and decode_struct(VisitQuestion, question, "q").number == 2:
            await asyncio.sleep(5)
        if party == "bank_04" and decode_struct(VisitQuestion, question, "q").number == 3:
            raise TransportError("node.unavailable", "its node is not connected")
        return town.visit(party, question)

    with town.driver(visit, QUICK) as (driver, _):
        asyncio.run(driver.through())
    late, gone = driver.lost
    assert (late.party, late.step, late.code) == ("bank_02", 2, "rounds.late")
    assert str(gone) == (
        "bank_04: no answer within 0.3 s; last: its node is not connected [node.unavailable] [rounds.late]"
    )
    assert driver.done == {"bank_01", "bank_03", "bank_05"}


def test_a_bank_that_comes_back_in_time_is_not_lost(tmp_path: Path) -> None:
    town, tries = stub.Town(tmp_path, 3, 2), list[PartyId]()

    async def visit(party: PartyId, question: bytes) -> bytes:
        answer = town.visit(party, question)  # the bank has answered; the line lost it
        if party == "bank_02" and tries.count(party) < 2:
            tries.append(party)
            raise TransportError("node.late", "its node did not answer in time")
        return answer

    with town.driver(visit, RoundLimits(round_s=5, again_s=0.01)) as (driver, relay):
        asyncio.run(driver.through())
    assert not driver.lost
    assert relay.totals == stub.expected(range(1, 4), 2)


def test_below_the_floor_the_error_names_who_is_missing(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 4, 3)
    (tmp_path / "bank_02.broken").touch()
    (tmp_path / "bank_03.killed").touch()
    with town.driver(town.at_once, QUICK) as (driver, _), pytest.raises(FedCreditError) as error:
        asyncio.run(driver.through())
    assert error.value.code == "secure_sum.floor"
    assert "bank_02: the party's own records do not carry this run [data]" in error.value.public
    assert "bank_03: no answer within 0.3 s" in error.value.public


def test_an_answer_that_does_not_verify_is_its_banks_loss(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 4, 2)

    async def visit(party: PartyId, question: bytes) -> bytes:
        raw = town.visit(party, question)
        if party == "bank_01":
            answer = decode_struct(VisitAnswer, raw, "a")
            forged = [Letter(kind=one.kind, data=one.data[:-1] + bytes([one.data[-1] ^ 1])) for one in answer.letters]
            raw = encode_struct(VisitAnswer(party=party, number=answer.number, letters=forged, finished=False))
        return raw

    with town.driver(visit) as (driver, relay):
        asyncio.run(driver.through())
    assert [one.party for one in driver.lost] == ["bank_01"]
    assert relay.totals == stub.expected(range(2, 5), 2)


def test_a_driver_that_died_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    town, asked = stub.Town(tmp_path, 3, 4), list[tuple[PartyId, bytes]]()

    async def visit(party: PartyId, question: bytes) -> bytes:
        if len(asked) == 8:
            raise RuntimeError("the process dies")
        asked.append((party, question))
        return town.visit(party, question)

    with town.driver(visit) as (driver, _), pytest.raises(RuntimeError):
        asyncio.run(driver.through(FileSteps(tmp_path / "steps")))
    assert len(list((tmp_path / "steps").iterdir())) == 2
    again = list[tuple[PartyId, bytes]]()

    async def visit_again(party: PartyId, question: bytes) -> bytes:
        again.append((party, question))
        return town.visit(party, question)

    with town.driver(visit_again) as (driver, relay):
        asyncio.run(driver.through(FileSteps(tmp_path / "steps")))
    assert relay.totals == stub.expected(range(1, 4), 4)
    assert again[:2] == asked[6:8], "the third step is asked again byte by byte"
