"""The header of every BFV message and of a kept key: magic, kind, parameters, checksum.

The checksum finds accidents; authenticity is the signed envelope's.
"""

from __future__ import annotations

import hashlib

from fedcredit.errors import PeerError

__all__ = ["HEADER_BYTES", "open_message", "seal_message"]

_MAGIC = b"FCB1"
_KIND_BYTES = 4
_PARAMETERS_BYTES = 32
_CHECK_BYTES = 16

HEADER_BYTES = len(_MAGIC) + _KIND_BYTES + _PARAMETERS_BYTES + _CHECK_BYTES
"""Bytes before the body."""


def seal_message(kind: bytes, parameters_id: bytes, body: bytes) -> bytes:
    """A message: header and body.

    Args:
        kind: Four bytes or fewer that name the message.
        parameters_id: 32 bytes of the library that name the encryption parameters.
        body: What it carries.
    """
    return _header(kind, parameters_id, body) + body


def open_message(kind: bytes, parameters_id: bytes, message: bytes, size: int | None = None) -> bytes:
    """Body of a message after its header was checked.

    Args:
        kind: As `seal_message`.
        parameters_id: As `seal_message`.
        message: As received.
        size: Exact size of the body, where it is known.

    Raises:
        PeerError: another length, magic, kind, parameters or checksum.
    """
    what = kind.decode()
    if len(message) <= HEADER_BYTES or (size is not None and len(message) != HEADER_BYTES + size):
        expected = "more than its header" if size is None else f"{HEADER_BYTES + size}"
        raise PeerError("bfv.length", f"{what}: {len(message)} bytes, {expected} expected")
    header, body = message[:HEADER_BYTES], message[HEADER_BYTES:]
    if header[: len(_MAGIC) + _KIND_BYTES] != _MAGIC + kind.ljust(_KIND_BYTES, b"\x00"):
        raise PeerError("bfv.kind", f"{what}: the message is of another kind")
    if header[len(_MAGIC) + _KIND_BYTES : -_CHECK_BYTES] != parameters_id:
        raise PeerError("bfv.parameters", f"{what}: made under parameters other than this run's")
    if header != _header(kind, parameters_id, body):
        raise PeerError("bfv.checksum", f"{what}: the bytes are damaged")
    return body


def _header(kind: bytes, parameters_id: bytes, body: bytes) -> bytes:
    check = hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"fedcredit/bfv").digest()
    return _MAGIC + kind.ljust(_KIND_BYTES, b"\x00") + parameters_id + check
