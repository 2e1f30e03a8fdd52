"""A member's request to be in the roster: its public keys, each with a proof that it holds the private half.

Private keys stay where they were made. The identity key signs the whole request; the certificate request inside is
signed with the TLS key, and the Flower key signs too. A request that changes keys is signed by the old identity too.

Not covered: possession of the X25519 key, which cannot sign; who claims another's gains nothing, as it cannot open what
is sealed to it, and no key may be in a roster twice.
Source: RFC 2986 (PKCS #10), RFC 8032, FIPS 186-5 (ECDSA).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from cryptography.x509.oid import NameOID

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.home import check_private
from fedcredit.runtime.house.roster import Member, MemberKind, check_name
from fedcredit.runtime.provision.certificates import key_digest, make_signing_request
from fedcredit.runtime.provision.keys import PartyKeys, fingerprint, new_keys, read_keys, write_keys
from fedcredit.types import PartyId
from fedcredit.wire.envelope import VerifyKey

__all__ = ["KEYS_NEXT", "MadeRequest", "Request", "home_keys", "make_request", "parse_request", "request_bytes"]

KEYS_NEXT = "keys-next"
"""Folder of keys that were asked for and are not in force yet."""

_DOMAIN = b"fedcredit/request/v1\x00"
_FORMAT = 1
_MAX_BYTES = 64 << 10
_Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
_Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$", min_length=128, max_length=128)]
_Hex = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$", max_length=256)]
_Text = Annotated[str, msgspec.Meta(max_length=8192)]


class _Content(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    name: _Text
    kind: MemberKind
    made: _Text
    identity: _Hex32
    sealing: _Hex32
    tls_request: _Text
    flower_key: _Text
    previous: _Hex32 | None


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    request: _Content
    signature: _Hex64
    flower_signature: _Hex
    previous_signature: _Hex64 | None


@dataclass(frozen=True)
class Request:
    """A request whose proofs were checked.

    Args:
        member: Its public keys as they would stand in the roster.
        tls_key: Key of its certificate.
        made: When it was made by the member's clock.
        previous: Identity key it replaces and that signed it too; None = a first request, or the same identity.
        digest: Hex SHA-256 of the file.
        data: The file.
    """

    member: Member
    tls_key: ec.EllipticCurvePublicKey
    made: datetime
    previous: VerifyKey | None
    digest: str
    data: bytes

    @property
    def name(self) -> PartyId:
        """Who asks."""
        return self.member.name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the identity key, to compare by telephone."""
        return fingerprint(self.member.identity.raw)


@dataclass(frozen=True)
class MadeRequest:
    """What ``make_request`` made.

    Args:
        path: The request, to be sent to the operator; nothing in it is secret.
        keys: Folder of the private keys.
        fingerprint: To read out to the operator by telephone.
        fresh: Whether the keys were made now.
    """

    path: Path
    keys: Path
    fingerprint: str
    fresh: bool


def make_request(name: str, kind: MemberKind, out: Path, *, rotate: bool = False) -> MadeRequest:
    """Makes a member's keys where they will stay, and the request for the operator.

    Called again, it makes the request again for the keys that are there.

    Args:
        name: The member's name in ``consortium.toml``.
        kind: What it runs.
        out: Its future home; ``out/keys`` gets the keys and ``out/<name>.request.json`` is the request.
        rotate: Makes new keys beside those of an existing home; they count from the pin of the new bundle on.

    Raises:
        SpecError: not a name, unreadable keys, a folder that cannot be written, or no keys to rotate.
        IntegrityError: keys that are there are damaged.
    """
    check_name(name, kind)  # before anything is written
    old = read_keys(out / "keys", kind) if rotate else None
    folder = out / (KEYS_NEXT if rotate else "keys")
    fresh = not folder.exists()
    keys = home_keys(out, kind, folder.name)
    request = request_bytes(name, kind, keys, old=old)
    path = out / f"{name}.request.json"
    try:
        replace_file(path, request)
    except OSError as error:
        raise SpecError("request.folder", f"{path}: cannot be written ({error.strerror})") from None
    return MadeRequest(path, folder, fingerprint(keys.signing.public.raw), fresh)


def home_keys(home: Path, kind: MemberKind, name: str = "keys") -> PartyKeys:
    """The keys in a home; made if there are none.

    Raises:
        SpecError: readable by others, or not writable.
        IntegrityError: they are damaged.
    """
    folder = home / name
    if folder.exists():
        check_private(folder)
        return read_keys(folder, kind)
    keys = new_keys(kind)
    write_keys(folder, keys)
    return keys


def request_bytes(name: str, kind: MemberKind, keys: PartyKeys, *, old: PartyKeys | None = None) -> bytes:
    """The request's file for given keys.

    Raises:
        SpecError: not a name for this kind of member.
    """
    content = _Content(
        format=_FORMAT,
        name=name,
        kind=kind,
        made=datetime.now(UTC).isoformat(),
        identity=keys.signing.public.raw.hex(),
        sealing=keys.sealing_public.hex(),
        tls_request=make_signing_request(name[:64] or "-", keys.tls).decode("ascii"),
        flower_key=keys.flower_public,
        previous=old.signing.public.raw.hex() if old else None,
    )
    _member(content, "0" * 64)
    text = _DOMAIN + _canonical(content)
    signed = _Signed(
        request=content,
        signature=keys.signing.sign(text).hex(),
        flower_signature=keys.flower.sign(text, ec.ECDSA(SHA384())).hex() if keys.flower else "",
        previous_signature=old.signing.sign(text).hex() if old else None,
    )
    return _canonical(signed) + b"\n"


def parse_request(data: bytes, what: str) -> Request:
    """Reads a request and checks its proofs of possession.

    Args:
        data: The file, from anywhere.
        what: Its name for the error text.

    Raises:
        IntegrityError: malformed, or a proof does not hold; the text says which.
    """
    if len(data) > _MAX_BYTES:
        _refuse(what, f"{len(data)} bytes; a request has at most {_MAX_BYTES}")
    try:
        signed = msgspec.json.decode(data, type=_Signed)
        canonical = _canonical(signed) + b"\n"
        made = datetime.fromisoformat(signed.request.made)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("request.malformed", f"{what}: this is no request", str(error)) from None
    content = signed.request
    if canonical != data or content.format != _FORMAT or made.tzinfo is None:
        _refuse(what, "not as this version of fedcredit writes requests; have it made again")
    try:
        member = _member(content, "0" * 64)
    except SpecError as error:
        _refuse(what, error.public)
    text = _DOMAIN + _canonical(content)
    _check_signature(member.identity, signed.signature, text, f"{what}: not signed by the identity key in it")
    tls_key = _tls_key(content, what)
    _check_sealing(member.sealing, what)
    _check_flower(member, signed.flower_signature, text, what)
    previous = None
    if (content.previous is None) is not (signed.previous_signature is None):
        _refuse(what, "names a previous identity key without its signature")
    if content.previous is not None and signed.previous_signature is not None:
        previous = VerifyKey(bytes.fromhex(content.previous))
        _check_signature(previous, signed.previous_signature, text, f"{what}: not signed by the previous identity key")
    return Request(
        member=_member(content, key_digest(tls_key)),
        tls_key=tls_key,
        made=made,
        previous=previous,
        digest=hashlib.sha256(data).hexdigest(),
        data=data,
    )


def _canonical(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _refuse(what: str, why: str, code: str = "request.content") -> NoReturn:
    raise IntegrityError(code, f"{what}: {why}")


def _member(content: _Content, tls_key_sha256: str) -> Member:
    return Member(
        name=PartyId(content.name),
        kind=content.kind,
        identity=VerifyKey(bytes.fromhex(content.identity)),
        sealing=bytes.fromhex(content.sealing),
        tls_key_sha256=tls_key_sha256,
        flower_key=content.flower_key,
    )


def _check_signature(key: VerifyKey, signature: str, text: bytes, why: str) -> None:
    try:
        key.check(bytes.fromhex(signature), text, "the member")
    except FedCreditError:
        raise IntegrityError("request.signature", why) from None


def _tls_key(content: _Content, what: str) -> ec.EllipticCurvePublicKey:
    """Key of the certificate request, which must be signed with it and be for this member."""
    try:
        request = x509.load_pem_x509_csr(content.tls_request.encode("ascii"))
        valid, key = request.is_signature_valid, request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IntegrityError("request.tls", f"{what}: no certificate request in it", str(error)) from None
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        _refuse(what, "the certificate request is not signed by the EC P-256 key in it", "request.tls")
    names = [one.value for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [content.name]:
        _refuse(what, f"the certificate request in it is not for {content.name}", "request.tls")
    return key


def _check_sealing(public: bytes, what: str) -> None:
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # all small-order points give the same secret to everyone
        raise IntegrityError("request.sealing", f"{what}: the sealing key is no usable X25519 key") from None


def _check_flower(member: Member, signature: str, text: bytes, what: str) -> None:
    if member.kind is not MemberKind.NODE:
        if signature:
            _refuse(what, "a Flower signature of what is no node", "request.flower")
        return
    try:
        key = load_ssh_public_key(member.flower_key.encode("ascii"))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            _refuse(what, "the Flower key is no elliptic-curve key", "request.flower")
        key.verify(bytes.fromhex(signature), text, ec.ECDSA(SHA384()))
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise IntegrityError("request.flower", f"{what}: not signed by the Flower key in it") from None
