"""One attempt of a party at a hybrid run between houses: all its networks at once, over the exchange.

Each network has its own room at the exchange, keys, gate, audit log and inbox; what came in one cannot be taken for
what belongs to another. The attempt is one for all: a peer that begins again in any of them makes the party begin again
in all. Nobody leaves before everyone has written down what it needs, as in a run of one bank; every two parties are in
some network together, so that the word of each reaches all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.errors import FedCreditError, PeerError
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import House, RunContext
from fedcredit.protocol.channel import Channel
from fedcredit.runtime.exchange.channel import ExchangeWires
from fedcredit.runtime.exchange.client import ExchangeLink
from fedcredit.runtime.exchange.limits import LinkLimits
from fedcredit.runtime.exchange.types import LinkSettings, PeerRestarted
from fedcredit.runtime.house.renewal import RenewedTls
from fedcredit.runtime.house.roster import split_address
from fedcredit.runtime.hybrid.networks import SUMS, Network
from fedcredit.runtime.hybrid.pulse import HonestLink, pulse
from fedcredit.runtime.leftovers import HeadroomMemory, continue_audit, earlier_messages, mend_lines
from fedcredit.runtime.party_end import PEER_FAILED, SECONDARY, PartyChannel, PartyEnd
from fedcredit.runtime.session.attempts import begin_attempt, is_complete, set_complete
from fedcredit.runtime.session.session import Part, agreed, unless_left
from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.notice import Begin, Done
from fedcredit.wire.schema import ProtocolSchema, merge

__all__ = ["Joined", "Line", "NetworkRole", "through_networks"]

_LAST_STAGE = "end"
_FLUSH_SECONDS = 15.0
_TELL_SECONDS = 5.0
_LOOK_SECONDS = 0.25
_SEEN_LOOKS = 4
"""Looks for which what ended a network may wait for a role that waits there, before it ends the attempt."""
_SUMS_PATIENCE = 2.0
"""How much longer banks wait in the sums than the coordinator does: it sees who is missing there, they see only it."""

NetworkRole = Callable[[Mapping[PartyId, Channel]], Coroutine[Any, Any, Any]]
"""A party's role in all its networks, from its channel in each by name; once for each attempt."""


@dataclass(frozen=True)
class Joined:
    """A network that a party is in.

    Args:
        network: Which.
        schemas: Its messages.
        channel: Made of the party's end and wires there.
    """

    network: Network
    schemas: tuple[ProtocolSchema, ...]
    channel: Callable[[PartyEnd, ExchangeWires], Channel] = PartyChannel


class Line:
    """A party's end of one network in one attempt.

    Args:
        part: What the party brings.
        joined: The network.
        attempt: Number of the attempt.
        progress: Called with (party, stage) at each change of stage there.
    """

    def __init__(
        self, part: Part, joined: Joined, attempt: int, progress: Callable[[PartyId, str], None] | None
    ) -> None:
        network, self._part, self.name = joined.network, part, joined.network.name
        self.others = [party for party in network.roster if party != part.party]
        self.over = False
        """Whether all others have said that they are done."""
        path = part.files.audit / network.name / f"{part.party}.jsonl"
        earlier: Sequence[TranscriptEntry] = earlier_messages(path.parent) if mend_lines(path) else []
        self._audit: AuditLog = continue_audit(path, part.party, network.run, _now, durable=True)
        try:
            keys = {party: part.home.roster.member(party).identity for party in network.roster}
            digest = part.checked.proposal.spec_digest
            context = RunContext(network.run, digest, dict(network.roster), keys, merge(*joined.schemas))
            house = House(part.party, part.home.identity, part.policy, part.ledger, self._audit, _now)
            remembered = HeadroomMemory(part.files.headroom / network.name / f"{part.party}.jsonl")
            self.end = PartyEnd(context, house, remembered, progress, earlier)
            self.link = ExchangeLink(_settings(part, network, attempt))
        except BaseException:
            self._audit.suspend()
            raise
        timing = part.timing
        longer = _SUMS_PATIENCE if self.name == SUMS and part.party != COORDINATOR else 1.0
        self.told = HonestLink(self.link)
        self.wires = ExchangeWires(self.told, self.end, longer * timing.timeout_s, timing.busy_timeout_s)
        self.channel = joined.channel(self.end, self.wires)

    async def tell(self, error: Exception) -> None:
        """Tells the others there why this party stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TELL_SECONDS):
                for other, released in self.end.notices(error):
                    with suppress(FedCreditError, PeerRestarted):
                        await self.wires.deliver(self.end.party, [(other, released)])

    async def flushed(self) -> None:
        """Ends the link once what was said has arrived; whoever misses the last word learns that the run has ended."""
        with suppress(FedCreditError, PeerRestarted):
            await self.link.close(flush=True)

    async def close(self) -> None:
        """Ends it, now."""
        self._audit.suspend()
        with suppress(FedCreditError, PeerRestarted):
            await self.link.close(flush=False)

    async def watch(self) -> None:
        """Ends when something has ended this network that no role waits for there.

        Raises:
            FedCreditError: what it was.
            PeerRestarted: a peer begins again.
        """
        seen, post = 0, self.end.post
        while not self.over:
            await asyncio.sleep(_LOOK_SECONDS)
            seen = seen + 1 if post.notices or post.broken is not None else 0
            if seen < _SEEN_LOOKS or self.over:
                continue
            if post.notices:
                culprit, data = post.notices.popleft()
                notice = self.end.gate.admit_notice(data, culprit)
                text = f"{culprit} stopped the run: {notice.text} [{notice.code}]"
                raise PeerError(PEER_FAILED, text, culprit=culprit)
            if post.broken is not None:
                raise post.broken


async def through_networks(
    part: Part, joined: Sequence[Joined], attempt: int, role: NetworkRole, complete: Callable[[Any], None]
) -> None:
    """One attempt.

    Args:
        part: What the party brings to the run; its own audit log tells of attempts, those of networks of messages.
        joined: The networks it is in.
        attempt: Number of the attempt.
        role: What it does in them.
        complete: As for `fedcredit.runtime.session.session.play`.

    Raises:
        FedCreditError: of this party or of another.
        PeerRestarted: a peer begins again.
    """
    audit = begin_attempt(part, attempt)
    lines: list[Line] = []
    try:
        for place, one in enumerate(joined):
            lines.append(Line(part, one, attempt, part.progress if place == 0 else None))
        async with asyncio.TaskGroup() as opening:
            for line in lines:
                opening.create_task(line.link.open())
        await _linked(part, lines, role, complete)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        audit.suspend()
        await asyncio.gather(*(line.close() for line in lines))


async def _linked(part: Part, lines: Sequence[Line], role: NetworkRole, complete: Callable[[Any], None]) -> None:
    pumps = [asyncio.create_task(line.wires.pump()) for line in lines]
    pumps.append(asyncio.create_task(pulse([line.told for line in lines])))
    watches = [asyncio.create_task(line.watch()) for line in lines]
    meeting = asyncio.create_task(_unless_over(_meet(part, lines, role, complete), watches))
    try:
        await unless_left(part, meeting)
        await asyncio.gather(*(line.flushed() for line in lines))
    except PeerRestarted:
        raise
    except Exception as error:
        if not (isinstance(error, FedCreditError) and error.code in SECONDARY):
            await asyncio.gather(*(line.tell(error) for line in lines))
            with suppress(TimeoutError):
                async with asyncio.timeout(_TELL_SECONDS):  # one of them may be gone, and be the reason
                    await asyncio.gather(*(line.flushed() for line in lines))
        raise
    finally:
        tasks = [*pumps, *watches, meeting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _unless_over(work: Coroutine[Any, Any, None], watches: Sequence[asyncio.Task[None]]) -> None:
    """The work's end, or what a watch has seen; what the work itself says of it counts more."""
    task = asyncio.create_task(work)
    try:
        waiting = {task, *watches}
        while not task.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in done - {task}:
                one.result()
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _meet(part: Part, lines: Sequence[Line], role: NetworkRole, complete: Callable[[Any], None]) -> None:
    """From `Begin` to `Done`, in all networks."""
    done = is_complete(part)
    for line in lines:
        await line.channel.broadcast(line.others, Begin(complete=done))
    begun = await asyncio.gather(*(line.channel.gather(line.others, Begin) for line in lines))
    if not (done and all(one.complete for there in begun for one in there.values())):
        complete(await role({line.name: line.channel for line in lines}))
        set_complete(part)
    for line in lines:
        line.channel.stage(_LAST_STAGE)
        await line.channel.broadcast(line.others, Done())
    await asyncio.gather(*(_until_done(line) for line in lines))


async def _until_done(line: Line) -> None:
    await line.channel.gather(line.others, Done)
    line.over = True


def _settings(part: Part, network: Network, attempt: int) -> LinkSettings:
    home, timing = part.home, part.timing
    others = tuple(party for party in network.roster if party != part.party)
    peers = {party: PeerKeys(part.approvals[party].ephemeral, home.roster.member(party).sealing) for party in others}
    own = OwnKeys(part.ephemeral, home.sealing)
    bound = b"\n".join((agreed(part), network.name.encode(), *(party.encode() for party in network.roster)))
    return LinkSettings(
        address=home.roster.exchange,
        server_name=split_address(home.roster.exchange)[0],
        tls=RenewedTls(home),  # as in `session.session`
        run=network.run,
        party=part.party,
        peers=others,
        keys=LinkKeys(network.run, part.party, own, peers, bound),
        attempt=attempt,
        limits=LinkLimits(flush_s=_FLUSH_SECONDS),
        connect_timeout_s=timing.connect_s,
        reconnect_s=timing.reconnect_s,
    )


def _now() -> datetime:
    return datetime.now(UTC)
