"""Operators' interface: who is heard, what a spec may say, errors by name; over real mutual TLS and without it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import pytest

from fedcredit.errors import FedCreditError, PolicyDenied, SpecError, TransportError
from fedcredit.runtime.daemon.logs import Logs
from fedcredit.runtime.exchange.limits import ServerLimits
from fedcredit.runtime.exchange.tls import server_credentials, server_options
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.runs.operator_api import Answer, OperatorApi, RunRequest, SubmitRequest
from fedcredit.runtime.runs.operator_client import OperatorClient
from fedcredit.runtime.runs.registry import Registry, RunState
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import parse_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import PartyId
from fedcredit.wire.message import decode_struct, encode_struct

Homes = dict[str, Home]
SPEC = parse_spec(
    {
        "run": {"name": "first", "mode": "simulation"},
        "align": {"mode": "plain"},
        "party": [
            {"name": "bank", "role": "label_holder", "source": "/secret/loans.csv", "label": "bad", "columns": ["a"]},
            {"name": "tax_office", "role": "feature_holder", "source": "/secret/tax.csv", "columns": ["b"]},
        ],
    }
)
TRAVELLING, DIGEST = travelling_json(SPEC, "loans"), spec_digest(SPEC)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    folder = tmp_path_factory.mktemp("consortium")
    raw: dict[str, Any] = {
        "name": "north",
        "trial": True,
        "coordinator": {"exchange": f"127.0.0.1:{free_port()}", "fleet": f"127.0.0.1:{free_port()}"},
        "member": [
            {"name": "bank"},
            {"name": "tax_office"},
            {"name": "ops", "kind": "operator"},
            {"name": "night", "kind": "operator"},
        ],
    }
    made = provision_local(ConsortiumSpec.model_validate(raw), folder)
    return {name: open_home(path) for name, path in made.items()}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    book = Registry(tmp_path / "registry.sqlite")
    yield book
    book.close()


@pytest.fixture
def api(homes: Homes, registry: Registry, tmp_path: Path) -> Iterator[OperatorApi]:
    logs = Logs("coordinator", tmp_path / "logs", quiet=True)
    yield OperatorApi(registry, homes["coordinator"].roster, logs.log)
    logs.close()


def asked(api: OperatorApi, homes: Homes, method: str, request: msgspec.Struct | bytes) -> Answer:
    data = request if isinstance(request, bytes) else encode_struct(request)
    return decode_struct(Answer, api.answer(method, homes["ops"].member, data), "answer")


@pytest.fixture
def served(api: OperatorApi, homes: Homes) -> Iterator[OperatorApi]:
    """The interface on the consortium's address, in a thread with its own loop."""
    home, ready, loop = homes["coordinator"], threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server(options=server_options(ServerLimits()))
        server.add_generic_rpc_handlers([api.handler()])
        server.add_secure_port(home.roster.exchange, server_credentials(home.tls))
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield api
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_a_run_is_submitted_watched_stopped_and_resumed(served: OperatorApi, homes: Homes, registry: Registry) -> None:
    with OperatorClient(homes["ops"]) as client:
        run = client.submit(TRAVELLING, DIGEST)
        assert (run.name, run.model, run.data, run.state) == ("first", "scorecard", "loans", "submitted")
        assert run.parties == ["bank", "tax_office"]
        assert [one.run for one in client.runs()] == [run.run]
        registry.launched(registry.find(run.run), "7")
        registry.set_state(registry.find(run.run), RunState.PROPOSING, "asks bank")
        page = client.events(run.run[:10])
        assert (page.run.state, page.run.detail, page.more) == ("proposing", "asks bank", False)
        assert [(one.party, one.event) for one in page.events] == [
            ("", "state"),
            ("ops", "operator"),
            ("", "launched"),
            ("", "state"),
        ]
        assert client.events(run.run, page.events[-1].number).events == []
        assert client.stop(run.run, "wrong month").detail == "stopped by ops: wrong month"
        registry.set_state(registry.find(run.run), RunState.STOPPED, "done")
        assert client.resume(run.run).state == "submitted"
    assert served.refused == 0


def test_a_record_is_fetched_as_it_was_signed(served: OperatorApi, homes: Homes, registry: Registry) -> None:
    with OperatorClient(homes["night"]) as client:
        run = client.submit(TRAVELLING, DIGEST)
        large = bytes(range(256)) * 8192  # several slices
        registry.outcome(registry.find(run.run), PartyId("bank"), b"\x00signed")
        registry.outcome(registry.find(run.run), PartyId("tax_office"), large)
        for number in range(1200):
            registry.event(registry.find(run.run), "bank", "step", str(number))
        found = client.fetch(run.run)
        assert {one.party: one.finished for one in found.outcomes} == {"bank": b"\x00signed", "tax_office": large}
        assert found.spec == TRAVELLING
        texts = [one.text for one in client.all_events(run.run) if one.event == "step"]
        assert texts == [str(number) for number in range(1200)]


@pytest.mark.parametrize("name", ["bank", "coordinator"])
def test_only_operators_are_heard(served: OperatorApi, homes: Homes, registry: Registry, name: str) -> None:
    thief = replace(homes["ops"], tls=homes[name].tls)
    with (
        OperatorClient(thief) as client,
        pytest.raises(PolicyDenied, match=f"{name} is a .*only operators are answered") as caught,
    ):
        client.submit(TRAVELLING, DIGEST)
    assert caught.value.exit_code == 3
    assert served.refused == 1
    assert registry.runs() == []


def test_a_revoked_certificate_is_refused(
    served: OperatorApi, homes: Homes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {digest: key for digest, key in served._known.items() if key.party != "ops"}
    monkeypatch.setattr(served, "_known", left)
    with OperatorClient(homes["ops"]) as client, pytest.raises(PolicyDenied, match="belongs to no member"):
        client.runs()
    assert registry.runs() == []


@pytest.mark.usefixtures("served")
def test_another_authority_does_not_get_in(homes: Homes, tmp_path: Path) -> None:
    raw = {
        "name": "south",
        "trial": True,
        "coordinator": {"exchange": homes["ops"].roster.exchange, "fleet": "127.0.0.1:1"},
        "member": [{"name": "bank"}, {"name": "ops", "kind": "operator"}],
    }
    stranger = open_home(provision_local(ConsortiumSpec.model_validate(raw), tmp_path / "south")[PartyId("ops")])
    quick = stranger.operator.model_copy(
        update={"exchange": stranger.operator.exchange.model_copy(update={"connect_timeout_s": 1.0})}
    )
    trusting = replace(stranger.tls, ca=homes["ops"].tls.ca)  # trusts the server, has no certificate it takes
    for tls in (stranger.tls, trusting):
        with (
            OperatorClient(replace(stranger, settings=quick, tls=tls)) as client,
            pytest.raises(TransportError, match="no coordinator of this consortium answers"),
        ):
            client.runs()


def test_errors_come_back_by_name(served: OperatorApi, homes: Homes) -> None:
    assert served.refused == 0
    with OperatorClient(homes["ops"]) as client:
        with pytest.raises(SpecError, match="no such run") as caught:
            client.get("0" * 32)
        assert (caught.value.code, caught.value.exit_code) == ("registry.no-run", 2)
        with pytest.raises(SpecError, match="different versions"):
            client.submit(TRAVELLING, "0" * 64)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    raw = json.loads(TRAVELLING)
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("{", "JSON"),
        ("[]", "JSON"),
        (changed(lambda raw: raw["party"][0].update(source="/secret/loans.csv")), "places of records"),
        (changed(lambda raw: raw["privacy"].update(ledger_dir="/secret")), "places of records"),
        (changed(lambda raw: raw["split"].update(test_ids="/secret/ids")), "places of records"),
        (changed(lambda raw: [one.update(source="data:../x") for one in raw["party"]]), "1 to 64 of a-z"),
        (changed(lambda raw: raw["party"][1].update(name="customs")), "customs is not in roster"),
        (changed(lambda raw: raw["party"][1].update(name="ops")), "ops: operator in the roster"),
        (changed(lambda raw: raw["run"].update(seed=9)), "different versions"),
        (changed(lambda raw: raw["run"].update(sed=9)), "run.sed"),
    ],
)
def test_what_cannot_be_run_here_is_refused_in_one_line(
    api: OperatorApi, homes: Homes, registry: Registry, spec: str, text: str
) -> None:
    answer = asked(api, homes, "Submit", SubmitRequest(spec=spec, spec_digest=DIGEST))
    assert answer.kind == "SpecError"
    assert text in answer.text
    assert "\n" not in answer.text
    assert registry.runs() == []


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"x" * 5000, encode_struct(RunRequest(run="a")) + b"\x00"])
@pytest.mark.parametrize("method", ["Submit", "List", "Get", "Events", "Stop", "Resume", "Fetch"])
def test_malformed_requests_are_named(api: OperatorApi, homes: Homes, method: str, data: bytes) -> None:
    answer = asked(api, homes, method, data)
    assert (answer.kind, answer.body) == ("PeerError", b"")


def test_an_inner_failure_says_nothing_of_itself(
    api: OperatorApi, homes: Homes, registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: int) -> None:
        raise KeyError("91310000MA1FL8XQ5T")

    monkeypatch.setattr(registry, "latest", broken)
    answer = decode_struct(Answer, api.answer("List", homes["ops"].member, b"\x81\xa5limit\x05"), "answer")
    assert (answer.kind, answer.code) == ("FedCreditError", "internal.keyerror")
    assert "91310000" not in answer.text
    assert "91310000" not in (tmp_path / "logs" / "coordinator.jsonl").read_text()


def test_an_unknown_kind_of_error_is_no_answer(
    served: OperatorApi, homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("SystemExit", "annotations", "__all__"):
        forged = encode_struct(Answer(kind=kind, code="a.b", text="x"))
        monkeypatch.setattr(served, "answer", lambda *_, forged=forged: forged)
        with OperatorClient(homes["ops"]) as client, pytest.raises(FedCreditError, match="unknown error"):
            client.runs()


def test_no_coordinator_is_said_in_one_line(homes: Homes) -> None:
    quick = homes["ops"].operator.exchange.model_copy(update={"connect_timeout_s": 0.3})
    home = replace(homes["ops"], settings=homes["ops"].operator.model_copy(update={"exchange": quick}))
    with OperatorClient(home) as client, pytest.raises(TransportError, match="answers; is it started"):
        client.runs()
