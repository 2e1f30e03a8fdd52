"""Daemons take what is pinned while they run: streams that are cut, certificates that change, runs that stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import structlog
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from flwr.supercore.state.schema.linkstate_models import Node as FlowerNode

from fedcredit.errors import PolicyDenied, SpecError, TransportError
from fedcredit.runtime.daemon import node as node_module
from fedcredit.runtime.daemon.coordinator import CoordinatorDaemon, CoordinatorParts
from fedcredit.runtime.daemon.node import NodeDaemon, NodeParts, leave_runs_with
from fedcredit.runtime.daemon.parts import known_keys
from fedcredit.runtime.daemon.presence import PresenceDesk, Standing, ask_presence
from fedcredit.runtime.daemon.status import ExchangeCounts, PeerView, ProcessView, SuperLinkView
from fedcredit.runtime.daemon.supervisor import Child, Supervisor
from fedcredit.runtime.exchange.frames import (
    METHOD,
    SERVICE,
    VERSION,
    Alive,
    Join,
    Refused,
    Welcome,
    encode_frame,
    read_from_exchange,
)
from fedcredit.runtime.exchange.server import ExchangeServer, ServerSettings
from fedcredit.runtime.exchange.tls import KnownKey, client_credentials, client_options
from fedcredit.runtime.flower_presence import NodeSeat, node_seats
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.renewal import HomeWatch
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.runs.operator_api import SERVICE as OPERATORS
from fedcredit.runtime.runs.operator_api import ListRequest, OperatorApi
from fedcredit.runtime.runs.registry import Registry, RunState
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import encode_struct

if TYPE_CHECKING:
    from tests.unit import renewal_town as towns
else:
    sys.path.insert(0, str(Path(__file__).parent))
    import renewal_town as towns

RUN = RunId("ab" * 16)
LOG: Any = structlog.wrap_logger(structlog.testing.CapturingLogger())
BANK, UTILITY = PartyId("bank"), PartyId("utility")


@pytest.fixture
def town(tmp_path: Path) -> towns.Town:
    return towns.Town(tmp_path).begin()


@dataclass
class Served:
    """An exchange with the operators' and the houses' desks."""

    server: ExchangeServer
    api: OperatorApi
    desk: PresenceDesk
    address: str

    def at(self, home: Home) -> Home:
        """A home whose roster names this exchange."""
        return replace(home, roster=replace(home.roster, exchange=self.address))


@asynccontextmanager
async def served(home: Home, registry: Registry) -> AsyncIterator[Served]:
    api, desk = OperatorApi(registry, home.roster, LOG), PresenceDesk(home.roster)
    settings = ServerSettings("127.0.0.1:0", home.tls, known_keys(home.roster))
    server = ExchangeServer(settings, handlers=(api.handler(), desk.handler()))
    port = await server.start()
    try:
        yield Served(server, api, desk, f"127.0.0.1:{port}")
    finally:
        await server.stop(0)


class Line:
    """A node's stream at the exchange."""

    def __init__(self, at: Served, home: Home) -> None:
        options = client_options("127.0.0.1")
        self.channel = grpc.aio.secure_channel(at.address, client_credentials(home.tls), options)
        self.call: grpc.aio.StreamStreamCall[bytes, bytes] = self.channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        self.party = home.party

    async def join(self) -> None:
        await self.call.write(encode_frame(Join(run=RUN, party=self.party, attempt=1, version=VERSION)))
        welcome = await self.next()
        assert isinstance(welcome, Welcome)
        await self.call.write(encode_frame(Alive(token=welcome.token)))
        await self.next()

    async def next(self) -> object:
        data = await asyncio.wait_for(self.call.read(), 10)
        assert isinstance(data, bytes), await self.call.code()
        return read_from_exchange(data)[0]

    async def refused(self) -> Refused:
        while not isinstance(frame := await self.next(), Refused):
            pass
        return frame


def serial(address: str, home: Home) -> int:
    """Of the certificate that the exchange shows to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(home.ca_file)
    context.load_cert_chain(home.certificate_file, home.keys / "tls.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as line,
    ):
        shown = line.getpeercert(binary_form=True)
    assert shown
    return load_der_x509_certificate(shown).serial_number


async def listed(at: Served, home: Home) -> grpc.StatusCode:
    """How a list of runs ends for an operator."""
    options = client_options("127.0.0.1")
    async with grpc.aio.secure_channel(at.address, client_credentials(home.tls), options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{OPERATORS}/List")
        try:
            await call(encode_struct(ListRequest()), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_a_revoked_member_is_cut_at_once_and_the_others_go_on(town: towns.Town, tmp_path: Path) -> None:
    async def play() -> None:
        registry = Registry(tmp_path / "registry.sqlite")
        home = town.opened("coordinator")
        async with served(home, registry) as at:
            at.server.open_run(RUN, (BANK, UTILITY, COORDINATOR))
            bank, utility = Line(at, town.opened("bank")), Line(at, town.opened("utility"))
            await bank.join()
            await utility.join()
            ops, gone = town.opened("ops"), town.opened("utility")
            assert await listed(at, ops) is grpc.StatusCode.OK
            town.provision(revoke=["utility", "ops"])
            town.pin("coordinator")
            new = town.opened("coordinator")
            at.server.replace_known(known_keys(new.roster), {UTILITY})
            at.api.renew(new.roster)
            at.desk.renew(new.roster)
            told = await utility.refused()
            assert (told.code, "utility is no member" in told.text) == ("exchange.unknown-key", True)
            assert set(at.server.snapshot().runs[RUN].connected) == {BANK}
            again = Line(at, gone)  # its certificate is still valid TLS
            with contextlib.suppress(grpc.aio.AioRpcError):
                await again.call.write(encode_frame(Join(run=RUN, party="utility", attempt=2, version=VERSION)))
            assert (await again.refused()).code == "exchange.unknown-key"
            assert await listed(at, ops) is grpc.StatusCode.PERMISSION_DENIED
            assert (await ask_presence(at.at(gone), 10)).superlink.state == "refused"
            for line in (bank, utility, again):
                await line.channel.close()
        registry.close()

    asyncio.run(play())


def test_a_member_that_came_back_does_not_keep_its_old_stream(town: towns.Town, tmp_path: Path) -> None:
    async def play() -> None:
        home = town.opened("coordinator")
        registry = Registry(tmp_path / "registry.sqlite")
        async with served(home, registry) as at:
            at.server.open_run(RUN, (BANK, UTILITY))
            line = Line(at, town.opened("utility"))
            await line.join()
            at.server.replace_known({"0" * 64: KnownKey(UTILITY, "node")})
            await asyncio.sleep(0.1)
            assert set(at.server.snapshot().runs[RUN].connected) == {UTILITY}, "a planned change of keys cuts nothing"
            at.server.replace_known({"1" * 64: KnownKey(UTILITY, "node")}, {UTILITY})
            assert (await line.refused()).code == "exchange.unknown-key"
            await line.channel.close()
        registry.close()

    asyncio.run(play())


def test_a_renewed_certificate_is_shown_and_streams_stay(town: towns.Town, tmp_path: Path) -> None:
    async def play() -> None:
        home = town.opened("coordinator")
        registry = Registry(tmp_path / "registry.sqlite")
        async with served(home, registry) as at:
            at.server.open_run(RUN, (BANK, UTILITY))
            bank = Line(at, town.opened("bank"))
            await bank.join()
            old = load_pem_x509_certificate(home.tls.certificate).serial_number
            assert await asyncio.to_thread(serial, at.address, town.opened("bank")) == old
            town.provision(renew=True)
            town.pin("coordinator", "bank", "utility")
            new = town.opened("coordinator")
            at.server.replace_known(known_keys(new.roster))
            at.server.renew_tls(new.tls)
            fresh = load_pem_x509_certificate(new.tls.certificate).serial_number
            assert fresh != old
            for _ in range(3):
                assert await asyncio.to_thread(serial, at.address, town.opened("bank")) == fresh
            utility = Line(at, town.opened("utility"))  # with its new certificate
            await utility.join()
            assert set(at.server.snapshot().runs[RUN].connected) == {BANK, UTILITY}
            assert isinstance(await bank.next(), object)
            for line in (bank, utility):
                await line.channel.close()
        registry.close()

    asyncio.run(play())


def test_a_node_is_told_how_it_stands(town: towns.Town, tmp_path: Path) -> None:
    async def play() -> None:
        home = town.opened("coordinator")
        registry = Registry(tmp_path / "registry.sqlite")
        async with served(home, registry) as at:
            bank = at.at(town.opened("bank"))
            assert await ask_presence(bank, 10) == Standing(True, SuperLinkView(), 1)
            at.desk.seat({"bank": NodeSeat(True, "2026-01-01T00:00:00Z"), "utility": NodeSeat(False, "")})
            standing = await ask_presence(bank, 10)
            assert standing.superlink == SuperLinkView(state="connected", since="2026-01-01T00:00:00Z")
            utility = (await ask_presence(at.at(town.opened("utility")), 10)).superlink
            assert (utility.state, "up to a minute" in utility.why) == ("away", True)
            at.desk.seat({})
            refused = (await ask_presence(bank, 10)).superlink
            assert (refused.state, refused.why.split(";")[0]) == ("refused", "key not registered")
            town.provision(renew=True)
            town.pin("bank")
            behind = (await ask_presence(at.at(town.opened("bank")), 10)).superlink
            assert "ask the operator to pin the newest roster" in behind.why
            operator = await ask_presence(at.at(town.opened("ops")), 10)
            assert operator.superlink.state == "refused"
        assert (await ask_presence(bank, 0.5)).reachable is False
        registry.close()

    asyncio.run(play())


def test_only_nodes_are_told(town: towns.Town) -> None:
    desk = PresenceDesk(town.opened("bank").roster)
    with pytest.raises(PolicyDenied) as told:
        desk.answer(KnownKey(PartyId("ops"), "operator"))
    assert told.value.code == "presence.kind"


async def comes(condition: Callable[[], bool]) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- it is seen from outside, as by everyone else
            await asyncio.sleep(0.01)


def database(path: Path, rows: Sequence[tuple[str, str, str | None, str | None, float | None]]) -> Path:
    link = sqlite3.connect(path)
    link.execute("CREATE TABLE node (name, status, last_activated_at, last_deactivated_at, online_until)")
    link.executemany("INSERT INTO node VALUES (?, ?, ?, ?, ?)", rows)
    link.commit()
    link.close()
    return path


def test_who_is_let_in_is_read_from_the_superlink(tmp_path: Path) -> None:
    began, ended = "2026-01-01T10:00:00.123456+00:00", "2026-01-01T11:00:00.5+00:00"
    path = database(
        tmp_path / "superlink.db",
        [
            ("bank", "online", began, None, 100.0),
            ("late", "online", began, None, 10.0),
            ("gone", "offline", began, ended, 10.0),
            ("never", "registered", None, None, None),
            ("out", "unregistered", began, ended, 100.0),
        ],
    )
    assert node_seats(path, 50.0) == {
        "bank": NodeSeat(True, "2026-01-01T10:00:00Z"),
        "late": NodeSeat(False, "2026-01-01T10:00:00Z"),
        "gone": NodeSeat(False, "2026-01-01T11:00:00Z"),
        "never": NodeSeat(False, ""),
    }


def test_a_database_of_another_form_says_nothing(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    for name in ("missing.db", "empty.db"):
        with pytest.raises(TransportError) as told:
            node_seats(tmp_path / name)
        assert told.value.code == "flower.nodes"


def test_the_installed_flower_has_these_columns() -> None:
    columns = {"name", "status", "last_activated_at", "last_deactivated_at", "online_until"}
    assert FlowerNode.__tablename__ == "node"
    assert columns <= set(FlowerNode.__table__.columns.keys())


def sleeper(name: str) -> Child:
    return Child(name, ("/bin/sleep", "60"), {"PATH": "/bin"})


def test_one_child_is_renewed_and_the_others_stay(tmp_path: Path) -> None:
    async def play() -> None:
        supervisor = Supervisor(tmp_path)
        await supervisor.start([sleeper("one"), sleeper("two")])
        try:
            before = {one.name: one.process for one in supervisor.views()}
            await supervisor.renew(Child("one", ("/bin/sleep", "61"), {"PATH": "/bin"}))
            await comes(lambda: supervisor.views()[0].process not in {None, before["one"]})
            now = {one.name: one.process for one in supervisor.views()}
            assert now["two"] == before["two"]
            assert {one.name: one.restarts for one in supervisor.views()} == {"one": 1, "two": 0}
            await comes(lambda: not (b"61" not in Path(f"/proc/{now['one']}/cmdline").read_bytes()))
        finally:
            await supervisor.stop()

    asyncio.run(play())


@dataclass
class FakeExchange:
    known: list[tuple[int, frozenset[PartyId]]] = field(default_factory=list)
    stopped: dict[RunId, str] = field(default_factory=dict)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def open_run(self, run: RunId, members: Sequence[PartyId]) -> None: ...

    async def stop_run(self, run: RunId, reason: str) -> None:
        self.stopped[run] = reason

    async def close_run(self, run: RunId) -> None: ...

    def renew(self, home: Home, revoked: Collection[PartyId]) -> None:
        self.known.append((home.roster.version, frozenset(revoked)))

    def figures(self) -> tuple[list[PeerView], ExchangeCounts]:
        return [], ExchangeCounts()


@dataclass
class FakeFlower:
    enrolled: list[int] = field(default_factory=list)
    version: int = 1
    fault: SpecError | None = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def renew(self, home: Home) -> None:
        self.version = home.roster.version
        if self.fault is not None:
            raise self.fault

    def seats(self) -> Mapping[str, NodeSeat] | None:
        return {"bank": NodeSeat(True, "2026-01-01T00:00:00Z")}

    async def enrol(self) -> None:
        self.enrolled.append(self.version)

    def processes(self) -> Sequence[ProcessView]:
        return []

    def ready(self) -> bool:
        return True

    async def launch(self, run: RunId) -> str:
        return "1"

    async def ended(self, flower_runs: Sequence[str]) -> frozenset[str]:
        return frozenset()

    async def cancel(self, flower_run: str) -> None: ...


def coordinator(town: towns.Town) -> tuple[CoordinatorDaemon, CoordinatorParts, FakeExchange, FakeFlower]:
    home = town.opened("coordinator")
    path = home.folder / "coordinator.toml"
    path.write_text('party = "coordinator"\n[metrics]\nlisten = "127.0.0.1:39464"\n')
    home, registry = town.opened("coordinator"), Registry(home.state / "registry.sqlite")
    exchange, flower = FakeExchange(), FakeFlower()
    api, desk = OperatorApi(registry, home.roster, LOG), PresenceDesk(home.roster)
    parts = CoordinatorParts(HomeWatch(home), registry, api, desk, exchange, flower, LOG)
    return CoordinatorDaemon(parts), parts, exchange, flower


def submitted(registry: Registry, *parties: str) -> RunId:
    names = ", ".join(f'{{"name": "{one}"}}' for one in parties)
    return registry.submit(f'{{"party": [{names}]}}', "r", "d" * 64, "scorecard", "loans")


def test_runs_with_a_revoked_member_stop_by_name(town: towns.Town) -> None:
    daemon, parts, exchange, flower = coordinator(town)
    book = parts.registry
    both, alone, waits = submitted(book, "bank", "utility"), submitted(book, "bank"), submitted(book, "utility")
    book.launched(both, "1")
    book.set_state(both, RunState.PROPOSING)
    book.set_state(both, RunState.RUNNING)

    async def play() -> None:
        town.provision(revoke=["utility"])
        town.pin("coordinator")
        await daemon._renew()
        await daemon._keeper.step()

    asyncio.run(play())
    assert exchange.known == [(2, frozenset({UTILITY}))]
    assert (book.get(both).state, book.get(both).detail) == (RunState.STOPPING, "utility was revoked (roster 2)")
    assert (book.get(waits).state, book.get(waits).detail) == (RunState.STOPPED, "utility was revoked (roster 2)")
    assert book.get(alone).state is RunState.SUBMITTED
    assert exchange.stopped == {both: "utility was revoked (roster 2)"}
    assert [(one.party, one.event) for one in book.events(both) if one.event == "revoked"] == [("utility", "revoked")]
    status = daemon.status()
    assert (status.roster_version, status.nodes, status.notice) == (2, ["bank"], "")
    assert flower.version == 2
    book.close()


def test_the_list_of_nodes_is_given_anew(town: towns.Town) -> None:
    daemon, parts, _, flower = coordinator(town)

    async def play() -> None:
        daemon._enrol_due.set()
        task = asyncio.create_task(daemon._enrol())
        await comes(lambda: flower.enrolled == [1])
        town.provision(revoke=["utility"])
        town.pin("coordinator")
        await daemon._renew()
        await comes(lambda: flower.enrolled == [1, 2])
        task.cancel()

    asyncio.run(play())
    parts.registry.close()


def test_what_cannot_be_taken_is_said_and_nothing_changes(town: towns.Town) -> None:
    daemon, parts, exchange, flower = coordinator(town)
    town.provision(renew=True)
    town.pin("coordinator")
    path = town.home("coordinator") / "certificate.pem"
    right = path.read_bytes()
    path.write_bytes((town.home("bank") / "certificate.pem").read_bytes())
    asyncio.run(daemon._renew())
    assert exchange.known == []
    assert daemon.status().roster_version == 1
    assert "certificate" in daemon.status().notice
    path.write_bytes(right)
    flower.fault = SpecError("proxy.stream", "no module")
    asyncio.run(daemon._renew())
    assert exchange.known == [(2, frozenset())]
    assert (daemon.status().roster_version, daemon.status().notice) == (2, "no module")
    town.address = "127.0.0.1:9555"
    flower.fault = None
    town.provision()
    town.pin("coordinator")
    asyncio.run(daemon._renew())
    assert "another address; `stop` and `start`" in daemon.status().notice
    parts.registry.close()


@dataclass
class FakeProcesses:
    needs: bool = False
    restarted: int = 0
    homes: list[int] = field(default_factory=list)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def renew(self, home: Home) -> None:
        self.homes.append(home.roster.version)
        self.needs = True

    def due(self) -> bool:
        return self.needs

    async def again(self) -> None:
        self.needs, self.restarted = False, self.restarted + 1

    def processes(self) -> Sequence[ProcessView]:
        return []


@dataclass
class FakeProbe:
    standing: Standing
    homes: list[int] = field(default_factory=list)

    def renew(self, home: Home) -> None:
        self.homes.append(home.roster.version)

    async def ask(self) -> Standing:
        return self.standing


def test_a_supernode_is_started_again_when_the_coordinator_knows_its_key(
    town: towns.Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "_PROBE", 0.02)
    monkeypatch.setattr(node_module, "_PROBE_DOWN", 0.02)
    connected = SuperLinkView(state="connected", since="2026-01-01T00:00:00Z")
    flower, probe = FakeProcesses(), FakeProbe(Standing(True, connected, 1))
    daemon = NodeDaemon(NodeParts(HomeWatch(town.opened("bank")), flower, probe, LOG))

    async def play() -> None:
        watching = asyncio.create_task(daemon._watch_exchange())
        town.provision([make_request("bank", MemberKind.NODE, town.home("bank"), rotate=True).path])
        town.pin("bank")
        await daemon._renew()
        assert (flower.homes, probe.homes) == ([2], [2])
        await asyncio.sleep(0.2)
        assert flower.restarted == 0, "the coordinator has roster 1: it would refuse the new key"
        probe.standing = Standing(True, connected, 2)
        await comes(lambda: bool(flower.restarted))
        await asyncio.sleep(0.1)
        assert flower.restarted == 1
        daemon._opened = True
        assert (daemon.missing(), daemon.status().superlink) == ("", connected)
        probe.standing = Standing(True, SuperLinkView(state="refused", why="key not registered; pin"), 2)
        await comes(lambda: bool(daemon.missing()))
        assert daemon.missing() == "the SuperLink has not let its SuperNode in: key not registered; pin"
        watching.cancel()

    asyncio.run(play())


def test_what_a_supernode_reads_at_its_start_is_compared(town: towns.Town) -> None:
    processes = node_module.NodeProcesses(town.opened("bank"))
    town.provision(renew=True)
    town.pin("bank")
    processes.renew(town.opened("bank"))
    assert not processes.due(), "a renewed certificate is nothing to a SuperNode"
    town.provision([make_request("bank", MemberKind.NODE, town.home("bank"), rotate=True).path])
    town.pin("bank")
    processes.renew(town.opened("bank"))
    assert processes.due()


def test_a_house_leaves_its_runs_with_a_revoked_member(town: towns.Town) -> None:
    home = town.opened("bank")
    (home.state / "proposals").mkdir()
    for run, parties in (("aa" * 16, '"bank (label_holder)","utility (feature_holder)"'), ("bb" * 16, '"bank (x)"')):
        (home.state / "runs" / run).mkdir(parents=True)
        text = (
            f'{{"run":"{run}","spec_digest":"d","name":"n","model":"scorecard","mode":"production","parties":[{parties}],'
            '"data":"loans","columns":[],"made":"2026-01-01T00:00:00Z","expires":"2026-02-01T00:00:00Z"}'
        )
        (home.state / "proposals" / f"{run}.json").write_text(text)
    assert leave_runs_with(home, {UTILITY}) == ["aa" * 16]
    assert (home.state / "runs" / ("aa" * 16) / "stop").exists()
    assert not (home.state / "runs" / ("bb" * 16) / "stop").exists()
