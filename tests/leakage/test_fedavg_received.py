"""What crosses in an averaging run: kinds, lengths and counts are the same whatever the records; no part is seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fedcredit.protocol.fedavg
import fedcredit.protocol.secure_sum
from fedcredit.attack.averaging import AveragingRehearsal, averaging_spec, made_up_bank
from fedcredit.data.table import HolderTable
from fedcredit.protocol.fedavg.learner import Learner
from fedcredit.protocol.secure_sum.messages import Contribution
from fedcredit.types import COORDINATOR, PartyId, Role
from fedcredit.wire.leakage import parse_leakage
from fedcredit.wire.message import encode, kind_of

BANKS = [PartyId(f"bank_{number}") for number in range(1, 5)]
BANK_1, BANK_2 = BANKS[:2]

HEARD = {
    Role.LABEL_HOLDER: {
        "secure_sum.welcome",
        "secure_sum.begin",
        "secure_sum.survivors",
        "secure_sum.opening",
    },
    Role.COORDINATOR: {
        "secure_sum.join",
        "secure_sum.prepared",
        "secure_sum.contribution",
        "secure_sum.shares",
        "fedavg.ready",
    },
}
"""All kinds that a role hears; one more is a question to the owner."""


def tables(seed: int = 0, rows: int = 150, shift: float = 0.0) -> dict[PartyId, HolderTable]:
    return {bank: made_up_bank(bank, rows, seed=seed, shift=shift) for bank in BANKS}


def played(records: Mapping[PartyId, HolderTable], profile: str = "masked+he", **fedavg: Any) -> AveragingRehearsal:
    keys = {"network": "logistic", "rounds": 2, **fedavg}
    found = AveragingRehearsal(averaging_spec(4, keys, secure_sum={"profile": profile}), records)
    found.play()
    return found


@pytest.fixture(scope="module")
def usual() -> AveragingRehearsal:
    return played(tables())


def shape(notes: AveragingRehearsal) -> list[tuple[int, str, str, str, int]]:
    return [
        (one.step, str(one.sender), str(one.receiver), kind_of(one.message), len(encode(one.message)))
        for one in notes.crossed
    ]


def test_roles_hear_these_kinds_and_no_other(usual: AveragingRehearsal) -> None:
    for party in (*BANKS, COORDINATOR):
        role = Role.COORDINATOR if party == COORDINATOR else Role.LABEL_HOLDER
        assert {kind_of(one) for one in usual.received(party)} == HEARD[role]


def test_every_field_that_is_heard_is_on_a_page(usual: AveragingRehearsal) -> None:
    pages = [
        Path(one.__file__ or "").parent / "LEAKAGE.md"
        for one in (fedcredit.protocol.fedavg, fedcredit.protocol.secure_sum)
    ]
    rows = [row for page in pages for row in parse_leakage(page.read_text(encoding="utf-8"))]
    named = {(row.receiver, row.message, row.field.split(".")[0]) for row in rows}
    for party in (BANK_1, COORDINATOR):
        role = Role.COORDINATOR if party == COORDINATOR else Role.LABEL_HOLDER
        for one in usual.received(party):
            assert {(role, kind_of(one), field) for field in one.__struct_fields__} <= named


@pytest.mark.parametrize("rows", [150, 90])
def test_kinds_counts_and_lengths_are_the_same_whatever_the_records(usual: AveragingRehearsal, rows: int) -> None:
    """Other customers, other labels, fewer rows, other values missing; only categories and columns set lengths."""
    other = played(tables(5, rows, 0.4))
    assert [one[:4] for one in shape(other)] == [one[:4] for one in shape(usual)]
    for before, after in zip(shape(usual), shape(other), strict=True):
        assert abs(before[4] - after[4]) <= 64 + before[4] // 100, before  # ciphertexts are deflated by their library


def test_the_check_sees_another_round(usual: AveragingRehearsal) -> None:
    assert len(shape(played(tables(), rounds=3))) == len(shape(usual)) + 4 * 4


def contributions(notes: AveragingRehearsal, party: PartyId) -> list[Contribution]:
    return [one.message for one in notes.crossed if one.sender == party and isinstance(one.message, Contribution)]


def low_bytes(notes: AveragingRehearsal, party: PartyId) -> list[NDArray[np.uint8]]:
    """The low three bytes of every word of a bank's masked vectors; the highest bits of a word are never used."""
    found = []
    for one in contributions(notes, party):
        words = np.frombuffer(one.body, dtype=np.uint8).reshape(one.length, -1)
        found.append(words[:, :3].ravel())
    return found


def test_nothing_of_a_banks_vector_is_in_what_it_sends() -> None:
    """Profile masked: the masked words of two runs over the same records are as unlike as chance makes them."""
    one, other = (low_bytes(played(tables(), "masked"), BANK_1) for _ in range(2))
    assert len(one) == 5
    for before, after in zip(one, other, strict=True):
        apart = np.unpackbits(before ^ after).mean()
        assert abs(apart - 0.5) < 4.5 * 0.5 / np.sqrt(8 * len(before))


def test_that_statistic_sees_vectors_without_masks() -> None:
    learner: Learner = played(tables(), "masked").inputs()[BANK_1].learner()
    values = learner.ask(4).values
    plain = np.frombuffer(values.astype("<i8").tobytes(), dtype=np.uint8)
    assert np.unpackbits(plain ^ plain).mean() == 0
    assert np.unpackbits(plain).mean() < 0.1


def test_a_bank_hears_no_vector_of_another(usual: AveragingRehearsal) -> None:
    bodies = [one.body for one in contributions(usual, BANK_2)]
    for message in usual.received(BANK_1):
        data = encode(message)
        assert all(body[64:128] not in data for body in bodies)


def test_all_banks_hear_the_same_totals(usual: AveragingRehearsal) -> None:
    heard = {
        party: [encode(one) for one in usual.received(party) if kind_of(one) == "secure_sum.opening"] for party in BANKS
    }
    assert len(heard[BANK_1]) == 5
    assert all(one == heard[BANK_1] for one in heard.values())
