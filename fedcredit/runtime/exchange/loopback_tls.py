"""A certificate for the line between the coordinator's own processes, valid for this machine only.

The proxy ends the TLS of nodes, and speaks TLS again to the SuperLink behind it; so does the SuperExec. That line has
an authority of its own, whose key is thrown away as soon as it has signed, so that no certificate of the consortium
opens it and it opens nothing of the consortium's.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LOOPBACK_NAME", "LoopbackTls", "loopback_tls"]

LOOPBACK_NAME = "localhost"
"""The name that the certificate is checked for."""

_DAYS = 825  # the longest life that all TLS libraries accept
_SPARE = timedelta(days=90)  # a coordinator is restarted more often than that
_USAGE = dict.fromkeys(
    (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
        "digital_signature",
        "key_cert_sign",
        "crl_sign",
    ),
    False,
)


@dataclass(frozen=True)
class LoopbackTls:
    """Files of the line.

    Args:
        ca: Certificate of its authority, PEM.
        certificate: Certificate of the SuperLink, PEM.
        key: Its private key, PEM, 0600.
    """

    ca: Path
    certificate: Path
    key: Path


def loopback_tls(folder: Path) -> LoopbackTls:
    """The files in a folder, made anew where they are missing or near their end.

    Args:
        folder: Of this purpose only; made with mode 0700.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = LoopbackTls(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    now = datetime.now(UTC)
    if not _good(files, now + _SPARE):
        _make(files, now)
    return files


def _good(files: LoopbackTls, until: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc > until and files.ca.is_file() and files.key.is_file()


def _make(files: LoopbackTls, now: datetime) -> None:
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedcredit loopback authority")])
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**_USAGE, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, SHA256())
    )
    names = [x509.DNSName(LOOPBACK_NAME), *(x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1"))]
    certificate = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, LOOPBACK_NAME)]), authority_name, key.public_key(), now
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_USAGE, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, content in (
        (files.key, secret),
        (files.ca, authority.public_bytes(Encoding.PEM)),
        (files.certificate, certificate.public_bytes(Encoding.PEM)),
    ):
        part = path.with_name(f".{path.name}")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        part.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
    )
