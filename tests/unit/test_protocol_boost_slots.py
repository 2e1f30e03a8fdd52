"""Splits in slots of fixed length, and bits in bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcredit.errors import BoundError, PeerError
from fedcredit.protocol.boost.slots import NO_FEATURE, SlotFormat, pack_bits, unpack_bits

Splits = list[tuple[int, tuple[int, ...]]]


@st.composite
def formats(draw: st.DrawFn) -> tuple[SlotFormat, Splits, int]:
    bins = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=5)))
    found: Splits = []
    for feature in range(len(bins)):
        if bins[feature] > 1:
            for _ in range(draw(st.integers(0, 3))):
                left = draw(st.sets(st.integers(1, bins[feature] - 1), max_size=bins[feature] - 2)) | {0}
                found.append((feature, tuple(sorted(left))))
    found = draw(st.permutations(list(dict.fromkeys(found))))
    return SlotFormat(bins), list(found), len(found) + draw(st.integers(0, 4))


@given(formats())
def test_splits_come_back_in_order(case: tuple[SlotFormat, Splits, int]) -> None:
    form, splits, slots = case
    data = form.write(splits, slots)
    assert len(data) == slots * form.size
    assert form.read(data, slots) == splits


@given(formats(), st.data())
def test_any_bytes_are_splits_or_refused(case: tuple[SlotFormat, Splits, int], data: st.DataObject) -> None:
    """Whatever is read would be written the same way: no split has two spellings."""
    form, splits, slots = case
    body = bytearray(form.write(splits, slots))
    for at in data.draw(st.lists(st.integers(0, max(0, len(body) - 1)), max_size=3)):
        if body:
            body[at] ^= data.draw(st.integers(0, 255))
    try:
        found = form.read(bytes(body), slots)
    except PeerError:
        return
    assert form.write(found, slots) == bytes(body)
    assert len(set(found)) == len(found)
    for feature, left in found:
        assert 0 < len(left) < form.bins[feature]
        assert left[0] == 0
        assert left[-1] < form.bins[feature]


def test_the_length_says_nothing() -> None:
    form = SlotFormat((3, 17, 9))
    assert form.size == 2 + 3
    sizes = {len(form.write(splits, 4)) for splits in ([], [(0, (0,))], [(1, (0, 3, 16)), (2, (0,)), (0, (0, 2))])}
    assert sizes == {4 * form.size}


def test_more_splits_than_slots() -> None:
    with pytest.raises(BoundError, match="2 splits for 1 slots"):
        SlotFormat((3,)).write([(0, (0,)), (0, (0, 1))], 1)


def slot(feature: int, bits: int, size: int = 1) -> bytes:
    return feature.to_bytes(2, "big") + bits.to_bytes(size, "big")


REFUSED = {
    "another-length": (slot(0, 0x80) + b"\0", 1),
    "no-bytes": (b"", 1),
    "too-many": (slot(0, 0x80) * 2, 1),
    "empty-side": (slot(0, 0), 1),
    "everything": (slot(0, 0xE0), 1),
    "without-bin-0": (slot(0, 0x40), 1),
    "bin-beyond": (slot(0, 0x90), 1),
    "feature-beyond": (slot(2, 0x80), 1),
    "single-bin": (slot(1, 0x80), 1),
    "no-feature-with-bins": (slot(NO_FEATURE, 0x80), 1),
    "twice": (slot(0, 0x80) * 2, 2),
    "used-after-unused": (slot(NO_FEATURE, 0) + slot(0, 0x80), 2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_split(name: str) -> None:
    data, slots = REFUSED[name]
    with pytest.raises(PeerError) as caught:
        SlotFormat((3, 1)).read(data, slots)
    assert caught.value.code == "boost.slots"


@given(st.integers(0, 5), st.integers(0, 30), st.integers(0, 2**32))
def test_bits_come_back(rows: int, columns: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((rows, columns)) < 0.5
    data = pack_bits(bits)
    assert len(data) == -(-rows * columns // 8)
    assert np.array_equal(unpack_bits(data, (rows, columns), "bits"), bits)


@pytest.mark.parametrize("data", [b"", b"\xff\xe0\0", b"\xff", b"\xff\xf0", b"\xff\xe1"])
def test_bits_of_another_length_or_with_padding(data: bytes) -> None:
    assert unpack_bits(b"\xff\xe0", (11,), "bits").all()
    with pytest.raises(PeerError, match=r"^some bits: ") as caught:
        unpack_bits(data, (11,), "some bits")
    assert caught.value.code == "boost.bits"
