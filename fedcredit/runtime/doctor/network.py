"""Checks of the line to the coordinator: name, port, TLS with both certificates, and the time over there.

Every step is bounded by five seconds. A handshake that the other side ends later than this side (TLS 1.3 does so with
a client's certificate) is seen by the first bytes that come back.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedcredit.runtime.doctor.checks import Finding, Status
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind, split_address

__all__ = ["SECONDS", "check_line"]

SECONDS: Final = 5.0
"""Longest time of one step."""

_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # RFC 9113 section 3.4
_SOME_SKEW, _MUCH_SKEW = 30.0, 300.0  # seconds; the Date header has a resolution of one


@dataclass(frozen=True)
class _Reached:
    """What a connection showed."""

    milliseconds: float
    tls_key_sha256: str
    version: str
    skew: float | None


class _Failed(Exception):  # noqa: N818 -- a result, not an error of the product
    """Why a connection failed, and what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found, self.remedy = found, remedy


def check_line(home: Home) -> Iterator[Finding]:
    """Reaches the exchange and the fleet interface as a run would, and compares clocks."""
    skews = []
    for what, address, http2 in (("exchange", home.roster.exchange, True), ("fleet", home.roster.fleet, False)):
        if what == "fleet" and home.kind is MemberKind.OPERATOR:
            continue  # operators speak to the exchange only
        try:
            reached = _reach(home, address, http2=http2)
        except _Failed as why:
            # before the service has started, the coordinator cannot reach itself
            status = Status.WARN if home.kind is MemberKind.COORDINATOR else Status.FAIL
            yield Finding(what, status, f"{address}: {why.found}", why.remedy)
            continue
        yield _judged(home, what, address, reached)
        skews += [] if reached.skew is None else [reached.skew]
    yield _clock(skews)


def _judged(home: Home, what: str, address: str, reached: _Reached) -> Finding:
    # Flower's interface knows nodes by their Flower key and asks for no certificate
    accepted = "both certificates accepted" if what == "exchange" else "the coordinator's certificate"
    found = f"{address}: {reached.version}, {accepted}, {reached.milliseconds:.0f} ms"
    if reached.tls_key_sha256 != home.roster.coordinator.tls_key_sha256:
        why = f"{address}: a certificate of this consortium, but not with the coordinator's key in the roster"
        return Finding(what, Status.FAIL, why, "call the operator; pin the newest bundle if the key was changed")
    if reached.version != "TLSv1.3":
        return Finding(what, Status.WARN, f"{address}: only {reached.version}", "have the proxy offer TLS 1.3 alone")
    return Finding(what, Status.OK, found)


def _clock(skews: list[float]) -> Finding:
    if not skews:
        found = "could not be compared with the coordinator's: no answer with a time"
        return Finding("clock there", Status.UNCHECKED, found, "compare both by hand before the first run")
    skew = max(skews, key=abs)
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the coordinator's"
    if abs(skew) > _MUCH_SKEW:
        return Finding("clock there", Status.FAIL, found, "set the one that is wrong, by NTP: approvals go by it")
    if abs(skew) > _SOME_SKEW:
        return Finding("clock there", Status.WARN, found, "let NTP keep both")
    return Finding("clock there", Status.OK, f"within {_SOME_SKEW:.0f} s of the coordinator's")


def _reach(home: Home, address: str, *, http2: bool) -> _Reached:
    host, port = split_address(address)
    target = _resolve(host, port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=home.tls.ca.decode("ascii"))
    context.load_cert_chain(home.certificate_file, home.keys / "tls.key")
    context.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
    started = time.perf_counter()
    try:
        with socket.create_connection(target, timeout=SECONDS) as plain:
            plain.settimeout(SECONDS)
            with context.wrap_socket(plain, server_hostname=host) as line:
                took = (time.perf_counter() - started) * 1000
                skew = _greet(line, host, http2=http2)
                return _Reached(took, _key_of(line), line.version() or "no TLS", skew)
    except ssl.SSLCertVerificationError as error:
        remedy = "call the operator: another machine answers there, or the coordinator has not pinned its bundle"
        raise _Failed(f"its certificate is refused here ({error.verify_message})", remedy) from None
    except ssl.SSLError as error:
        reason = (error.reason or "no TLS").lower().replace("_", " ")
        remedy = "ask the operator whether the coordinator has pinned the newest roster"
        raise _Failed(f"the TLS handshake failed ({reason})", remedy) from None
    except TimeoutError:
        raise _Failed(f"no answer within {SECONDS:.0f} s", "open the outbound line in the firewall") from None
    except ConnectionRefusedError:
        raise _Failed("nobody listens", "ask the operator whether the coordinator runs") from None
    except OSError as error:
        why = error.strerror or "the line was closed"
        raise _Failed(f"no connection ({why})", "open the outbound line in the firewall") from None


def _resolve(host: str, port: int) -> tuple[str, int]:
    """An address of a host; resolvers know no time-out of their own."""
    found: list[str] = []
    done = threading.Event()

    def look() -> None:
        try:
            found.append(str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]))
        except OSError:
            pass  # said below, as nothing was found
        finally:
            done.set()

    threading.Thread(target=look, daemon=True).start()
    if not done.wait(SECONDS):
        raise _Failed(f"the name was not resolved within {SECONDS:.0f} s", "look at this machine's DNS")
    if not found:
        raise _Failed("the name is unknown", "look at this machine's DNS and at the address in the roster")
    return found[0], port


def _greet(line: ssl.SSLSocket, host: str, *, http2: bool) -> float | None:
    """Says hello and reads the first bytes; seconds that this clock is ahead, where an HTTP date came back."""
    if http2:
        line.sendall(_HTTP2)
        if not line.recv(9):
            raise ConnectionResetError
        return None
    line.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
    here = datetime.now(UTC)
    answer = line.recv(4096)
    if not answer:
        raise ConnectionResetError
    for row in answer.decode("latin-1").split("\r\n"):
        name, _, value = row.partition(":")
        if name.lower() == "date":
            try:
                return (here - parsedate_to_datetime(value.strip())).total_seconds()
            except (ValueError, TypeError):
                return None
    return None


def _key_of(line: ssl.SSLSocket) -> str:
    certificate = line.getpeercert(binary_form=True)
    if certificate is None:
        return ""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
