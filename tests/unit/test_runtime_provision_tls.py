"""Certificates as TLS libraries see them: gRPC's own and OpenSSL, for names, addresses and both."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedcredit.errors import SpecError
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.certificates import (
    Issuer,
    check_names,
    issue_certificate,
    load_certificate,
    make_authority,
    private_pem,
)
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec


def trial(folder: Path, *hosts: str) -> Path:
    first = hosts[0]
    spec = {
        "name": "trial",
        "trial": True,
        "coordinator": {"exchange": f"{first}:9443", "fleet": f"{first}:9444", "names": list(hosts[1:])},
        "member": [{"name": "bank"}],
    }
    provision_local(ConsortiumSpec.model_validate(spec), folder)
    return folder


class _Echo(grpc.GenericRpcHandler):
    """Answers with the name in the caller's certificate."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: b"".join(context.auth_context()["x509_common_name"])
        )


@contextmanager
def serving(home: Home) -> Iterator[int]:
    credentials = grpc.ssl_server_credentials(
        [(home.tls.key, home.tls.certificate)], root_certificates=home.tls.ca, require_client_auth=True
    )
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((_Echo(),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


def call(home: Home, host: str, port: int) -> bytes:
    credentials = grpc.ssl_channel_credentials(home.tls.ca, home.tls.key, home.tls.certificate)
    with grpc.secure_channel(f"{host}:{port}", credentials) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t/t")
        return method(b"", timeout=5)


@pytest.mark.parametrize("hosts", [("127.0.0.1",), ("localhost",), ("localhost", "127.0.0.1", "::1")])
def test_grpc_takes_the_coordinators_certificate(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    folder = trial(tmp_path, *hosts)
    bank = open_home(folder / "bank")
    with serving(open_home(folder / "coordinator")) as port:
        for host in hosts:
            if host != "::1":
                assert call(bank, host, port) == b"bank"


def test_grpc_refuses_a_node_that_serves_and_another_consortium(tmp_path: Path) -> None:
    ours, theirs = trial(tmp_path / "a", "localhost"), trial(tmp_path / "b", "localhost")
    bank = open_home(ours / "bank")
    with serving(bank) as port, pytest.raises(grpc.RpcError):
        call(open_home(ours / "coordinator"), "localhost", port)
    with serving(open_home(ours / "coordinator")) as port, pytest.raises(grpc.RpcError):
        call(open_home(theirs / "bank"), "localhost", port)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
@pytest.mark.parametrize("hosts", [("127.0.0.1",), ("localhost",), ("localhost", "127.0.0.1")])
def test_openssl_takes_them_strictly(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    folder = trial(tmp_path, *hosts)

    def verify(name: str, purpose: str) -> int:
        home = folder / name
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(home / "ca.pem")]
        return subprocess.run([*command, str(home / "certificate.pem")], check=False, capture_output=True).returncode

    assert verify("coordinator", "sslserver") == 0
    assert verify("coordinator", "sslclient") == 0
    assert verify("bank", "sslclient") == 0
    assert verify("bank", "sslserver") != 0


def test_the_authority_vouches_for_nothing_else(tmp_path: Path) -> None:
    """A certificate that its key signed for another name is refused by OpenSSL because of the name constraints."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)
    ca = make_authority("trial", key, ["good.example.org"], now, 10)
    issuer = Issuer("trial", private_pem(key), ca, now, 5)
    (tmp_path / "key.pem").write_bytes(private_pem(other))
    shown = {}
    for host in ("good.example.org", "evil.example.org", "127.0.0.1"):
        (tmp_path / "chain.pem").write_bytes(issue_certificate(issuer, "coordinator", other.public_key(), [host]))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        client = ssl.create_default_context(cadata=ca.decode())
        shown[host] = handshake(client, server, host)
    assert shown["good.example.org"] == ""
    assert "permitted subtree violation" in shown["evil.example.org"]
    assert "excluded subtree violation" in shown["127.0.0.1"]


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> str:
    """Error of the client in a handshake in memory; "" where there is none."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(back, there, server_hostname=host)
    other = server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""


def test_a_certificate_says_who_and_for_what(tmp_path: Path) -> None:
    home = open_home(trial(tmp_path, "localhost") / "coordinator")
    certificate = load_certificate(home.tls.certificate, "c")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["fedcredit://trial/coordinator"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    authority = load_certificate(home.tls.ca, "ca")
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert authority.extensions.get_extension_for_class(x509.NameConstraints).critical


def test_the_flower_key_is_an_openssh_key_on_p_384(tmp_path: Path) -> None:
    home = open_home(trial(tmp_path, "localhost") / "bank")
    private = load_ssh_private_key((home.keys / "flower.key").read_bytes(), None)
    public = load_ssh_public_key((home.keys / "flower.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert private.public_key() == public
    assert (home.keys / "flower.pub").read_text().strip() == home.member.flower_key


@pytest.mark.parametrize("host", ["", "a b", "ä.example", "-a.example", "a..b", "a" * 300, "*.example.org"])
def test_no_host_names(host: str) -> None:
    with pytest.raises(SpecError, match="neither a DNS name nor an IP address"):
        check_names([host])
