"""Small boxes from one member of a group to another, carried by somebody who must not open or exchange them.

Guarantees: only the two owners of the X25519 keys can open or make a box, and only for the place it was made for:
everything a box belongs to is part of its key's derivation, so that a box moved elsewhere does not open. The key of a
box is used for one content: callers put into ``place`` all that the content follows from.

Not covered: whose keys they are; signatures say so. A box to oneself does not exist.

Parameters: X25519, HKDF-SHA256, ChaCha20-Poly1305 with a zero nonce under a key used once.

Source: RFC 7748 (low-order results refused, section 6.1); RFC 5869; RFC 8439.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedcredit.errors import BoundError, PeerError

__all__ = ["BOX_OVERHEAD", "BoxKey", "joined"]

BOX_OVERHEAD = 16
"""Bytes a box adds to what is in it."""

_LABEL = b"fedcredit/boxes/v1"
_KEY_BYTES = 32
_FIELD_PRIME = (1 << 255) - 19
_NONCE = bytes(12)  # the key seals one content


class BoxKey:
    """A member's secret key for boxes.

    Args:
        secret: 32 bytes, of one run.
        links: As `links` gave them in a process before this one; they are as secret as the key.
    """

    def __init__(self, secret: bytes, links: Mapping[bytes, bytes] | None = None) -> None:
        self._secret = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._secret.public_key().public_bytes_raw()
        self._extracted = dict(links or {})

    def __repr__(self) -> str:
        return "BoxKey(secret)"

    def __reduce__(self) -> str:
        raise BoundError("boxes.secret", "a key of boxes cannot be copied or stored")

    @property
    def links(self) -> dict[bytes, bytes]:
        """What was agreed with each owner of a public key so far: spares another process the agreement."""
        return dict(self._extracted)

    def seal(self, reader: bytes, place: bytes, content: bytes) -> bytes:
        """A box for the owner of a public key.

        Args:
            reader: 32 bytes.
            place: Everything that box and content belong to and follow from.
            content: What is in it.

        Raises:
            PeerError: a key that is no canonical public key, or of low order.
        """
        return self._cipher(self.public, reader, reader, place).encrypt(_NONCE, content, None)

    def open(self, writer: bytes, place: bytes, box: bytes) -> bytes:
        """What the owner of a public key put into a box for this one.

        Raises:
            PeerError: the box is not that owner's, not for this reader or not for this place; or the key as in `seal`.
        """
        try:
            return self._cipher(writer, self.public, writer, place).decrypt(_NONCE, box, None)
        except InvalidTag:
            raise PeerError("boxes.forged", "a box that was not made by its sender for this reader and place") from None

    def _cipher(self, writer: bytes, reader: bytes, peer: bytes, place: bytes) -> ChaCha20Poly1305:
        extracted = self._extracted.get(peer)
        if extracted is None:  # HKDF's first step, once for each peer; its second is one block of HMAC
            extracted = self._extracted[peer] = hmac.digest(bytes(_KEY_BYTES), self._agree(peer), "sha256")
        return ChaCha20Poly1305(hmac.digest(extracted, joined(_LABEL, writer, reader, place) + b"\x01", "sha256"))

    def _agree(self, peer: bytes) -> bytes:
        if len(peer) != _KEY_BYTES or int.from_bytes(peer, "little") >= _FIELD_PRIME or peer == self.public:
            raise PeerError("boxes.key", "a key of boxes that is no canonical X25519 key of another member")
        try:
            return self._secret.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise PeerError("boxes.low-order", "a key of boxes that is a point of low order") from None


def joined(*parts: bytes) -> bytes:
    """Parts with their lengths, so that no two lists of parts give the same bytes."""
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
