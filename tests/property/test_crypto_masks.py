"""Pairwise masks cancel over a roster, hide a vector, and refuse keys that would not hide it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.errors import BoundError, PeerError

LOW_ORDER = [  # RFC 7748 and https://cr.yp.to/ecdh.html: points of order 1, 2, 4 and 8, canonical
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
NON_CANONICAL = [
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0900000000000000000000000000000000000000000000000000000000000080",
]


def keys(names: list[str], seed: int = 1) -> dict[str, MaskKey]:
    source = UnsafeSeededEntropy(bytes([seed]) * 32)
    return {name: MaskKey(source) for name in names}


def roster(held: dict[str, MaskKey], run: str = "run", round_: str = "totals/1") -> MaskRoster:
    return MaskRoster(run, round_, {name: key.public_bytes() for name, key in held.items()})


def masks(held: dict[str, MaskKey], size: int, bits: int) -> list[NDArray[np.uint64]]:
    shared = roster(held)
    return [key.mask(shared, name, size, bits) for name, key in held.items()]


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
    size=st.integers(0, 70),
    bits=st.integers(1, 64),
)
def test_masks_cancel_over_any_roster(names: list[str], size: int, bits: int) -> None:
    drawn = masks(keys(names), size, bits)
    sums = [sum(int(mask[row]) for mask in drawn) % (1 << bits) for row in range(size)]
    assert sums == [0] * size
    assert all(int(mask.max(initial=0)) < 1 << bits for mask in drawn)


def test_no_proper_part_of_the_roster_cancels() -> None:
    a, b, c = masks(keys(["a", "b", "c"]), 50, 40)
    for part in (a, b, c, a + b, b + c, a + c):
        assert len(np.unique(part & np.uint64((1 << 40) - 1))) == 50


def test_a_masked_vector_is_uniform() -> None:
    mask = masks(keys(["a", "b"]), 64_000, 20)[0]
    masked = (mask + np.uint64(7)) & np.uint64((1 << 20) - 1)  # a constant vector, the worst case
    for shift in (0, 14):
        counts = np.bincount((masked >> np.uint64(shift)).astype(np.int64) & 63, minlength=64)
        chi_square = float(((counts - 1000.0) ** 2 / 1000.0).sum())
        assert 30 < chi_square < 110  # 63 degrees of freedom; fixed seed


@pytest.mark.parametrize("other", [("other", "totals/1"), ("run", "totals/2"), ("runtotals", "/1")])
def test_run_and_round_separate_streams(other: tuple[str, str]) -> None:
    first = keys(["a", "b"])["a"].mask(roster(keys(["a", "b"])), "a", 20, 40)
    second = keys(["a", "b"])["a"].mask(roster(keys(["a", "b"]), *other), "a", 20, 40)
    assert not (first == second).any()


def test_a_smaller_roster_gives_unrelated_masks() -> None:
    held = keys(["a", "b", "c"])
    survivors = {name: held[name] for name in ("a", "b")}
    first = held["a"].mask(roster(held), "a", 20, 40)
    again = held["a"].mask(roster(survivors), "a", 20, 40)
    with_b = held["b"].mask(roster(survivors), "b", 20, 40)
    assert not (first == again).any()
    assert not ((again + with_b) & np.uint64((1 << 40) - 1)).any()


def test_a_roster_is_masked_once() -> None:
    held = keys(["a", "b"])
    held["a"].mask(roster(held), "a", 5, 16)
    with pytest.raises(BoundError, match="masked before"):
        held["a"].mask(roster(held), "a", 9, 16)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_keys_are_refused(point: str) -> None:
    good = keys(["a"])["a"].public_bytes()
    with pytest.raises(PeerError, match="mask key of mallory: a point of low order"):
        MaskRoster("run", "1", {"a": good, "mallory": bytes.fromhex(point)})


@pytest.mark.parametrize("point", [*NON_CANONICAL, "", "09", "09" * 33])
def test_other_encodings_are_refused(point: str) -> None:
    good = keys(["a"])["a"].public_bytes()
    with pytest.raises(PeerError, match="mask key of mallory: no canonical"):
        MaskRoster("run", "1", {"a": good, "mallory": bytes.fromhex(point)})


def test_a_shared_key_is_refused() -> None:
    good = keys(["a"])["a"].public_bytes()
    with pytest.raises(PeerError, match="mask key of b: the same as that of a"):
        MaskRoster("run", "1", {"a": good, "b": good})


def test_a_roster_of_one_is_refused() -> None:
    with pytest.raises(BoundError, match="at least 2 members"):
        roster(keys(["a"]))


def test_a_roster_must_name_its_user_with_its_key() -> None:
    held, strangers = keys(["a", "b"]), keys(["a", "b"], seed=2)
    for name in ("a", "c"):
        with pytest.raises(PeerError, match=f"does not name {name}"):
            strangers["a"].mask(roster(held), name, 5, 16)


@pytest.mark.parametrize(("size", "bits"), [(-1, 16), (5, 0), (5, 65), ((1 << 32) + 1, 16)])
def test_sizes_out_of_range_are_refused(size: int, bits: int) -> None:
    held = keys(["a", "b"])
    with pytest.raises(BoundError, match="are possible"):
        held["a"].mask(roster(held), "a", size, bits)


def test_a_mask_key_shows_and_stores_nothing() -> None:
    key = keys(["a"])["a"]
    assert repr(key) == "MaskKey(secret)"
    with pytest.raises(BoundError, match="cannot be copied"):
        pickle.dumps(key)
    with pytest.raises(BoundError, match="cannot be copied"):
        copy.copy(key)


def test_a_roster_keeps_what_it_was_given() -> None:
    held = keys(["a", "b"])
    given_keys = {name: key.public_bytes() for name, key in held.items()}
    fixed = MaskRoster("run", "1", given_keys)
    before = fixed.digest()
    del given_keys["b"]
    assert fixed.digest() == before
