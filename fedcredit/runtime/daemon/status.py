"""What a daemon tells of itself: one file in its home, replaced every second or two, that ``status`` and metrics read.

The file says which process wrote it and when. Whether that process lives is told by the lock it holds, not by the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

__all__ = [
    "CoordinatorStatus",
    "ExchangeCounts",
    "ExchangeView",
    "LedgerView",
    "NodeStatus",
    "PeerView",
    "ProcessView",
    "SuperLinkView",
    "TrafficView",
    "read_status",
    "write_status",
]


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """A supervised process: its name, whether it runs, since when (RFC 3339), and how often it was started again."""

    name: str
    running: bool
    since: str = ""
    restarts: int = 0


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """A party in a run that is open at the exchange: whether it is connected, and since when that is so."""

    party: str
    run: str
    connected: bool
    since: str


class ExchangeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the exchange; counts are since it was started.

    Attributes:
        runs: Open now.
        queue_bytes: Held for recipients now.
        received_bytes: Sealed bytes that came in.
        sent_bytes: Sealed bytes that went out.
        undelivered: Frames whose recipient was not there; their senders send them again.
        reconnects: Parties that came back into a run.
        refused: Streams refused or ended, by code.
    """

    runs: int = 0
    queue_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    undelivered: int = 0
    reconnects: int = 0
    refused: dict[str, int] = {}


class CoordinatorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State of a coordinator.

    Attributes:
        party: Its name.
        consortium: Whose.
        roster_version: In force.
        roster_digest: Hex.
        version: Of this program.
        pid: Process that wrote this.
        started: When it began, RFC 3339.
        written: When this was written, RFC 3339.
        missing: What it lacks to be ready; "" = ready.
        certificate_seconds: Until the own certificate expires.
        address: Where the exchange listens.
        nodes: Names of all nodes in the roster.
        processes: Supervised processes.
        parties: Who is connected, by run and party.
        exchange: Its figures.
        operators_refused: Calls of others than operators.
        runs: Number of runs by state.
        away: Nodes that the SuperLink has not let in now; None = not known.
        notice: Why a bundle that was pinned is not taken; "" = everything pinned is in force.
    """

    party: str
    consortium: str
    roster_version: int
    roster_digest: str
    version: str
    pid: int
    started: str
    written: str
    missing: str
    certificate_seconds: float
    address: str
    nodes: list[str]
    processes: list[ProcessView]
    parties: list[PeerView]
    exchange: ExchangeCounts
    operators_refused: int
    runs: dict[str, int]
    away: list[str] | None = None
    notice: str = ""


class ExchangeView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the exchange answered this node over mutual TLS, and since when that is so."""

    address: str
    reachable: bool
    since: str


class SuperLinkView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the SuperLink has let this house's SuperNode in, as the coordinator tells.

    Attributes:
        state: ``connected``, ``away`` (registered, not there now), ``refused``, or ``unknown``.
        since: When that began, RFC 3339; "" = not known.
        why: Why not, and what to do.
    """

    state: str = "unknown"
    since: str = ""
    why: str = ""


class TrafficView(msgspec.Struct, frozen=True, kw_only=True):
    """What this node sent to a party in a protocol, all runs on its disk together."""

    protocol: str
    party: str
    messages: int
    bytes: int


class LedgerView(msgspec.Struct, frozen=True, kw_only=True):
    """One account of the disclosure ledger: what a counterparty was told, and the cap; None = caps are not enforced."""

    counterparty: str
    account: str
    used: float
    cap: float | None

    @property
    def share(self) -> float | None:
        """Used share of the cap."""
        return None if not self.cap else self.used / self.cap


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State of a node.

    Attributes:
        party: Its name.
        consortium: Whose.
        roster_version: In force.
        roster_digest: Hex.
        version: Of this program.
        pid: Process that wrote this.
        started: When it began, RFC 3339.
        written: When this was written, RFC 3339.
        missing: What it lacks to be ready; "" = ready.
        certificate_seconds: Until the own certificate expires.
        processes: Supervised processes.
        exchange: Whether it answers.
        superlink: Whether the SuperLink has let the SuperNode in.
        notice: Why a bundle that was pinned is not taken; "" = everything pinned is in force.
        runs: Number of runs by what this house has of them: proposed, running, failed, finished.
        ledger: Headroom.
        traffic: What was sent.
        stage_seconds: Seconds by stage over finished runs.
    """

    party: str
    consortium: str
    roster_version: int
    roster_digest: str
    version: str
    pid: int
    started: str
    written: str
    missing: str
    certificate_seconds: float
    processes: list[ProcessView]
    exchange: ExchangeView
    superlink: SuperLinkView = SuperLinkView()
    notice: str = ""
    runs: dict[str, int]
    ledger: list[LedgerView]
    traffic: list[TrafficView]
    stage_seconds: dict[str, float]


T = TypeVar("T", CoordinatorStatus, NodeStatus)


def write_status(path: Path, status: CoordinatorStatus | NodeStatus) -> None:
    """Replaces the file; mode 0600. It is not forced to the disk: after a crash it is stale anyway."""
    temporary = path.with_name(f".{path.name}.new")
    file = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(msgspec.json.encode(status))
    temporary.replace(path)


def read_status(path: Path, kind: type[T]) -> T | None:
    """What the daemon wrote last; None where there is nothing readable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
