"""A party that starts again sends the same bytes for the same content, and other content never under one secret."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.packing import Field, pack
from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError, FedCreditError, IntegrityError
from fedcredit.protocol.group_sum.answerer import price_each
from fedcredit.protocol.group_sum.replay import rebuild_request, vector_seeds
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets, Session, grouping_secrets, vector_seed
from fedcredit.runtime.escrow import FileEscrow, read_escrow
from fedcredit.runtime.kept import KeptFiles
from fedcredit.types import PartyId

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
FREE = price_each([])
SECRET = RunSecret(bytes(range(32)))
Keeping = Callable[..., KeptSecrets]


def asking(columns: Any) -> Any:
    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(columns, keep)

    return ask


async def answering(answerer: Any, _party: PartyId) -> None:
    await answerer.answer(FREE)


def bodies(network: Any) -> list[tuple[str, str, str, str]]:
    return sorted((one.sender, one.recipient, one.kind, one.body_sha256) for one in network.transcript)


def conversation(run: str = "run", nonce: int = 1, rows: int = 60, purpose: str = "talk") -> Conversation:
    nonces = {BANK: bytes(32), TAX: bytes([nonce]) * 32}
    return Conversation(Session(run, "rlwe-8192", nonces), purpose, ((Field(100),) * 2,), rows)


def test_the_same_secrets_and_content_give_the_same_bytes_throughout(scene: Any) -> None:
    played = scene(batches=((Field(100),) * 5,))
    columns = played.columns(5)
    first, second = (bodies(scene(batches=played.batches).play(asking(columns), answering)[1]) for _ in range(2))
    assert first == second


def test_another_vector_changes_its_request_and_nothing_before_it(scene: Any) -> None:
    played = scene()
    runs = [bodies(scene().play(asking(played.columns(1, seed)), answering)[1]) for seed in (0, 1)]
    differing = {one[2] for one, two in zip(*runs, strict=True) if one != two}
    assert differing == {"group_sum.request", "group_sum.answer"}


def test_a_seed_belongs_to_one_vector_one_place_and_one_reference_string() -> None:
    vector = np.arange(60)
    others = [
        vector_seed(SECRET, conversation(), 0, vector),
        vector_seed(SECRET, conversation(), 1, vector),
        vector_seed(SECRET, conversation(), 0, vector + (np.arange(60) == 7)),
        vector_seed(SECRET, conversation(run="other"), 0, vector),
        vector_seed(SECRET, conversation(nonce=2), 0, vector),
        vector_seed(SECRET, conversation(purpose="else"), 0, vector),
        vector_seed(RunSecret(bytes(32)), conversation(), 0, vector),
    ]
    assert len(set(others)) == len(others)
    assert {len(one) for one in others} == {SEED_BYTES}
    assert vector_seed(SECRET, conversation(), 0, vector.copy()) == others[0]
    bits = np.unpackbits(np.frombuffer(b"".join(others), np.uint8).reshape(len(others), -1), axis=1)
    for one, two in itertools.combinations(bits, 2):
        assert 80 < np.count_nonzero(one != two) < 176  # of 256: six deviations


def test_blinding_belongs_to_every_cell_of_one_grouping() -> None:
    codes = (np.arange(60) % 3).astype(np.int32)[:, None]
    moved = codes.copy()
    moved[59] = 0
    weights = np.ones((60, 1), np.int32)
    groupings = [
        Grouping(codes, (3,)),
        Grouping(moved, (3,)),
        Grouping(codes, (4,)),
        Grouping(codes, (3,), weights),
        Grouping(codes, (3,), weights * 2, 2),
        Grouping(codes, (3,), weights, 2),
    ]
    drawn = [grouping_secrets(SECRET, conversation(), one) for one in groupings]
    drawn += [grouping_secrets(SECRET, conversation(nonce=2), groupings[0])]
    assert len({salt for salt, _ in drawn}) == len(drawn)
    assert len({entropy.take(32) for _, entropy in drawn}) == len(drawn)
    salt, entropy = grouping_secrets(SECRET, conversation(), Grouping(codes.copy(), (3,)))
    assert salt == drawn[0][0]
    assert entropy.take(64)[32:] == drawn[0][1].take(32)


def _house(folder: Path, base: Any, keeping: Keeping) -> Any:
    """The scene's parties with their own escrows on disk; opened again by every call."""
    escrows = {party: FileEscrow(folder / f"{party}.jsonl") for party in base.keeps}
    keeps = {party: keeping(number, escrows[party]) for number, party in enumerate(base.keeps)}
    return replace(base, keeps=keeps), escrows


def _close(escrows: Any) -> None:
    for escrow in escrows.values():
        escrow.close()


def test_after_a_restart_the_same_content_is_sent_again_bit_for_bit(
    scene: Any, keeping: Keeping, tmp_path: Path
) -> None:
    seen = []
    for _ in range(2):
        played, escrows = _house(tmp_path, scene(), keeping)
        seen.append(bodies(played.play(asking(played.columns(1)), answering)[1]))
        _close(escrows)
    assert seen[0] == seen[1]


def test_after_a_restart_another_vector_is_neither_asked_nor_answered_under_the_same_number(
    scene: Any, keeping: Keeping, tmp_path: Path
) -> None:
    played, escrows = _house(tmp_path, scene(), keeping)
    played.play(asking(played.columns(1)), answering)
    _close(escrows)
    played, escrows = _house(tmp_path, scene(), keeping)
    with pytest.raises(IntegrityError, match="asked talk/0: bound to other content"):
        played.play(asking(played.columns(1, seed=1)), answering)
    _close(escrows)
    (tmp_path / "bank.jsonl").unlink()  # a bank that forgets, or says it does
    played, escrows = _house(tmp_path, scene(), keeping)
    with pytest.raises(IntegrityError, match="answered talk/0: bound to other content"):
        played.play(asking(played.columns(1, seed=1)), answering)
    _close(escrows)


@pytest.mark.parametrize("again", [{"offsets": [np.ones(7, np.int64)]}, {"withheld": np.ones(7, np.bool_)}])
def test_the_same_request_is_not_answered_again_with_other_noise_or_withheld_outputs(
    scene: Any, keeping: Keeping, tmp_path: Path, again: Any
) -> None:
    fields = ((Field(100, 5),),)
    played, escrows = _house(tmp_path, scene(batches=fields), keeping)
    played.play(asking(played.columns(1)), answering)
    _close(escrows)
    played, escrows = _house(tmp_path, scene(batches=fields), keeping)

    async def differently(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE, **again)

    with pytest.raises(IntegrityError, match="answered-with talk/0"):
        played.play(asking(played.columns(1)), differently)
    _close(escrows)


def test_a_party_that_comes_back_with_another_nonce_is_refused(scene: Any, keeping: Keeping, tmp_path: Path) -> None:
    """It knows the others' nonces by now: it could choose the reference string among many."""
    played, escrows = _house(tmp_path, scene(), keeping)
    played.play(asking(played.columns(1)), answering)
    _close(escrows)
    played, escrows = _house(tmp_path, scene(), keeping)
    played = replace(played, keeps={**played.keeps, BANK: keeping(77)})
    with pytest.raises(IntegrityError, match="nonce run/bank: bound to other content"):
        played.play(asking(played.columns(1)), answering)
    _close(escrows)


def test_another_grouping_under_the_same_conversation_is_refused(
    scene: Any, keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played, escrows = _house(tmp_path, scene(), keeping)
    played.play(asking(played.columns(1)), answering)
    _close(escrows)
    played, escrows = _house(tmp_path, scene(), keeping)
    codes = type(played).codes
    monkeypatch.setattr(type(played), "codes", lambda self, party: np.roll(codes(self, party), 1, axis=0))
    with pytest.raises(IntegrityError, match="grouping talk: bound to other content"):
        played.play(asking(played.columns(1)), answering)
    _close(escrows)


@pytest.mark.parametrize("profile", ["rlwe-8192", "unsafe-plaintext"])
def test_an_auditor_rebuilds_the_bytes_of_a_request_from_what_the_bank_kept(
    scene: Any, keeping: Keeping, tmp_path: Path, profile: str
) -> None:
    fields = (Field(1 << 18),) * 4
    played, escrows = _house(tmp_path, scene(profile, batches=(fields[:2], fields)), keeping)
    columns = played.columns(4)

    async def ask(asker: Any, keep: KeptSecrets) -> None:
        await asker.ask(columns, keep, batch=1)

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE, batch=1)

    _, network = played.play(ask, answer)
    _close(escrows)
    entries = read_escrow(tmp_path / "bank.jsonl")
    nonces = {PartyId(one["party"]): bytes.fromhex(one["nonce"]) for one in entries if one.get("what") == "nonce"}
    rebuilt = Conversation(Session("run", profile, nonces), "talk", played.batches, played.rows)
    vectors = pack(rebuilt.plans[1], columns)
    seeds = [bytes.fromhex(one["seed"]) for one in entries if one.get("what") == "vector"]
    assert vector_seeds(RunSecret(bytes(32)), rebuilt, rebuilt.starts[1], vectors) == seeds  # the bank's secret here
    message = rebuild_request(rebuilt, rebuilt.starts[1], vectors, seeds)
    (logged,) = {one.body_sha256 for one in network.transcript if one.kind == "group_sum.request"}
    answered = [one for one in read_escrow(tmp_path / "tax.jsonl") if one.get("bind") == "answered"]
    assert [one["key"] for one in answered] == ["talk/1"]
    assert answered[0]["digest"] == logged == hashlib.sha256(message).hexdigest()
    vectors[0] = vectors[0] + 1
    assert rebuild_request(rebuilt, rebuilt.starts[1], vectors, seeds) != message


def test_a_profile_without_seeds_says_that_it_can_not_be_replayed() -> None:
    played = Conversation(Session("run", "bfv-8192", {BANK: bytes(32)}), "talk", ((Field(1),),), 10)
    with pytest.raises(BoundError, match="takes no seed"):
        rebuild_request(played, 0, [np.zeros(10, np.int64)], [bytes(32)])


def with_folders(played: Any, folder: Path) -> Any:
    """Each party with a folder for what its library draws."""
    keeps = {
        party: replace(keep, kept=KeptFiles(folder / party, f"run/{party}")) for party, keep in played.keeps.items()
    }
    return replace(played, keeps=keeps)


def test_a_bfv_run_that_starts_again_sends_the_same_bytes(scene: Any, keeping: Keeping, tmp_path: Path) -> None:
    """Key, request and answers are those of the first time, and the sums that they open to."""
    found = []
    for _ in range(3):
        played, escrows = _house(tmp_path, scene("bfv-8192"), keeping)
        played = with_folders(played, tmp_path / "kept")
        columns = played.columns(1)
        sums, network = played.play(asking(columns), answering)
        found.append((bodies(network), {party: [one.tolist() for one in of] for party, of in sums.items()}))
        _close(escrows)
    assert found[0] == found[1] == found[2]
    assert {len(list((tmp_path / "kept" / party).iterdir())) for party in (TAX, UTILITY)} == {1}
    assert len(list((tmp_path / "kept" / BANK).iterdir())) == 2


@pytest.mark.parametrize("lost", [BANK, TAX])
def test_a_bfv_run_that_has_lost_what_it_kept_is_refused_at_home(
    scene: Any, keeping: Keeping, tmp_path: Path, lost: PartyId
) -> None:
    what = {BANK: "kept group_sum/asks/talk/key", TAX: "kept group_sum/answers/talk/answer/"}
    for attempt in range(2):
        played, escrows = _house(tmp_path, scene("bfv-8192"), keeping)
        if attempt:
            shutil.rmtree(tmp_path / "kept" / lost)
        played = with_folders(played, tmp_path / "kept")
        if attempt:
            with pytest.raises(IntegrityError, match=f"{what[lost]}.*: bound to other content"):
                played.play(asking(played.columns(1)), answering)
        else:
            played.play(asking(played.columns(1)), answering)
        _close(escrows)


def test_a_bfv_run_that_starts_again_with_other_keys_is_refused_by_who_answered_it(
    scene: Any, keeping: Keeping, tmp_path: Path
) -> None:
    """Its library draws other keys: the same vector under the same number is another request."""
    for attempt in range(2):
        if attempt:  # an asker that has forgotten all, and not by accident
            lines = (tmp_path / "bank.jsonl").read_text().splitlines()
            kept = [line for line in lines if json.loads(line).get("bind") != "kept"]
            assert len(kept) < len(lines)
            (tmp_path / "bank.jsonl").write_text("".join(line + "\n" for line in kept))
        played, escrows = _house(tmp_path, scene("bfv-8192"), keeping)
        if attempt:
            with pytest.raises(FedCreditError, match="answered talk/0: bound to other content"):
                played.play(asking(played.columns(1)), answering)
        else:
            played.play(asking(played.columns(1)), answering)
        _close(escrows)


@pytest.mark.parametrize("profile", ["rlwe-8192", "unsafe-plaintext"])
def test_an_answerer_may_not_try_again_after_a_restart(
    scene: Any, keeping: Keeping, tmp_path: Path, profile: str
) -> None:
    """Answer by answer, what the bank refuses and what it takes would tell its one-time secret."""
    fields = ((Field(100, 5),),)
    played, escrows = _house(tmp_path, scene(profile, batches=fields), keeping)
    played.play(asking(played.columns(1)), answering)
    _close(escrows)
    (tmp_path / "tax.jsonl").unlink()
    played, escrows = _house(tmp_path, scene(profile, batches=fields), keeping)

    async def differently(answerer: Any, party: PartyId) -> None:
        await answerer.answer(FREE, offsets=[np.ones(7, np.int64)] if party == TAX else None)

    with pytest.raises(IntegrityError, match="answer-of talk/0/tax: bound to other content"):
        played.play(asking(played.columns(1)), differently)
    _close(escrows)


def test_an_answerer_may_not_send_other_hints_after_a_restart(scene: Any, keeping: Keeping, tmp_path: Path) -> None:
    played, escrows = _house(tmp_path, scene(), keeping)
    played.play(asking(played.columns(1)), answering)
    _close(escrows)
    (tmp_path / "tax.jsonl").unlink()
    played, escrows = _house(tmp_path, scene(), keeping)

    class Swapped(type(played)):  # type: ignore[misc]
        def codes(self, party: PartyId) -> Any:
            found = super().codes(party)
            return np.roll(found, 1, axis=0) if party == TAX else found

    swapped = Swapped(keeps=played.keeps)
    with pytest.raises(IntegrityError, match="hints-of talk/tax: bound to other content"):
        swapped.play(asking(played.columns(1)), answering)
    _close(escrows)
