"""Taking a bundle into a home: what was pinned first decides what is taken later.

The first pin takes the consortium's key, compared by its fingerprint with what the operator says by telephone. After
that only rosters that this key signed are taken, only newer ones, and only those whose history contains the pinned one.

Not covered: a first pin without comparing the fingerprint trusts whoever handed over the bundle.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.home import Pins, check_private, read_pins
from fedcredit.runtime.house.roster import Member, MemberKind, Roster, load_roster, parse_roster
from fedcredit.runtime.house.settings import SETTINGS_FILES
from fedcredit.runtime.provision.certificates import TlsFiles, check_certificate
from fedcredit.runtime.provision.keys import PartyKeys, fingerprint, read_keys, same_fingerprint
from fedcredit.runtime.provision.request import KEYS_NEXT
from fedcredit.types import PartyId

__all__ = ["Pinned", "pin"]

_OWN = ("policy.toml", "compose.yaml")  # the house's own files, besides its settings: never written over


@dataclass(frozen=True)
class Pinned:
    """What was pinned.

    Args:
        party: Whose home it is.
        consortium: Name of the consortium.
        version: Version of its roster.
        fingerprint: Of the consortium's key.
        fingerprints: Of every member's identity key.
        first: Whether the consortium's key was pinned now.
        compared: Whether its fingerprint was given and is the same.
        rotated: Whether new keys came into force.
        kept: Files of the house that differ from those of the bundle and were kept.
        changes: Members that came, left or have another key since the roster pinned before. Whoever holds the
            consortium's key can bring that about, so it is to be compared.
    """

    party: PartyId
    consortium: str
    version: int
    fingerprint: str
    fingerprints: dict[PartyId, str]
    first: bool
    compared: bool
    rotated: bool
    kept: tuple[str, ...]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Bundle:
    """A bundle's files, all read before anything is written."""

    folder: Path
    roster: bytes
    ca: bytes
    certificate: bytes


def pin(bundle: Path, home: Path, expected_fingerprint: str | None = None, *, now: datetime | None = None) -> Pinned:
    """Checks a bundle and takes it into a home that has the keys.

    Args:
        bundle: Folder from the operator.
        home: Folder in which ``make_request`` made the keys.
        expected_fingerprint: The consortium's, as the operator read it out; None = not compared.
        now: Time for the certificate's validity; None = this machine's clock.

    Raises:
        SpecError: a file is missing, keys are readable by others, or the certificate is out of its time.
        IntegrityError: another fingerprint, consortium or history than pinned, an older roster, or not the bundle of
            this home's keys.
    """
    files = _Bundle(bundle, *(_read(bundle / name) for name in ("roster.json", "ca.pem", "certificate.pem")))
    old = read_pins(home) if (home / "pins.json").exists() else None
    pinned_key = bytes.fromhex(old.consortium_key) if old else None
    roster, key = _roster(files, pinned_key)
    printed = fingerprint(key)
    if expected_fingerprint is not None and not same_fingerprint(expected_fingerprint, printed):
        why = f"the consortium's fingerprint is {printed}, not the one given; do not use it, and call the operator"
        raise IntegrityError("pin.fingerprint", f"{bundle}: {why}")
    if old is not None:
        _check_succession(old, roster, bundle)
    folder, member = _own_member(home, roster, bundle)
    tls = TlsFiles(files.ca, files.certificate, _read(folder / "tls.key"))
    check_certificate(tls, roster, member, now or datetime.now(UTC), bundle)
    changes = _changes(home, old, roster)
    kept = _install(files, home, member.kind)
    rotated = folder.name == KEYS_NEXT
    if rotated:
        _swap(home)
    pins = Pins(
        consortium=roster.consortium,
        consortium_key=key.hex(),
        party=member.name,
        roster_version=roster.version,
        roster_digest=roster.digest,
        pinned=datetime.now(UTC).replace(microsecond=0).isoformat(),
    )
    replace_file(home / "pins.json", msgspec.json.encode(pins) + b"\n")
    return Pinned(
        party=member.name,
        consortium=roster.consortium,
        version=roster.version,
        fingerprint=printed,
        fingerprints={name: fingerprint(one.identity.raw) for name, one in roster.members.items()},
        first=old is None,
        compared=expected_fingerprint is not None,
        rotated=rotated,
        kept=kept,
        changes=changes,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        right = "restore it" if path.suffix == ".key" else "give the folder that the operator sent, whole"
        raise SpecError("pin.file", f"{path}: cannot be read ({error.strerror}); {right}") from None


def _roster(files: _Bundle, pinned_key: bytes | None) -> tuple[Roster, bytes]:
    """The roster and the key that signed it."""
    what = str(files.folder / "roster.json")
    try:
        key = bytes.fromhex(str(msgspec.json.decode(files.roster)["consortium_key"]))
    except (ValueError, TypeError, KeyError):
        raise IntegrityError("roster.malformed", f"{what}: this is no roster; ask for it again") from None
    if pinned_key is not None and key != pinned_key:
        why = f"signed by another consortium key ({fingerprint(key)}) than the pinned one ({fingerprint(pinned_key)})"
        raise IntegrityError("pin.consortium", f"{what}: {why}; call the operator; another consortium needs a new home")
    return parse_roster(files.roster, key, what), key


def _check_succession(old: Pins, roster: Roster, bundle: Path) -> None:
    """A newer version of the same history, or the pinned version itself."""
    at = f"{bundle / 'roster.json'}: version {roster.version}"
    if roster.version < old.roster_version:
        why = f"{at} is older than the pinned version {old.roster_version}; ask for the newest bundle"
        raise IntegrityError("pin.downgrade", why)
    same = roster.version == old.roster_version
    earlier = roster.digest if same else roster.history[old.roster_version - 1]
    if earlier != old.roster_digest or roster.consortium != old.consortium:
        why = f"{at} does not follow from the pinned version {old.roster_version}: the consortium signed two histories"
        raise IntegrityError("pin.fork", f"{why}; call the operator and the other members")


def _changes(home: Path, old: Pins | None, roster: Roster) -> tuple[str, ...]:
    """Members that are others than in the roster before; the one in the home, if that is still the pinned one."""
    if old is None:
        return ()
    try:
        before = load_roster(home / "roster.json", bytes.fromhex(old.consortium_key))
    except FedCreditError:
        before = None
    if before is None or before.digest != old.roster_digest:
        return ("the roster pinned before is gone, so that changes cannot be shown: compare all members again",)
    lines = [f"{name} left" for name in before.members if name not in roster.members]
    for name, member in roster.members.items():
        was = before.members.get(name)
        if was is None:
            lines.append(f"{name} came")
        elif was.public_keys != member.public_keys:
            lines.append(f"{name} has new keys")
        elif was != member:
            lines.append(f"{name} is {'admin now' if member.admin else 'no longer admin'}")
    return tuple(lines)


def _own_member(home: Path, roster: Roster, bundle: Path) -> tuple[Path, Member]:
    """The folder of keys that the roster names, and the member they belong to."""
    keys = home / "keys"
    if not keys.is_dir() and (home / "keys-old").is_dir():  # stopped in the middle of a swap
        (home / "keys-old").rename(keys)
    if not keys.is_dir():
        right = "make a request there first; the operator's bundle has no private keys"
        raise SpecError("pin.keys", f"{keys}: no such folder; {right}")
    for folder in (home / KEYS_NEXT, keys):
        if not folder.is_dir():
            continue
        check_private(folder)
        kind = MemberKind.NODE if (folder / "flower.key").exists() else MemberKind.OPERATOR
        own = read_keys(folder, kind)
        identity = own.signing.public.raw
        member = next((one for one in roster.members.values() if one.identity.raw == identity), None)
        if member is not None:
            _check_keys(own, member, folder)
            return folder, member
        _check_revoked(identity.hex(), roster, folder)
    why = f"none of its members has the keys in {keys}; it is the bundle of another home or consortium"
    raise IntegrityError("pin.member", f"{bundle / 'roster.json'}: {why}")


def _check_revoked(identity: str, roster: Roster, folder: Path) -> None:
    for one in roster.revoked:
        if identity in one.keys:
            right = "they were replaced; restore the new ones" if not one.left else "ask the operator why"
            raise IntegrityError(
                "pin.revoked", f"{folder}: the keys of {one.name} were revoked on {one.since}; {right}"
            )


def _check_keys(own: PartyKeys, member: Member, folder: Path) -> None:
    if own.sealing_public != member.sealing or own.flower_public != member.flower_key:
        why = f"the roster names other keys for {member.name} than those here"
        raise IntegrityError("pin.keys", f"{folder}: {why}; make the request again and send it")


def _install(files: _Bundle, home: Path, kind: MemberKind) -> tuple[str, ...]:
    """Writes the bundle's files; the house's own are kept where they are there."""
    for name, data in (("roster.json", files.roster), ("ca.pem", files.ca), ("certificate.pem", files.certificate)):
        _put(home / name, data)
    kept = []
    for name in (SETTINGS_FILES[kind], *_OWN, "CHECKLIST.md"):
        if not (files.folder / name).exists():
            continue
        data = _read(files.folder / name)
        if not (home / name).exists() or name == "CHECKLIST.md":
            _put(home / name, data)
        elif (home / name).read_bytes() != data:
            kept.append(name)
    return tuple(kept)


def _put(path: Path, data: bytes) -> None:
    """Writes a file that is not there with this content already."""
    if not path.exists() or path.read_bytes() != data:
        replace_file(path, data)


def _swap(home: Path) -> None:
    """Puts the new keys in the place of the old ones, which are removed: they were revoked."""
    old = home / "keys-old"
    shutil.rmtree(old, ignore_errors=True)
    (home / "keys").rename(old)
    (home / KEYS_NEXT).rename(home / "keys")
    folder = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    shutil.rmtree(old)
