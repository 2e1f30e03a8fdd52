"""What each role of a blind alignment really receives is what the page names: no field more, no field less."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedcredit.protocol.align
from fedcredit.attack.blind_rehearsal import BlindRehearsal
from fedcredit.attack.recorder import Recording, recording
from fedcredit.protocol.align.messages import CommonRows
from fedcredit.types import COORDINATOR, PartyId, Role
from fedcredit.wire.leakage import parse_leakage
from fedcredit.wire.message import kind_of

BANK, TAX, WATER = (PartyId(name) for name in ("bank", "tax", "water"))
ROLES = {
    BANK: Role.LABEL_HOLDER,
    TAX: Role.FEATURE_HOLDER,
    WATER: Role.FEATURE_HOLDER,
    COORDINATOR: Role.COORDINATOR,
}
OTHER_MODES = {"align.ids", "align.index", "align.register"}
REGISTER = [f"E{number:03d}" for number in range(80)]

LISTS = {
    "align.size": {"entries"},
    "align.tokens": {"owner", "first", "tokens"},
    "align.blinded": {"owner", "entries"},
    "align.places": {"owner", "first", "places"},
}
HEARD = {
    Role.LABEL_HOLDER: {**LISTS, "align.replies": {"first", "pairs"}},
    Role.FEATURE_HOLDER: {
        **LISTS,
        "align.replies": {"first", "pairs"},
        "align.rows": {"rows", "counted", "test_rows"},
    },
    Role.COORDINATOR: {**LISTS, "align.reply_key": {"public", "seed"}},
}
"""All that a role hears in a blind alignment; a field more is a question to the owner."""


@pytest.fixture(scope="module", params=[1.0, 0.0], ids=["with decoys", "without"])
def notes(request: pytest.FixtureRequest) -> Recording:
    lists = {BANK: REGISTER[:20], TAX: REGISTER[5:], WATER: REGISTER[:70]}
    rehearsal = BlindRehearsal(lists, REGISTER if request.param else (), decoys=request.param)
    with recording() as found:
        rehearsal.play()
    return found


def test_received_is_what_the_page_names(notes: Recording) -> None:
    page = Path(fedcredit.protocol.align.__file__).parent / "LEAKAGE.md"
    named = {(row.receiver, row.message, row.field) for row in parse_leakage(page.read_text(encoding="utf-8"))}
    heard = {
        (ROLES[party], kind_of(message), name)
        for party, _, message in notes.received
        for name in message.__struct_fields__
    }
    assert heard == {one for one in named if one[1] not in OTHER_MODES}


@pytest.mark.parametrize("role", list(HEARD))
def test_a_role_hears_no_more_than_this(notes: Recording, role: Role) -> None:
    heard: dict[str, set[str]] = {}
    for party, _, message in notes.received:
        if ROLES[party] is role:
            heard.setdefault(kind_of(message), set()).update(message.__struct_fields__)
    assert heard == HEARD[role]


def test_with_decoys_no_holder_hears_of_a_split(notes: Recording) -> None:
    told = {
        (message.rows, message.counted, len(message.test_rows))
        for _, _, message in notes.received
        if isinstance(message, CommonRows)
    }
    assert told in ({(30, 15, 0)}, {(15, 15, 2)})


def test_the_coordinator_hears_no_name_and_the_same_of_everyone(notes: Recording) -> None:
    from_all = [(sender, kind_of(message)) for party, sender, message in notes.received if party == COORDINATOR]
    assert sorted(from_all) == [
        (BANK, "align.blinded"),
        (BANK, "align.reply_key"),
        (BANK, "align.size"),
        (BANK, "align.tokens"),
        (TAX, "align.blinded"),
        (TAX, "align.size"),
        (TAX, "align.tokens"),
        (WATER, "align.blinded"),
        (WATER, "align.places"),
        (WATER, "align.size"),
        (WATER, "align.tokens"),
    ]
