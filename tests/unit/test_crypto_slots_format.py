"""Residues of primes of several widths to bytes and back; those of 60 bits as they always were."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto import seal_format as fmt
from fedcredit.crypto.slots_parameters import PARAMETERS
from fedcredit.errors import PeerError


def drawn(primes: tuple[int, ...], polynomials: int = 2) -> NDArray[np.uint64]:
    generator = np.random.default_rng(len(primes))
    rows = [generator.integers(0, p, (polynomials, fmt.DEGREE)).astype(np.uint64) for p in primes]
    residues = np.stack(rows, axis=1)
    residues[:, :, :2] = [0, min(primes) - 1]
    return residues


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_rows_come_back(count: int) -> None:
    primes = PARAMETERS.primes[:count]
    residues = drawn(primes)
    packed = fmt.pack_rows(residues, primes)
    assert len(packed) == 2 * fmt.rows_size(primes)
    assert np.array_equal(fmt.unpack_rows(packed, primes, "x"), residues)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_primes_of_60_bits_keep_their_bytes(count: int) -> None:
    residues = drawn(fmt.PRIMES[:count])
    assert fmt.pack_rows(residues, fmt.PRIMES[:count]) == fmt.pack60(residues)
    assert fmt.rows_size(fmt.PRIMES[:count]) == fmt.packed_size(fmt.DEGREE * count)


def test_narrow_rows_match_a_literal_twin() -> None:
    primes = PARAMETERS.primes[2:]
    residues = drawn(primes, 1)
    literal = b"".join(
        int(value).to_bytes(width, "little")
        for row, width in zip(residues[0], (5, 3), strict=True)
        for value in row.tolist()
    )
    assert fmt.pack_rows(residues, primes) == literal


@pytest.mark.parametrize("row", [0, 1, 2, 3])
def test_a_residue_of_each_row_must_be_below_its_prime(row: int) -> None:
    residues = drawn(PARAMETERS.primes)
    residues[1, row, 4000] = PARAMETERS.primes[row]
    with pytest.raises(PeerError, match="thing: a residue is not below its prime"):
        fmt.unpack_rows(fmt.pack_rows(residues, PARAMETERS.primes), PARAMETERS.primes, "thing")


@pytest.mark.parametrize("change", [-1, 1])
def test_other_lengths_are_refused(change: int) -> None:
    size = fmt.rows_size(PARAMETERS.data)
    for wrong in (0, size + change, 2 * size + change):
        with pytest.raises(PeerError, match=f"thing: {wrong} bytes, a multiple of {size} expected"):
            fmt.unpack_rows(bytes(wrong), PARAMETERS.data, "thing")
