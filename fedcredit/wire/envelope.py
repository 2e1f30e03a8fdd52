"""The signed envelope around every message.

The signature covers run, protocol, stage, sender, recipient, sequence, kind and the SHA-256 of the body, so that no
envelope can be moved to another place of this run or to another run. Sequences count per (sender, recipient) from 0
without gaps: a replayed, dropped, duplicated or reordered envelope shows at once.

Guarantees: origin and integrity of every message under Ed25519; place in the run.
Not covered: secrecy (the transport's matter) and traffic analysis.
Source: RFC 8032 (Ed25519), through the ``cryptography`` package; FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedcredit.errors import BoundError, PeerError, SpecError
from fedcredit.types import PartyId
from fedcredit.wire.message import Count, Name, decode_struct, encode_struct

__all__ = [
    "OVERHEAD",
    "Envelope",
    "Expected",
    "Route",
    "SigningKey",
    "VerifyKey",
    "around_body",
    "body_digest",
    "open_envelope",
    "seal",
]

OVERHEAD = 4096
"""Most bytes an envelope adds to its body: seven names of up to 128 characters of up to 4 bytes, and the signature."""

_DOMAIN = b"fedcredit/envelope/v1\x00"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_TAIL = len(b"\xa9signature\xc4\x40") + _SIGNATURE_BYTES  # MessagePack: key of nine characters, 64 bytes


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What crosses between parties; ``body`` is the canonical encoding of a message."""

    run: Name
    protocol: Name
    stage: Name
    sender: Name
    recipient: Name
    sequence: Count
    kind: Name
    body: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=_SIGNATURE_BYTES, max_length=_SIGNATURE_BYTES)]


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed; the body by its digest, so that a large one is not copied for the signature."""

    run: Name
    protocol: Name
    stage: Name
    sender: Name
    recipient: Name
    sequence: Count
    kind: Name
    body_sha256: bytes


class _Bytes(Protocol):
    """A source of secret uniform bytes."""

    def take(self, size: int, /) -> bytes:
        """The next ``size`` bytes."""
        ...


class VerifyKey:
    """A party's public signing key.

    Args:
        raw: 32 bytes.

    Raises:
        SpecError: not a public key.
    """

    def __init__(self, raw: bytes) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError:
            raise SpecError("wire.key", f"a signing key of {len(raw)} bytes, an Ed25519 key has {_KEY_BYTES}") from None
        self.raw = raw

    def check(self, signature: bytes, data: bytes, sender: str) -> None:
        """Verifies a signature.

        Raises:
            PeerError: it is not the sender's.
        """
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            raise PeerError("wire.signature", f"the signature on a message of {sender} is not {sender}'s") from None


class SigningKey:
    """A party's secret signing key.

    Args:
        seed: 32 secret bytes.

    Raises:
        BoundError: not 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _KEY_BYTES:
            raise BoundError("wire.key", f"a signing seed of {len(seed)} bytes, {_KEY_BYTES} are needed")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def generate(cls, entropy: _Bytes) -> SigningKey:
        """A new key from a source of entropy."""
        return cls(entropy.take(_KEY_BYTES))

    @property
    def public(self) -> VerifyKey:
        """The matching public key."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """64 bytes of signature."""
        return self._key.sign(data)


@dataclass(frozen=True)
class Route:
    """Where a message belongs.

    Args:
        run: The run.
        protocol: Protocol that declares the kind.
        stage: Stage the sender is in.
        sender: Its author.
        recipient: Its reader.
        sequence: How many envelopes went from this sender to this recipient before.
    """

    run: str
    protocol: str
    stage: str
    sender: PartyId
    recipient: PartyId
    sequence: int


@dataclass(frozen=True)
class Expected:
    """What a recipient holds an incoming envelope to.

    Args:
        run: The run.
        sender: Whose link it came in on.
        recipient: The reader itself.
        sequence: Next sequence of this sender.
        max_body: Largest body of any message of the run, in bytes.
        keys: Public keys of the roster.
    """

    run: str
    sender: PartyId
    recipient: PartyId
    sequence: int
    max_body: int
    keys: Mapping[PartyId, VerifyKey]


def body_digest(body: bytes) -> str:
    """SHA-256 of a body in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def seal(key: SigningKey, route: Route, kind: str, body: bytes) -> bytes:
    """Signed envelope bytes.

    Raises:
        BoundError: a name is empty or longer than 128 characters.
    """
    header = _Header(
        run=route.run,
        protocol=route.protocol,
        stage=route.stage,
        sender=route.sender,
        recipient=route.recipient,
        sequence=route.sequence,
        kind=kind,
        body_sha256=hashlib.sha256(body).digest(),
    )
    return encode_struct(
        Envelope(
            run=route.run,
            protocol=route.protocol,
            stage=route.stage,
            sender=route.sender,
            recipient=route.recipient,
            sequence=route.sequence,
            kind=kind,
            body=body,
            signature=key.sign(_DOMAIN + encode_struct(header)),
        )
    )


def around_body(data: bytes, body_bytes: int) -> tuple[bytes, memoryview, bytes]:
    """What stands before the body of an envelope, the body, and what stands after it; joined they are the envelope.

    So that a transport may carry one body for several recipients, whose envelopes differ around it.

    Args:
        data: As `seal` gives it.
        body_bytes: Size of the body.
    """
    end = len(data) - _TAIL
    return data[: end - body_bytes], memoryview(data)[end - body_bytes : end], data[end:]


def open_envelope(data: bytes, expected: Expected, *, overtakes: bool = False) -> Envelope:
    """Reads and verifies an envelope; its body is not read yet.

    Args:
        data: Bytes off the wire.
        expected: What the recipient holds it to.
        overtakes: Accepts a later sequence too; for an error notice, after which nothing is read any more.

    Raises:
        PeerError: too large, malformed, of another run, sender, recipient or sequence, or not signed by the sender.
    """
    who = expected.sender
    if len(data) > expected.max_body + OVERHEAD:
        raise PeerError("wire.oversize", f"{who} sent {len(data)} bytes, at most {expected.max_body} and framing fit")
    envelope = decode_struct(Envelope, data, f"an envelope of {who}")
    if envelope.run != expected.run:
        raise PeerError("wire.run", f"{who} sent a message of another run")
    if envelope.sender != who:
        raise PeerError("wire.sender", f"a message on the link of {who} names another sender")
    if envelope.recipient != expected.recipient:
        raise PeerError("wire.recipient", f"{who} sent a message that is not for {expected.recipient}")
    key = expected.keys.get(who)
    if key is None:
        raise PeerError("wire.sender", f"{who} is not in the roster of this run")
    header = _Header(
        run=envelope.run,
        protocol=envelope.protocol,
        stage=envelope.stage,
        sender=envelope.sender,
        recipient=envelope.recipient,
        sequence=envelope.sequence,
        kind=envelope.kind,
        body_sha256=hashlib.sha256(envelope.body).digest(),
    )
    key.check(envelope.signature, _DOMAIN + encode_struct(header), who)
    if envelope.sequence < expected.sequence:
        raise PeerError(
            "wire.replay", f"{who} sent number {envelope.sequence} again, {expected.sequence} is next on this link"
        )
    if envelope.sequence > expected.sequence and not overtakes:
        raise PeerError(
            "wire.gap", f"{who} sent number {envelope.sequence}, {expected.sequence} is missing on this link"
        )
    return envelope
