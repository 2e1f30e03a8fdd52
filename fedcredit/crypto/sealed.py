"""Payloads that only their recipient can read, whatever carries them.

Two parties of a run share two X25519 secrets: one of their ephemeral keys (made for this run, signed in the approvals)
and one of their static keys (pinned at provisioning). HKDF turns both into one key per direction and attempt. A payload
is a *head*, sealed for one recipient under that key, and a *body*, sealed once under a fresh key that travels in the
head: the same sealed body serves any number of recipients.

Guarantees: secrecy and integrity of head and body against everyone but sender and recipients; the head comes from the
holder of the sender's static *and* ephemeral key, for this run, attempt, sender, recipient and place in the link; a
body shared by several recipients is the one the sender meant (its digest stands in every head), so that no recipient
can pass off another one; what was sealed stays secret when static keys leak after the ephemeral ones are gone. No nonce
is ever used twice under a key: a `Sealer` counts by itself, exists once for each direction and attempt, and cannot be
copied; a body key seals one immutable body.
Not covered: sizes, times and who talks to whom; denial of service; proof towards third parties (the signed envelope
inside is for that); two processes that run under the same party *and* attempt (whoever starts a process persists the
attempt before it uses it).
Parameters: X25519; HKDF-SHA256; ChaCha20-Poly1305 with 96-bit nonces, the big-endian count of the link (heads) or of
the chunk (bodies); chunks of 1 MiB sealed; at most 2^32 heads a direction and 2^36 bytes a body.
Source: RFC 7748 (X25519, low-order results refused, section 6.1); RFC 5869 (HKDF); RFC 8439 (ChaCha20-Poly1305), all
through the ``cryptography`` package; Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015 (STREAM: chunks with counters and
a bound length). Body keys under several recipients: Dodis, Grubbs, Ristenpart, Woodage, CRYPTO 2018 (why a digest).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcredit.crypto.sealed_body import KEY_BYTES, OPENING_BYTES, TAG_BYTES, BodyOpener, SealedBody
from fedcredit.errors import BoundError, PeerError, SpecError
from fedcredit.types import PartyId, RunId

__all__ = [
    "KEY_BYTES",
    "OPENING_BYTES",
    "TAG_BYTES",
    "BodyOpener",
    "LinkKeys",
    "Opener",
    "OwnKeys",
    "PeerKeys",
    "SealedBody",
    "Sealer",
]

_PRODUCT = b"fedcredit/sealed/v1"
_NONCE_BYTES = 12
_MOST_HEADS = 1 << 32


@dataclass(frozen=True)
class OwnKeys:
    """A party's private X25519 keys in one run.

    Args:
        ephemeral: 32 bytes, made for this run and in no other.
        static: 32 bytes, whose public half is pinned at the peers.
    """

    ephemeral: bytes = field(repr=False)
    static: bytes = field(repr=False)


@dataclass(frozen=True)
class PeerKeys:
    """A peer's public X25519 keys in one run.

    Args:
        ephemeral: 32 bytes, from the peer's signed approval.
        static: 32 bytes, from the roster.
    """

    ephemeral: bytes
    static: bytes


class LinkKeys:
    """All keys of one party's links in one run.

    Args:
        run: The run.
        party: The party whose private keys these are.
        own: Its private keys.
        peers: Public keys of every other party of the run.
        context: What else all parties must agree on (digests of spec and roster); other bytes give other keys.

    Raises:
        SpecError: a key has another length.
        PeerError: a peer's key is of low order: what it would agree on is known to everyone.
    """

    def __init__(
        self, run: RunId, party: PartyId, own: OwnKeys, peers: Mapping[PartyId, PeerKeys], context: bytes = b""
    ) -> None:
        if party in peers:
            raise SpecError("sealed.peers", f"{party} is among its own peers")
        self.run = run
        self.party = party
        ephemeral, static = _private(own.ephemeral, party), _private(own.static, party)
        self._publics = {party: PeerKeys(_raw(ephemeral), _raw(static)), **peers}
        self._secrets = {
            peer: _agree(ephemeral, keys.ephemeral, peer) + _agree(static, keys.static, peer)
            for peer, keys in peers.items()
        }
        self._salt = hashlib.sha256(_joined(_PRODUCT, run.encode(), context)).digest()
        self._sealing: set[tuple[PartyId, int]] = set()

    def __repr__(self) -> str:
        return f"LinkKeys({self.party} in run {self.run}, secret)"

    def __reduce__(self) -> str:
        raise BoundError("sealed.copied", "keys of a link cannot be copied or stored")

    @property
    def peers(self) -> frozenset[PartyId]:
        """The other parties of the run."""
        return frozenset(self._secrets)

    def sealer(self, recipient: PartyId, attempt: int) -> Sealer:
        """What seals heads for a recipient; exactly once for each recipient and attempt.

        Raises:
            BoundError: it was given out before, or the attempt is negative.
            SpecError: no such peer.
        """
        key = self._direction(self.party, recipient, attempt)
        if (recipient, attempt) in self._sealing:
            raise BoundError(
                "sealed.twice", f"attempt {attempt} towards {recipient} is sealed already; a new one is needed"
            )
        self._sealing.add((recipient, attempt))
        return Sealer(key, _place(self.run, attempt, self.party, recipient), recipient)

    def opener(self, sender: PartyId, attempt: int) -> Opener:
        """What opens heads of a sender under one of its attempts.

        Raises:
            BoundError: the attempt is negative.
            SpecError: no such peer.
        """
        key = self._direction(sender, self.party, attempt)
        return Opener(key, _place(self.run, attempt, sender, self.party), sender)

    def _direction(self, sender: PartyId, recipient: PartyId, attempt: int) -> bytes:
        """The key of one direction in one attempt."""
        peer = recipient if sender == self.party else sender
        if peer not in self._secrets:
            raise SpecError("sealed.peer", f"{peer} has no keys in this run of {self.party}")
        if not 0 <= attempt < 1 << 63:
            raise BoundError("sealed.attempt", f"attempt {attempt} was given, a count from 0 is needed")
        keys = [key for end in (sender, recipient) for key in (self._publics[end].ephemeral, self._publics[end].static)]
        info = _joined(_PRODUCT, b"direction", sender.encode(), recipient.encode(), attempt.to_bytes(8, "big"), *keys)
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=self._salt, info=info).derive(self._secrets[peer])


class Sealer:
    """Seals the heads of one direction and attempt, in order; made by `LinkKeys.sealer` alone.

    Args:
        key: Of the direction.
        place: Canonical run, attempt, sender and recipient.
        recipient: For error texts.
    """

    def __init__(self, key: bytes, place: bytes, recipient: PartyId) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._place = place
        self._recipient = recipient
        self._next = 0

    def __reduce__(self) -> str:
        raise BoundError("sealed.copied", "a sealer cannot be copied: two of them would use a nonce twice")

    @property
    def next(self) -> int:
        """Number the next head will have."""
        return self._next

    def seal(self, head: bytes) -> tuple[int, bytes]:
        """Seals the next head of the link.

        Returns:
            Its number on the link, and its sealed bytes (16 more than the head).

        Raises:
            BoundError: 2^32 heads were sealed.
        """
        sequence = self._next
        if sequence >= _MOST_HEADS:
            raise BoundError("sealed.exhausted", f"{_MOST_HEADS} messages went to {self._recipient}, no more are safe")
        self._next = sequence + 1  # first, so that an interrupted call never leads to the same number again
        nonce = sequence.to_bytes(_NONCE_BYTES, "big")
        return sequence, self._cipher.encrypt(nonce, head, self._place + nonce)


class Opener:
    """Opens the heads of one direction and attempt, in any order; keeping order is the caller's matter.

    Made by `LinkKeys.opener`, with arguments as those of `Sealer`.
    """

    def __init__(self, key: bytes, place: bytes, sender: PartyId) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._place = place
        self._sender = sender

    def open(self, sequence: int, sealed: bytes | memoryview) -> bytes:
        """The head with this number.

        Raises:
            PeerError: the bytes are not what the sender sealed for this reader under this number.
        """
        nonce = sequence.to_bytes(_NONCE_BYTES, "big")
        try:
            return self._cipher.decrypt(nonce, sealed, self._place + nonce)
        except InvalidTag:
            raise PeerError(
                "sealed.forged",
                f"bytes that claim to be number {sequence} of {self._sender} are not {self._sender}'s",
                culprit=self._sender,
            ) from None


def _joined(*parts: bytes) -> bytes:
    """Parts with their lengths, so that no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _place(run: RunId, attempt: int, sender: PartyId, recipient: PartyId) -> bytes:
    """The canonical header of a link, to which the number of a message is added."""
    return _joined(_PRODUCT, b"head", run.encode(), attempt.to_bytes(8, "big"), sender.encode(), recipient.encode())


def _private(raw: bytes, party: PartyId) -> X25519PrivateKey:
    if len(raw) != KEY_BYTES:
        raise SpecError("sealed.key", f"a private key of {party} has {len(raw)} bytes, X25519 keys have {KEY_BYTES}")
    return X25519PrivateKey.from_private_bytes(raw)


def _raw(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _agree(own: X25519PrivateKey, theirs: bytes, peer: PartyId) -> bytes:
    """X25519, refusing results that do not depend on the own key."""
    if len(theirs) != KEY_BYTES:
        raise SpecError("sealed.key", f"a public key of {peer} has {len(theirs)} bytes, X25519 keys have {KEY_BYTES}")
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise PeerError(
            "sealed.low-order", f"a public key of {peer} is of low order and protects nothing", culprit=peer
        ) from None
