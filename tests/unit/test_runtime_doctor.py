"""Each check of the doctor, right and wrong; no value of a record is ever shown."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedcredit.errors import SpecError
from fedcredit.runtime.daemon.proxy import StreamModule
from fedcredit.runtime.doctor import machine as doctor_machine
from fedcredit.runtime.doctor import network as doctor_network
from fedcredit.runtime.doctor.checks import Finding, Status, findings_of, opened, worst
from fedcredit.runtime.doctor.house import check_certificates, check_data, check_folders, check_policy
from fedcredit.runtime.doctor.machine import (
    check_disk,
    check_environment,
    check_local_clock,
    check_packages,
    check_ports,
    check_python,
    check_sqlite,
)
from fedcredit.runtime.doctor.network import check_line
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.consortium import Order, provision, provision_local
from fedcredit.runtime.provision.pin import pin
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.provision.spec import ConsortiumSpec


def consortium(*, port: int = 9443, **bank: object) -> ConsortiumSpec:
    return ConsortiumSpec.model_validate(
        {
            "name": "trial",
            "trial": True,
            "coordinator": {"exchange": f"127.0.0.1:{port}", "fleet": f"localhost:{port}"},
            "member": [{"name": "bank", **bank}, {"name": "olga", "kind": "operator"}],
        }
    )


def bank(folder: Path, *, port: int = 9443, **settings: object) -> Home:
    provision_local(consortium(port=port, **settings), folder)
    return open_home(folder / "bank")


def only(findings: Finding | Iterator[Finding]) -> Finding:
    found = [findings] if isinstance(findings, Finding) else list(findings)
    assert len(found) == 1
    return found[0]


@contextmanager
def answering(home: Home, answer: bytes, *, certificate: Home | None = None) -> Iterator[int]:
    """A TLS server of the coordinator that says one thing to whoever says anything."""
    shown = certificate or home
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate_file, shown.keys / "tls.key")
    context.load_verify_locations(home.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            try:
                while True:
                    plain, _ = listener.accept()
                    with plain:
                        try:
                            with context.wrap_socket(plain, server_side=True) as line:
                                line.recv(100)
                                line.sendall(answer)
                        except OSError:
                            continue  # the other side did not like it
            except OSError:
                return  # the test is over

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(when: datetime) -> bytes:
    return f"HTTP/1.1 404 Not Found\r\ndate: {format_datetime(when, usegmt=True)}\r\n\r\n".encode()


def line(tmp_path: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    """Findings of a bank whose coordinator answers so."""
    monkeypatch.setattr(doctor_network, "SECONDS", 1.0)
    first = bank(tmp_path / "t")
    with answering(open_home(first.folder.parent / "coordinator"), answer) as port:
        home = bank(tmp_path / "t", port=port)
        return {one.check: one for one in check_line(home)}


def test_python_and_packages_are_right_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_python().status is Status.OK
    assert check_packages(None).status is Status.OK
    monkeypatch.setattr(doctor_machine, "_OLDEST", (4, 0))
    assert check_python().status is Status.FAIL


def test_wrong_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=99", "no-such-thing>=1", "rich", "flwr>=99; extra == 'deploy'", "x; python_version < '3'"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = check_packages(None)
    assert found.status is Status.FAIL
    assert "numpy" in found.found
    assert "no-such-thing is missing" in found.found
    assert "flwr" not in found.found
    assert "flwr" in check_packages(MemberKind.NODE).found
    assert "constraints.txt" in found.remedy


def test_packages_of_what_is_not_installed_are_not_checked() -> None:
    assert check_packages(None, "no-such-distribution").status is Status.UNCHECKED


def test_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor_machine._QUIET:
        monkeypatch.delenv(name, raising=False)
    assert "services switch it off" in check_environment().found
    for name, off in doctor_machine._QUIET.items():
        monkeypatch.setenv(name, off)
    assert check_environment().found.endswith("are off")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    assert check_environment().status is Status.FAIL


@pytest.mark.parametrize(
    ("synchronised", "status"), [(True, Status.OK), (False, Status.WARN), (None, Status.UNCHECKED)]
)
def test_what_is_known_of_the_clock_is_said(
    monkeypatch: pytest.MonkeyPatch, synchronised: bool | None, status: Status
) -> None:
    monkeypatch.setattr(doctor_machine, "_ntp", lambda: synchronised)
    assert only(check_local_clock(None)).status is status


def test_a_clock_before_the_pin_is_wrong(tmp_path: Path) -> None:
    home = bank(tmp_path)
    path = home.folder / "pins.json"
    year = datetime.now(UTC).year
    path.write_text(path.read_text().replace(f'"pinned":"{year}', f'"pinned":"{year + 1}'))
    found = only(check_local_clock(home.folder))
    assert found.status is Status.FAIL
    assert "before the bundle was pinned" in found.found


def test_timedatectl_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "timedatectl"
    monkeypatch.setattr(doctor_machine, "_TIMEDATECTL", str(program))
    assert doctor_machine._ntp() is None
    for answer, expected in (("yes", True), ("no", False), ("", None)):
        program.write_text(f"#!/bin/sh\necho {answer}\n")
        program.chmod(0o755)
        assert doctor_machine._ntp() is expected
    program.write_text("#!/bin/sh\nexit 1\n")
    assert doctor_machine._ntp() is None


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((1 << 40, Status.OK), (1 << 30, Status.WARN), (1 << 20, Status.FAIL)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert check_disk(tmp_path).status is status
    assert list(tmp_path.iterdir()) == []


def test_sqlite(tmp_path: Path) -> None:
    found = check_sqlite(tmp_path)
    assert found.status is Status.OK, found
    assert list(tmp_path.iterdir()) == []
    assert check_sqlite(tmp_path / "none").status is Status.FAIL


class _Health(BaseHTTPRequestHandler):
    """Answers as the service does, or not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


def test_a_running_service_is_known_by_its_health() -> None:
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert doctor_machine._answers(f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert not doctor_machine._answers(f"127.0.0.1:{server.server_port}")


def test_ports_are_free_or_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "_answers", lambda _: False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = bank(tmp_path)
        path = home.folder / "node.toml"
        path.write_text(f'party = "bank"\n[metrics]\nlisten = "127.0.0.1:{port}"\n[flower]\nhost = "192.0.2.1"\n')
        home = open_home(home.folder)
        found = {one.check: one for one in check_ports(home)}
        assert found["port of metrics"].status is Status.WARN
        assert "is taken: by this member's own service, or by another" in found["port of metrics"].found
        monkeypatch.setattr(doctor_machine, "_answers", lambda _: True)
        found = {one.check: one for one in check_ports(home)}
        assert found["port of metrics"].status is Status.OK
        assert found["port of metrics"].found.endswith("is taken, and this member's service runs")
    coordinator = open_home(tmp_path / "coordinator")
    assert [one.check for one in check_ports(coordinator)] == [
        "port of exchange",
        "port of fleet",
        "port of metrics",
        "port of Flower",
    ]
    assert list(check_ports(open_home(tmp_path / "olga"))) == []


def one_address(folder: Path) -> Home:
    raw = {
        "name": "trial",
        "trial": True,
        "coordinator": {"address": "127.0.0.1:9443"},
        "member": [{"name": "bank"}],
    }
    provision_local(ConsortiumSpec.model_validate(raw), folder)
    return open_home(folder / "coordinator")


def test_the_proxy_of_one_address_needs_the_stream_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = one_address(tmp_path)
    monkeypatch.setattr(doctor_machine, "find_nginx", lambda: Path("/usr/sbin/nginx"))
    monkeypatch.setattr(doctor_machine, "stream_module", StreamModule)
    found = doctor_machine.check_proxy(coordinator)
    assert (found.status, found.found) == (
        Status.OK,
        "/usr/sbin/nginx with its stream module, for the one address 127.0.0.1:9443",
    )
    monkeypatch.setattr(doctor_machine, "stream_module", lambda: None)
    found = doctor_machine.check_proxy(coordinator)
    assert found.status is Status.FAIL
    assert "install libnginx-mod-stream" in found.remedy
    assert "write exchange and fleet in place of address" in found.remedy
    bank(tmp_path / "two")
    assert doctor_machine.check_proxy(open_home(tmp_path / "two" / "coordinator")).status is Status.OK
    assert [one.check for one in check_ports(coordinator)][:2] == ["port of exchange", "port of everything"]


def test_a_proxy_on_the_port_of_the_exchange_is_named(tmp_path: Path) -> None:
    coordinator = one_address(tmp_path)
    path = coordinator.folder / "coordinator.toml"
    path.write_text('party = "coordinator"\n[exchange]\nlisten = "0.0.0.0:9443"\n[flower]\nproxy = "0.0.0.0:9443"\n')
    found = doctor_machine.check_proxy(open_home(coordinator.folder))
    assert found.status is Status.FAIL
    assert "exchange.listen and flower.proxy have port 9443" in found.found
    path.write_text('party = "coordinator"\n[flower]\nproxy = ""\n')
    assert doctor_machine.check_proxy(open_home(coordinator.folder)).status is Status.UNCHECKED


def test_without_nginx_the_proxy_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise SpecError("proxy.nginx", "nginx is not installed; install it")

    monkeypatch.setattr(doctor_machine, "find_nginx", missing)
    assert doctor_machine.check_proxy(one_address(tmp_path)).status is Status.FAIL


def test_an_address_of_another_machine_cannot_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "_taken", lambda *_: False)
    assert doctor_machine._check_port("port", "192.0.2.1:9443").status is Status.FAIL


def test_certificates_that_end_soon_are_named(tmp_path: Path) -> None:
    assert [one.status for one in check_certificates(bank(tmp_path / "a"))] == [Status.OK, Status.OK]
    short = consortium().model_copy(
        update={"certificates": consortium().certificates.model_copy(update={"days": 20, "renew_days": 1})}
    )
    provision_local(short, tmp_path / "b")
    found = list(check_certificates(open_home(tmp_path / "b" / "bank")))
    assert [one.status for one in found] == [Status.WARN, Status.OK]
    assert "renewed bundle" in found[0].remedy


def test_folders_of_others_are_named(tmp_path: Path) -> None:
    home = bank(tmp_path)
    assert check_folders(home).status is Status.OK
    home.runs.chmod(0o755)
    assert check_folders(home).status is Status.WARN
    home.state.chmod(0o770)
    assert check_folders(home).status is Status.FAIL


def test_sources_are_opened_and_no_value_is_shown(tmp_path: Path) -> None:
    (tmp_path / "loans.csv").write_text("id,income\nanna,123456\nbert,654321\n")
    (tmp_path / "ids.txt").write_text("anna\n\n")
    data = {
        "loans": {"source": str(tmp_path / "loans.csv"), "test_ids": str(tmp_path / "ids.txt")},
        "gone": {"source": str(tmp_path / "gone.csv")},
        "empty": {"source": str(tmp_path / "empty.csv")},
        "base": {"source": "sqlite:///none.sqlite", "query": "select 1"},
        "hidden": {"source": "${NO_SUCH_VARIABLE}"},
        "noids": {"source": str(tmp_path / "loans.csv"), "test_ids": str(tmp_path / "noids.txt")},
    }
    (tmp_path / "empty.csv").write_text("id,income\n")
    (tmp_path / "noids.txt").write_text("\n")
    found = {one.check: one for one in check_data(bank(tmp_path / "t", data=data))}
    assert found["data loans"].status is Status.OK
    assert found["data loans"].found == "2 rows, 2 columns, 1 held-out ids"
    assert "no such file" in found["data gone"].found
    assert "NO_SUCH_VARIABLE is not set" in found["data hidden"].found
    assert found["data noids"].status is Status.FAIL
    for name in ("gone", "empty", "base", "hidden"):
        assert found[f"data {name}"].status is Status.FAIL
    shown = str(found)
    for value in ("anna", "bert", "123456", "654321"):
        assert value not in shown


CATALOG = """format = 1
holder = "tax"
title = "Tax office"
about = "Who pays."
ids = "text"
rows = "payers"

[tables.payers]
about = "One row a payer."
period = "static"
duplicates = "last"
columns.uscc = { type = "id", about = "id" }
columns.kind = { type = "category", about = "kind" }
columns.plan = { type = "category", required = false, about = "plan" }

[features.kind]
kind = "value"
table = "payers"
column = "kind"
about = "kind"
reason = "kind {value}"

[features.plan]
kind = "value"
table = "payers"
column = "plan"
about = "plan"
reason = "plan {value}"
"""


def test_features_are_derived_and_no_value_is_shown(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "payers.csv").write_text("uscc,kind\nanna,small\nbert,large\n")
    (tmp_path / "tax.toml").write_text(CATALOG)
    (tmp_path / "wrong.toml").write_text(CATALOG.replace('"value"', '"vale"'))
    raw, catalog = str(tmp_path / "raw"), str(tmp_path / "tax.toml")
    data = {
        "good": {"source": raw, "catalog": catalog},
        "wrong": {"source": raw, "catalog": str(tmp_path / "wrong.toml")},
        "gone": {"source": raw, "catalog": str(tmp_path / "gone.toml")},
        "elsewhere": {"source": str(tmp_path / "none"), "catalog": catalog},
    }
    found = {one.check: one for one in check_data(bank(tmp_path / "t", data=data))}
    assert found["data good"].status is Status.OK
    today = datetime.now(UTC).date()
    shown = f"2 enterprises, 1 features of tax.toml as of {today}, 1 features without their columns"
    assert found["data good"].found == shown
    for name in ("wrong", "gone", "elsewhere"):
        assert found[f"data {name}"].status is Status.FAIL
    assert "features.kind" in found["data wrong"].found
    for value in ("anna", "bert", "small", "large"):
        assert value not in str(found)


def test_registers_are_counted_and_named(tmp_path: Path) -> None:
    ids = [f"E{number:05d}" for number in range(1200)]
    files = {"a": ids, "b": ids[::-1], "few": ids[:20], "twice": [*ids, ids[0]]}
    for name, listed in files.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["id", *listed]) + "\n")
    (tmp_path / "loans.csv").write_text("id,income\nanna,123456\n")
    places = {**{name: str(tmp_path / f"{name}.csv") for name in files}, "gone": str(tmp_path / "gone.csv")}
    data = {name: {"source": str(tmp_path / "loans.csv"), "registry": place} for name, place in places.items()}
    found = {one.check: one for one in check_data(bank(tmp_path / "t", data=data))}
    assert found["register a"].status is Status.OK
    assert re.fullmatch(r"1,200 ids, digest [0-9a-f]{16}…", found["register a"].found)
    assert found["register a"].found == found["register b"].found  # whatever the order of the file
    assert found["register few"].status is Status.WARN
    assert found["register twice"].status is Status.FAIL
    assert "no such file" in found["register gone"].found
    assert ids[0] not in str(found)


def test_a_policy_that_gives_membership_away_is_loud(tmp_path: Path) -> None:
    home = bank(tmp_path)
    home.policy.write_text(POLICY.replace("bins", "bin").replace("olgaa", "olga") + "min_decoys = 0.0\n")
    found = list(check_policy(home))
    assert [one.status for one in found] == [Status.OK, Status.WARN]
    assert found[1].found == "min_decoys = 0: feature holders may learn who is a customer"
    home.policy.write_text(home.policy.read_text() + 'align_modes = ["registry"]\n')
    assert only(check_policy(home)).status is Status.OK


def test_a_node_without_records_is_warned(tmp_path: Path) -> None:
    home = bank(tmp_path)
    assert only(check_data(home)).status is Status.WARN
    for name in ("olga", "coordinator"):
        other = open_home(tmp_path / name)
        assert [*check_data(other), *check_policy(other)] == []


POLICY = """mode = "production"
counterparties = ["coordinator", "olgaa"]
protocols = ["align", "bins"]
messages = ["*"]
expires = 2999-01-01T00:00:00Z
max_message_bytes = 1
max_run_bytes = 1
max_run_messages = 1
"""


def test_policy_in_one_line(tmp_path: Path) -> None:
    home = bank(tmp_path)
    trial = only(check_policy(home))
    assert trial.status is Status.WARN
    assert trial.found.startswith("TRIAL: simulation")
    home.policy.write_text(POLICY)
    found = list(check_policy(home))
    assert found[0].status is Status.OK
    assert found[0].found == (
        "production: align, bins to coordinator, olgaa; rows by registry or blind; "
        "0 runs approved in it until 2999-01-01"
    )
    assert [one.found for one in found[1:]] == [
        'counterparties: "olgaa" is unknown; did you mean "olga"?',
        'protocols: "bins" is unknown; did you mean "bin"?',
    ]
    home.policy.write_text(POLICY.replace("2999", "2020"))
    assert "expired at 2020-01-01" in only(check_policy(home)).found
    home.policy.write_text("")
    assert only(check_policy(home)).found.startswith("nothing leaves: without counterparties")
    home.policy.write_text("mod = 1")
    assert findings_of("policy", lambda: check_policy(home))[0].status is Status.FAIL


def test_simulation_in_a_real_consortium_is_wrong(tmp_path: Path) -> None:
    spec = consortium().model_copy(update={"trial": False})
    requests = [make_request(name, kind, tmp_path / name).path for name, kind in spec.kinds.items()]
    provision(spec, tmp_path / "out", Order(requests))
    pin(tmp_path / "out" / "bank", tmp_path / "bank")
    home = open_home(tmp_path / "bank")
    home.policy.write_text(POLICY.replace("production", "simulation"))
    assert next(iter(check_policy(home))).status is Status.FAIL


def test_a_line_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = line(tmp_path, http(datetime.now(UTC)), monkeypatch)
    assert [one.status for one in found.values()] == [Status.OK] * 3, found
    assert "TLSv1.3, both certificates accepted" in found["exchange"].found


@pytest.mark.parametrize(("minutes", "status"), [(2, Status.WARN), (-2, Status.WARN), (60, Status.FAIL)])
def test_a_clock_that_differs_from_the_coordinators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: int, status: Status
) -> None:
    found = line(tmp_path, http(datetime.now(UTC) + timedelta(minutes=minutes)), monkeypatch)
    assert found["clock there"].status is status
    assert ("behind" if minutes > 0 else "ahead of") in found["clock there"].found


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nDate: never\r\n\r\n", b"no http"])
def test_an_answer_without_a_time_is_not_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    assert line(tmp_path, answer, monkeypatch)["clock there"].status is Status.UNCHECKED


def test_a_silent_coordinator_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = line(tmp_path, b"", monkeypatch)
    assert found["exchange"].status is Status.FAIL
    assert found["fleet"].status is Status.FAIL


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = bank(tmp_path, port=port)
    found = {one.check: one for one in check_line(home)}
    assert "nobody listens" in found["exchange"].found
    assert found["exchange"].status is Status.FAIL
    own = {one.check: one for one in check_line(open_home(tmp_path / "coordinator"))}
    assert own["exchange"].status is Status.WARN  # it may not have started yet
    assert "fleet" not in {one.check for one in check_line(open_home(tmp_path / "olga"))}


def test_a_listener_that_never_answers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_network, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        home = bank(tmp_path, port=mute.getsockname()[1])
        found = {one.check: one for one in check_line(home)}
    assert "no answer within" in found["exchange"].found


def test_the_wrong_machine_is_seen(tmp_path: Path) -> None:
    """Another consortium's coordinator, and a node of the same one that plays the coordinator."""
    bank(tmp_path / "t")
    bank(tmp_path / "other")
    with answering(open_home(tmp_path / "other" / "coordinator"), b"x") as port:
        found = {one.check: one for one in check_line(bank(tmp_path / "t", port=port))}
    assert "its certificate is refused here" in found["exchange"].found
    coordinator = open_home(tmp_path / "t" / "coordinator")
    with answering(coordinator, b"x", certificate=open_home(tmp_path / "t" / "bank")) as port:
        found = {one.check: one for one in check_line(bank(tmp_path / "t", port=port))}
    assert "its certificate is refused here" in found["exchange"].found


def test_a_refused_certificate_of_ones_own_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.3 tells a client after its handshake only; here the server trusts another authority."""
    monkeypatch.setattr(doctor_network, "SECONDS", 1.0)
    bank(tmp_path / "t")
    bank(tmp_path / "other")
    coordinator = open_home(tmp_path / "t" / "coordinator")
    other = open_home(tmp_path / "other" / "coordinator")
    with answering(other, b"x", certificate=coordinator) as port:
        found = {one.check: one for one in check_line(bank(tmp_path / "t", port=port))}
    assert found["exchange"].status is Status.FAIL
    assert "TLS" in found["exchange"].found


def test_an_unknown_name_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "the name is unknown" in next(iter(check_line(bank(tmp_path)))).found


def test_a_slow_resolver_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_network, "SECONDS", 0.05)
    end = threading.Event()

    def slow(*_: object, **__: object) -> None:
        end.wait(5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert "not resolved within" in next(iter(check_line(bank(tmp_path)))).found
    end.set()


def test_a_home_that_does_not_open_is_a_finding(tmp_path: Path) -> None:
    home, finding = opened(bank(tmp_path).folder)
    assert home is not None
    assert finding.status is Status.WARN
    assert "bank (node) of trial, roster 1 with 3 members; a TRIAL" in finding.found
    os.chmod(tmp_path / "bank" / "keys", 0o755)  # noqa: PTH101 -- as an administrator would
    home, finding = opened(tmp_path / "bank")
    assert home is None
    assert finding.status is Status.FAIL
    assert finding.remedy == f"chmod 700 {(tmp_path / 'bank' / 'keys').resolve()}"


def test_errors_become_findings() -> None:
    def fails() -> Finding:
        raise SpecError("x.y", "file: one; two; do this")

    assert findings_of("x", fails) == [Finding("x", Status.FAIL, "file: one; two", "do this")]

    def full() -> Finding:
        raise OSError(28, "No space left on device", "/x")

    assert "/x cannot be used (No space left on device)" in findings_of("x", full)[0].found
    ok, warn, unchecked = (Finding("x", one, "") for one in (Status.OK, Status.WARN, Status.UNCHECKED))
    assert worst([ok, unchecked]) is Status.OK
    assert worst([ok, warn, unchecked]) is Status.WARN
    assert worst([warn, *findings_of("x", fails)]) is Status.FAIL
