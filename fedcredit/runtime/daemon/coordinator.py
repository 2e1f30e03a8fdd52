"""The coordinator's daemon: exchange and operators' interface on one port, Flower's processes, runs kept in step.

Its only memory is the run registry: killed and started again, it lets the runs that were under way in again at once, so
that sessions between the nodes go on, and launches the processes that drive them anew.

A bundle that is pinned while it runs is taken without a restart: connections stay, what was revoked is cut.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import fedcredit
from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.common import certificate_seconds, rfc3339, waits_for
from fedcredit.runtime.daemon.health import HealthServer, Probes, coordinator_metrics
from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.preparation import Preparation, Prepare, nothing_to_prepare
from fedcredit.runtime.daemon.presence import PresenceDesk
from fedcredit.runtime.daemon.process import STATUS_FILE
from fedcredit.runtime.daemon.runs import Carrier, RunKeeper, Switchboard
from fedcredit.runtime.daemon.status import CoordinatorStatus, ExchangeCounts, PeerView, ProcessView, write_status
from fedcredit.runtime.flower_presence import NodeSeat
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.renewal import HomeWatch, revoked_since
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.runs.operator_api import OperatorApi
from fedcredit.runtime.runs.registry import ACTIVE, Registry, RunState
from fedcredit.types import PartyId

__all__ = ["CoordinatorDaemon", "CoordinatorParts", "Exchange", "Flower"]

_STATUS = 1.0  # seconds between two status files
_SEATS = 3.0  # seconds between two looks at which SuperNodes are there
_FIRST_PAUSE, _MOST_PAUSE = 1.0, 10.0  # seconds between two tries to give Flower its list of nodes


class Exchange(Switchboard, Protocol):
    """The exchange of this process."""

    async def start(self) -> None:
        """Listens; a `FedCreditError` where it cannot."""

    async def stop(self) -> None:
        """Ends it."""

    def renew(self, home: Home, revoked: Collection[PartyId]) -> None:
        """Takes a new roster and certificate; streams of members that were revoked end."""

    def figures(self) -> tuple[list[PeerView], ExchangeCounts]:
        """Its streams and counts."""
        ...


class Flower(Carrier, Protocol):
    """Flower's processes of the coordinator."""

    async def start(self) -> None:
        """Starts the processes, which are kept up from then on."""

    async def stop(self) -> None:
        """Ends them all."""

    def renew(self, home: Home) -> None:
        """Takes a new roster and certificate; a `FedCreditError` where it cannot."""

    def seats(self) -> Mapping[str, NodeSeat] | None:
        """Which SuperNodes the SuperLink has let in; None = not known."""
        ...

    async def enrol(self) -> None:
        """Gives Flower the list of nodes; a `FedCreditError` while it cannot take it."""

    def processes(self) -> Sequence[ProcessView]:
        """How they are."""
        ...


@dataclass(frozen=True)
class CoordinatorParts:
    """What the daemon is made of.

    Args:
        watch: The coordinator's home, and what is pinned into it.
        registry: The book of runs.
        api: Answers operators; part of the exchange's server.
        desk: Answers nodes, as well.
        exchange: The exchange.
        flower: Flower.
        log: Its log.
        most: Runs carried at once.
        prepare: Gets ready what runs need; it is not ready before.
    """

    watch: HomeWatch
    registry: Registry
    api: OperatorApi
    desk: PresenceDesk
    exchange: Exchange
    flower: Flower
    log: Log
    most: int = 8
    prepare: Prepare = nothing_to_prepare


class CoordinatorDaemon:
    """See the module.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: CoordinatorParts) -> None:
        self._parts, self._home = parts, parts.watch.home
        self._addresses = _addresses(self._home)
        self._notice, self._complained = "", ""
        self._seats: Mapping[str, NodeSeat] | None = None
        self._looked = 0.0
        self._enrol_due = asyncio.Event()
        self._keeper = RunKeeper(parts.registry, parts.exchange, parts.flower, parts.log, parts.most)
        self._started = rfc3339(datetime.now(UTC))
        self._opened = self._enrolled = False
        self._preparation = Preparation(parts.prepare, parts.log)
        self._written = 0.0
        self._counts: dict[str, int] = {}
        self._stack = AsyncExitStack()
        self._alive: Callable[[], str] = str  # "" until the loop is watched
        self._status = self.status()

    def watched(self, alive: Callable[[], str]) -> None:
        """Takes what tells whether its loop turns."""
        self._alive = alive

    def alive(self) -> str:
        """Says nothing while its loop turns."""
        return self._alive()

    async def open(self) -> None:
        """Starts everything.

        Raises:
            FedCreditError: an address cannot be listened on, or a program is missing.
        """
        parts = self._parts
        probes = Probes(self.alive, self.missing, lambda: coordinator_metrics(self._status))
        health = HealthServer(self._home.coordinator.metrics.listen, probes)
        health.start()
        self._stack.push_async_callback(asyncio.to_thread, health.stop)
        await parts.exchange.start()
        self._stack.push_async_callback(parts.exchange.stop)
        await self._keeper.recover()
        self._stack.push_async_callback(self._keeper.close)
        await parts.flower.start()
        self._stack.push_async_callback(parts.flower.stop)
        self._enrol_due.set()
        for task in (self._enrol(), self._preparation.through()):
            self._stack.callback(asyncio.create_task(task).cancel)
        self._opened = True
        self._tell()

    async def turn(self) -> None:
        """One turn."""
        await self._renew()
        if time.monotonic() - self._looked >= _SEATS:
            self._looked = time.monotonic()
            self._seats = await asyncio.to_thread(self._parts.flower.seats)
            self._parts.desk.seat(self._seats)
        if self._enrolled:
            await self._keeper.step()
        self._counts = await asyncio.to_thread(self._parts.registry.counts)
        if time.monotonic() - self._written >= _STATUS:
            self._tell()

    async def close(self) -> None:
        """Ends everything, what was started last first; runs go on when it starts again."""
        await self._stack.aclose()

    def missing(self) -> str:
        """What it lacks to be ready."""
        if not self._opened:
            return "starting"
        down = waits_for(self._parts.flower.processes())
        if down:
            return down
        return self._preparation.lacks if self._enrolled else "Flower has not taken the list of nodes yet"

    def status(self) -> CoordinatorStatus:
        """Its state now."""
        home, parts = self._home, self._parts
        parties, exchange = parts.exchange.figures()
        return CoordinatorStatus(
            party=home.party,
            consortium=home.roster.consortium,
            roster_version=home.roster.version,
            roster_digest=home.roster.digest,
            version=fedcredit.__version__,
            pid=os.getpid(),
            started=self._started,
            written=rfc3339(datetime.now(UTC)),
            missing=self.missing(),
            certificate_seconds=certificate_seconds(home),
            address=_public(home),
            nodes=self._nodes(),
            processes=list(parts.flower.processes()),
            parties=parties,
            exchange=exchange,
            operators_refused=parts.api.refused,
            runs=self._counts,
            away=None if self._seats is None else [one for one in self._nodes() if not self._connected(one)],
            notice=self._notice,
        )

    def _nodes(self) -> list[str]:
        return [name for name, one in self._home.roster.members.items() if one.kind is MemberKind.NODE]

    def _connected(self, node: str) -> bool:
        seat = (self._seats or {}).get(node)
        return seat is not None and seat.connected

    def _tell(self) -> None:
        self._written = time.monotonic()
        self._status = self.status()
        write_status(self._home.state / STATUS_FILE, self._status)

    async def _renew(self) -> None:
        """Takes what was pinned since the last turn; what cannot be taken is said, and nothing changes."""
        parts, old = self._parts, self._home
        new = await asyncio.to_thread(parts.watch.look)
        refused = parts.watch.refused
        if refused is not None and refused.public != self._complained:
            self._complained = self._notice = refused.public
            parts.log.warning("roster.refused", code=refused.code)
        if new is None:
            return
        self._home, self._notice, self._complained = new, "", ""
        revoked = revoked_since(new.roster, old.roster)
        parts.api.renew(new.roster)  # first who is let in, then what goes on
        parts.desk.renew(new.roster)
        parts.exchange.renew(new, revoked)
        await asyncio.to_thread(self._stop_with, revoked)
        try:
            parts.flower.renew(new)
        except FedCreditError as error:
            self._notice = error.public
            parts.log.warning("proxy.refused", code=error.code)
        if _addresses(new) != self._addresses:
            self._notice = "the roster has another address; `stop` and `start` to listen there"
        self._enrol_due.set()
        parts.log.info("roster.taken")

    def _stop_with(self, revoked: Collection[PartyId]) -> None:
        """Stops every run that a revoked member is in."""
        registry, version = self._parts.registry, self._home.roster.version
        for record in registry.runs(RunState.SUBMITTED, *ACTIVE) if revoked else ():
            gone = sorted(set(record.parties) & set(revoked))
            if not gone:
                continue
            reason = f"{', '.join(gone)} {'was' if len(gone) == 1 else 'were'} revoked (roster {version})"
            registry.event(record.run, gone[0], "revoked", reason)
            if registry.stop(record.run, reason) is RunState.STOPPING:
                registry.cut(record.run, reason)
            self._parts.log.warning("run.revoked", run=record.run, party=gone[0])

    async def _enrol(self) -> None:
        """Keeps Flower's list of nodes that of the roster, from before the first run is launched."""
        pause = _FIRST_PAUSE
        while True:
            await self._enrol_due.wait()
            self._enrol_due.clear()
            try:
                await self._parts.flower.enrol()
                self._enrolled = True
                pause = _FIRST_PAUSE
                self._parts.log.info("flower.enrolled")
            except FedCreditError as error:
                self._parts.log.info("flower.not-ready", code=error.code)
                self._enrol_due.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MOST_PAUSE)


def _addresses(home: Home) -> tuple[str, str]:
    return home.roster.exchange, home.roster.fleet


def _public(home: Home) -> str:
    """Where members reach the exchange on this machine."""
    own = home.coordinator
    return (home.roster.one_address and own.flower.proxy) or own.exchange.listen
