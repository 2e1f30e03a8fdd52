"""The proxy for real: who reaches what, over nginx, with certificates of a made-up consortium."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.proxy import ProxySettings, find_nginx, proxy_child, stream_module
from fedcredit.runtime.daemon.supervisor import Supervisor
from fedcredit.runtime.exchange.loopback_tls import loopback_tls
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.types import PartyId

try:
    find_nginx()
except FedCreditError as missing:
    pytest.skip(f"NOT TESTED: {missing}", allow_module_level=True)

pytestmark = pytest.mark.slow


class SuperLink(http.server.BaseHTTPRequestHandler):
    """Says which path reached it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.path} {len(body)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Front:
    homes: dict[PartyId, Home]
    port: int
    two_ports: bool

    def ask(self, path: str, member: str | None = None, body: bytes = b"x", host: str = "127.0.0.1") -> tuple[int, str]:
        ca = self.homes[PartyId("bank")].ca_file
        context = ssl.create_default_context(cafile=str(ca))
        if member is not None:
            home = self.homes[PartyId(member)]
            context.load_cert_chain(home.certificate_file, home.keys / "tls.key")
        connection = http.client.HTTPSConnection(host, self.port, context=context, timeout=10)
        try:
            connection.request("POST", path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def call(self, member: str | None) -> bytes:
        home = self.homes[PartyId(member or "bank")]
        pair = (home.tls.key, home.tls.certificate) if member else (None, None)
        credentials = grpc.ssl_channel_credentials(home.tls.ca, *pair)
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials) as channel:
            echo: Any = channel.unary_unary("/fedcredit.Exchange/Echo")
            return bytes(echo(b"ping", timeout=10))


class Echo(grpc.GenericRpcHandler):
    """Answers with the name in the caller's certificate."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            return request + b" " + bytes(context.auth_context()["x509_common_name"][0])

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[PartyId, Home]:
    names = [("bank", "node"), ("ops", "operator"), ("other_ops", "operator")]
    plan = {
        "name": "made-up",
        "trial": True,
        "coordinator": {"exchange": "127.0.0.1:1", "fleet": "127.0.0.1:1"},
        "member": [{"name": name, "kind": kind} for name, kind in names],
    }
    made = provision_local(ConsortiumSpec.model_validate(plan), tmp_path_factory.mktemp("homes"))
    return {name: open_home(path) for name, path in made.items()}


@pytest.fixture(scope="module", params=["two ports", "one port"])
def front(
    request: pytest.FixtureRequest, homes: dict[PartyId, Home], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    one_port = request.param == "one port"
    if one_port and stream_module() is None:
        pytest.skip("NOT TESTED: nginx's stream module is not installed (libnginx-mod-stream)")
    folder, home = tmp_path_factory.mktemp("proxy"), homes[PartyId("coordinator")]
    line = loopback_tls(folder / "loopback")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(line.certificate, line.key)
    link = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SuperLink)
    link.daemon_threads = True
    link.socket = context.wrap_socket(link.socket, server_side=True)
    threading.Thread(target=link.serve_forever, daemon=True).start()
    exchange = grpc.server(futures.ThreadPoolExecutor(2))
    exchange.add_generic_rpc_handlers((Echo(),))
    keys = grpc.ssl_server_credentials([(home.tls.key, home.tls.certificate)], home.tls.ca, require_client_auth=True)
    exchange_port = exchange.add_secure_port("127.0.0.1:0", keys)
    exchange.start()
    port = free_port()
    settings = ProxySettings(
        folder=folder / "nginx",
        listen=f"127.0.0.1:{port}",
        superlink=f"127.0.0.1:{link.server_address[1]}",
        loopback_ca=line.ca,
        certificate=home.certificate_file,
        key=home.keys / "tls.key",
        ca=home.ca_file,
        consortium=home.roster.consortium,
        operators=(PartyId("ops"),),
        exchange=f"127.0.0.1:{exchange_port}" if one_port else "",
        max_body_mb=1,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    supervisor = Supervisor(folder / "logs")
    try:
        asyncio.run_coroutine_threadsafe(supervisor.start([proxy_child(settings)]), loop).result(10)
        until = time.monotonic() + 15
        front = Front(homes, port, not one_port)
        while True:
            with contextlib.suppress(OSError):
                front.ask("/")
                break
            assert time.monotonic() < until, (folder / "logs" / "proxy.log").read_text()
            time.sleep(0.1)
        yield front
    finally:
        asyncio.run_coroutine_threadsafe(supervisor.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        exchange.stop(0).wait()
        link.shutdown()
        link.server_close()


def test_the_fleet_passes(front: Front) -> None:
    assert front.ask("/v1/fleet/pull-messages") == (200, "/v1/fleet/pull-messages 1")
    assert front.ask("/v1/fleet/push-object", "bank", bytes(1 << 20)) == (200, "/v1/fleet/push-object 1048576")


@pytest.mark.parametrize("member", [None, "bank", "other_ops", "coordinator"])
def test_control_is_for_listed_operators(front: Front, member: str | None) -> None:
    assert front.ask("/v1/control/start-run", member)[0] == 403


def test_a_listed_operator_reaches_control(front: Front) -> None:
    assert front.ask("/v1/control/list-runs", "ops") == (200, "/v1/control/list-runs 1")


@pytest.mark.parametrize("member", [None, "bank", "ops", "coordinator"])
def test_nobody_reaches_the_runtime_interface(front: Front, member: str | None) -> None:
    assert front.ask("/v1/runtime/acquire-task", member)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/other",
        "/docs",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "//v1//control/start-run",
        "/V1/CONTROL/start-run",
        "/v1/fleet/..;/control/start-run",
    ],
)
def test_no_path_around(front: Front, path: str) -> None:
    status, said = front.ask(path)
    assert status in {403, 404}, said


def test_requests_are_bounded(front: Front) -> None:
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # it may hang up before all was sent
        assert front.ask("/v1/fleet/push-object", None, bytes((1 << 20) + 1))[0] == 413


def test_the_exchange_is_passed_through_with_mutual_tls(front: Front) -> None:
    if front.two_ports:
        with pytest.raises(grpc.RpcError):
            front.call("bank")  # Flower's port is not the exchange's
        return
    assert front.call("bank") == b"ping bank"
    with pytest.raises(grpc.RpcError):
        front.call(None)


def test_garbage_disturbs_nobody(front: Front) -> None:
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", front.port), timeout=5) as one:
            one.sendall(b"\x16\x03\x01\xff\xff" + bytes(64))
    assert front.ask("/v1/fleet/pull-messages")[0] == 200
