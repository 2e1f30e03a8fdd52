"""Mutual TLS of the exchange, and who is at the other end.

gRPC's Python interface has no setting for the least TLS version, so version 1.3 is held twice: every call is refused
by name unless its session is TLS 1.3, and in a process under `exchange.environment` an older handshake does not even
finish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from fedcredit.errors import TransportError
from fedcredit.runtime.exchange.environment import pin_tls13
from fedcredit.runtime.exchange.limits import TRANSPORT_BYTES, ServerLimits
from fedcredit.runtime.exchange.types import TlsPem
from fedcredit.types import PartyId

__all__ = [
    "KnownKey",
    "client_credentials",
    "client_options",
    "key_digest",
    "known_peer",
    "pin_tls13",
    "renewable_credentials",
    "server_credentials",
    "server_options",
]

_TLS = b"TLSv1.3"
_KEEPALIVE_MS = 10_000
_WINDOW = 4 << 20


@dataclass(frozen=True)
class KnownKey:
    """Whose TLS key it is.

    Args:
        party: The member.
        kind: "node", "coordinator" or "operator".
    """

    party: PartyId
    kind: str


def key_digest(certificate: bytes) -> str:
    """Hex SHA-256 of the SubjectPublicKeyInfo (DER) of a PEM certificate.

    Raises:
        TransportError: not a certificate.
    """
    try:
        key = load_pem_x509_certificate(certificate).public_key()
    except ValueError:
        raise TransportError("exchange.certificate", "a TLS certificate that cannot be read") from None
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def known_peer(auth: Mapping[str, object], known: Mapping[str, KnownKey]) -> KnownKey:
    """Who is at the other end of a call.

    Args:
        auth: `grpc.aio.ServicerContext.auth_context` of the call.
        known: Members by `key_digest` of their certificates.

    Raises:
        TransportError: ``exchange.tls-version`` or ``exchange.unknown-key``.
    """
    version = _first(auth, "ssl_tls_version")
    if version != _TLS:
        raise TransportError("exchange.tls-version", f"a connection with {version.decode() or 'no TLS'}, not TLS 1.3")
    digest = key_digest(_first(auth, "x509_pem_cert"))
    member = known.get(digest)
    if member is None:
        raise TransportError("exchange.unknown-key", f"TLS key {digest[:16]}… belongs to no member of this consortium")
    return member


def _first(auth: Mapping[str, object], name: str) -> bytes:
    values = auth.get(name)
    first = next(iter(values), b"") if isinstance(values, (list, tuple)) else b""
    return first if isinstance(first, bytes) else b""


def server_credentials(tls: TlsPem) -> grpc.ServerCredentials:
    """Credentials that ask every client for a certificate of the consortium."""
    return grpc.ssl_server_credentials([(tls.key, tls.certificate)], tls.ca, require_client_auth=True)


def renewable_credentials(tls: TlsPem, renewed: Callable[[], TlsPem | None]) -> grpc.ServerCredentials:
    """As `server_credentials`, with a certificate that can be exchanged: connections that are there stay.

    Args:
        tls: The first certificate.
        renewed: Asked before every handshake, from a thread of gRPC; None = no change.
    """

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        fresh = renewed()
        return None if fresh is None else _configuration(fresh)

    fetcher: Any = fetch  # its stub does not know that None means no change
    return grpc.dynamic_ssl_server_credentials(_configuration(tls), fetcher, require_client_authentication=True)


def _configuration(tls: TlsPem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], tls.ca)


def client_credentials(tls: TlsPem) -> grpc.ChannelCredentials:
    """Credentials of a member towards the exchange."""
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)


_COMMON: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", TRANSPORT_BYTES),
    ("grpc.max_send_message_length", TRANSPORT_BYTES),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.lookahead_bytes", _WINDOW),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.default_compression_algorithm", 0),
)


def client_options(server_name: str) -> list[tuple[str, str | int]]:
    """Channel arguments of a member: one connection of its own, keepalive, no proxy and no retries behind its back."""
    return [
        *_COMMON,
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.default_authority", server_name),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]


def server_options(limits: ServerLimits) -> list[tuple[str, str | int]]:
    """Channel arguments of the exchange: what gRPC itself bounds."""
    return [
        *_COMMON,
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", 8),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
        ("grpc.http2.max_ping_strikes", 5),
    ]
