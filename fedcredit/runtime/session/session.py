"""One party's session in a run between houses: attempts at it until one goes through, with everyone or not at all.

An *attempt* is one life of a party's role. Whoever is killed and comes back starts the next attempt, and everyone else
follows (`fedcredit.runtime.exchange.types.PeerRestarted`): roles begin again from their checkpoints, what was sent
before is sent again byte by byte, and ledgers charge nothing twice. An attempt is written down before it is used.

All parties meet at the beginning (`Begin`) and at the end (`Done`): nobody leaves before everybody has written down
what it needs, so that a party that is killed at the very end still finds the others, or learns that they had ended.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.errors import FedCreditError, IntegrityError, PeerError, TransportError
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import House, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.protocol.channel import Channel
from fedcredit.runtime.exchange.channel import ExchangeWires
from fedcredit.runtime.exchange.client import ExchangeLink
from fedcredit.runtime.exchange.limits import LinkLimits
from fedcredit.runtime.exchange.types import LinkSettings, PeerRestarted
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.renewal import RenewedTls
from fedcredit.runtime.house.roster import split_address
from fedcredit.runtime.leftovers import HeadroomMemory, earlier_messages, mend_lines
from fedcredit.runtime.party_end import SECONDARY, PartyChannel, PartyEnd
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.runs.proposal import Approval, Checked
from fedcredit.runtime.session.attempts import (
    ATTEMPT_FILE,
    COMPLETE_FILE,
    MOST_ATTEMPTS,
    attempts_begun,
    begin_attempt,
    books_closed,
    is_complete,
    next_attempt,
    set_complete,
)
from fedcredit.types import PartyId
from fedcredit.wire.message import encode_struct
from fedcredit.wire.notice import Begin, Done
from fedcredit.wire.schema import ProtocolSchema, merge

__all__ = [
    "ATTEMPT_FILE",
    "COMPLETE_FILE",
    "STOP_FILE",
    "Part",
    "Timing",
    "agreed",
    "books_closed",
    "play",
    "repeat",
    "unless_left",
]

STOP_FILE = "stop"
_MOST_RESTARTS = 1000
_LAST_STAGE = "end"
_LOOK_SECONDS = 0.5
_FLUSH_SECONDS = 15.0
_TELL_SECONDS = 5.0
"""Longest wait of a party's last word to the others: for a place in a window that nobody empties, and for receipts."""


@dataclass(frozen=True)
class Timing:
    """How long a session waits.

    Args:
        connect_s: For one connection to the exchange.
        reconnect_s: Longest outage of the line to the exchange.
        timeout_s: For a party that is not there.
        busy_timeout_s: For a party that computes.
    """

    connect_s: float = 10.0
    reconnect_s: float = 120.0
    timeout_s: float = 120.0
    busy_timeout_s: float = 3600.0


@dataclass(frozen=True)
class Part:
    """What one party brings to a session.

    Args:
        home: Whose.
        checked: The run.
        approvals: Everyone's.
        ephemeral: Own private X25519 key of this run.
        schemas: Messages of the run.
        policy: What may leave.
        ledger: What has been disclosed.
        files: The party's folder of this run.
        timing: Waits.
        progress: Called with (party, stage) at each change of stage.
    """

    home: Home
    checked: Checked
    approvals: Mapping[PartyId, Approval]
    ephemeral: bytes = field(repr=False)
    schemas: tuple[ProtocolSchema, ...]
    policy: Policy
    ledger: Ledger
    files: RunFiles
    timing: Timing
    progress: Callable[[PartyId, str], None] | None = None

    @property
    def party(self) -> PartyId:
        """Whose part it is."""
        return self.home.party

    @property
    def attempts(self) -> int:
        """How many attempts have begun."""
        return attempts_begun(self.files.folder)

    @property
    def audit_file(self) -> Path:
        """The party's audit log of this run."""
        return self.files.audit / f"{self.party}.jsonl"


Role = Callable[[Channel], Coroutine[Any, Any, Any]]


def play(part: Part, role: Role, complete: Callable[[Any], None], *, ended: bool = False) -> None:
    """Plays a party's role to its end, whatever happens to the others and to the line meanwhile.

    Args:
        part: What the party brings.
        role: Its coroutine, once for each attempt.
        complete: Writes down, durably, everything the party needs of the result; called before any other party may
            leave, once for each attempt that gets so far.
        ended: Another party has ended this run, which it does only after all had written down what they need.

    Raises:
        FedCreditError: of this party or of another; the run can be tried again.
    """
    repeat(part, lambda attempt: _Attempt(part, attempt).through(role, complete), ended=ended)


def repeat(part: Part, once: Callable[[int], Coroutine[Any, Any, None]], *, ended: bool) -> None:
    """Attempts, until one goes to its end.

    Args:
        part: What the party brings.
        once: The attempt of a number.
        ended: As for `play`.

    Raises:
        FedCreditError: as `play`.
    """
    if books_closed(part):  # which a party does only after all had written down what they need
        return
    if ended:
        if is_complete(part):
            return
        raise IntegrityError("run.ended", f"the others have ended this run, but {part.party} has no result of it")
    least = 0
    for _ in range(_MOST_RESTARTS):
        attempt = next_attempt(part, least)
        try:
            asyncio.run(once(attempt))
        except PeerRestarted as restarted:
            least = restarted.attempt
            if least > MOST_ATTEMPTS:
                text = f"{restarted.party} claims to have begun {least} times"
                raise PeerError("run.attempt", text, culprit=restarted.party) from None
        else:
            return
    raise TransportError("run.restarts", f"the parties began {_MOST_RESTARTS} times again; the run is given up")


async def unless_left(part: Part, meeting: asyncio.Task[None]) -> None:
    """Waits for the role, whatever it waits for itself, and looks whether this house wants to leave the run."""
    stop = part.files.folder / STOP_FILE
    while not meeting.done():
        if stop.exists():
            party = part.party
            raise TransportError("run.left", f"{party} left the run by its own decision", culprit=party)
        await asyncio.wait({meeting}, timeout=_LOOK_SECONDS)
    meeting.result()


class _Attempt:
    """One attempt."""

    def __init__(self, part: Part, attempt: int) -> None:
        self._part, self._attempt = part, attempt
        self._others = [party for party in part.checked.roster if party != part.party]

    async def through(self, role: Role, complete: Callable[[Any], None]) -> None:
        part = self._part
        earlier = earlier_messages(part.files.audit) if mend_lines(part.audit_file) else []
        audit = begin_attempt(part, self._attempt)
        try:
            link = ExchangeLink(self._settings())
        except BaseException:
            audit.suspend()
            raise
        try:
            end = self._end(audit, earlier)
            await link.open()
            await self._linked(link, end, role, complete)
        finally:
            audit.suspend()
            await link.close(flush=False)

    async def _linked(self, link: ExchangeLink, end: PartyEnd, role: Role, complete: Callable[[Any], None]) -> None:
        timing = self._part.timing
        wires = ExchangeWires(link, end, timing.timeout_s, timing.busy_timeout_s)
        pump = asyncio.create_task(wires.pump())
        meeting = asyncio.create_task(self._meet(PartyChannel(end, wires), role, complete))
        try:
            await unless_left(self._part, meeting)
            with suppress(FedCreditError, PeerRestarted):  # whoever misses this party's last word learns that it ended
                await link.close(flush=True)
        except PeerRestarted:
            raise
        except Exception as error:
            await self._tell(wires, end, error)
            with suppress(FedCreditError, PeerRestarted, TimeoutError):
                async with asyncio.timeout(_TELL_SECONDS):  # one of them may be gone, and be the reason
                    await link.close(flush=True)
            raise
        finally:
            pump.cancel()
            meeting.cancel()
            await asyncio.gather(pump, meeting, return_exceptions=True)

    async def _meet(self, channel: Channel, role: Role, complete: Callable[[Any], None]) -> None:
        """From `Begin` to `Done`."""
        done = is_complete(self._part)
        await channel.broadcast(self._others, Begin(complete=done))
        begun = await channel.gather(self._others, Begin)
        if not (done and all(one.complete for one in begun.values())):
            complete(await role(channel))
            set_complete(self._part)
        channel.stage(_LAST_STAGE)
        await channel.broadcast(self._others, Done())
        await channel.gather(self._others, Done)

    async def _tell(self, wires: ExchangeWires, end: PartyEnd, error: Exception) -> None:
        """Tells the others why this party stops, unless one of them is the reason."""
        if isinstance(error, FedCreditError) and error.code in SECONDARY:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_TELL_SECONDS):
                for other, released in end.notices(error):
                    with suppress(FedCreditError, PeerRestarted):
                        await wires.deliver(end.party, [(other, released)])

    def _end(self, audit: AuditLog, earlier: list[Any]) -> PartyEnd:
        part = self._part
        keys = {party: part.home.roster.member(party).identity for party in part.checked.roster}
        schema = merge(*part.schemas)
        context = RunContext(part.checked.run, part.checked.proposal.spec_digest, part.checked.roster, keys, schema)
        house = House(part.party, part.home.identity, part.policy, part.ledger, audit, _now)
        remembered = HeadroomMemory(part.files.headroom / f"{part.party}.jsonl")
        return PartyEnd(context, house, remembered, part.progress, earlier)

    def _settings(self) -> LinkSettings:
        part, home, timing = self._part, self._part.home, self._part.timing
        peers = {
            party: PeerKeys(part.approvals[party].ephemeral, home.roster.member(party).sealing)
            for party in self._others
        }
        own = OwnKeys(part.ephemeral, home.sealing)
        return LinkSettings(
            address=home.roster.exchange,
            server_name=split_address(home.roster.exchange)[0],
            tls=RenewedTls(home),  # a session may outlive the certificate that it began with
            run=part.checked.run,
            party=part.party,
            peers=tuple(self._others),
            keys=LinkKeys(part.checked.run, part.party, own, peers, agreed(part)),
            attempt=self._attempt,
            limits=LinkLimits(flush_s=_FLUSH_SECONDS),
            connect_timeout_s=timing.connect_s,
            reconnect_s=timing.reconnect_s,
        )


def agreed(part: Part) -> bytes:
    """Digest of all that the parties must have seen alike; keys differ between those who have not.

    The coordinator, who hands everything over, cannot give one party another proposal or approval than the next.
    """
    checked = part.checked
    parts = [checked.run_digest.encode(), part.home.roster.digest.encode(), checked.sha256.encode()]
    parts += [hashlib.sha256(encode_struct(part.approvals[party])).hexdigest().encode() for party in checked.roster]
    return hashlib.sha256(b"\n".join(parts)).digest()


def _now() -> datetime:
    return datetime.now(UTC)
