"""Certificates of the consortium: its own authority, one certificate for exactly one member, and their checks.

The authority's certificate has path length 0 and is constrained to names of its consortium and to the coordinator's
host names, so that it can vouch for nothing else even where somebody trusts it for more than this. A member's
certificate names it by the URI ``fedcredit://<consortium>/<member>``; only the coordinator's may serve.

Source: RFC 5280 sections 4.2.1.6, 4.2.1.9, 4.2.1.10, 4.2.1.12. EC P-256, as gRPC's TLS takes no Ed25519.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.house.roster import Member, MemberKind, Roster

__all__ = [
    "Issuer",
    "TlsFiles",
    "certificate_digest",
    "check_certificate",
    "check_names",
    "issue_certificate",
    "key_digest",
    "load_certificate",
    "make_authority",
    "make_signing_request",
    "member_uri",
    "private_pem",
]

_BACKDATED = timedelta(minutes=10)  # clocks of members are a little behind the authority's now and then


@dataclass(frozen=True)
class TlsFiles:
    """PEM texts for mutual TLS.

    Args:
        ca: The consortium's authority.
        certificate: This member's certificate.
        key: Its private key.
    """

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Issuer:
    """The authority while it signs.

    Args:
        consortium: Name of the consortium.
        key: PEM of its private key.
        certificate: PEM of its certificate.
        now: Time of signing.
        days: How long a certificate is valid.
    """

    consortium: str
    key: bytes = field(repr=False)
    certificate: bytes
    now: datetime
    days: int


def member_uri(consortium: str, name: str) -> str:
    """How a certificate names its member."""
    return f"fedcredit://{consortium}/{name}"


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Hex SHA-256 of the SubjectPublicKeyInfo (DER)."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def certificate_digest(pem: bytes) -> str:
    """Hex SHA-256 of a certificate (DER).

    Raises:
        IntegrityError: it is none.
    """
    return load_certificate(pem, "the certificate").fingerprint(SHA256()).hex()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS #8 PEM, unencrypted: its file's mode and the disk protect it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_certificate(pem: bytes, what: str) -> x509.Certificate:
    """A certificate.

    Raises:
        IntegrityError: it is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IntegrityError("certificate.malformed", f"{what}: no PEM certificate; pin again", str(error)) from None


def check_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Host names and IP addresses as names of a certificate.

    Raises:
        SpecError: one is neither.
    """
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            labels = host.split(".")
            plain = all(label.replace("-", "").isalnum() and not label.startswith("-") for label in labels)
            if not host.isascii() or not plain or len(host) > 253:
                raise SpecError("certificate.name", f"{host[:80]!r}: neither a DNS name nor an IP address") from None
            names.append(x509.DNSName(host))
    return names


def make_authority(
    consortium: str, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], now: datetime, days: int
) -> bytes:
    """A self-signed certificate (PEM) of the authority, good for this consortium and these hosts alone.

    Raises:
        SpecError: a host is neither a DNS name nor an IP address.
    """
    name = _name(consortium, "authority")
    names = check_names(hosts)
    permitted: list[x509.GeneralName] = [x509.UniformResourceIdentifier(consortium)]
    permitted += [one for one in names if isinstance(one, x509.DNSName)]
    excluded: list[x509.GeneralName] = []
    if len(permitted) == 1:
        excluded.append(x509.DNSName(""))
    # gRPC's TLS refuses every certificate with an address under an authority that constrains addresses
    if not any(isinstance(one, x509.IPAddress) for one in names):
        networks = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
        excluded += [x509.IPAddress(network) for network in networks]
    certificate = (
        _builder(name, name, key.public_key(), (now, days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, excluded or None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def make_signing_request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS #10 request (PEM), signed with the key itself, which proves its possession."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return request.public_bytes(Encoding.PEM)


def issue_certificate(
    issuer: Issuer, name: str, key: ec.EllipticCurvePublicKey, hosts: Sequence[str] | None = None
) -> bytes:
    """A certificate (PEM) for one member.

    Args:
        issuer: The authority.
        name: The member.
        key: Its TLS key; nothing else is taken from its request.
        hosts: Names and addresses it may serve at, of the coordinator; None = it may not serve.

    Raises:
        SpecError: a host is neither a DNS name nor an IP address.
    """
    authority = load_certificate(issuer.certificate, "ca.pem")
    signer = _private(issuer.key, "the authority's key")
    alternative: list[x509.GeneralName] = [x509.UniformResourceIdentifier(member_uri(issuer.consortium, name))]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if hosts is not None:
        alternative += check_names(hosts)
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(_name(issuer.consortium, name), authority.subject, key, (issuer.now, issuer.days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(signer, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def check_certificate(tls: TlsFiles, roster: Roster, member: Member, now: datetime, folder: Path) -> None:
    """Refuses a certificate that is not this member's, not in its time, or not that of the key beside it.

    Raises:
        SpecError: expired or not valid yet.
        IntegrityError: of another authority, member or key.
    """
    path = folder / "certificate.pem"
    authority = load_certificate(tls.ca, str(folder / "ca.pem"))
    if authority.fingerprint(SHA256()).hex() != roster.ca_sha256:
        raise IntegrityError(
            "certificate.authority", f"{folder / 'ca.pem'}: not the authority in the roster; pin again"
        )
    certificate = load_certificate(tls.certificate, str(path))
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        why = f"not issued by the authority of {roster.consortium}; pin the newest bundle again"
        raise IntegrityError("certificate.authority", f"{path}: {why}") from None
    _check_names(certificate, roster, member, path)
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or key_digest(public) != member.tls_key_sha256:
        why = f"its key is not the one that the roster names for {member.name}; pin the newest bundle again"
        raise IntegrityError("certificate.key", f"{path}: {why}")
    key_path = folder / "keys" / "tls.key"
    if key_digest(_private(tls.key, str(key_path)).public_key()) != member.tls_key_sha256:
        why = "not the private key of certificate.pem; restore it from the backup, or make a new request"
        raise IntegrityError("certificate.key", f"{key_path}: {why}")
    for one, file in ((authority, folder / "ca.pem"), (certificate, path)):
        _check_time(one, now, file)


def _check_time(certificate: x509.Certificate, now: datetime, path: Path) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if now < start:
        early = f"{(start - now).total_seconds() / 60:.0f} minutes too early"
        raise SpecError("certificate.early", f"{path}: valid from {start:%Y-%m-%d %H:%M} UTC, {clock}: {early}; set it")
    if now >= end:
        right = f"{clock}; set the clock if it is wrong, else ask the operator for a renewed bundle"
        raise SpecError("certificate.expired", f"{path}: expired at {end:%Y-%m-%d %H:%M} UTC, {right}")


def _check_names(certificate: x509.Certificate, roster: Roster, member: Member, path: Path) -> None:
    uri = member_uri(roster.consortium, member.name)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        raise IntegrityError("certificate.member", f"{path}: names no member; {uri} is expected") from None
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if found != [uri]:
        raise IntegrityError(
            "certificate.member", f"{path}: for {', '.join(found)[:120] or 'nobody'}; {uri} is expected"
        )
    if (ExtendedKeyUsageOID.SERVER_AUTH in usages) is not (member.kind is MemberKind.COORDINATOR):
        raise IntegrityError("certificate.member", f"{path}: only the coordinator's certificate may serve, and it must")


def _private(pem: bytes, what: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise IntegrityError("certificate.key", f"{what}: no PEM private key; restore it", str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise IntegrityError("certificate.key", f"{what}: no EC P-256 key; restore it")
    return key


def _name(consortium: str, name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: tuple[datetime, int]
) -> x509.CertificateBuilder:
    now, days = validity
    start = (now - _BACKDATED).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
