"""The consortium's own keys, and its memory of what it signed: one folder, of mode 0700, at the operator alone.

``consortium.key`` signs rosters, ``ca.key`` signs certificates, ``state.json`` holds the accepted requests, the issued
certificates and the roster. The state is replaced as a whole, so that a crash leaves the last version or the new one.

Not covered: theft of this folder. Who has it can add members; nobody can read what was sealed before.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedcredit.crypto.prg import SystemEntropy
from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.home import check_private
from fedcredit.runtime.house.roster import Roster, parse_roster, sign_roster
from fedcredit.runtime.provision.certificates import (
    Issuer,
    certificate_digest,
    load_certificate,
    make_authority,
    private_pem,
)
from fedcredit.runtime.provision.keys import write_private
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.wire.envelope import SigningKey

__all__ = ["Authority", "Issued", "open_authority"]


class Issued(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was accepted of one member and issued to it.

    Attributes:
        request: Its newest accepted request, as text.
        made: When that was made.
        certificate: PEM.
        hosts: Names the certificate may serve at; empty = it may not serve.
    """

    request: str
    made: str
    certificate: str
    hosts: tuple[str, ...]


class _State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    consortium: str
    ca: str
    hosts: tuple[str, ...]
    known: tuple[str, ...]
    issued: dict[str, Issued]
    roster: str


@dataclass
class Authority:
    """The authority while one command works with it; ``save`` makes what was done last.

    Args:
        folder: Where it is.
        consortium: Name of the consortium.
        signing: The consortium's key.
        ca_key: PEM of the certificate authority's key.
        ca: PEM of its certificate.
        hosts: Hosts that the certificate is constrained to.
        known: Digests of all requests ever accepted.
        issued: What is in force by member.
        roster: Newest roster; None before the first.
        signed: Its file.
    """

    folder: Path
    consortium: str
    signing: SigningKey = field(repr=False)
    ca_key: bytes = field(repr=False)
    ca: bytes = b""
    hosts: tuple[str, ...] = ()
    known: set[str] = field(default_factory=set)
    issued: dict[str, Issued] = field(default_factory=dict)
    roster: Roster | None = None
    signed: bytes = b""

    def prepare(self, spec: ConsortiumSpec, now: datetime) -> bool:
        """Makes the authority's certificate where there is none, it ends soon, or the hosts are others.

        Returns:
            Whether it was made.
        """
        hosts = tuple(sorted(spec.coordinator.hosts))
        if self.ca:
            left = load_certificate(self.ca, str(self.folder / "ca.pem")).not_valid_after_utc - now
            # a member's certificate must not outlive the one that vouches for it
            if hosts == self.hosts and left > timedelta(days=spec.certificates.days):
                return False
        key = load_pem_private_key(self.ca_key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IntegrityError("authority.key", f"{self.folder / 'ca.key'}: no EC key; restore it from the backup")
        days = spec.certificates.authority_days + spec.certificates.days
        self.ca, self.hosts = make_authority(self.consortium, key, hosts, now, days), hosts
        return True

    def issuer(self, now: datetime, days: int) -> Issuer:
        """What signs certificates."""
        return Issuer(self.consortium, self.ca_key, self.ca, now, days)

    @property
    def ca_sha256(self) -> str:
        """Digest of the certificate, for the roster."""
        return certificate_digest(self.ca)

    def publish(self, roster: Roster) -> Roster:
        """Signs a roster and takes it as the newest.

        Raises:
            SpecError: its content contradicts itself, such as a key that two members share.
        """
        self.signed = sign_roster(roster, self.signing)
        self.roster = parse_roster(self.signed, self.signing.public.raw, "roster")
        return self.roster

    def save(self) -> None:
        """Makes everything since the opening last, at once."""
        state = _State(
            format=1,
            consortium=self.consortium,
            ca=self.ca.decode("ascii"),
            hosts=self.hosts,
            known=tuple(sorted(self.known)),
            issued=self.issued,
            roster=self.signed.decode("utf-8"),
        )
        replace_file(self.folder / "state.json", msgspec.json.encode(state, order="sorted") + b"\n")


@contextmanager
def open_authority(folder: Path, consortium: str) -> Iterator[Authority]:
    """Opens the authority, made on first use; one command at a time.

    Raises:
        SpecError: of another consortium, readable by others, used by another command, or not writable.
        IntegrityError: its state is damaged.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpecError("authority.folder", f"{folder}: cannot be written ({error.strerror})") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            why = "another fedcredit provision works with it; wait for it to end"
            raise SpecError("authority.busy", f"{folder}: {why}") from None
        check_private(folder)
        yield _opened(folder, consortium)
    finally:
        os.close(lock)


def _opened(folder: Path, consortium: str) -> Authority:
    state = _state(folder / "state.json")
    if state is not None and state.consortium != consortium:
        right = "give each consortium an --out folder of its own"
        raise SpecError(
            "authority.consortium", f"{folder}: of consortium {state.consortium}, not {consortium}; {right}"
        )
    for name, fresh in (("consortium.key", SystemEntropy().take(32)), ("ca.key", _new_key())):
        if (folder / name).exists():
            continue
        if state is not None:
            raise SpecError("authority.key", f"{folder / name}: missing; restore it from the backup")
        write_private(folder / name, fresh)
    seed = (folder / "consortium.key").read_bytes()
    if len(seed) != 32:
        raise IntegrityError("authority.key", f"{folder / 'consortium.key'}: {len(seed)} bytes; this key has 32")
    authority = Authority(folder, consortium, SigningKey(seed), (folder / "ca.key").read_bytes())
    if state is not None:
        authority.ca, authority.hosts = state.ca.encode("ascii"), state.hosts
        authority.known, authority.issued = set(state.known), dict(state.issued)
        authority.signed = state.roster.encode("utf-8")
        what = str(folder / "state.json")
        authority.roster = parse_roster(authority.signed, authority.signing.public.raw, what)
    return authority


def _state(path: Path) -> _State | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=_State)
    except ValueError as error:
        raise IntegrityError("authority.state", f"{path}: damaged; restore it from the backup", str(error)) from None


def _new_key() -> bytes:
    return private_pem(ec.generate_private_key(ec.SECP256R1()))
