"""Packing of integer arrays refuses what has no single reading."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.errors import BoundError, PeerError
from fedcredit.wire.arrays import pack_bits, pack_int64, unpack_bits, unpack_int64


def test_words_are_little_endian_and_two_complement() -> None:
    assert pack_int64(np.array([1, -2], dtype=np.int64)) == b"\x01" + b"\x00" * 7 + b"\xfe" + b"\xff" * 7


def test_unpacked_words_are_own_memory() -> None:
    values = unpack_int64(b"\x00" * 16, 2)
    values[0] = 7
    assert values.tolist() == [7, 0]


@pytest.mark.parametrize("size", [0, 7, 8, 15, 17])
def test_a_wrong_number_of_words_is_named(size: int) -> None:
    with pytest.raises(PeerError, match=f"has {size} bytes, 16 expected"):
        unpack_int64(b"\x00" * size, 2)


def test_dense_layout_is_least_significant_bit_first() -> None:
    assert pack_bits(np.array([0b101, 0b011, 0b111], dtype=np.uint32), 3) == bytes([0b11_011_101, 0b1])


def test_padding_bits_must_be_zero() -> None:
    with pytest.raises(PeerError, match="padding"):
        unpack_bits(bytes([0b11_011_101, 0b11]), 3, 3)


def test_a_residue_at_the_modulus_is_refused() -> None:
    prime = 134_176_769
    data = pack_bits(np.array([prime - 1, prime], dtype=np.uint32), 27)
    assert unpack_bits(data, 2, 27).tolist() == [prime - 1, prime]
    with pytest.raises(PeerError, match=f"below {prime}"):
        unpack_bits(data, 2, 27, upper=prime)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_wrong_length_of_bits_is_named(length: int) -> None:
    with pytest.raises(PeerError, match="2 expected"):
        unpack_bits(b"\x00" * length, 3, 5)


def test_a_value_too_wide_is_not_cut() -> None:
    with pytest.raises(BoundError, match="3 bits"):
        pack_bits(np.array([8], dtype=np.uint32), 3)


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_widths_outside_the_window_are_refused(bits: int) -> None:
    with pytest.raises(BoundError, match="1 to 32"):
        pack_bits(np.zeros(1, dtype=np.uint32), bits)
    with pytest.raises(BoundError, match="1 to 32"):
        unpack_bits(b"", 0, bits)


def test_floats_and_signed_fields_are_refused() -> None:
    with pytest.raises(BoundError, match="int64"):
        pack_bits(np.zeros(1, dtype=np.int64), 3)
    with pytest.raises(BoundError, match="float64"):
        pack_int64(np.zeros(1))  # type: ignore[arg-type]
