"""A node's daemon: keeps Flower's processes up, looks whether the exchange answers, tells how the node is.

It dials out only; the one thing it listens on is the probes' address. Sessions are played by processes of their own,
which end with this one and go on from their checkpoints when it is back.

A bundle that is pinned while it runs is taken without a restart. Where the SuperNode itself has to know (another key,
authority or address), it alone is started again, once the coordinator has the same roster: sessions go on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import fedcredit
from fedcredit.runtime.daemon.common import certificate_seconds, process_views, rfc3339, waits_for
from fedcredit.runtime.daemon.health import HealthServer, Probes, node_metrics
from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.preparation import Preparation, Prepare, nothing_to_prepare, prepare_loops
from fedcredit.runtime.daemon.presence import Standing, ask_presence
from fedcredit.runtime.daemon.process import STATUS_FILE
from fedcredit.runtime.daemon.status import (
    ExchangeView,
    LedgerView,
    NodeStatus,
    ProcessView,
    SuperLinkView,
    TrafficView,
    write_status,
)
from fedcredit.runtime.daemon.supervisor import Child, Supervisor
from fedcredit.runtime.daemon.tally import Tally, ledger_use, run_counts
from fedcredit.runtime.flower_processes import NodeFlower, node_children
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.renewal import HomeWatch, revoked_since
from fedcredit.types import PartyId

__all__ = [
    "ExchangeProbe",
    "NodeDaemon",
    "NodeParts",
    "NodeProcesses",
    "Probe",
    "Processes",
    "bind_node",
    "leave_runs_with",
]

_STATUS, _COUNT = 1.0, 10.0  # seconds between two status files, and between two counts of what lies in the home
_PROBE, _PROBE_DOWN = 30.0, 5.0  # seconds between two probes of an exchange that answers, and of one that does not


class Processes(Protocol):
    """Flower's processes of a node."""

    async def start(self) -> None:
        """Starts them; they are kept up from then on."""

    async def stop(self) -> None:
        """Ends them all."""

    def renew(self, home: Home) -> None:
        """Takes a new roster, certificate or keys."""

    def due(self) -> bool:
        """Whether the SuperNode has to be started again to know of them."""
        ...

    async def again(self) -> None:
        """Starts it again."""

    def processes(self) -> Sequence[ProcessView]:
        """How they are."""
        ...


class Probe(Protocol):
    """Asks the exchange whether it is there."""

    def renew(self, home: Home) -> None:
        """Takes a new roster or certificate."""

    async def ask(self) -> Standing:
        """Whether a connection over mutual TLS comes about within a few seconds, and how this node stands there."""
        ...


class NodeProcesses:
    """SuperNode and SuperExec of a node.

    Args:
        home: The node's.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._knows = _supernode_knows(home)
        self._supervisor = Supervisor(home.logs)

    async def start(self) -> None:
        """Starts them.

        Raises:
            SpecError: a program is not installed, or the settings are wrong.
        """
        await self._supervisor.start(self._children())

    async def stop(self) -> None:
        """Ends them."""
        await self._supervisor.stop()

    def renew(self, home: Home) -> None:
        """Takes a new roster, certificate or keys."""
        self._home = home

    def due(self) -> bool:
        """Whether the SuperNode began with another key, authority or address."""
        return self._knows != _supernode_knows(self._home)

    async def again(self) -> None:
        """Starts the SuperNode again; its SuperExec and sessions stay."""
        self._knows = _supernode_knows(self._home)
        await self._supervisor.renew(next(one for one in self._children() if one.name == "supernode"))

    def _children(self) -> list[Child]:
        home, own = self._home, self._home.node
        role = "" if own.role is None else str(own.role)
        setup = NodeFlower(home.folder, home.party, role, home.roster.fleet, own.flower.port, own.flower.host)
        return node_children(setup)

    def processes(self) -> list[ProcessView]:
        """How they are."""
        return process_views(self._supervisor.views())


def _supernode_knows(home: Home) -> tuple[str, bytes, str]:
    """What a SuperNode reads when it starts and never again."""
    return home.roster.fleet, home.tls.ca, home.member.flower_key


class ExchangeProbe:
    """Connects to the exchange, asks, and hangs up.

    Args:
        home: The node's.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    def renew(self, home: Home) -> None:
        """Takes a new roster or certificate."""
        self._home = home

    async def ask(self) -> Standing:
        """How this node stands."""
        return await ask_presence(self._home, self._home.node.exchange.connect_timeout_s)


@dataclass(frozen=True)
class NodeParts:
    """What the daemon is made of.

    Args:
        watch: The node's home, and what is pinned into it.
        flower: Its Flower processes.
        probe: Asks the exchange.
        log: Its log.
        prepare: Gets ready what runs need; it is not ready before.
    """

    watch: HomeWatch
    flower: Processes
    probe: Probe
    log: Log
    prepare: Prepare = nothing_to_prepare


class NodeDaemon:
    """See the module.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: NodeParts) -> None:
        self._parts, self._home = parts, parts.watch.home
        home = self._home
        self._started = rfc3339(datetime.now(UTC))
        self._opened, self._preparation = False, Preparation(parts.prepare, parts.log)
        self._written, self._counted = 0.0, -_COUNT
        self._tally = Tally(home.folder, home.party)
        self._traffic: list[TrafficView] = []
        self._ledger: list[LedgerView] = []
        self._exchange = ExchangeView(address=home.roster.exchange, reachable=False, since=self._started)
        self._superlink, self._notice, self._complained = SuperLinkView(), "", ""
        self._ask_now = asyncio.Event()
        self._stack = AsyncExitStack()
        self._alive: Callable[[], str] = str
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
            FedCreditError: the probes' address is taken, or a program is missing.
        """
        parts = self._parts
        probes = Probes(self.alive, self.missing, lambda: node_metrics(self._status))
        health = HealthServer(self._home.node.metrics.listen, probes)
        health.start()
        self._stack.push_async_callback(asyncio.to_thread, health.stop)
        await parts.flower.start()
        self._stack.push_async_callback(parts.flower.stop)
        for task in (self._watch_exchange(), self._preparation.through()):
            self._stack.callback(asyncio.create_task(task).cancel)
        self._opened = True

    async def turn(self) -> None:
        """One turn."""
        await self._renew()
        if time.monotonic() - self._counted >= _COUNT:
            self._counted = time.monotonic()
            self._traffic = await asyncio.to_thread(self._tally.look)
            self._ledger = await asyncio.to_thread(ledger_use, self._home.folder)
        if time.monotonic() - self._written >= _STATUS:
            self._written = time.monotonic()
            self._status = self.status()
            write_status(self._home.state / STATUS_FILE, self._status)

    async def close(self) -> None:
        """Ends everything; runs go on when it starts again."""
        await self._stack.aclose()

    def missing(self) -> str:
        """What it lacks to be ready."""
        if not self._opened:
            return "starting"
        down = waits_for(self._parts.flower.processes())
        if down:
            return down
        if not self._exchange.reachable:
            return f"the exchange at {self._exchange.address} does not answer"
        if self._superlink.state in {"away", "refused"}:
            return f"the SuperLink has not let its SuperNode in: {self._superlink.why}"
        return self._preparation.lacks

    def status(self) -> NodeStatus:
        """Its state now."""
        home = self._home
        return NodeStatus(
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
            processes=list(self._parts.flower.processes()),
            exchange=self._exchange,
            superlink=self._superlink,
            notice=self._notice,
            runs=run_counts(home.folder),
            ledger=self._ledger,
            traffic=self._traffic,
            stage_seconds=dict(self._tally.stage_seconds),
        )

    async def _watch_exchange(self) -> None:
        while True:
            self._ask_now.clear()
            home, standing = self._home, await self._parts.probe.ask()
            self._judge(home, standing)
            if self._parts.flower.due() and standing.reachable and standing.roster_version >= home.roster.version:
                await self._parts.flower.again()  # the coordinator knows the new key by now
                self._parts.log.info("supernode.renewed")
            settled = standing.reachable and standing.superlink.state in {"connected", "unknown"}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ask_now.wait(), _PROBE if settled else _PROBE_DOWN)

    def _judge(self, home: Home, standing: Standing) -> None:
        """Takes an answer, and logs what changed."""
        address, reachable, log = home.roster.exchange, standing.reachable, self._parts.log
        if reachable is not self._exchange.reachable or address != self._exchange.address:
            now = rfc3339(datetime.now(UTC))
            self._exchange = ExchangeView(address=address, reachable=reachable, since=now)
            log.info("exchange.reachable" if reachable else "exchange.unreachable")
        if standing.superlink.state != self._superlink.state:
            log.info("superlink.state", state=standing.superlink.state)
        self._superlink = standing.superlink

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
        parts.probe.renew(new)
        parts.flower.renew(new)
        revoked = revoked_since(new.roster, old.roster)
        for run in await asyncio.to_thread(leave_runs_with, new, revoked) if revoked else ():
            parts.log.warning("run.revoked", run=run)
        self._ask_now.set()
        parts.log.info("roster.taken")


def leave_runs_with(home: Home, revoked: Collection[PartyId]) -> list[str]:
    """Leaves every run under way that a revoked member is in; `fedcredit-node approve` takes that back.

    Returns:
        Their names.
    """
    from fedcredit.runtime.house.consent import known_runs  # noqa: PLC0415 -- loads what sessions need, when needed
    from fedcredit.runtime.session.session import STOP_FILE  # noqa: PLC0415 -- as above

    left = []
    for view in known_runs(home):
        folder, parties = home.state / "runs" / view.known.run, {one.split(" ", 1)[0] for one in view.known.parties}
        if folder.is_dir() and parties & set(revoked):
            (folder / STOP_FILE).touch(mode=0o600)
            left.append(view.known.run)
    return left


def bind_node(home: Home, log: Log) -> NodeParts:
    """The parts of a node's daemon."""
    return NodeParts(HomeWatch(home), NodeProcesses(home), ExchangeProbe(home), log, prepare_loops(home))
