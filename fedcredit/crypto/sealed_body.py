"""A body sealed once for any number of recipients, chunk by chunk.

Guarantees: see `fedcredit.crypto.sealed`; here: chunks stand in their place of one body of one length (count in the
nonce, length in the associated data), and where several recipients hold the key, the digest in each sealed head keeps
them from passing off another body to each other.
Not covered: what a head has to protect, namely the opening.
Parameters: ChaCha20-Poly1305 under a fresh 32-byte key of the operating system; chunks of at most 2^20 sealed bytes, of
a size that follows from the body's; SHA-256.
Source: RFC 8439; Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015 (STREAM); Dodis, Grubbs, Ristenpart, Woodage, CRYPTO
2018 (a key that several hold commits to nothing).
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedcredit.errors import BoundError, PeerError
from fedcredit.types import PartyId

__all__ = [
    "KEY_BYTES",
    "LEAST_CHUNK",
    "OPENING_BYTES",
    "PLAIN_CHUNK",
    "SEALED_CHUNK",
    "TAG_BYTES",
    "BodyOpener",
    "SealedBody",
    "chunk_bytes",
    "chunks_of",
]

KEY_BYTES = 32
"""Bytes of every key here: X25519 private and public, ChaCha20-Poly1305."""

TAG_BYTES = 16
"""What sealing adds to a head or to one chunk."""

SEALED_CHUNK = 1 << 20
"""Most bytes of one sealed chunk of a body."""

PLAIN_CHUNK = SEALED_CHUNK - TAG_BYTES
"""Most bytes of a body in one chunk."""

LEAST_CHUNK = 1 << 16
"""Bytes below which a body is not cut."""

_PIECES = 8
"""Chunks a body is cut into while they stay between the least and the most. Who forwards a chunk has to have all of it:
a body of one chunk takes its time on two lines one after the other, one of eight an eighth more than on one."""

OPENING_BYTES = KEY_BYTES + 8 + 32
"""What stands before a head: key of the body, its length, its digest (zeros where one recipient alone has the key)."""

_DOMAIN = b"fedcredit/sealed/v1/body/"
_NONCE_BYTES = 12
_MOST_BODY = 1 << 36
_NO_DIGEST = bytes(32)


class SealedBody:
    """One body under its own fresh key, sealed chunk by chunk as they are asked for, each once.

    Args:
        body: What to seal.
        shared: Several recipients will get the key, so that the digest has to stand in the opening.

    Raises:
        BoundError: longer than 2^36 bytes.
    """

    def __init__(self, body: bytes, *, shared: bool) -> None:
        if len(body) > _MOST_BODY:
            raise BoundError("sealed.size", f"a body of {len(body)} bytes, at most {_MOST_BODY} can be sealed")
        key = os.urandom(KEY_BYTES)
        self.size = len(body)
        self.chunk_bytes = chunk_bytes(self.size)
        self.chunks = chunks_of(self.size)
        digest = hashlib.sha256(body).digest() if shared else _NO_DIGEST
        self.opening = key + self.size.to_bytes(8, "big") + digest
        self._cipher = ChaCha20Poly1305(key)
        self._body = memoryview(bytes(body))  # no copy of bytes; a copy of what could change under the nonce
        self._sealed: list[bytes | None] = [None] * self.chunks

    def __reduce__(self) -> str:
        raise BoundError("sealed.copied", "a sealed body cannot be copied or stored")

    def chunk(self, index: int) -> bytes:
        """Sealed bytes of one chunk; the same bytes whenever they are asked for again."""
        sealed = self._sealed[index]
        if sealed is None:
            plain = self._body[index * self.chunk_bytes : (index + 1) * self.chunk_bytes]
            sealed = self._cipher.encrypt(index.to_bytes(_NONCE_BYTES, "big"), plain, _place(self.size))
            self._sealed[index] = sealed
            if index == self.chunks - 1 and None not in self._sealed:
                self._body = memoryview(b"")
        return sealed


class BodyOpener:
    """Opens the chunks of one body in order.

    Args:
        opening: From the head that announced the body.
        sender: Who is blamed.
        most: Largest body accepted, in bytes.

    Raises:
        PeerError: the opening has another length, or announces more than is accepted.
    """

    def __init__(self, opening: bytes, sender: PartyId, most: int) -> None:
        if len(opening) != OPENING_BYTES:
            raise PeerError(
                "sealed.opening",
                f"{sender} sent an opening of {len(opening)} bytes, not {OPENING_BYTES}",
                culprit=sender,
            )
        size = int.from_bytes(opening[KEY_BYTES : KEY_BYTES + 8], "big")
        if size > most:
            raise PeerError(
                "sealed.oversize",
                f"{sender} announces a body of {size} bytes, at most {most} are accepted",
                culprit=sender,
            )
        self.size = size
        self.chunk_bytes = chunk_bytes(size)
        self.chunks = chunks_of(size)
        self._sender = sender
        self._cipher = ChaCha20Poly1305(opening[:KEY_BYTES])
        self._digest = opening[KEY_BYTES + 8 :]
        self._hash = None if self._digest == _NO_DIGEST else hashlib.sha256()
        self._plain: list[bytes] = []

    @property
    def next(self) -> int:
        """Index of the chunk expected next; ``chunks`` when all are there."""
        return len(self._plain)

    def check(self, index: int, sealed: bytes | memoryview) -> None:
        """Verifies a chunk that was opened before; raises PeerError if it is not the sender's."""
        self._open(index, sealed)

    def add(self, sealed: bytes | memoryview) -> None:
        """Opens the next chunk.

        Raises:
            PeerError: it is not the sender's, or the body is complete already.
        """
        if self.next >= self.chunks:
            raise PeerError("sealed.order", f"{self._sender} sent more chunks than it announced", culprit=self._sender)
        plain = self._open(self.next, sealed)
        if self._hash is not None:
            self._hash.update(plain)
        self._plain.append(plain)

    def body(self) -> bytes:
        """The whole body.

        Raises:
            PeerError: chunks are missing, or it is not the body the sender meant.
        """
        if self.next != self.chunks:
            raise PeerError(
                "sealed.order", f"{self._sender} sent {self.next} of {self.chunks} chunks", culprit=self._sender
            )
        if self._hash is not None and self._hash.digest() != self._digest:
            raise PeerError(
                "sealed.forged",
                f"a body that claims to be {self._sender}'s is not the one it announced",
                culprit=self._sender,
            )
        return self._plain[0] if self.chunks == 1 else b"".join(self._plain)

    def _open(self, index: int, sealed: bytes | memoryview) -> bytes:
        try:
            plain = self._cipher.decrypt(index.to_bytes(_NONCE_BYTES, "big"), sealed, _place(self.size))
        except InvalidTag:
            raise PeerError(
                "sealed.forged",
                f"a chunk that claims to be number {index} of a body of {self._sender} is not",
                culprit=self._sender,
            ) from None
        if len(plain) != min(self.chunk_bytes, self.size - index * self.chunk_bytes):
            raise PeerError(
                "sealed.order",
                f"{self._sender} sent a chunk of {len(plain)} bytes out of its place",
                culprit=self._sender,
            )
        return plain


def chunk_bytes(size: int) -> int:
    """Bytes of each chunk but the last of a body of this many bytes."""
    return min(max(-(-size // _PIECES), LEAST_CHUNK), PLAIN_CHUNK)


def chunks_of(size: int) -> int:
    """Number of chunks of a body of this many bytes."""
    return -(-size // chunk_bytes(size))


def _place(size: int) -> bytes:
    return _DOMAIN + size.to_bytes(8, "big")
