"""Salted, hiding commitments: to a holder's grouping before the first vector, and to each vector of the asker.

A commitment binds: after the run an auditor who is shown the opening can check it against the logged bytes. It hides:
the salt (or seed) has 256 bits of entropy and stays with its owner.

Source: Merkle (1987); RFC 6962 section 2.1 for the separation of leaves and nodes.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import IntegrityError

__all__ = ["LEAF_ROWS", "check_grouping", "check_vector", "commit_grouping", "commit_vector", "content_digest"]

LEAF_ROWS = 1024
"""Rows of one leaf: an auditor can be shown a block of rows without the rest."""

_LEAF, _NODE = b"\x00", b"\x01"


def commit_grouping(codes: NDArray[np.int32], salt: bytes) -> bytes:
    """Merkle root over blocks of rows.

    Args:
        codes: int32 (rows, features), the bins of each row.
        salt: 32 secret bytes, from which each leaf's own salt is derived.

    Returns:
        32 bytes.
    """
    rows = np.ascontiguousarray(codes, dtype="<i4")
    level = [
        hashlib.sha256(
            _LEAF + hmac.digest(salt, start.to_bytes(8, "little"), "sha256") + rows[start:][:LEAF_ROWS].tobytes()
        ).digest()
        for start in range(0, max(1, len(rows)), LEAF_ROWS)
    ]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha256(_NODE + b"".join(pair)).digest() for pair in pairs]
    return level[0]


def check_grouping(commitment: bytes, codes: NDArray[np.int32], salt: bytes) -> None:
    """Checks an opened grouping.

    Raises:
        IntegrityError: the rows or the salt are not those committed to.
    """
    if not hmac.compare_digest(commitment, commit_grouping(codes, salt)):
        raise IntegrityError("commitment.grouping", "the grouping is not the one committed to before the first vector")


def commit_vector(values: NDArray[np.int64], seed: bytes) -> bytes:
    """Commits to a vector and to the 256-bit seed of all randomness in its encryption; hiding by the seed."""
    digest = hashlib.sha256(b"vector" + seed)
    digest.update(np.ascontiguousarray(values, dtype="<i8").data)
    return digest.digest()


def check_vector(commitment: bytes, values: NDArray[np.int64], seed: bytes) -> None:
    """Checks an opened vector.

    Raises:
        IntegrityError: the values or the seed are not those committed to.
    """
    if not hmac.compare_digest(commitment, commit_vector(values, seed)):
        raise IntegrityError("commitment.vector", "the vector is not the one committed to when it was sent")


def content_digest(values: NDArray[np.integer[Any]]) -> bytes:
    """32 bytes that name an array's width, shape and values; not hiding: for what stays in the house."""
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{plain.dtype.str}{plain.shape}:".encode())
    digest.update(plain.data)
    return digest.digest()
