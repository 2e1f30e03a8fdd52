"""Masks modulo any number: they cancel and are uniform, and those of powers of two have stayed what they were."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.slots_parameters import MODULUS
from fedcredit.errors import BoundError, PeerError


def keys(names: list[str], seed: int = 7) -> dict[str, MaskKey]:
    source = UnsafeSeededEntropy(bytes([seed]) * 32)
    return {name: MaskKey(source) for name in names}


def roster(held: dict[str, MaskKey], round_: str = "totals/1") -> MaskRoster:
    return MaskRoster("run", round_, {name: key.public_bytes() for name, key in held.items()})


def masks(held: dict[str, MaskKey], size: int, modulus: int, round_: str = "totals/1") -> list[NDArray[np.uint64]]:
    shared = roster(held, round_)
    return [key.mask_below(shared, name, size, modulus) for name, key in held.items()]


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
    size=st.integers(0, 70),
    modulus=st.one_of(st.integers(2, 1 << 63), st.sampled_from([2, 3, MODULUS, (1 << 40) + 1, (1 << 63) - 1, 1 << 63])),
)
def test_masks_cancel_modulo_any_number(names: list[str], size: int, modulus: int) -> None:
    drawn = masks(keys(names), size, modulus)
    assert [sum(int(mask[row]) for mask in drawn) % modulus for row in range(size)] == [0] * size
    assert all(int(mask.max(initial=0)) < modulus for mask in drawn)


@pytest.mark.parametrize("modulus", [3, 5 << 30, MODULUS])
def test_a_mask_is_uniform_where_a_remainder_would_not_be(modulus: int) -> None:
    """3 * 2^k words would favour the first of three parts by a third if they were reduced, not rejected."""
    mask = masks(keys(["a", "b"]), 60_000, modulus)[0]
    parts = (mask.astype(object) * 3 // modulus).astype(np.int64)
    counts = np.bincount(parts, minlength=3)
    assert float(((counts - 20_000.0) ** 2 / 20_000.0).sum()) < 20  # 2 degrees of freedom; fixed seed


def test_no_proper_part_of_the_roster_cancels() -> None:
    a, b, c = masks(keys(["a", "b", "c"]), 50, MODULUS)
    for part in (a, b, c, a + b, b + c, a + c):
        assert len(np.unique(part % np.uint64(MODULUS))) == 50


def test_moduli_separate_streams() -> None:
    by_bits = keys(["a", "b"])["a"].mask(roster(keys(["a", "b"])), "a", 20, 39)
    drawn = [by_bits, *(masks(keys(["a", "b"]), 20, modulus)[0] for modulus in (MODULUS, MODULUS + 2, 1 << 39))]
    for number, one in enumerate(drawn):
        for other in drawn[number + 1 :]:
            assert not (one == other).any()


def test_a_roster_is_masked_once_by_either_way() -> None:
    held = keys(["a", "b"])
    held["a"].mask_below(roster(held), "a", 5, MODULUS)
    with pytest.raises(BoundError, match="masked before"):
        held["a"].mask(roster(held), "a", 5, 39)
    with pytest.raises(BoundError, match="masked before"):
        held["a"].mask_below(roster(held), "a", 0, MODULUS)


def test_a_roster_must_name_its_user() -> None:
    held = keys(["a", "b"])
    with pytest.raises(PeerError, match="does not name c"):
        held["a"].mask_below(roster(held), "c", 5, MODULUS)


@pytest.mark.parametrize(("size", "modulus"), [(-1, 5), (5, 0), (5, 1), (5, (1 << 63) + 1), ((1 << 32) + 1, 5)])
def test_sizes_out_of_range_are_refused(size: int, modulus: int) -> None:
    held = keys(["a", "b"])
    with pytest.raises(BoundError, match="are possible"):
        held["a"].mask_below(roster(held), "a", size, modulus)


@pytest.mark.parametrize(
    ("bits", "digests"),
    [
        (16, ["9ccb6aa87b40e47c", "c8551ada3ea3f148", "beaf79aded7ca768"]),
        (64, ["a370d351b1d2f668", "0bd269bb4a4b3859", "bb622ce4caeae0b5"]),
    ],
)
def test_masks_of_powers_of_two_keep_their_bytes(bits: int, digests: list[str]) -> None:
    """Runs that were stopped draw the masks of their totals again, under whatever version goes on with them."""
    held = keys(["a", "b", "c"])
    shared = roster(held, f"totals/{bits}")
    drawn = [key.mask(shared, name, 1000, bits) for name, key in held.items()]
    assert [hashlib.sha256(mask.astype("<u8").tobytes()).hexdigest()[:16] for mask in drawn] == digests
