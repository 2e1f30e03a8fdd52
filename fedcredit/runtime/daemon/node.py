"""A node's daemon: keeps Flower's processes up, looks whether the exchange answers, tells how the node is.

It dials out only; the one thing it listens on is the probes' address. Sessions are played by processes of their own,
which end with this one and go on from their checkpoints when it is back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import grpc
import grpc.aio

import fedcredit
from fedcredit.runtime.daemon.common import certificate_seconds, process_views, rfc3339, waits_for
from fedcredit.runtime.daemon.health import HealthServer, Probes, node_metrics
from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.process import STATUS_FILE
from fedcredit.runtime.daemon.status import ExchangeView, LedgerView, NodeStatus, ProcessView, TrafficView, write_status
from fedcredit.runtime.daemon.supervisor import Supervisor
from fedcredit.runtime.daemon.tally import Tally, ledger_use, run_counts
from fedcredit.runtime.exchange.tls import client_credentials, client_options
from fedcredit.runtime.flower_processes import NodeFlower, node_children
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import split_address

__all__ = ["ExchangeProbe", "NodeDaemon", "NodeParts", "NodeProcesses", "Probe", "Processes", "bind_node"]

_STATUS, _COUNT = 1.0, 10.0  # seconds between two status files, and between two counts of what lies in the home
_PROBE, _PROBE_DOWN = 30.0, 5.0  # seconds between two probes of an exchange that answers, and of one that does not


class Processes(Protocol):
    """Flower's processes of a node."""

    async def start(self) -> None:
        """Starts them; they are kept up from then on."""

    async def stop(self) -> None:
        """Ends them all."""

    def processes(self) -> Sequence[ProcessView]:
        """How they are."""
        ...


class Probe(Protocol):
    """Asks the exchange whether it is there."""

    async def answers(self) -> bool:
        """Whether a connection over mutual TLS comes about within a few seconds."""
        ...


class NodeProcesses:
    """SuperNode and SuperExec of a node.

    Args:
        home: The node's.
    """

    def __init__(self, home: Home) -> None:
        own = home.node
        role = "" if own.role is None else str(own.role)
        self._setup = NodeFlower(home.folder, home.party, role, home.roster.fleet, own.flower.port, own.flower.host)
        self._supervisor = Supervisor(home.logs)

    async def start(self) -> None:
        """Starts them.

        Raises:
            SpecError: a program is not installed, or the settings are wrong.
        """
        await self._supervisor.start(node_children(self._setup))

    async def stop(self) -> None:
        """Ends them."""
        await self._supervisor.stop()

    def processes(self) -> list[ProcessView]:
        """How they are."""
        return process_views(self._supervisor.views())


class ExchangeProbe:
    """Connects to the exchange and hangs up.

    Args:
        home: The node's.
    """

    def __init__(self, home: Home) -> None:
        self._address, self._tls = home.roster.exchange, client_credentials(home.tls)
        self._timeout = home.node.exchange.connect_timeout_s

    async def answers(self) -> bool:
        """Whether it can be connected to."""
        options = client_options(split_address(self._address)[0])
        async with grpc.aio.secure_channel(self._address, self._tls, options) as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), self._timeout)
            except TimeoutError:
                return False
            return True


@dataclass(frozen=True)
class NodeParts:
    """What the daemon is made of.

    Args:
        home: The node's.
        flower: Its Flower processes.
        probe: Asks the exchange.
        log: Its log.
    """

    home: Home
    flower: Processes
    probe: Probe
    log: Log


class NodeDaemon:
    """See the module.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: NodeParts) -> None:
        self._parts, home = parts, parts.home
        self._started = rfc3339(datetime.now(UTC))
        self._opened = False
        self._written, self._counted = 0.0, -_COUNT
        self._tally = Tally(home.folder, home.party)
        self._traffic: list[TrafficView] = []
        self._ledger: list[LedgerView] = []
        self._exchange = ExchangeView(address=home.roster.exchange, reachable=False, since=self._started)
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
        health = HealthServer(parts.home.node.metrics.listen, probes)
        health.start()
        self._stack.push_async_callback(asyncio.to_thread, health.stop)
        await parts.flower.start()
        self._stack.push_async_callback(parts.flower.stop)
        watching = asyncio.create_task(self._watch_exchange())
        self._stack.callback(watching.cancel)
        self._opened = True

    async def turn(self) -> None:
        """One turn."""
        if time.monotonic() - self._counted >= _COUNT:
            self._counted = time.monotonic()
            self._traffic = await asyncio.to_thread(self._tally.look)
            self._ledger = await asyncio.to_thread(ledger_use, self._parts.home.folder)
        if time.monotonic() - self._written >= _STATUS:
            self._written = time.monotonic()
            self._status = self.status()
            write_status(self._parts.home.state / STATUS_FILE, self._status)

    async def close(self) -> None:
        """Ends everything; runs go on when it starts again."""
        await self._stack.aclose()

    def missing(self) -> str:
        """What it lacks to be ready."""
        if not self._opened:
            return "starting"
        down = waits_for(self._parts.flower.processes())
        if down or self._exchange.reachable:
            return down
        return f"the exchange at {self._exchange.address} does not answer"

    def status(self) -> NodeStatus:
        """Its state now."""
        home = self._parts.home
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
            runs=run_counts(home.folder),
            ledger=self._ledger,
            traffic=self._traffic,
            stage_seconds=dict(self._tally.stage_seconds),
        )

    async def _watch_exchange(self) -> None:
        while True:
            answers = await self._parts.probe.answers()
            if answers is not self._exchange.reachable:
                now = rfc3339(datetime.now(UTC))
                self._exchange = ExchangeView(address=self._exchange.address, reachable=answers, since=now)
                self._parts.log.info("exchange.reachable" if answers else "exchange.unreachable")
            await asyncio.sleep(_PROBE if answers else _PROBE_DOWN)


def bind_node(home: Home, log: Log) -> NodeParts:
    """The parts of a node's daemon."""
    return NodeParts(home, NodeProcesses(home), ExchangeProbe(home), log)
