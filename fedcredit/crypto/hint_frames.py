"""Frames of the hinted group sum: what a run of bytes is, and what it belongs to.

A frame is magic, version, kind, then three 32-byte digests (parameters, reference string, request), then packed
residues. Bytes of another run, another reference string, another vector or another kind end in a named error before
any arithmetic.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import IntEnum

from fedcredit.errors import PeerError

__all__ = ["FRAME_OVERHEAD", "NO_REQUEST", "Context", "Kind", "open_frame", "request_digest", "seal_frame"]

_MAGIC = b"FCGS\x01"
_DIGEST = 32
FRAME_OVERHEAD = len(_MAGIC) + 1 + 3 * _DIGEST
NO_REQUEST = bytes(_DIGEST)


class Kind(IntEnum):
    """What a frame holds."""

    HINTS = 1
    REQUEST = 2
    ANSWER = 3
    MASKED_ANSWER = 4
    MASK = 5
    OPENED_MASKED = 6


@dataclass(frozen=True)
class Context:
    """What a frame belongs to: 32-byte digests of the parameters, of the reference string and of the request."""

    parameters: bytes
    reference: bytes
    request: bytes = NO_REQUEST


def request_digest(request: bytes) -> bytes:
    """32 bytes that name a request; its answers carry them."""
    digest = hashlib.sha256(b"fedcredit/group-sum/request/v1")
    digest.update(request)  # in two steps: a request is too large to be copied for it
    return digest.digest()


def seal_frame(kind: Kind, context: Context, body: bytes) -> bytes:
    """Puts the header in front."""
    return b"".join((_MAGIC, bytes([kind]), context.parameters, context.reference, context.request, body))


def open_frame(data: bytes, kind: Kind, expected: Context) -> memoryview:
    """The body of a frame of this kind and context.

    Raises:
        PeerError: truncated, of another kind or version, or belonging to something else; names which.
    """
    found = read_context(data, kind)
    for what, ours, theirs in (
        ("parameters", expected.parameters, found.parameters),
        ("reference string", expected.reference, found.reference),
        ("request", expected.request, found.request),
    ):
        if not hmac.compare_digest(ours, theirs):
            code = what.split(" ", maxsplit=1)[0]
            raise PeerError(f"group-sum.{code}", f"{_name(kind)}: made for another {what} than this run's")
    return memoryview(data)[FRAME_OVERHEAD:]


def read_context(data: bytes, kind: Kind) -> Context:
    """The context that a frame of this kind says it belongs to.

    Raises:
        PeerError: truncated, or of another kind or version.
    """
    if len(data) < FRAME_OVERHEAD:
        raise PeerError(
            "group-sum.frame", f"{_name(kind)}: {len(data)} bytes found, at least {FRAME_OVERHEAD} are right"
        )
    if data[: len(_MAGIC)] != _MAGIC:
        raise PeerError("group-sum.frame", f"{_name(kind)}: does not begin like a frame of the hinted group sum")
    if data[len(_MAGIC)] != kind:
        raise PeerError("group-sum.kind", f"{_name(kind)} expected, a frame of kind {data[len(_MAGIC)]} found")
    at = len(_MAGIC) + 1
    return Context(*(bytes(data[at + i * _DIGEST : at + (i + 1) * _DIGEST]) for i in range(3)))


def _name(kind: Kind) -> str:
    return kind.name.lower().replace("_", " ")
