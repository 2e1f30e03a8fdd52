"""Commitments bind to every row, hide what they commit to, and verify by raising."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.crypto.commitment import LEAF_ROWS, check_grouping, check_vector, commit_grouping, commit_vector
from fedcredit.errors import IntegrityError

SALT, SEED = b"\x01" * 32, b"\x02" * 32


def grouping(rows: int, features: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    return np.random.default_rng(rows).integers(0, 9, size=(rows, features)).astype(np.int32)


@pytest.mark.parametrize("rows", [1, 2, LEAF_ROWS - 1, LEAF_ROWS, LEAF_ROWS + 1, 5 * LEAF_ROWS + 7])
def test_opening_is_accepted_and_any_other_is_not(rows: int) -> None:
    codes = grouping(rows)
    commitment = commit_grouping(codes, SALT)
    assert len(commitment) == 32
    check_grouping(commitment, codes, SALT)
    for row in {0, rows // 2, rows - 1}:
        changed = codes.copy()
        changed[row, 1] += 1
        with pytest.raises(IntegrityError, match="not the one committed to"):
            check_grouping(commitment, changed, SALT)
    with pytest.raises(IntegrityError):
        check_grouping(commitment, codes, b"\x03" * 32)
    if rows > 1:
        with pytest.raises(IntegrityError):
            check_grouping(commitment, codes[:-1], SALT)
        with pytest.raises(IntegrityError):
            check_grouping(commitment, codes[::-1].copy(), SALT)


def test_two_leaves_by_hand() -> None:
    codes = grouping(LEAF_ROWS + 5)
    leaves = [
        hashlib.sha256(b"\x00" + hmac.digest(SALT, at.to_bytes(8, "little"), "sha256") + part.tobytes()).digest()
        for at, part in ((0, codes[:LEAF_ROWS]), (LEAF_ROWS, codes[LEAF_ROWS:]))
    ]
    assert commit_grouping(codes, SALT) == hashlib.sha256(b"\x01" + b"".join(leaves)).digest()


def test_storage_order_and_width_of_integers_do_not_matter() -> None:
    codes = grouping(50)
    assert commit_grouping(np.asfortranarray(codes), SALT) == commit_grouping(codes, SALT)
    assert commit_grouping(codes.astype(np.int64).astype(np.int32), SALT) == commit_grouping(codes, SALT)


def test_equal_blocks_have_unequal_leaves() -> None:
    """Else an auditor who is shown one leaf would see which other blocks are the same."""
    codes = np.zeros((2 * LEAF_ROWS, 1), np.int32)
    one = commit_grouping(codes[:LEAF_ROWS], SALT)
    assert commit_grouping(codes, SALT) != hashlib.sha256(b"\x01" + one + one).digest()


@given(values=st.lists(st.integers(-(2**62), 2**62), max_size=30), other=st.integers(1, 1000))
@settings(max_examples=50, deadline=None)
def test_vectors(values: list[int], other: int) -> None:
    vector = np.array(values, np.int64)
    commitment = commit_vector(vector, SEED)
    check_vector(commitment, vector, SEED)
    with pytest.raises(IntegrityError, match="not the one committed to"):
        check_vector(commitment, np.append(vector, other), SEED)
    with pytest.raises(IntegrityError):
        check_vector(commitment, vector, bytes(32))
    if values:
        with pytest.raises(IntegrityError):
            check_vector(commitment, vector + other, SEED)
