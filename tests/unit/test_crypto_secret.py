"""A run secret: everything is derived from it, and nothing derived ever serves two contents."""

from __future__ import annotations

import copy
import itertools
import json

import pytest

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError

SECRET = RunSecret(bytes(range(32)))


def test_what_is_derived_follows_from_secret_label_and_every_part() -> None:
    made = [
        SECRET.derive("a"),
        SECRET.derive("b"),
        SECRET.derive("a", b""),
        SECRET.derive("a", b"x"),
        SECRET.derive("ax"),
        SECRET.derive("a", b"x", b"y"),
        SECRET.derive("a", b"xy"),
        SECRET.derive("a", b"", b"xy"),
        SECRET.derive("a", b"xy", b""),
        RunSecret(bytes(32)).derive("a"),
    ]
    assert len(set(made)) == len(made)
    assert {len(one) for one in made} == {SEED_BYTES}
    assert SECRET.derive("a", b"x", b"y") == RunSecret(bytes(range(32))).derive("a", b"x", b"y")


def test_a_known_value() -> None:
    """Changing how secrets are derived makes every run that is under way impossible to continue."""
    found = SECRET.derive("label", b"bound").hex()
    assert found == "068e7b6a3a2090d8dcd01c5868ddade95e7b407fc2070142f1df7da90bb66e0b"


def test_streams_are_apart_from_seeds_and_from_each_other() -> None:
    first = SECRET.entropy("a", b"x").take(64)
    assert first == SECRET.entropy("a", b"x").take(64)
    assert first[:32] != SECRET.derive("a", b"x")
    others = [SECRET.entropy("a", b"y").take(64), SECRET.entropy("b", b"x").take(64)]
    assert all(one != two for one, two in itertools.combinations([first, *others], 2))


def test_fresh_secrets_differ() -> None:
    assert RunSecret.fresh().derive("a") != RunSecret.fresh().derive("a")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(BoundError, match=f"a run secret of {size} bytes"):
        RunSecret(bytes(size))


def test_it_does_not_show_and_is_not_copied_by_accident() -> None:
    assert repr(SECRET) == "RunSecret(secret)"
    with pytest.raises(BoundError):
        copy.deepcopy(SECRET)
    with pytest.raises(TypeError):
        json.dumps(SECRET)
