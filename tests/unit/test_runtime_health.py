"""Health and metrics: what the three paths say, to how many at once, and that no value slips into a label."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedcredit.errors import SpecError
from fedcredit.runtime.daemon.health import HealthServer, Probes, coordinator_metrics, node_metrics
from fedcredit.runtime.daemon.status import (
    CoordinatorStatus,
    ExchangeCounts,
    ExchangeView,
    LedgerView,
    NodeStatus,
    PeerView,
    ProcessView,
    TrafficView,
    read_status,
    write_status,
)

RUN = "0123456789abcdef" * 2
COORDINATOR = CoordinatorStatus(
    party="coordinator",
    consortium="north",
    roster_version=3,
    roster_digest="d" * 64,
    version="1",
    pid=1,
    started="",
    written="",
    missing="",
    certificate_seconds=86400.0,
    address="0.0.0.0:9443",
    nodes=["bank", "tax_office"],
    processes=[ProcessView(name="superlink", running=True, restarts=2), ProcessView(name="proxy", running=False)],
    parties=[
        PeerView(party="bank", run=RUN, connected=True, since=""),
        PeerView(party="bank", run="f" * 32, connected=True, since=""),
        PeerView(party="tax_office", run=RUN, connected=False, since=""),
    ],
    exchange=ExchangeCounts(
        runs=2, queue_bytes=77, refused={"exchange.busy": 5}, reconnects=4, received_bytes=100, sent_bytes=30
    ),
    operators_refused=1,
    runs={"running": 2, "failed": 1},
)
NODE = NodeStatus(
    party="bank",
    consortium="north",
    roster_version=3,
    roster_digest="d" * 64,
    version="1",
    pid=1,
    started="",
    written="",
    missing="the exchange does not answer",
    certificate_seconds=5.0,
    processes=[ProcessView(name="supernode", running=True)],
    exchange=ExchangeView(address="hub:9443", reachable=False, since=""),
    runs={"proposed": 1},
    ledger=[
        LedgerView(counterparty="tax_office", account="equations", used=5, cap=20),
        LedgerView(counterparty="tax_office", account="row_bits", used=5, cap=None),
    ],
    traffic=[TrafficView(protocol="bin", party="tax_office", messages=3, bytes=900)],
    stage_seconds={"bin": 2.5},
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class State:
    def __init__(self) -> None:
        self.alive, self.ready = "", ""
        self.status: CoordinatorStatus | NodeStatus = COORDINATOR


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def port(state: State) -> Iterator[int]:
    chosen = free_port()
    metrics = lambda: (  # noqa: E731
        coordinator_metrics(state.status) if isinstance(state.status, CoordinatorStatus) else node_metrics(state.status)
    )
    server = HealthServer(f"127.0.0.1:{chosen}", Probes(lambda: state.alive, lambda: state.ready, metrics))
    server.start()
    yield chosen
    server.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def samples(port: int) -> Samples:
    status, text = get(port, "/metrics")
    assert status == 200
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_health_and_readiness(port: int, state: State) -> None:
    assert get(port, "/healthz") == (200, "ok\n")
    assert get(port, "/readyz") == (200, "ok\n")
    state.ready = "superlink does not run"
    assert get(port, "/readyz") == (503, "superlink does not run\n")
    assert get(port, "/healthz") == (200, "ok\n")
    state.alive = "the loop stands still"
    assert get(port, "/healthz") == (503, "the loop stands still\n")


def test_nothing_else_is_served(port: int) -> None:
    for path in ("/", "/metrics/", "/../etc/passwd", "/status"):
        assert get(port, path)[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert get(port, "/healthz", method)[0] == 501


def test_metrics_of_a_coordinator(port: int) -> None:
    found = samples(port)
    assert found["fedcredit_runs", (("state", "running"),)] == 2
    assert found["fedcredit_runs", (("state", "finished"),)] == 0
    assert found["fedcredit_exchange_streams", (("party", "bank"),)] == 2
    assert found["fedcredit_exchange_streams", (("party", "tax_office"),)] == 0
    assert found["fedcredit_exchange_received_bytes_total", ()] == 100
    assert found["fedcredit_exchange_queue_bytes", ()] == 77
    assert found["fedcredit_reconnects_total", ()] == 4
    refused = "fedcredit_refused_connections_total"
    assert found[refused, (("code", "exchange.busy"), ("interface", "exchange"))] == 5
    assert found[refused, (("code", "operator.refused"), ("interface", "operators"))] == 1
    assert found["fedcredit_certificate_expiry_seconds", ()] == 86400
    assert found["fedcredit_process_up", (("process", "superlink"),)] == 1
    assert found["fedcredit_process_up", (("process", "proxy"),)] == 0
    assert found["fedcredit_process_restarts_total", (("process", "superlink"),)] == 2
    assert found["fedcredit_ready", ()] == 1


def test_metrics_of_a_node(port: int, state: State) -> None:
    state.status = NODE
    found = samples(port)
    bank = (("party", "tax_office"), ("protocol", "bin"))
    assert found["fedcredit_sent_messages_total", bank] == 3
    assert found["fedcredit_sent_bytes_total", bank] == 900
    assert found["fedcredit_stage_seconds_total", (("stage", "bin"),)] == 2.5
    assert found["fedcredit_ledger_used_share", (("account", "equations"), ("counterparty", "tax_office"))] == 0.25
    assert found["fedcredit_runs", (("state", "proposed"),)] == 1
    assert found["fedcredit_exchange_reachable", ()] == 0
    assert found["fedcredit_ready", ()] == 0
    assert len([one for one in found if one[0] == "fedcredit_ledger_used_share"]) == 1


def test_no_run_and_no_value_in_metrics(port: int, state: State) -> None:
    state.status = msgspec.structs.replace(
        NODE,
        traffic=[TrafficView(protocol="张三 184230.75 €", party="91310000 MA1FL8XQ5T", messages=3, bytes=900)],
        stage_seconds={'x"} 1\nfedcredit_evil 1': 2.5},
    )
    text = get(port, "/metrics")[1]
    for value in ("184230", "91310000", "张三", "evil"):
        assert value not in text
    assert samples(port)["fedcredit_sent_messages_total", (("party", "other"), ("protocol", "other"))] == 3
    state.status = COORDINATOR
    assert RUN not in get(port, "/metrics")[1]


def test_many_silent_callers_do_not_stop_it(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcredit.runtime.daemon.health._Handler.timeout", 0.3)
    callers = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(60)]
    deadline, status = time.monotonic() + 10, 0
    while status != 200 and time.monotonic() < deadline:
        try:
            status = get(port, "/healthz")[0]
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
    for one in callers:
        one.close()
    assert status == 200


def test_a_taken_address_is_named(port: int, state: State) -> None:
    with pytest.raises(SpecError, match=rf"metrics\.listen: 127\.0\.0\.1:{port}"):
        HealthServer(f"127.0.0.1:{port}", Probes(lambda: "", lambda: "", lambda: ()))


def test_the_status_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    assert read_status(path, NodeStatus) is None
    write_status(path, NODE)
    assert read_status(path, NodeStatus) == NODE
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_status(path, CoordinatorStatus) is None
    path.write_bytes(b"{")
    assert read_status(path, NodeStatus) is None
