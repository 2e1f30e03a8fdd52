"""Who belongs to the consortium and with which public keys: one file, signed by the consortium's key.

A roster names every member once with its four public keys, the addresses of the coordinator, the certificate authority
by digest, and what was revoked. Each change is a new version that carries the digests of all earlier ones, so that a
party that missed some still sees that the history it pinned is part of the new one.

Guarantees: origin and integrity of the member list under the pinned consortium key; no two histories under one pin.
Not covered: who holds the consortium key, and whether its fingerprint was compared by telephone before it was pinned.
Source: RFC 8032 (Ed25519); FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NoReturn

import msgspec

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.house.members import (
    MEMBER_NAME,
    Member,
    MemberKind,
    RevokedKeys,
    check_name,
    split_address,
)
from fedcredit.spec.rules import nearest
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.envelope import SigningKey, VerifyKey

__all__ = [
    "MEMBER_NAME",
    "Member",
    "MemberKind",
    "RevokedKeys",
    "Roster",
    "check_name",
    "load_roster",
    "parse_roster",
    "sign_roster",
    "split_address",
]

_DOMAIN = b"fedcredit/roster/v1\x00"
_FORMAT = 1
_MAX_BYTES = 4 << 20
_CONSORTIUM = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
_Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$", min_length=128, max_length=128)]
_Short = Annotated[str, msgspec.Meta(max_length=400)]
_Version = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class Roster:
    """The consortium as its key signed it.

    Args:
        consortium: Its name.
        version: From 1, higher with every change.
        members: All members by name.
        exchange: "host:port" of the exchange and the operators' interface.
        fleet: "host:port" of Flower's fleet interface.
        ca_sha256: Hex SHA-256 of the authority's certificate (DER).
        trial: Keys were made in one place for a trial; no real records belong here.
        history: Hex digests of all earlier versions, the first one first.
        revoked: Keys that count no more, oldest first.
        digest: Hex SHA-256 of the canonical content; set by ``parse_roster`` and ``sign_roster``.
    """

    consortium: str
    version: int
    members: Mapping[PartyId, Member]
    exchange: str
    fleet: str
    ca_sha256: str
    trial: bool = False
    history: tuple[str, ...] = ()
    revoked: tuple[RevokedKeys, ...] = ()
    digest: str = field(default="", compare=False)

    def member(self, name: str) -> Member:
        """One member.

        Raises:
            SpecError: it is not in the roster; a revoked one is said to be revoked.
        """
        found = self.members.get(PartyId(name))
        if found is not None:
            return found
        gone = [one for one in self.revoked if one.name == name and one.left]
        if gone:
            raise SpecError("roster.revoked", f"{name} was revoked on {gone[-1].since} (roster {self.version})")
        hint = nearest(name, self.members)
        raise SpecError("roster.unknown", f"{name[:80]} is not in roster {self.version} of {self.consortium}; {hint}")

    @property
    def coordinator(self) -> Member:
        """The coordinator."""
        return self.member(COORDINATOR)

    @property
    def one_address(self) -> bool:
        """Whether members reach everything at one address, so that the proxy tells exchange and fleet apart."""
        return self.exchange == self.fleet

    @property
    def previous(self) -> str:
        """Digest of the version before; "" for the first."""
        return self.history[-1] if self.history else ""

    @property
    def verify_keys(self) -> dict[PartyId, VerifyKey]:
        """Signing keys of all members."""
        return {name: member.identity for name, member in self.members.items()}

    def by_tls_key(self, tls_key_sha256: str) -> Member | None:
        """The member whose certificate has this key; None = a stranger."""
        return next((one for one in self.members.values() if one.tls_key_sha256 == tls_key_sha256), None)


class _Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: _Short
    kind: MemberKind
    identity: _Hex32
    sealing: _Hex32
    tls_key_sha256: _Hex32
    flower_key: _Short
    admin: bool = False  # left out where it is false, as in rosters from before there were roles


class _Gone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: _Short
    since: _Short
    keys: tuple[_Short, ...]
    left: bool


class _Content(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    consortium: _Short
    version: _Version
    members: tuple[_Keys, ...]
    exchange: _Short
    fleet: _Short
    ca_sha256: _Hex32
    trial: bool
    history: tuple[_Hex32, ...]
    revoked: tuple[_Gone, ...]


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    roster: _Content
    consortium_key: _Hex32
    signature: _Hex64


def sign_roster(roster: Roster, key: SigningKey) -> bytes:
    """The roster's file: canonical JSON, signed.

    Raises:
        SpecError: the roster is not one that ``parse_roster`` would take.
    """
    content = _content(roster)
    plain = _canonical(content)
    signature = key.sign(_DOMAIN + plain).hex()
    data = _canonical(_Signed(roster=content, consortium_key=key.public.raw.hex(), signature=signature)) + b"\n"
    try:
        parse_roster(data, key.public.raw, "roster")
    except IntegrityError as error:
        raise SpecError("roster.invalid", error.public) from None
    return data


def load_roster(path: Path, consortium_key: bytes) -> Roster:
    """Reads and verifies a roster.

    Args:
        path: ``roster.json``.
        consortium_key: 32 bytes of the Ed25519 key that was pinned.

    Raises:
        SpecError: no such file.
        IntegrityError: not signed by that key, not canonical, or with content that contradicts itself.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError("roster.file", f"{path}: cannot be read ({error.strerror}); pin the bundle again") from None
    return parse_roster(data, consortium_key, str(path))


def parse_roster(data: bytes, consortium_key: bytes | None, what: str) -> Roster:
    """As ``load_roster``, from bytes.

    Args:
        data: The file.
        consortium_key: The pinned key; None = the one the file itself names, which proves nothing about its origin
            and is for showing a fingerprint before the first pin.
        what: Name of the file for the error text.

    Raises:
        IntegrityError: as in ``load_roster``.
    """
    if len(data) > _MAX_BYTES:
        _refuse(what, f"{len(data)} bytes; a roster has at most {_MAX_BYTES}")
    try:
        signed = msgspec.json.decode(data, type=_Signed)
        canonical = _canonical(signed) + b"\n"
    except (ValueError, RecursionError) as error:
        raise IntegrityError("roster.malformed", f"{what}: this is no roster; ask for it again", str(error)) from None
    if canonical != data:
        _refuse(what, "not in canonical form: it was changed after it was signed; ask for it again")
    given = bytes.fromhex(signed.consortium_key)
    if consortium_key is not None and given != consortium_key:
        _refuse(what, "signed by another consortium key than the pinned one", "roster.key")
    plain = _canonical(signed.roster)
    try:
        VerifyKey(given).check(bytes.fromhex(signed.signature), _DOMAIN + plain, "the consortium")
    except FedCreditError:
        _refuse(what, "the signature is not the consortium's: it was changed after it was signed", "roster.signature")
    return _checked(signed.roster, hashlib.sha256(plain).hexdigest(), what)


def _canonical(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _refuse(what: str, why: str, code: str = "roster.content") -> NoReturn:
    raise IntegrityError(code, f"{what}: {why}")


def _content(roster: Roster) -> _Content:
    keys = [
        _Keys(
            name=one.name,
            kind=one.kind,
            identity=one.identity.raw.hex(),
            sealing=one.sealing.hex(),
            tls_key_sha256=one.tls_key_sha256,
            flower_key=one.flower_key,
            admin=one.admin,
        )
        for one in sorted(roster.members.values(), key=lambda one: one.name)
    ]
    return _Content(
        format=_FORMAT,
        consortium=roster.consortium,
        version=roster.version,
        members=tuple(keys),
        exchange=roster.exchange,
        fleet=roster.fleet,
        ca_sha256=roster.ca_sha256,
        trial=roster.trial,
        history=roster.history,
        revoked=tuple(_Gone(name=o.name, since=o.since, keys=o.keys, left=o.left) for o in roster.revoked),
    )


def _checked(content: _Content, digest: str, what: str) -> Roster:
    """The roster, if nothing in it contradicts itself."""
    if content.format != _FORMAT:
        _refuse(what, f"format {content.format}; this version of fedcredit reads format {_FORMAT}")
    if _CONSORTIUM.fullmatch(content.consortium) is None:
        _refuse(what, f"the consortium's name {content.consortium[:80]!r} is not 1 to 63 of a-z 0-9 -")
    if content.version != len(content.history) + 1:
        _refuse(what, f"version {content.version} with {len(content.history)} versions before it")
    try:
        members = [
            Member(
                name=PartyId(one.name),
                kind=one.kind,
                identity=VerifyKey(bytes.fromhex(one.identity)),
                sealing=bytes.fromhex(one.sealing),
                tls_key_sha256=one.tls_key_sha256,
                flower_key=one.flower_key,
                admin=one.admin,
            )
            for one in content.members
        ]
        for address in (content.exchange, content.fleet):
            split_address(address)
    except SpecError as error:
        _refuse(what, error.public)
    names = [one.name for one in members]
    if names != sorted(set(names)):
        _refuse(what, "members twice or out of order")
    if COORDINATOR not in names:
        _refuse(what, "without a coordinator")
    revoked = tuple(RevokedKeys(PartyId(one.name), one.since, one.keys, one.left) for one in content.revoked)
    _check_keys(members, revoked, what)
    return Roster(
        consortium=content.consortium,
        version=content.version,
        members=MappingProxyType({one.name: one for one in members}),
        exchange=content.exchange,
        fleet=content.fleet,
        ca_sha256=content.ca_sha256,
        trial=content.trial,
        history=content.history,
        revoked=revoked,
        digest=digest,
    )


def _check_keys(members: list[Member], revoked: tuple[RevokedKeys, ...], what: str) -> None:
    owner = {key: f"the revoked keys of {one.name}" for one in revoked for key in one.keys}
    for member in members:
        for key in member.public_keys:
            if key in owner:
                _refuse(what, f"{member.name} has a key of {owner[key]}; every key is one member's alone", "roster.key")
            owner[key] = member.name
