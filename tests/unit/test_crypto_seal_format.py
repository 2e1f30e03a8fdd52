"""Residues to bytes and back; wrong lengths and values are refused before SEAL sees them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from fedcredit.crypto import seal_format as fmt
from fedcredit.errors import IntegrityError, PeerError

ONE = (fmt.PRIMES[0],)


def test_packing_matches_a_literal_twin() -> None:
    values = np.random.default_rng(1).integers(0, 1 << 60, 20).astype(np.uint64)
    values[:3] = [0, (1 << 60) - 1, 1]
    literal = b"".join(
        (int(values[k]) | int(values[k + 1]) << 60).to_bytes(15, "little") for k in range(0, len(values), 2)
    )
    assert fmt.pack60(values) == literal
    assert len(literal) == fmt.packed_size(20)


@pytest.mark.parametrize("primes", [ONE, fmt.PRIMES[:2], fmt.PRIMES])
def test_residues_round_trip(primes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(2)
    residues = np.stack([generator.integers(0, p, (2, fmt.DEGREE)).astype(np.uint64) for p in primes], axis=1)
    residues[0, 0, 0] = primes[0] - 1
    assert np.array_equal(fmt.unpack60(fmt.pack60(residues), primes, "x"), residues)


@pytest.mark.parametrize("size", [0, 1, 61_439, 61_441])
def test_wrong_lengths_are_refused(size: int) -> None:
    with pytest.raises(PeerError, match=f"thing: {size} bytes, a multiple of 61440 expected"):
        fmt.unpack60(bytes(size), ONE, "thing")


@pytest.mark.parametrize("excess", [0, 1, (1 << 60) - 1 - fmt.PRIMES[0]])
def test_residues_that_are_not_canonical_are_refused(excess: int) -> None:
    residues = np.zeros(fmt.DEGREE, np.uint64)
    residues[77] = fmt.PRIMES[0] + excess
    with pytest.raises(PeerError, match="not below its prime"):
        fmt.unpack60(fmt.pack60(residues), ONE, "thing")


def test_the_primes_suit_the_ring() -> None:
    assert all(p % (2 * fmt.DEGREE) == 1 and p.bit_length() == 60 for p in fmt.PRIMES)


def test_files_of_another_library_version_are_refused() -> None:
    good = fmt.plaintext_file(np.arange(4, dtype=np.uint64))
    assert fmt.read_plaintext(good, 4).tolist() == [0, 1, 2, 3]
    for bad in (b"\x00" + good[1:], good[:3] + b"\x05" + good[4:], good + b"\x00"):
        with pytest.raises(IntegrityError, match="does not know"):
            fmt.read_plaintext(bad, 4)
    with pytest.raises(IntegrityError, match="were expected"):
        fmt.read_plaintext(good, 5)


def test_compressed_files_are_read() -> None:
    import zlib

    good = fmt.plaintext_file(np.arange(4, dtype=np.uint64))
    packed = zlib.compress(good[16:])
    header = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 1, 0, 16 + len(packed))
    assert fmt.read_plaintext(header + packed, 4).tolist() == [0, 1, 2, 3]
