"""Messages of the slots: who a request is from, what an answer is for, and what may be in them."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.bfv import KeylessContext
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.slots_arithmetic import centred
from fedcredit.crypto.slots_parameters import MAX_ROWS, MODULUS, PARAMETERS, VALUE_BOUND, blocks_of
from fedcredit.errors import BoundError, PeerError

__all__ = [
    "HEAD",
    "REQUEST",
    "VECTOR",
    "answered_blocks",
    "checked_residues",
    "checked_values",
    "in_blocks",
    "read_request",
    "split_blocks",
    "tag_of",
    "within",
]

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

REQUEST = b"slot"
"""Kind of a vector with one value a slot."""

VECTOR = b"svec"
"""Kind of a vector with one value a coefficient."""

HEAD = struct.Struct("<16sI")
"""First bytes of a body: the key of a request, or the request of an answer; rows of a vector, or columns."""

_TAG_BYTES = 16


def read_request(context: KeylessContext, kind: bytes, request: bytes, name: bytes) -> tuple[int, bytes]:
    """Rows and ciphertexts of a request.

    Args:
        context: Of these parameters.
        kind: `REQUEST` or `VECTOR`.
        request: As received.
        name: `tag_of` the public key it must be made with.

    Raises:
        PeerError: malformed, or made with another key.
    """
    body = context.open(kind, request)
    if len(body) < HEAD.size:
        raise PeerError("slots.length", f"request: {len(body)} bytes, at least {HEAD.size} expected")
    owner, rows = HEAD.unpack(body[: HEAD.size])
    if owner != name:
        raise PeerError("slots.key", "request: made with another key")
    if len(body) != HEAD.size + _blocks(rows) * PARAMETERS.seeded_size:
        raise PeerError("slots.length", f"request: {len(body)} bytes are not those of {rows} rows")
    return rows, body[HEAD.size :]


def answered_blocks(body: bytes) -> int:
    """Ciphertexts there should be in the body of an answer, by its own words.

    Raises:
        PeerError: it is too short to say so, or names no rows or too many.
    """
    if len(body) < HEAD.size:
        raise PeerError("slots.length", f"answer: {len(body)} bytes, at least {HEAD.size} expected")
    return _blocks(HEAD.unpack(body[: HEAD.size])[1])


def _blocks(rows: int) -> int:
    if not 1 <= rows <= MAX_ROWS:
        raise PeerError("slots.rows", f"a message of {rows} rows; between 1 and {MAX_ROWS} are proven")
    return blocks_of(rows)


def split_blocks(body: bytes) -> list[bytes]:
    """One piece a ciphertext of a request."""
    return [body[at : at + PARAMETERS.seeded_size] for at in range(0, len(body), PARAMETERS.seeded_size)]


def checked_values(values: I64, bound: int, rows: int | None = None) -> I64:
    """The values, after their shape and range were checked.

    Args:
        values: int64 (rows,).
        bound: Largest absolute value.
        rows: Their number where it is known.

    Raises:
        BoundError: another shape, no rows or too many, or a value beyond the bound.
    """
    if values.ndim != 1 or (rows is not None and len(values) != rows):
        raise BoundError("slots.shape", f"values of shape {values.shape}; one for each row was expected")
    blocks_of(len(values) if rows is None else rows)
    if int(values.max()) > bound or int(values.min()) < -bound:
        raise BoundError("slots.values", f"a value exceeds the bound of {bound}")
    return values


def checked_residues(values: U64, rows: int | None = None) -> U64:
    """The residues, after their shape and range were checked; arguments as `checked_values`.

    Raises:
        BoundError: another shape or type, no rows or too many, or one that is not below `MODULUS`.
    """
    if values.ndim != 1 or values.dtype != np.uint64 or (rows is not None and len(values) != rows):
        raise BoundError("slots.masks", f"residues of shape {values.shape}; one uint64 for each row was expected")
    blocks_of(len(values))
    if int(values.max()) >= MODULUS:
        raise BoundError("slots.masks", f"a residue is not below {MODULUS}")
    return values


def in_blocks(residues: U64) -> U64:
    """Residues of all rows, zeros after the last; uint64 (blocks, 8192)."""
    out = np.zeros((blocks_of(len(residues)), DEGREE), dtype=np.uint64)
    out.reshape(-1)[: len(residues)] = residues
    return out


def within(residues: U64, bound: int) -> I64:
    """The integers of least absolute value, int64, after their range was checked.

    Raises:
        BoundError: a bound that is not proven.
        PeerError: a value outside the bound.
    """
    values = centred(residues)
    if not 0 <= bound <= VALUE_BOUND:
        raise BoundError("slots.bound", f"results up to {bound} were asked for; 0..{VALUE_BOUND} are proven")
    if int(np.abs(values).max(initial=0)) > bound:
        raise PeerError("slots.range", "answer: a value lies outside the bound; a mask does not cancel")
    return values


def tag_of(*messages: bytes) -> bytes:
    """16 bytes that name some messages in this order."""
    digest = hashlib.blake2b(digest_size=_TAG_BYTES, person=b"fedcredit/slots")
    for message in messages:
        digest.update(hashlib.blake2b(message, digest_size=_TAG_BYTES).digest())
    return digest.digest()
