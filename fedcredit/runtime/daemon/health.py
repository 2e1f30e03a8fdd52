"""Health and Prometheus metrics of a daemon: ``/healthz``, ``/readyz``, ``/metrics``. No data value, no id, no run.

``/healthz`` fails when the daemon's loop stands still: restart it. ``/readyz`` fails while something that it needs is
missing, and says what in one line. The interface has no authentication; it listens on loopback unless the settings
say otherwise, answers GET of these three paths alone, and serves a bounded number of connections at once.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import fedcredit
from fedcredit.errors import SpecError
from fedcredit.runtime.daemon.status import CoordinatorStatus, NodeStatus, ProcessView
from fedcredit.runtime.house.roster import split_address
from fedcredit.runtime.runs.registry import RunState

__all__ = ["HealthServer", "Probes", "coordinator_metrics", "node_metrics"]

_CONNECTIONS, _PATIENCE = 8, 5.0  # at once; seconds that one may take
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_Values = Mapping[Any, float]  # by a tuple of labels; tuples of different lengths are different types


@dataclass(frozen=True)
class Probes:
    """What a daemon tells of itself, asked at every request.

    Args:
        alive: "" while its loop turns, else why not.
        ready: "" while it can do its work, else what is missing; public text.
        metrics: All metrics as they are now.
    """

    alive: Callable[[], str]
    ready: Callable[[], str]
    metrics: Callable[[], Iterable[Metric]]


class _AllMetrics(Collector):
    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics()

    def describe(self) -> Iterable[Metric]:
        return ()  # names are not checked beforehand, so that nothing is collected at registration


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64  # callers that wait to be accepted; the few of the standard library make probes late

    def __init__(self, address: tuple[str, int], probes: Probes) -> None:
        self.probes = probes
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_AllMetrics(probes.metrics))
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # that of HTTPServer also asks the name service for the host's full name
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version, sys_version = "fedcredit", ""

    def do_GET(self) -> None:
        probes = self.server.probes
        if self.path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
        elif self.path in ("/healthz", "/readyz"):
            wrong = (probes.alive if self.path == "/healthz" else probes.ready)()
            status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
            self._send(status, "text/plain; charset=utf-8", f"{wrong or 'ok'}\n".encode())
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/healthz /readyz /metrics\n")

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name in the standard library
        """Callers are not logged."""


class HealthServer:
    """Serves the three paths from a thread of its own.

    Args:
        listen: "host:port"; port 0 is not possible here, as the address is an agreed one.
        probes: What to tell.

    Raises:
        SpecError: the address cannot be listened on.
    """

    def __init__(self, listen: str, probes: Probes) -> None:
        host, port = split_address(listen)
        try:
            self._server = _Server((host, port), probes)
        except OSError as error:
            text = f"metrics.listen: {listen} cannot be listened on ({error.strerror}); choose a free address"
            raise SpecError("metrics.listen", text) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_PATIENCE)
        with suppress(OSError):
            self._server.server_close()


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, about: str, labels: tuple[str, ...], values: _Values
) -> Metric:
    """A metric with all its values; a label that is no short plain name is replaced, so that no value slips in."""
    family = kind(f"fedcredit_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric([one if _LABEL.fullmatch(one) else "other" for one in key], value)
    return family


def _gauge(name: str, about: str, labels: tuple[str, ...], values: _Values) -> Metric:
    return _family(GaugeMetricFamily, name, about, labels, values)


def _counter(name: str, about: str, labels: tuple[str, ...], values: _Values) -> Metric:
    return _family(CounterMetricFamily, name, about, labels, values)


def _shared(status: CoordinatorStatus | NodeStatus) -> Iterator[Metric]:
    yield _gauge("build_info", "Version.", ("version",), {(fedcredit.__version__,): 1})
    yield _gauge("ready", "1 while it can do its work.", (), {(): float(not status.missing)})
    yield _gauge("roster_version", "Version of the roster in force.", (), {(): status.roster_version})
    seconds = {(): status.certificate_seconds}
    yield _gauge("certificate_expiry_seconds", "Seconds until the own certificate expires.", (), seconds)
    yield _gauge("roster_refused", "1 while a pinned bundle is not taken.", (), {(): float(bool(status.notice))})
    yield from _processes(status.processes)


def _processes(processes: Iterable[ProcessView]) -> Iterator[Metric]:
    up = {(one.name,): float(one.running) for one in processes}
    yield _gauge("process_up", "1 while a supervised process runs.", ("process",), up)
    restarts = {(one.name,): float(one.restarts) for one in processes}
    yield _counter("process_restarts", "Restarts of supervised processes.", ("process",), restarts)


def coordinator_metrics(status: CoordinatorStatus) -> Iterator[Metric]:
    """Metrics of the coordinator: sizes, counts, states, names of members. It reads no message, so it knows no more."""
    yield from _shared(status)
    runs = {(state.value,): float(status.runs.get(state.value, 0)) for state in RunState}
    yield _gauge("runs", "Runs by state.", ("state",), runs)
    connected = dict.fromkeys(((one,) for one in status.nodes), 0.0)
    for peer in status.parties:
        connected[(peer.party,)] = connected.get((peer.party,), 0.0) + peer.connected
    yield _gauge("exchange_streams", "Runs that a party is connected to now.", ("party",), connected)
    if status.away is not None:
        let_in = {(one,): float(one not in status.away) for one in status.nodes}
        yield _gauge("supernode_connected", "1 while the SuperLink has let a node's SuperNode in.", ("party",), let_in)
    exchange = status.exchange
    yield _gauge("exchange_runs", "Runs open at the exchange.", (), {(): exchange.runs})
    yield _gauge("exchange_queue_bytes", "Sealed bytes held for recipients.", (), {(): exchange.queue_bytes})
    for name, about, value in (
        ("exchange_received_bytes", "Sealed bytes that came in.", exchange.received_bytes),
        ("exchange_sent_bytes", "Sealed bytes that went out.", exchange.sent_bytes),
        ("exchange_undelivered_frames", "Frames whose recipient was not there.", exchange.undelivered),
        ("reconnects", "Parties that came back into a run.", exchange.reconnects),
    ):
        yield _counter(name, about, (), {(): value})
    refused = {("exchange", code): float(count) for code, count in exchange.refused.items()}
    refused[("operators", "operator.refused")] = float(status.operators_refused)
    about = "Streams and calls that were refused, or ended for what they did."
    yield _counter("refused_connections", about, ("interface", "code"), refused)


def node_metrics(status: NodeStatus) -> Iterator[Metric]:
    """Metrics of a node: its own counts and sizes."""
    yield from _shared(status)
    yield _gauge("exchange_reachable", "1 while the exchange answers.", (), {(): float(status.exchange.reachable)})
    if status.superlink.state != "unknown":
        there = {(): float(status.superlink.state == "connected")}
        yield _gauge("superlink_connected", "1 while the SuperLink has let the SuperNode in.", (), there)
    runs = {(state,): float(count) for state, count in status.runs.items()}
    yield _gauge("runs", "Runs by what this house has of them.", ("state",), runs)
    for name, about, pick in (
        ("sent_messages", "Messages sent, by protocol and recipient.", 0),
        ("sent_bytes", "Bytes sent, by protocol and recipient.", 1),
    ):
        values = {(one.protocol, one.party): float((one.messages, one.bytes)[pick]) for one in status.traffic}
        yield _counter(name, about, ("protocol", "party"), values)
    seconds = {(stage,): value for stage, value in status.stage_seconds.items()}
    yield _counter("stage_seconds", "Seconds spent in each stage by finished runs.", ("stage",), seconds)
    shares = {(one.counterparty, one.account): one.share for one in status.ledger if one.share is not None}
    about = "Largest share of a cap of the disclosure ledger that is used."
    yield _gauge("ledger_used_share", about, ("counterparty", "account"), shares)
