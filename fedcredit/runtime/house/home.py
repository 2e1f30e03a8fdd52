"""A member's home folder: everything it needs to take part, opened only if nothing in it is wrong.

Checked on opening: modes of folders and keys, the roster under the pinned consortium key and at the pinned version, the
certificate's authority, member, time and key, and that every private key is the one the roster names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.house.roster import Member, MemberKind, Roster, load_roster
from fedcredit.runtime.house.settings import (
    SETTINGS_FILES,
    CoordinatorSettings,
    NodeSettings,
    OperatorSettings,
    read_settings,
)
from fedcredit.runtime.provision.certificates import TlsFiles, check_certificate
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey

__all__ = [
    "KEY_FILES",
    "Home",
    "Pins",
    "TlsFiles",
    "check_private",
    "home_kind",
    "open_home",
    "read_pins",
    "read_settings_file",
]

KEY_FILES: Final = ("identity.key", "sealing.key", "tls.key")
"""Key files of every member; nodes have ``flower.key`` and ``flower.pub`` too."""

_PRIVATE_FOLDER = 0o700
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SETTINGS: Final[Mapping[MemberKind, type[NodeSettings | CoordinatorSettings | OperatorSettings]]] = {
    MemberKind.NODE: NodeSettings,
    MemberKind.COORDINATOR: CoordinatorSettings,
    MemberKind.OPERATOR: OperatorSettings,
}
_Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]


class Pins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``pins.json``: what this member took as true when it pinned.

    Attributes:
        consortium: Name of the consortium.
        consortium_key: Hex of its Ed25519 public key.
        party: Name of this member.
        roster_version: Version in force here.
        roster_digest: Its digest.
        pinned: When, RFC 3339 in UTC.
    """

    consortium: str
    consortium_key: _Hex32
    party: str
    roster_version: Annotated[int, msgspec.Meta(ge=1)]
    roster_digest: _Hex32
    pinned: str


@dataclass(frozen=True)
class Home:
    """An opened home.

    Args:
        folder: Where it is.
        party: Whose it is.
        kind: What the member runs.
        roster: The consortium.
        identity: Key that signs.
        sealing: X25519 private key, 32 bytes, to which others seal.
        tls: Certificate and key.
        settings: The settings file of this kind.
    """

    folder: Path
    party: PartyId
    kind: MemberKind
    roster: Roster
    identity: SigningKey = field(repr=False)
    sealing: bytes = field(repr=False)
    tls: TlsFiles
    settings: NodeSettings | CoordinatorSettings | OperatorSettings

    @property
    def member(self) -> Member:
        """This member in the roster."""
        return self.roster.member(self.party)

    @property
    def node(self) -> NodeSettings:
        """Settings of a node.

        Raises:
            SpecError: this is the home of another kind of member.
        """
        if not isinstance(self.settings, NodeSettings):
            raise SpecError("home.kind", f"{self.folder}: the home of {self.kind} {self.party}; give that of a node")
        return self.settings

    @property
    def coordinator(self) -> CoordinatorSettings:
        """Settings of the coordinator.

        Raises:
            SpecError: this is the home of another kind of member.
        """
        if not isinstance(self.settings, CoordinatorSettings):
            right = "give that of the coordinator"
            raise SpecError("home.kind", f"{self.folder}: the home of {self.kind} {self.party}; {right}")
        return self.settings

    @property
    def operator(self) -> OperatorSettings:
        """Settings of an operator.

        Raises:
            SpecError: this is the home of another kind of member.
        """
        if not isinstance(self.settings, OperatorSettings):
            raise SpecError(
                "home.kind", f"{self.folder}: the home of {self.kind} {self.party}; give that of an operator"
            )
        return self.settings

    @property
    def policy(self) -> Path:
        """The house's policy; an absent file denies everything."""
        return self.folder / "policy.toml"

    @property
    def ca_file(self) -> Path:
        """Certificate of the authority."""
        return self.folder / "ca.pem"

    @property
    def certificate_file(self) -> Path:
        """This member's certificate."""
        return self.folder / "certificate.pem"

    @property
    def keys(self) -> Path:
        """Folder of the private keys."""
        return self.folder / "keys"

    @property
    def state(self) -> Path:
        """Folder of what is not finished, made with mode 0700."""
        return self._made("state")

    @property
    def runs(self) -> Path:
        """Folder of finished runs, made with mode 0700."""
        return self._made("runs")

    @property
    def logs(self) -> Path:
        """Folder of logs, made with mode 0700."""
        return self._made("logs")

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        return folder


def open_home(folder: Path, *, now: datetime | None = None) -> Home:
    """Opens a home if everything in it is right.

    Args:
        folder: The home.
        now: Time for the certificate's validity; None = this machine's clock.

    Raises:
        SpecError: one line: a file is missing, readable by others, or wrong; the certificate is out of its time; the
            member is not in the roster or was revoked.
        IntegrityError: one line: roster, certificate or keys are not the ones that were pinned.
    """
    folder = folder.resolve()
    kind = home_kind(folder)
    settings = read_settings_file(folder, kind)
    pins = read_pins(folder)
    roster = load_roster(folder / "roster.json", bytes.fromhex(pins.consortium_key))
    if (roster.version, roster.digest) != (pins.roster_version, pins.roster_digest):
        raise IntegrityError(
            "home.pins",
            f"{folder / 'roster.json'}: version {roster.version}, but version {pins.roster_version} was pinned here; "
            "pin its bundle, which keeps both in step",
        )
    if (roster.consortium, settings.party) != (pins.consortium, pins.party):
        raise IntegrityError(
            "home.pins",
            f"{folder}: pinned for {pins.party} in {pins.consortium}, but the files name {settings.party} in "
            f"{roster.consortium}; put back the files of one bundle",
        )
    member = roster.member(settings.party)
    if member.kind is not kind:
        found = f"{SETTINGS_FILES[kind]} in the home of {member.kind} {member.name}"
        raise SpecError("home.kind", f"{folder}: {found}; the file should be {SETTINGS_FILES[member.kind]}")
    check_private(folder / "keys")
    _check_own(folder)
    tls = TlsFiles(_read(folder / "ca.pem"), _read(folder / "certificate.pem"), _read(folder / "keys" / "tls.key"))
    check_certificate(tls, roster, member, now or datetime.now(UTC), folder)
    identity, sealing = _own_keys(folder / "keys", member)
    return Home(folder, member.name, kind, roster, identity, sealing, tls, settings)


def home_kind(folder: Path) -> MemberKind:
    """What kind of member a home is for, by its settings file.

    Raises:
        SpecError: there is none, or more than one.
    """
    if not folder.is_dir():
        raise SpecError("home.folder", f"{folder}: no such folder; give the home that the bundle was pinned into")
    kinds = [kind for kind, name in SETTINGS_FILES.items() if (folder / name).is_file()]
    names = ", ".join(SETTINGS_FILES.values())
    if not kinds:
        right = "pin a bundle into it first" if (folder / "keys").is_dir() else "give the folder of a member"
        raise SpecError("home.settings", f"{folder}: none of {names} is here; {right}")
    if len(kinds) > 1:
        raise SpecError("home.settings", f"{folder}: more than one of {names}; a home belongs to one member")
    return kinds[0]


def read_settings_file(folder: Path, kind: MemberKind) -> NodeSettings | CoordinatorSettings | OperatorSettings:
    """The settings of a home.

    Raises:
        SpecError: they are missing or wrong.
    """
    return read_settings(_SETTINGS[kind], folder / SETTINGS_FILES[kind])


def read_pins(folder: Path) -> Pins:
    """What was pinned in a home.

    Raises:
        SpecError: nothing was.
        IntegrityError: the file is damaged.
    """
    path = folder / "pins.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pins)
    except OSError as error:
        right = "pin the bundle of the consortium"
        raise SpecError("home.pins", f"{path}: cannot be read ({error.strerror}); {right}") from None
    except ValueError as error:
        raise IntegrityError("home.pins", f"{path}: damaged; restore it or pin again", str(error)) from None


def check_private(keys: Path) -> None:
    """Refuses a folder of keys that others on this machine could read.

    Raises:
        SpecError: naming file and mode.
    """
    try:
        found = [keys, *sorted(path for path in keys.iterdir() if path.suffix != ".pub")]
        for path in found:
            status = path.stat()
            if status.st_mode & _OTHERS:
                mode, right = stat.S_IMODE(status.st_mode), "700" if path.is_dir() else "600"
                why = f"mode {mode:04o} lets others on this machine in"
                raise SpecError("home.mode", f"{path}: {why}; chmod {right} {path}")
            if status.st_uid not in {os.geteuid(), 0}:
                why = f"belongs to user {status.st_uid}, this process runs as {os.geteuid()}"
                raise SpecError("home.owner", f"{path}: {why}; chown it")
    except OSError as error:
        right = "restore the keys from the backup, or make a new request"
        raise SpecError("home.keys", f"{error.filename or keys}: cannot be read ({error.strerror}); {right}") from None


def _check_own(folder: Path) -> None:
    """Refuses a home in which everybody on this machine could write: its policy and its people's word count as theirs.

    Raises:
        SpecError: naming the path and its mode.
    """
    decides = ("", *SETTINGS_FILES.values(), "policy.toml", "pins.json", "state", "state/approvals", "state/runs")
    entered = folder.stat().st_mode & stat.S_IXOTH
    for path in (folder / name for name in decides):
        if not path.exists() or (path != folder and not entered):
            continue
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            why = f"mode {stat.S_IMODE(mode):04o} lets everybody on this machine decide for this house"
            raise SpecError("home.mode", f"{path}: {why}; chmod o-w {path}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        right = "restore it from the backup" if path.suffix == ".key" else "pin the bundle again"
        raise SpecError("home.file", f"{path}: cannot be read ({error.strerror}); {right}") from None


def _own_keys(keys: Path, member: Member) -> tuple[SigningKey, bytes]:
    """Identity and sealing key, if they and the Flower key are the roster's."""
    seed, sealing = _read(keys / "identity.key"), _read(keys / "sealing.key")
    for name, secret in (("identity.key", seed), ("sealing.key", sealing)):
        if len(secret) != 32:
            raise IntegrityError("home.key", f"{keys / name}: {len(secret)} bytes; this key has 32")
    identity = SigningKey(seed)
    own = {
        "identity.key": identity.public.raw == member.identity.raw,
        "sealing.key": X25519PrivateKey.from_private_bytes(sealing).public_key().public_bytes_raw() == member.sealing,
    }
    if member.kind is MemberKind.NODE:
        own["flower.key"] = _flower_public(keys / "flower.key") == member.flower_key
    for name, right in own.items():
        if not right:
            why = f"not the key that the roster names for {member.name}"
            raise IntegrityError("home.key", f"{keys / name}: {why}; restore the right one, or rotate the keys")
    return identity, sealing


def _flower_public(path: Path) -> str:
    try:
        key = load_ssh_private_key(_read(path), password=None)
    except ValueError as error:
        why = "no OpenSSH private key without a passphrase"
        raise IntegrityError("home.key", f"{path}: {why}; restore it", str(error)) from None
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
