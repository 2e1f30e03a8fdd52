"""What the driver of a run is made of: who carries its messages, how it reads and writes them, how long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedcredit.runtime.runs.registry import Registry, RunRecord
from fedcredit.types import PartyId, RunId

if TYPE_CHECKING:
    from fedcredit.runtime.runs.sessions import RunEnd

__all__ = ["IN_ROUNDS", "Courier", "DriverLimits", "DriverParts", "Ended", "Verdict", "VerdictKind"]

IN_ROUNDS: Final = frozenset({"fedavg"})
"""Models that are learned in rounds over visits, not in sessions over the exchange."""


class Courier(Protocol):
    """Carries one message to a party's node and its answer back; knows which nodes are there."""

    async def ask(self, party: PartyId, action: str, payload: bytes, timeout_s: float) -> bytes:
        """Sends a message and waits for its answer.

        Asking again with the same action and payload is harmless: a node that still works on it goes on, and one that
        was restarted goes on where its checkpoints are.

        Args:
            party: Whom.
            action: ``"propose"`` (payload: a proposal, answer: a decision), ``"session"`` (payload: a session order,
                answer: the party's end of the run), or ``"visit"`` (payload: a `NodeVisit`, answer: a `NodeVisited`).
            payload: Bytes that the node's worker reads.
            timeout_s: Longest wait.

        Raises:
            TransportError: the node is gone, was restarted, or is late; asking again may help.
            FedCreditError: the node refused or failed, with its own code and public text; asking again does not help.
        """

    async def online(self) -> frozenset[PartyId]:
        """Parties whose nodes are connected now."""


class VerdictKind(StrEnum):
    """What a node says to a proposal."""

    APPROVED = "approved"
    PENDING = "pending"
    DENIED = "denied"


@dataclass(frozen=True)
class Verdict:
    """A node's decision as the driver needs it.

    Args:
        kind: What it says.
        code: Of a denial.
        text: Public text of a denial, or what a pending decision waits for.
    """

    kind: VerdictKind
    code: str = ""
    text: str = ""


@dataclass(frozen=True)
class Ended:
    """A party's end of a run as the driver needs it.

    Args:
        ok: Whether it went to its end as planned.
        code: Of the failure.
        text: Public text of the failure.
        culprit: The party to whom the failure is due as this party sees it; "" for nobody in particular.
    """

    ok: bool
    code: str = ""
    text: str = ""
    culprit: str = ""


@dataclass(frozen=True)
class DriverLimits:
    """Every wait of the driver, in seconds.

    Args:
        online_s: For all parties to be connected before anything is proposed.
        approval_s: For all parties to approve.
        ask_s: For a node's answer to a proposal.
        poll_s: First pause between two questions to a node that is still deciding.
        poll_most_s: Longest such pause; a question costs the node a process.
        session_s: For a whole session, restarts included.
        missing_s: For a node that is gone to come back.
        resends: How often one party gets its session order again.
        settle_s: For the others to end by themselves after one has failed.
        stop_s: For the others to end after the run was stopped.
        look_s: Between two looks at the registry and at who is connected.
    """

    online_s: float = 300.0
    approval_s: float = 86_400.0
    ask_s: float = 180.0
    poll_s: float = 3.0
    poll_most_s: float = 30.0
    session_s: float = 86_400.0
    missing_s: float = 600.0
    resends: int = 20
    settle_s: float = 60.0
    stop_s: float = 120.0
    look_s: float = 1.0


@dataclass(frozen=True)
class DriverParts:
    """Everything the driver works with; it knows neither Flower nor keys nor message layouts.

    Args:
        registry: The coordinator's book of runs.
        courier: Carries messages to nodes.
        make_proposal: Signed proposal of a registered run.
        read_decision: Decision of a party about a run from its bytes; raises PeerError for bytes that do not verify.
        make_order: Session order from the run, the proposal, the decisions by party, all approved, and whether a party
            has finished already, which one that comes back has to know.
        read_finished: A party's end of a run from its bytes; raises PeerError for bytes that do not verify.
        own_worker: Plays the coordinator's own role under an order; returns its end, as the nodes' workers do.
        make_continuation: Registers the run that goes on without some parties and returns its name; raises SpecError
            where that is impossible. The daemon starts it like any other.
        limits: How long the driver waits.
        rounds: The running part of a run that is learned in rounds (`IN_ROUNDS`), from these parts, the run, its
            session order, and what is set when the operator stops it; None where this driver carries none.
    """

    registry: Registry
    courier: Courier
    make_proposal: Callable[[RunId], bytes]
    read_decision: Callable[[RunId, PartyId, bytes], Verdict]
    make_order: Callable[[RunId, bytes, Mapping[PartyId, bytes], bool], bytes]
    read_finished: Callable[[RunId, PartyId, bytes], Ended]
    own_worker: Callable[[bytes], Awaitable[bytes]]
    make_continuation: Callable[[RunId, frozenset[PartyId]], RunId]
    limits: DriverLimits = DriverLimits()
    rounds: Callable[[DriverParts, RunRecord, bytes, asyncio.Event], Coroutine[Any, Any, RunEnd]] | None = None
