"""Members of a consortium: names, kinds, public keys, addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fedcredit.errors import SpecError
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.envelope import VerifyKey

__all__ = ["MEMBER_NAME", "Member", "MemberKind", "RevokedKeys", "check_name", "split_address"]

MEMBER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Names of members become folders, certificate names and ledger keys; to be used with ``fullmatch``."""

_FLOWER_KEY = re.compile(r"ecdsa-sha2-nistp384 [A-Za-z0-9+/]{100,220}={0,2}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")


class MemberKind(StrEnum):
    """What a member runs."""

    NODE = "node"
    COORDINATOR = "coordinator"
    OPERATOR = "operator"


@dataclass(frozen=True, eq=False)
class Member:
    """One member's public keys.

    Args:
        name: Its name.
        kind: What it runs.
        identity: Ed25519 key that signs its messages.
        sealing: X25519 public key, 32 bytes, to which others seal.
        tls_key_sha256: Hex SHA-256 of the SubjectPublicKeyInfo (DER) of its certificate's key.
        flower_key: OpenSSH public line of its Flower key (ECDSA P-384); "" if it is no node.
        admin: Of an operator: may stop, resume and fetch the runs of others too.
    """

    name: PartyId
    kind: MemberKind
    identity: VerifyKey
    sealing: bytes
    tls_key_sha256: str
    flower_key: str = ""
    admin: bool = False

    def __post_init__(self) -> None:
        """Refuses what no member can have."""
        check_name(self.name, self.kind)
        if (self.kind is MemberKind.NODE) is not bool(self.flower_key):
            raise SpecError("roster.key", f"{self.name}: nodes, and they alone, have a Flower key")
        if self.admin and self.kind is not MemberKind.OPERATOR:
            raise SpecError("roster.admin", f"{self.name}: a {self.kind}; operators alone can be admin")
        if self.flower_key and _FLOWER_KEY.fullmatch(self.flower_key) is None:
            raise SpecError("roster.key", f"{self.name}: the Flower key is no OpenSSH line of an ECDSA P-384 key")

    def __eq__(self, other: object) -> bool:
        """By name, kind, keys and role; signing keys have no equality of their own."""
        if not isinstance(other, Member):
            return NotImplemented
        return self._told == other._told

    def __hash__(self) -> int:
        return hash(self._told)

    @property
    def _told(self) -> tuple[str, MemberKind, tuple[str, ...], bool]:
        return self.name, self.kind, self.public_keys, self.admin

    @property
    def public_keys(self) -> tuple[str, ...]:
        """All its public keys as text; no two members share one."""
        keys = (self.identity.raw.hex(), self.sealing.hex(), self.tls_key_sha256, self.flower_key)
        return tuple(key for key in keys if key)


@dataclass(frozen=True)
class RevokedKeys:
    """Keys that count no more.

    Args:
        name: Whose they were.
        since: When they were revoked or replaced, RFC 3339 in UTC.
        keys: Public keys as in ``Member.public_keys``.
        left: Whether the member itself was revoked; False = it changed keys.
    """

    name: PartyId
    since: str
    keys: tuple[str, ...]
    left: bool


def check_name(name: str, kind: MemberKind) -> None:
    """Refuses a name that a member of this kind cannot have.

    Raises:
        SpecError: not of the characters of a name, or the coordinator's for another kind, or the other way round.
    """
    if MEMBER_NAME.fullmatch(name) is None:
        raise SpecError("roster.name", f"{name[:80]!r}: a member's name is 1 to 64 of a-z 0-9 _ -")
    if (name == COORDINATOR) is not (kind is MemberKind.COORDINATOR):
        raise SpecError("roster.name", f'{name}: the coordinator, and it alone, is named "{COORDINATOR}"')


def split_address(address: str) -> tuple[str, int]:
    """Host (an IPv6 one without its brackets) and port of "host:port".

    Raises:
        SpecError: it is none.
    """
    host, _, port = address.rpartition(":")
    if _HOST.fullmatch(host) is None or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise SpecError("roster.address", f'{address[:80]!r} is no address; write "host:port" with a port up to 65535')
    return host.strip("[]"), int(port)
