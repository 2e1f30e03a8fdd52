"""Callers whose TLS handshake fails are noted by the reason, and what they send cannot write into that note."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedcredit.runtime.exchange.handshakes import failed_handshake

LINE = b"I1122 21:14:08.408183   17434 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: "

PROGRAM = """
import datetime as dt, json, os, socket, sys, threading, time
from fedcredit.runtime.exchange.handshakes import FailedHandshakes

noted = []
silent = os.environ["GRPC_VERBOSITY"]
with FailedHandshakes(lambda *words: noted.append(words)):
    import grpc
    from concurrent import futures
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def made(common, days):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=9)).not_valid_after(now + dt.timedelta(days=days))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return key.private_bytes(*form), pem

    own, late, other = made("own", 9), made("late", -1), made("other", 9)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    listen = grpc.ssl_server_credentials([own], own[1] + late[1], require_client_auth=True)
    port = server.add_secure_port("localhost:0", listen)
    server.start()
    for key, pem in (own, late, other, (None, None)):
        shown = grpc.ssl_channel_credentials(own[1], key, pem)
        with grpc.secure_channel(f"localhost:{port}", shown) as channel:
            try:
                channel.unary_unary("/none/none")(b"", timeout=20)
            except grpc.RpcError:
                pass
    with socket.create_connection(("localhost", port)) as stranger:
        stranger.sendall(b"\\x00\\x1b[2J\\n" * 100)
        stranger.recv(64)
    sys.stderr.write("of our own\\n")
    sys.stderr.flush()
    server.stop(0).wait()
print(json.dumps({"noted": noted, "silent": os.environ["GRPC_VERBOSITY"] == silent}))
"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            LINE + b"error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired",
            "TLS handshake failed: CERTIFICATE_VERIFY_FAILED (certificate has expired)",
        ),
        (
            LINE + b"error:100000c0:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE",
            "TLS handshake failed: PEER_DID_NOT_RETURN_A_CERTIFICATE",
        ),
        (LINE + b"error:1:SSL routines:OPENSSL_internal:NO: \x1b[31m", "TLS handshake failed: NO"),
        (b"I1122 21:14:08.408183   17434 server.cc:1] something else", None),
        (b"", None),
    ],
)
def test_lines_of_the_library(line: bytes, reason: str | None) -> None:
    assert failed_handshake(line) == reason


def test_each_reason_is_noted_and_standard_error_stays_ours(tmp_path: Path) -> None:
    program = tmp_path / "port.py"
    program.write_text(PROGRAM.replace("\\\\", "\\"), "utf-8")
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    told = json.loads(done.stdout)
    assert told["silent"]  # for processes that are started afterwards
    reasons = {reason for code, reason, caller in told["noted"] if code == "exchange.handshake" and "no name" in caller}
    assert {one.partition(": ")[2] for one in reasons} >= {
        "CERTIFICATE_VERIFY_FAILED (certificate has expired)",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "WRONG_VERSION_NUMBER",
    }
    assert any("CERTIFICATE_VERIFY_FAILED" in one and "expired" not in one for one in reasons)
    assert not any("\x1b" in one for one in reasons)
    assert done.stderr.splitlines() == ["of our own"]
