"""A member's private keys, made where they stay, and fingerprints that can be read out by telephone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from fedcredit.crypto.prg import SystemEntropy
from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.certificates import private_pem
from fedcredit.wire.envelope import SigningKey

__all__ = ["PartyKeys", "fingerprint", "new_keys", "read_keys", "same_fingerprint", "write_keys", "write_private"]

_DOMAIN = b"fedcredit/fingerprint/v1\x00"
_DIGITS, _GROUP = 40, 5


@dataclass(frozen=True)
class PartyKeys:
    """Private keys of one member.

    Args:
        identity: Ed25519 seed, 32 bytes.
        sealing: X25519 private key, 32 bytes.
        tls: EC P-256 key.
        flower: EC P-384 key; None = no node.
    """

    identity: bytes = field(repr=False)
    sealing: bytes = field(repr=False)
    tls: ec.EllipticCurvePrivateKey = field(repr=False)
    flower: ec.EllipticCurvePrivateKey | None = field(repr=False)

    @property
    def signing(self) -> SigningKey:
        """The identity as a key that signs."""
        return SigningKey(self.identity)

    @property
    def sealing_public(self) -> bytes:
        """Public half of the sealing key, 32 bytes."""
        return X25519PrivateKey.from_private_bytes(self.sealing).public_key().public_bytes_raw()

    @property
    def flower_public(self) -> str:
        """OpenSSH line of the Flower key; "" if there is none."""
        if self.flower is None:
            return ""
        return self.flower.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def new_keys(kind: MemberKind) -> PartyKeys:
    """Fresh keys from the operating system's randomness."""
    entropy = SystemEntropy()
    return PartyKeys(
        identity=entropy.take(32),
        sealing=entropy.take(32),
        tls=ec.generate_private_key(ec.SECP256R1()),
        flower=ec.generate_private_key(ec.SECP384R1()) if kind is MemberKind.NODE else None,
    )


def write_private(path: Path, data: bytes) -> None:
    """Writes a new file of mode 0600.

    Raises:
        FileExistsError: it is there already; a key is never written over.
    """
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_keys(folder: Path, keys: PartyKeys) -> None:
    """Writes keys into a new folder of mode 0700; the folder appears with all of them or not at all.

    Raises:
        SpecError: the folder is there already, or cannot be written.
    """
    files = {
        "identity.key": keys.identity,
        "sealing.key": keys.sealing,
        "tls.key": private_pem(keys.tls),
    }
    if keys.flower is not None:
        files["flower.key"] = keys.flower.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        files["flower.pub"] = keys.flower_public.encode("ascii") + b"\n"
    if folder.exists():
        raise SpecError("keys.exist", f"{folder}: there are keys already; they are never written over")
    try:
        _write_folder(folder, files)
    except OSError as error:
        right = f"cannot be written ({error.strerror}); give a folder that can"
        raise SpecError("keys.folder", f"{folder}: {right}") from None


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(mode=0o700)
    for name, data in files.items():
        write_private(unfinished / name, data)
    unfinished.rename(folder)


def read_keys(folder: Path, kind: MemberKind) -> PartyKeys:
    """Keys that ``write_keys`` wrote.

    Raises:
        SpecError: a file is missing.
        IntegrityError: a file is no key of its kind.
    """
    identity, sealing = (_read(folder / name) for name in ("identity.key", "sealing.key"))
    for name, secret in (("identity.key", identity), ("sealing.key", sealing)):
        if len(secret) != 32:
            raise IntegrityError("keys.damaged", f"{folder / name}: {len(secret)} bytes; this key has 32")
    tls = _elliptic(folder / "tls.key", "secp256r1")
    flower = _elliptic(folder / "flower.key", "secp384r1") if kind is MemberKind.NODE else None
    return PartyKeys(identity, sealing, tls, flower)


def fingerprint(public_key: bytes) -> str:
    """Forty decimal digits of a public key in groups of five: 132 bits, readable by telephone in any language."""
    number = int.from_bytes(hashlib.sha256(_DOMAIN + public_key).digest(), "big") % 10**_DIGITS
    digits = f"{number:0{_DIGITS}d}"
    return " ".join(digits[start : start + _GROUP] for start in range(0, _DIGITS, _GROUP))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two fingerprints are the same whatever separates their digits."""
    return _digits(one) == _digits(other) != ""


def _digits(text: str) -> str:
    return "".join(sign for sign in text if sign in "0123456789")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        right = "restore it from the backup, or make a new request"
        raise SpecError("keys.file", f"{path}: cannot be read ({error.strerror}); {right}") from None


def _elliptic(path: Path, curve: str) -> ec.EllipticCurvePrivateKey:
    data = _read(path)
    try:
        if curve == "secp384r1":
            key: object = load_ssh_private_key(data, password=None)
        else:
            key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "no private key without a passphrase; restore it"
        raise IntegrityError("keys.damaged", f"{path}: {why}", str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != curve:
        raise IntegrityError("keys.damaged", f"{path}: no EC key of curve {curve}; restore it")
    return key
