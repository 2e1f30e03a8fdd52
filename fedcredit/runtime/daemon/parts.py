"""The coordinator's parts as the daemon wants them: the exchange, Flower's processes, the proxy."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.common import process_views, rfc3339
from fedcredit.runtime.daemon.coordinator import CoordinatorParts
from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.preparation import prepare_loops
from fedcredit.runtime.daemon.presence import PresenceDesk
from fedcredit.runtime.daemon.proxy import ProxySettings, proxy_child, write_proxy
from fedcredit.runtime.daemon.status import ExchangeCounts, PeerView, ProcessView
from fedcredit.runtime.daemon.supervisor import Child, Supervisor
from fedcredit.runtime.exchange.limits import ServerLimits
from fedcredit.runtime.exchange.server import ExchangeServer, RunSnapshot, ServerSettings
from fedcredit.runtime.exchange.tls import KnownKey
from fedcredit.runtime.flower_presence import LINK_DATABASE, NodeSeat, node_seats
from fedcredit.runtime.flower_processes import (
    CoordinatorFlower,
    coordinator_children,
    ended_runs,
    flower_folder,
    launch_run,
    register_nodes,
    stop_flower_run,
)
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.renewal import HomeWatch
from fedcredit.runtime.house.roster import MemberKind, Roster, split_address
from fedcredit.runtime.refusals import CallerNotes
from fedcredit.runtime.runs.operator_api import LineView, OperatorApi, TrafficView
from fedcredit.runtime.runs.registry import Registry
from fedcredit.types import PartyId, RunId

__all__ = ["ExchangeParts", "FlowerParts", "bind_coordinator", "known_keys", "server_limits"]

_MAX_RUNS = 32  # open at once; four times as many as are carried, for runs that wait for a driver after a restart
_LINK = 16 << 20
_CONNECTIONS = 256  # to Flower from one address; streams of the exchange come on top where both share theirs


def known_keys(roster: Roster) -> dict[str, KnownKey]:
    """Members by the digest of their TLS keys."""
    return {one.tls_key_sha256: KnownKey(one.name, str(one.kind)) for one in roster.members.values()}


def server_limits(home: Home) -> ServerLimits:
    """Limits of the exchange from the settings; all runs together hold at most ``max_stored_bytes``.

    Raises:
        SpecError: they leave no room for a frame.
    """
    own = home.coordinator.exchange
    window = min(own.max_run_bytes, own.max_stored_bytes // _MAX_RUNS)
    return ServerLimits(
        link_window=min(_LINK, window),
        run_window=window,
        max_runs=_MAX_RUNS,
        max_streams=own.max_streams,
        frames_per_s=own.frames_per_s,
        handshake_s=own.handshake_timeout_s,
    )


class ExchangeParts:
    """The exchange, and what its snapshots tell when they are compared.

    Args:
        server: The exchange.
    """

    def __init__(self, server: ExchangeServer) -> None:
        self._server = server
        self._parties: dict[tuple[RunId, PartyId], PeerView] = {}
        self._attempts: dict[tuple[RunId, PartyId], int] = {}
        self._before: Mapping[RunId, RunSnapshot] = {}
        self._gone = [0, 0, 0]  # bytes in, bytes out and undelivered frames of runs that are closed
        self._reconnects = 0

    async def start(self) -> None:
        """Listens.

        Raises:
            TransportError: it cannot.
        """
        await self._server.start()

    async def stop(self) -> None:
        """Ends it."""
        await self._server.stop()

    async def open_run(self, run: RunId, members: Sequence[PartyId]) -> None:
        """Lets the members in, also where the run was stopped before."""
        room = self._server.snapshot().runs.get(run)
        if room is not None and room.stopped:
            self._server.close_run(run)
        self._server.open_run(run, members)

    async def stop_run(self, run: RunId, reason: str) -> None:
        """Ends it for everyone in it."""
        self._server.stop_run(run, reason)

    async def close_run(self, run: RunId) -> None:
        """Forgets it."""
        self._server.close_run(run)

    def renew(self, home: Home, revoked: Collection[PartyId]) -> None:
        """Takes a new roster and certificate: streams of members that were revoked end at once, others stay."""
        self._server.replace_known(known_keys(home.roster), revoked)
        self._server.renew_tls(home.tls)

    def figures(self) -> tuple[list[PeerView], ExchangeCounts]:
        """Who is connected, and the counts; called every second or so, as changes are seen by comparing."""
        snapshot = self._server.snapshot()
        runs = snapshot.runs
        for run, last in self._before.items():
            if run not in runs or runs[run].bytes_in < last.bytes_in:  # closed, perhaps opened again
                for place, value in enumerate((last.bytes_in, last.bytes_out, last.undelivered)):
                    self._gone[place] += value
        self._before = runs
        self._compare(runs)
        counts = ExchangeCounts(
            runs=len(runs),
            queue_bytes=sum(one.stored for one in runs.values()),
            received_bytes=self._gone[0] + sum(one.bytes_in for one in runs.values()),
            sent_bytes=self._gone[1] + sum(one.bytes_out for one in runs.values()),
            undelivered=self._gone[2] + sum(one.undelivered for one in runs.values()),
            reconnects=self._reconnects,
            refused=dict(snapshot.refused),
        )
        return list(self._parties.values()), counts

    def _compare(self, runs: Mapping[RunId, RunSnapshot]) -> None:
        now, views = rfc3339(datetime.now(UTC)), {}
        for run, room in runs.items():
            for party in room.members:
                key, attempt = (run, party), room.connected.get(party)
                old = self._parties.get(key)
                connected = attempt is not None
                changed = old is None or old.connected is not connected
                came_back = key in self._attempts and (changed or self._attempts[key] != attempt)
                self._reconnects += connected and came_back
                if attempt is not None:
                    self._attempts[key] = attempt
                same = old if old is not None and not changed else None
                views[key] = same or PeerView(party=party, run=run, connected=connected, since=now)
        self._parties = views
        self._attempts = {key: attempt for key, attempt in self._attempts.items() if key in views}


class FlowerParts:
    """Flower's processes and the proxy before them.

    Args:
        home: The coordinator's.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        own = home.coordinator.flower
        self._setup = CoordinatorFlower(home.folder, own.port, own.host)
        self._supervisor = Supervisor(home.logs)
        self._one_address = home.roster.one_address

    def children(self) -> list[Child]:
        """The processes that are kept up.

        Raises:
            SpecError: a program is not installed.
        """
        children = coordinator_children(self._setup)
        if self._home.coordinator.flower.proxy:
            children.append(proxy_child(self._proxy()))
        return children

    def _proxy(self) -> ProxySettings:
        home, setup = self._home, self._setup
        return ProxySettings(
            folder=flower_folder(home.folder) / "proxy",
            listen=home.coordinator.flower.proxy,
            superlink=f"{setup.host}:{setup.port}",
            loopback_ca=setup.tls.ca,
            certificate=home.certificate_file,
            key=home.keys / "tls.key",
            ca=home.ca_file,
            consortium=home.roster.consortium,
            operators=tuple(n for n, one in home.roster.members.items() if one.kind is MemberKind.OPERATOR),
            exchange=_loopback(home.coordinator.exchange.listen) if self._one_address else "",
            per_address=_CONNECTIONS + (home.coordinator.exchange.max_streams if self._one_address else 0),
        )

    async def start(self) -> None:
        """Starts the processes."""
        await self._supervisor.start(self.children())

    async def stop(self) -> None:
        """Ends them."""
        await self._supervisor.stop()

    def renew(self, home: Home) -> None:
        """Takes a new roster and certificate: nginx reads them anew, and connections through it stay.

        Addresses that are listened on stay those of the start.

        Raises:
            SpecError: the proxy cannot be set so; it goes on as it was.
        """
        self._home = home
        if home.coordinator.flower.proxy:
            write_proxy(self._proxy())
            self._supervisor.signal("proxy", signal.SIGHUP)

    def seats(self) -> Mapping[str, NodeSeat] | None:
        """Which SuperNodes the SuperLink has let in; None = not known."""
        try:
            return node_seats(flower_folder(self._home.folder) / LINK_DATABASE)
        except FedCreditError:
            return None

    async def enrol(self) -> None:
        """Makes the SuperLink's list of nodes that of the roster."""
        nodes = {n: one.flower_key for n, one in self._home.roster.members.items() if one.kind is MemberKind.NODE}
        await register_nodes(self._setup, nodes)

    def processes(self) -> list[ProcessView]:
        """How they are."""
        return process_views(self._supervisor.views())

    def ready(self) -> bool:
        """Whether all run."""
        views = self.processes()
        return bool(views) and all(one.running for one in views)

    async def launch(self, run: RunId) -> str:
        """Starts the process that drives a run."""
        return await launch_run(self._setup, run)

    async def ended(self, flower_runs: Sequence[str]) -> frozenset[str]:
        """Those Flower runs that have ended or are unknown."""
        return await ended_runs(self._setup, flower_runs)

    async def cancel(self, flower_run: str) -> None:
        """Ends a Flower run."""
        try:
            await stop_flower_run(self._setup, flower_run)
        except (ValueError, OSError) as error:
            raise FedCreditError("flower.cancel", "the Flower run could not be ended", str(error)) from None


def _loopback(listen: str) -> str:
    """Where this machine reaches an address that is listened on everywhere."""
    host, port = split_address(listen)
    return f"127.0.0.1:{port}" if host in {"0.0.0.0", "::"} else listen  # noqa: S104 -- compared, not listened on


def _traffic(server: ExchangeServer, run: RunId) -> TrafficView | None:
    """What operators may see of a run that is open: never more than the exchange sees anyway."""
    relayed, seen = server.look(run)
    lines = [
        LineView(party=one.party, connected=one.connected, seconds=one.seconds, waiting_for=one.waiting_for)
        for one in seen
    ]
    return TrafficView(bytes_in=relayed, lines=lines) if lines else None


def bind_coordinator(home: Home, registry: Registry, log: Log) -> CoordinatorParts:
    """The parts of a coordinator's daemon.

    Raises:
        SpecError: the settings do not fit each other.
    """
    api = OperatorApi(registry, home.roster, log, CallerNotes(home, "operator refused"))
    own = home.coordinator.exchange
    settings = ServerSettings(own.listen, home.tls, known_keys(home.roster), server_limits(home))
    desk = PresenceDesk(home.roster)
    note = CallerNotes(home, "exchange refused")
    server = ExchangeServer(settings, handlers=(api.handler(), desk.handler()), note=note)
    exchange, api.traffic = ExchangeParts(server), partial(_traffic, server)
    flower = FlowerParts(home)
    return CoordinatorParts(HomeWatch(home), registry, api, desk, exchange, flower, log, prepare=prepare_loops(home))
