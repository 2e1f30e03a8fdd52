"""Session orders that the coordinator should not have sent, and what it can do as the relay between the parties."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from fedcredit.crypto.prg import SystemEntropy
from fedcredit.errors import IntegrityError, PeerError
from fedcredit.runtime.runs import proposal as said
from fedcredit.runtime.runs.proposal import SessionOrder, check_proposal, signed_approval
from fedcredit.runtime.session.files import public_of
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

BANK, TAX, CUSTOMS = PartyId("bank"), PartyId("tax_office"), PartyId("customs")
FIRST, SECOND = RunId("ab" * 16), RunId("cd" * 16)
ORDER = [BANK, TAX, CUSTOMS, COORDINATOR]


@pytest.fixture
def made(toy: Callable[..., Any]) -> Any:
    return toy()


def parts(order: bytes) -> SessionOrder:
    return decode_struct(SessionOrder, order, "order")


def order_of(proposal: bytes, approvals: Sequence[bytes], *, ended: bool = False) -> bytes:
    return encode_struct(SessionOrder(proposal=proposal, approvals=list(approvals), ended=ended))


def with_approval(order: bytes, party: PartyId, approval: bytes) -> bytes:
    changed = list(parts(order).approvals)
    changed[ORDER.index(party)] = approval
    return order_of(parts(order).proposal, changed)


def approval_by(made: Any, signer: str, proposal: bytes, **changes: Any) -> bytes:
    """An approval with whatever content, signed by whom ever."""
    home = made.home(signer)
    checked = check_proposal(proposal, home.roster, datetime.now(UTC))
    plain = decode_struct(said._Signed, signed_approval(home, checked, bytes(range(32)), ""), "approval").content
    content = encode_struct(msgspec.structs.replace(decode_struct(said.Approval, plain, "approval"), **changes))
    return encode_struct(said._Signed(content=content, signature=home.identity.sign(said._APPROVAL + content)))


def assert_refused(made: Any, order: bytes, code: str, kind: type[Exception] = PeerError) -> None:
    with pytest.raises(kind) as caught:
        made.play(BANK, order)
    assert caught.value.code == code  # type: ignore[attr-defined]
    line = made.refusals("bank")[-1]
    assert (line["event"], line["code"], line["bytes"]) == ("session refused", code, len(order))
    assert not list((made.home("bank").state / "runs").glob("*/attempt"))


def test_approvals_have_to_be_everyones_of_this_very_proposal(made: Any) -> None:
    proposal = made.proposal()
    order = made.order(proposal)
    mine = parts(order).approvals
    elsewhere = parts(made.order(made.proposal(SECOND))).approvals
    later = parts(made.order(made.proposal(made=datetime(2026, 11, 1, tzinfo=UTC)))).approvals
    for wrong, code in (
        ([mine[0], elsewhere[1], *mine[2:]], "approval.other"),
        ([mine[0], later[1], *mine[2:]], "approval.other"),
        ([mine[0], mine[2], mine[1], mine[3]], "wire.signature"),
        (list(reversed(mine)), "wire.signature"),
        ([mine[0], mine[0], *mine[2:]], "wire.signature"),
        (mine[:3], "order.approvals"),
        ([*mine, mine[0]], "order.approvals"),
        ([], "order.approvals"),
        ([mine[0], b"", *mine[2:]], "wire.malformed"),
        ([mine[0], mine[1][:-1] + bytes([mine[1][-1] ^ 1]), *mine[2:]], "wire.signature"),
    ):
        assert_refused(made, order_of(proposal, wrong), code)


@pytest.mark.parametrize("signer", [COORDINATOR, "customs"])
def test_nobody_approves_for_another(made: Any, signer: str) -> None:
    proposal = made.proposal()
    order = made.order(proposal)
    forged = approval_by(made, signer, proposal, party="tax_office")
    assert_refused(made, with_approval(order, TAX, forged), "wire.signature")
    own = approval_by(made, "tax_office", proposal, party="customs")
    assert_refused(made, with_approval(order, TAX, own), "approval.other")


def test_an_order_of_keys_this_house_does_not_have(made: Any) -> None:
    order = made.order(made.proposal())
    stranger = approval_by(made, "bank", parts(order).proposal, ephemeral=public_of(SystemEntropy().take(32)))
    assert_refused(made, with_approval(order, BANK, stranger), "order.approval", IntegrityError)
    unknown = made.proposal(SECOND)
    approvals = [approval_by(made, one, unknown) for one in ORDER]
    assert_refused(made, order_of(unknown, approvals), "order.approval", IntegrityError)
    assert not (made.home("bank").state / "runs" / SECOND).exists()


def test_an_honest_order_ends_well_and_is_told_again(made: Any) -> None:
    proposal = made.proposal()
    order = made.order(proposal)
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), ended
    for party in ORDER:
        assert made.play(party, order) == ended[party]
        assert made.play(party, order_of(proposal, parts(order).approvals, ended=True)) == ended[party]
        assert not list((made.homes[party].state / "runs").iterdir())
    again = parts(
        made.order(proposal)
    ).approvals  # a driver that comes back gets the same keys, and nothing is made anew
    assert again == parts(order).approvals
    assert all(not list((made.homes[party].state / "runs").iterdir()) for party in ORDER)
    swapped = made.consider(BANK, made.proposal(spec=spec_of_another_run(made)))
    assert (swapped.state, swapped.code) == ("denied", "proposal.changed")


def spec_of_another_run(made: Any) -> str:
    return msgspec.json.encode(
        {**(found := msgspec.json.decode(parts_of_spec(made))), "run": {**found["run"], "seed": 9}}
    ).decode()


def parts_of_spec(made: Any) -> bytes:
    content = decode_struct(said._Signed, made.proposal(), "signed").content
    return decode_struct(said.Proposal, content, "proposal").spec


def test_that_the_others_have_ended_is_no_result(made: Any) -> None:
    proposal = made.proposal()
    order = made.order(proposal)
    lie = order_of(proposal, parts(order).approvals, ended=True)
    ended = made.play_all(lie)
    assert {(one.ok, one.code) for one in ended.values()} == {(False, "run.ended")}
    assert made.refusals("bank")[-1]["event"] == "session failed"
    assert all(one.ok for one in made.play_all(order).values())


def test_a_key_that_agrees_on_nothing(made: Any) -> None:
    order = made.order(made.proposal())
    zeros = approval_by(made, "tax_office", parts(order).proposal, ephemeral=bytes(32))
    finished = made.play(BANK, with_approval(order, TAX, zeros))
    assert (finished.ok, finished.code) == (False, "sealed.low-order")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"ephemeral": public_of(b"\x07" * 32)}, {"records": "0" * 64}], ids=["key", "said"]
)
@pytest.mark.parametrize("liar", ["tax_office", COORDINATOR])
def test_two_faces_of_one_party(made: Any, liar: str, changes: dict[str, Any]) -> None:
    """A party that signs twice, and a coordinator who shows one face to the bank and the other to the rest."""
    order = made.order(made.proposal())
    honest = decode_struct(said._Signed, parts(order).approvals[ORDER.index(PartyId(liar))], "approval").content
    face = msgspec.structs.replace(decode_struct(said.Approval, honest, "approval"), **changes)
    content = encode_struct(face)
    signature = made.home(liar).identity.sign(said._APPROVAL + content)
    second = encode_struct(said._Signed(content=content, signature=signature))
    for_bank = with_approval(order, PartyId(liar), second)
    ended = play_apart(made, {party: for_bank if party == BANK else order for party in ORDER})
    assert {one.ok for one in ended.values()} == {False}
    assert "sealed.forged" in {one.code for one in ended.values()}
    assert not any((made.homes[party].runs / FIRST).exists() for party in ORDER)


def play_apart(made: Any, orders: dict[PartyId, bytes]) -> dict[PartyId, Any]:
    """As `play_all`, but the coordinator hands out what it likes."""
    play = made.play
    made.play = lambda party, _: play(party, orders[party])
    try:
        return dict(made.play_all(b""))
    finally:
        made.play = play


def test_what_the_relay_repeats_is_dropped(made: Any) -> None:
    made.hub.relay = lambda frame: [frame, frame]
    assert all(one.ok for one in made.play_all(made.order(made.proposal())).values())


def test_what_the_relay_kept_of_an_earlier_attempt_is_dropped(made: Any) -> None:
    kept: list[Any] = []

    def relay(frame: Any) -> list[Any]:
        old = [one for one in kept if one.attempt < frame.attempt and one.recipient == frame.recipient]
        kept.append(frame)
        return [*old, frame, *old]

    made.hub.relay = relay
    made.hub.kill_at[TAX] = 2
    ended = made.play_all(made.order(made.proposal()))
    assert all(one.ok for one in ended.values()), ended
    assert {one.attempts for one in ended.values()} == {2}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda one: {"attempt": one.attempt + 1}, "sealed.forged"),
        (lambda one: {"attempt": one.attempt + (1 << 40)}, "sealed.forged"),
        (lambda one: {"sequence": one.sequence + 1}, "sealed.forged"),
        (lambda _: {"sender": CUSTOMS}, "sealed.forged"),
        (lambda _: {"recipient": CUSTOMS}, "sealed.forged"),
        (lambda one: {"sealed": one.sealed[:-1] + bytes([one.sealed[-1] ^ 1])}, "sealed.forged"),
        (lambda one: {"body": one.body + b"x"}, "wire.malformed"),
        (lambda one: {"body": b""}, "wire.malformed"),
        (lambda one: {"body": one.body[::-1]}, "wire.signature"),
    ],
    ids=["attempt", "far", "sequence", "sender", "recipient", "bit", "longer", "empty", "other"],
)
def test_what_the_relay_changes_is_seen(made: Any, change: Callable[[Any], dict[str, Any]], code: str) -> None:
    done: list[Any] = []

    def relay(frame: Any) -> list[Any]:
        if (frame.sender, frame.recipient, frame.sequence) == (BANK, TAX, 1) and not done:
            done.append(frame)
            return [dataclasses.replace(frame, **change(frame))]
        return [frame]

    made.hub.relay = relay
    ended = made.play_all(made.order(made.proposal()))
    assert {one.ok for one in ended.values()} == {False}
    found = {one.code for one in ended.values()} - {"run.peer-failed", "run.timeout"}
    assert found == {code}
    assert not list(made.folder.glob("homes/*/runs/*"))
    made.hub.relay = lambda frame: [frame]
    assert all(one.ok for one in made.play_all(made.order(made.proposal(made=datetime.now(UTC)))).values())


def test_what_the_relay_puts_out_of_order_is_seen(made: Any) -> None:
    held: list[Any] = []

    def relay(frame: Any) -> list[Any]:
        if (frame.sender, frame.recipient) == (BANK, TAX):
            held.append(frame)
            return list(reversed(held)) if len(held) == 2 else [frame] * (len(held) > 2)
        return [frame]

    made.hub.relay = relay
    ended = made.play_all(made.order(made.proposal()))
    assert (ended[TAX].code, ended[TAX].culprit) == ("sealed.order", "bank")


def test_what_the_relay_holds_back_ends_in_the_time_out(made: Any) -> None:
    made.hub.relay = lambda frame: [] if (frame.sender, frame.recipient) == (BANK, TAX) else [frame]
    ended = made.play_all(made.order(made.proposal()))
    assert {one.ok for one in ended.values()} == {False}
    assert {one.code for one in ended.values()} <= {"run.timeout", "run.peer-failed"}


def test_the_relay_reads_nothing(made: Any) -> None:
    made.play_all(made.order(made.proposal()))
    assert len(made.hub.seen) >= 3 * len(ORDER) * (len(ORDER) - 1)
    for frame in made.hub.seen:
        assert not any(word.encode() in frame.sealed for word in (FIRST, "run.begin", "bank", "tax_office"))
    assert len({frame.sealed for frame in made.hub.seen}) == len(made.hub.seen)
