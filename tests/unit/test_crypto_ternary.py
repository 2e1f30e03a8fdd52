"""A ternary polynomial in two bits a coefficient: there and back, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto.seal_format import DEGREE, PRIMES
from fedcredit.crypto.ternary import TERNARY_BYTES, pack_ternary, ternary_residues, unpack_ternary
from fedcredit.errors import IntegrityError


def polynomial() -> NDArray[np.int64]:
    return np.random.default_rng(4).integers(-1, 2, DEGREE)


def test_there_and_back() -> None:
    values = polynomial()
    residues = ternary_residues(values)
    assert residues.dtype == np.uint64
    for row, prime in zip(residues.astype(object), PRIMES, strict=True):
        assert (row == values % prime).all()
    packed = pack_ternary(residues)
    assert len(packed) == TERNARY_BYTES
    assert np.array_equal(unpack_ternary(packed), values)


def test_the_first_coefficient_is_the_lowest_bits() -> None:
    values = np.zeros(DEGREE, np.int64)
    values[[0, 1, 4]] = [1, -1, 1]
    assert pack_ternary(ternary_residues(values))[:3] == bytes([0b1001, 0b1, 0])


@pytest.mark.parametrize("wrong", [2, PRIMES[0] - 2, 12345678901234567])
def test_other_coefficients_are_refused(wrong: int) -> None:
    residues = ternary_residues(polynomial())
    residues[:, 7] = wrong
    with pytest.raises(IntegrityError, match="not ternary"):
        pack_ternary(residues)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_primes_that_disagree_are_refused(row: int) -> None:
    values = polynomial()
    residues = ternary_residues(values)
    residues[row, 5] = (values[5] + 2) % 3  # 0 or 1: ternary, but that of another polynomial
    residues[row, 5] = 1 - residues[row, 5] if residues[row, 5] == values[5] else residues[row, 5]
    with pytest.raises(IntegrityError, match="not ternary"):
        pack_ternary(residues)


def test_other_bytes_are_refused() -> None:
    packed = pack_ternary(ternary_residues(polynomial()))
    for data in (b"", packed[:-1], packed + b"\x00"):
        with pytest.raises(IntegrityError, match="2048 expected"):
            unpack_ternary(data)
    for data in (packed[:-1] + b"\xc0", bytes(TERNARY_BYTES)):
        with pytest.raises(IntegrityError, match="zero, or has a coefficient other than -1, 0 and 1"):
            unpack_ternary(data)
