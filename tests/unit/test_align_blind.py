"""Blind alignment between honest parties: the right rows, exactly as many decoys, an order that follows no input."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.attack.blind_rehearsal import BlindRehearsal
from fedcredit.attack.recorder import recording
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError, DataError, DisclosureRefused, FedCreditError, PolicyDenied, SpecError
from fedcredit.governance.caps import CapRules
from fedcredit.governance.ledger import Ledger
from fedcredit.kernels.uscc import ALPHABET, check_character
from fedcredit.protocol.align import blind_pieces, blind_shuffler
from fedcredit.protocol.align.blind_decoys import draw_decoys
from fedcredit.protocol.align.blind_inputs import Ring, decoys_of, spelt
from fedcredit.protocol.align.index import UNKNOWN, RowIndex
from fedcredit.protocol.align.messages import CommonRows, Places
from fedcredit.types import COORDINATOR, PartyId, RunId

BANK, TAX, WATER, GAS = (PartyId(name) for name in ("bank", "tax", "water", "gas"))
HOLDERS = (TAX, WATER, GAS)
REGISTER = [f"E{number:03d}" for number in range(120)]


def _check(rehearsal: BlindRehearsal, found: dict[PartyId, RowIndex]) -> None:
    """Everything that has to hold of the rows of honest parties."""
    common = set.intersection(*map(set, rehearsal.lists.values()))
    leader = found[BANK]
    members = leader.rows != UNKNOWN
    assert {one for one, member in zip(leader.ids, members, strict=True) if member} == common
    assert len(leader.ids) == len(set(leader.ids)) == len(common) + decoys_of(len(common), rehearsal.decoys)
    assert set(leader.ids) - common <= set(rehearsal.register) - set(rehearsal.lists[BANK])
    for party, index in found.items():
        assert index.ids == leader.ids
        own = rehearsal.lists[party]
        assert all(own[row] == one for one, row in zip(index.ids, index.rows, strict=True) if row != UNKNOWN)
        assert index.hidden == (rehearsal.decoys > 0)
        assert index.known.all() or party == BANK
        assert (index.members is not None) == (party == BANK and rehearsal.decoys > 0)
        if rehearsal.decoys and party != BANK:
            assert not index.test.any()
        else:
            assert np.array_equal(index.test, leader.test)
    assert leader.test.any()
    assert not leader.test[~members].any()
    if rehearsal.decoys:
        assert leader.members is not None
        assert np.array_equal(leader.members, members)


@given(data=st.data(), holders=st.integers(1, 3), decoys=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(max_examples=12, deadline=None)
def test_the_rows_are_those_of_all_parties(data: st.DataObject, holders: int, decoys: float) -> None:
    shared = REGISTER[:8]
    part = st.lists(st.sampled_from(REGISTER[8:60]), unique=True, max_size=30)
    lists = {BANK: data.draw(st.permutations([*shared, *data.draw(part)]))}
    for party in HOLDERS[:holders]:
        lists[party] = data.draw(st.permutations([*shared, *REGISTER[60:], *data.draw(part)]))
    rehearsal = BlindRehearsal(lists, REGISTER if decoys else (), decoys=decoys, oversample=4.0)
    _check(rehearsal, rehearsal.play())


def _lists(customers: int = 30) -> dict[PartyId, list[str]]:
    return {BANK: REGISTER[:customers], TAX: REGISTER[5:], WATER: REGISTER[:110]}


def test_lists_of_several_pieces_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"TOKENS_A_PIECE": 7, "REPLIES_A_PIECE": 7, "PLACES_A_PIECE": 9}
    for name, size in sizes.items():
        monkeypatch.setattr(blind_pieces, name, size)
    monkeypatch.setattr(blind_shuffler, "TOKENS_A_PIECE", 7)
    monkeypatch.setattr(blind_pieces, "_ENTRIES", {32: 7, 64: 7, 4: 9})
    monkeypatch.setattr(blind_pieces, "_SLICE", 3)
    rehearsal = BlindRehearsal(_lists(), REGISTER)
    network = rehearsal.network()
    _check(rehearsal, rehearsal.play(network))
    assert min(network.messages.values()) > 20


def test_the_order_follows_no_input_and_no_other_run() -> None:
    many = [f"E{number:04d}" for number in range(600)]
    secrets = {BANK: RunSecret(bytes(32)), TAX: RunSecret(b"\x01" * 32)}
    rehearsal = BlindRehearsal({BANK: many, TAX: many}, decoys=0.0, secrets=secrets)
    first, second = rehearsal.play()[BANK].rows, replace(rehearsal, run=RunId("next")).play()[BANK].rows
    assert sorted(first) == sorted(second) == list(range(600))
    for left, right in ((first, np.arange(600)), (second, np.arange(600)), (first, second)):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.17  # 4 standard deviations


def test_the_same_secrets_give_the_same_bytes() -> None:
    secrets = {party: RunSecret.fresh() for party in _lists()}
    rehearsal = BlindRehearsal(_lists(), REGISTER, secrets=secrets)
    networks = [rehearsal.network() for _ in range(2)]
    first, second = (rehearsal.play(network) for network in networks)
    assert first[TAX].ids == second[TAX].ids
    sent = [
        sorted((one.sender, one.recipient, one.sequence, one.body_sha256) for one in network.transcript)
        for network in networks
    ]
    assert sent[0] == sent[1]
    moved = replace(rehearsal, run=RunId("another"))
    network = moved.network()
    assert moved.play(network)[TAX].ids != first[TAX].ids
    kinds = {"align.tokens", "align.replies", "align.places"}
    bodies = [{one.body_sha256 for one in each.transcript if one.kind in kinds} for each in (networks[0], network)]
    assert not bodies[0] & bodies[1]


def test_decoys_stay_from_run_to_run_and_follow_the_key() -> None:
    rehearsal = BlindRehearsal(_lists(), REGISTER)
    chosen = [set(one.play()[TAX].ids) for one in (rehearsal, replace(rehearsal, run=RunId("next")))]
    assert chosen[0] == chosen[1]
    other = replace(rehearsal, decoy_key=b"\x01" * 32).play()[TAX].ids
    assert set(other) != chosen[0]
    grown = replace(rehearsal, lists={**_lists(), BANK: REGISTER[:40]}).play()[TAX].ids
    assert chosen[0] - set(REGISTER[:40]) <= set(grown)  # those of the smaller list remain


def test_decoys_are_uniform_over_keys() -> None:
    counts = dict.fromkeys(REGISTER[:40], 0)
    for number in range(400):
        for one in draw_decoys(REGISTER[:50], REGISTER[40:50], 10, hashlib.sha256(b"%d" % number).digest()):
            counts[one] += 1
    chi = sum((count - 100) ** 2 / 75 for count in counts.values())  # a binomial's variance: 400 * 1/4 * 3/4
    assert chi < 72.1  # 39 degrees of freedom: exceeded once in 1,000


def test_decoys_refuse_a_short_register_and_a_short_key() -> None:
    assert draw_decoys(["a", "b", "b", "c"], ["c"], 2, bytes(32)) in (["a", "b"], ["b", "a"])
    with pytest.raises(DataError) as caught:
        draw_decoys(["a", "b", "b", "c"], ["c"], 3, bytes(32))
    assert caught.value.code == "align.register"
    with pytest.raises(BoundError) as short:
        draw_decoys(["a"], [], 1, b"")
    assert short.value.code == "align.decoy-key"


def _stopped(rehearsal: BlindRehearsal) -> tuple[FedCreditError, dict[PartyId, list[object]], dict[PartyId, str]]:
    """The error that ended the run, what each party had received, and each party's words."""
    network = rehearsal.network()
    with recording() as notes, pytest.raises(FedCreditError) as caught:
        rehearsal.play(network)
    heard: dict[PartyId, list[object]] = {}
    for party, _, message in notes.received:
        heard.setdefault(party, []).append(message)
    return caught.value, heard, {party: str(error) for party, error in network.failures.items()}


@pytest.mark.parametrize(
    ("floor", "finder"), [(26, BANK), (60, COORDINATOR)], ids=["customers alone are below", "with decoys too"]
)
def test_below_the_floor_everyone_is_told_so_and_no_number(floor: int, finder: PartyId) -> None:
    """25 customers are common, and 80 rows with all candidates."""
    error, heard, words = _stopped(BlindRehearsal(_lists(), REGISTER, min_overlap=floor, oversample=1.0))
    assert isinstance(error, PolicyDenied)
    assert error.code == "align.below-floor"
    assert set(words) == {BANK, TAX, WATER, COORDINATOR}
    assert not any(character.isdigit() for one in words.values() for character in one)
    assert all("below the floor" in one for one in words.values())
    for party in (TAX, WATER):
        assert not any(isinstance(one, (Places, CommonRows)) for one in heard[party])
    told = [type(one).__name__ for one in heard[BANK]]
    assert ("Replies" in told) == (finder == BANK)


def test_the_floor_itself_is_enough() -> None:
    assert len(BlindRehearsal(_lists(), REGISTER, min_overlap=25).play()[BANK].ids) == 50


def test_too_few_decoys_stop_the_run_before_a_feature_holder_learns_anything() -> None:
    lists = {BANK: REGISTER[:30], TAX: REGISTER[:40], WATER: REGISTER}
    error, heard, words = _stopped(BlindRehearsal(lists, REGISTER))
    assert isinstance(error, DataError)
    assert error.code == "align.decoys"
    assert "larger register" in error.public
    for party in (TAX, WATER):
        assert not any(isinstance(one, (Places, CommonRows)) for one in heard[party])
        assert not any(character.isdigit() for character in words[party])


def test_a_run_with_decoys_needs_a_register() -> None:
    error, heard, _ = _stopped(BlindRehearsal(_lists()))
    assert error.code == "align.no-register"
    assert not heard.get(TAX) or [type(one).__name__ for one in heard[TAX]] == ["ListSize"]


def _code(number: int) -> str:
    body = "91330100" + f"{number:09d}"
    return body + check_character(body)


def test_codes_are_repaired_verified_and_left_out_where_they_are_wrong() -> None:
    codes = [_code(number) for number in range(60)]
    wrong = codes[3][:-1] + ALPHABET[(ALPHABET.index(codes[3][-1]) + 1) % 31]
    shown = {
        BANK: [codes[0].lower(), " " + codes[1], wrong, *codes[4:20]],
        TAX: [*codes[30:], codes[1].replace("1", "I"), codes[0], codes[3], *codes[4:20]],
    }
    rehearsal = BlindRehearsal(shown, codes, ids="uscc")
    found = rehearsal.play()
    members = found[BANK].members
    assert members is not None
    assert {one for one, member in zip(found[BANK].ids, members, strict=True) if member} == {
        codes[number] for number in (0, 1, *range(4, 20))
    }
    assert found[TAX].ids == found[BANK].ids
    place = found[BANK].ids.index(codes[0])
    assert found[BANK].rows[place] == 0
    assert shown[TAX][found[TAX].rows[place]] == codes[0]


def test_the_split_is_asked_of_own_ids_as_the_table_spells_them() -> None:
    codes = [_code(number) for number in range(20)]
    lists = {BANK: [code.lower() for code in codes], TAX: codes}
    held = {codes[1].lower(), codes[5].lower()}
    rehearsal = BlindRehearsal(
        lists, decoys=0.0, ids="uscc", held_out=lambda ids: np.array([one in held for one in ids], dtype=np.bool_)
    )
    index = rehearsal.play()[TAX]
    assert {one for one, test in zip(index.ids, index.test, strict=True) if test} == {codes[1], codes[5]}


def test_ids_that_stand_twice_or_are_all_wrong_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        spelt([_code(1), _code(1).lower()], "uscc", "tax")
    assert caught.value.code == "align.duplicate-id"
    with pytest.raises(DataError) as caught:
        spelt(["x", "y"], "uscc", "tax")
    assert caught.value.code == "align.no-ids"
    assert spelt(["b", "a"], "text", "tax")[0] == ["b", "a"]


def test_a_ring_has_two_different_parties_or_more() -> None:
    for parties in ((), (BANK,), (BANK, BANK)):
        with pytest.raises(SpecError) as caught:
            Ring(parties)
        assert caught.value.code == "align.parties"
    ring = Ring((BANK, TAX, WATER))
    assert (ring.step(BANK, -1), ring.step(WATER, 1), list(ring.hops)) == (WATER, BANK, [1, 2])


@pytest.mark.parametrize("counted", [0, 1, 2, 3, 1000, 105_001])
def test_decoys_are_rounded_half_up(counted: int) -> None:
    assert [decoys_of(counted, ratio) for ratio in (0.0, 1.0, 2.0)] == [0, counted, 2 * counted]
    assert decoys_of(counted, 0.5) == (counted + 1) // 2


def test_ids_asked_are_counted_for_each_counterparty_and_a_retry_is_free(tmp_path: Path) -> None:
    secrets = {party: RunSecret.fresh() for party in _lists()}
    rules = CapRules(ids_asked=300, simulation=True)
    with Ledger(tmp_path / "tax.sqlite", rules) as ledger:
        rehearsal = BlindRehearsal(_lists(), REGISTER, secrets=secrets, ledgers={TAX: ledger})
        first = rehearsal.play()
        lines = {line.counterparty: (line.ids_asked, line.ids_asked_cap) for line in ledger.report(RunId("rehearsal"))}
        assert lines == {BANK: (90, 300), WATER: (110, 300)}
        second = replace(rehearsal, run=RunId("second"))
        second.play()
        assert {line.ids_asked for line in ledger.report(RunId("second"))} == {180, 220}
        network = replace(rehearsal, run=RunId("third")).network()
        with recording() as notes, pytest.raises(DisclosureRefused, match="ids asked of the whole party for water"):
            replace(rehearsal, run=RunId("third")).play(network)
        assert "align.blinded" not in {entry.kind for entry in network.transcript if entry.sender == TAX}
        assert not [message for party, _, message in notes.sent if party == TAX and type(message).__name__ == "Tokens"]
    assert first[TAX].ids


def test_a_run_that_is_tried_again_pays_once(tmp_path: Path) -> None:
    """The third message of the tax office's answers is lost, so that its ledger stays open."""

    def lost(sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        del recipient
        return () if sender == BANK and kind == "align.rows" else (data,)

    secrets = {party: RunSecret.fresh() for party in _lists()}
    with Ledger(tmp_path / "tax.sqlite") as ledger:
        rehearsal = BlindRehearsal(_lists(), REGISTER, secrets=secrets, ledgers={TAX: ledger}, timeout_s=0.3)
        with pytest.raises(FedCreditError):
            replace(rehearsal, tamper=lost).play()
        spent = {line.counterparty: line.ids_asked for line in ledger.report(RunId("rehearsal"))}
        assert spent == {BANK: 90, WATER: 110}
        rehearsal.play()
        assert {line.counterparty: line.ids_asked for line in ledger.report(RunId("rehearsal"))} == spent
