"""A party's end of a run, wired to the exchange.

An envelope is cut around its body (`fedcredit.wire.envelope.around_body`): what differs between recipients travels in
the heads, and the body of a broadcast is sealed and uploaded once.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from fedcredit.errors import PeerError
from fedcredit.governance.gate import Released
from fedcredit.runtime.exchange.types import Delivery, Parcel, Presence
from fedcredit.runtime.party_end import PartyEnd
from fedcredit.types import PartyId
from fedcredit.wire.envelope import around_body
from fedcredit.wire.message import kind_of
from fedcredit.wire.notice import ErrorNotice

__all__ = ["ExchangeWires", "Link", "LinkPatience", "joined_envelope", "split_envelope"]

_LENGTH = struct.Struct(">HB")  # bytes before the body; whether this is a word that overtakes others
_LOOK_SECONDS = 1.0
"""How often a wait looks at who is there; what a time-out is off by at most."""
_MOST_BUSY = 24
"""How often the time-out for a party that computes fits into the longest wait of all; a day by default."""
_MOST_UNREAD, _MOST_UNREAD_BYTES = 1024, 1 << 30
"""Messages of one peer, and their bytes, that no role has asked for. Roles are never more than a few messages ahead of
each other; the bytes are those of the largest payload a link takes, which is let in by itself."""


class Link(Protocol):
    """What this module needs of `fedcredit.runtime.exchange.client.ExchangeLink`."""

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        """Takes a payload for one or several recipients."""

    async def receive(self) -> Delivery:
        """The next payload of any peer."""

    def note(self, waiting_for: PartyId | None) -> None:
        """Says whom the role waits for."""

    def presence(self) -> Mapping[PartyId, Presence]:
        """Who is connected, and whom each waits for."""


class ExchangeWires:
    """The wires of one party in one attempt at a run; see `fedcredit.runtime.party_end.Wires`.

    Args:
        link: Open.
        end: The party's end.
        timeout_s: Longest wait for a party that is not there, or that waits itself.
        busy_timeout_s: Longest wait for a party that is there and computes.
    """

    def __init__(self, link: Link, end: PartyEnd, timeout_s: float, busy_timeout_s: float) -> None:
        self._link, self._end = link, end
        self._timeout, self._busy_timeout = timeout_s, busy_timeout_s

    async def deliver(self, sender: PartyId, out: Sequence[tuple[PartyId, Released]]) -> None:
        """Hands envelopes to the link; those with one body together."""
        del sender
        bodies: dict[str, list[tuple[PartyId, Released]]] = {}
        for recipient, released in out:
            bodies.setdefault(released.body_sha256, []).append((recipient, released))
        for together in bodies.values():
            parcels = []
            for recipient, released in together:
                head, body = split_envelope(released)
                parcels.append(Parcel(recipient, head))
            await self._link.send(parcels, bytes(body))

    def patience(self) -> LinkPatience:
        """A fresh time-out."""
        return LinkPatience(self._link, self._end, self._timeout, self._busy_timeout)

    def read(self, party: PartyId, arrival: float) -> None:
        """Nothing is modelled here."""

    def waits_for(self, party: PartyId) -> PartyId | None:
        """Whom a party says it waits for."""
        found = self._link.presence().get(party)
        if found is None or not found.connected:  # what it waited for when it was last there says nothing now
            return None
        waits = found.waiting_for
        return waits if waits in self._end.context.roster else None

    async def pump(self) -> None:
        """Brings what comes in to the party's inbox, until the link ends; what ended it is left in the inbox."""
        post = self._end.post
        try:
            while True:
                delivery = await self._link.receive()
                notice, data = joined_envelope(delivery)
                if not notice:
                    queue = post.queues.setdefault(delivery.sender, deque())
                    queue.append((data, 0.0))
                    _check_unread(delivery.sender, queue)
                elif len(post.notices) < len(self._end.context.roster):  # the first one ends the run
                    post.notices.append((delivery.sender, data))
                post.changed.set()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again at whoever waits
            post.broken = error
            post.changed.set()


class LinkPatience:
    """A wait that counts the seconds in which nobody does anything for it.

    Whoever is awaited may compute for long: that is no silence. The chain of who waits for whom is followed to its end.
    Seconds count towards the time-out while the party at the end is not connected, or where the chain comes back to
    itself; while it is connected and computes, they count towards the longer time-out for that. Only seconds in a row
    count: a chain that is another one than a moment ago is a run that goes on, and the count begins again. Who waits
    through a long run, as the coordinator does, sees many short outages, and parties that seem to wait for each other
    while a message is on its way. All that is counted still ends a wait at last, whatever is told of the chain.

    Args:
        link: Says who is there.
        end: Whose wait it is.
        timeout_s: For a party that is gone.
        busy_timeout_s: For a party that computes.
    """

    def __init__(self, link: Link, end: PartyEnd, timeout_s: float, busy_timeout_s: float) -> None:
        self._link, self._end = link, end
        self._timeout, self._busy_timeout = timeout_s, busy_timeout_s
        self._gone = self._busy = self._all = 0.0
        self._seen: tuple[tuple[PartyId, ...], bool] = ((), False)

    @property
    def seconds(self) -> float:
        """See `fedcredit.runtime.party_end.Patience`."""
        if self._gone >= self._timeout:
            return self._timeout
        return self._busy_timeout if self._busy >= self._busy_timeout else self._all

    async def wait(self, event: asyncio.Event) -> bool:
        """See `fedcredit.runtime.party_end.Patience`."""
        awaited, loop = self._end.post.waits_for, asyncio.get_running_loop()
        self._link.note(awaited)
        try:
            while not self._over:
                before, woken = loop.time(), False
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        woken = await event.wait()
                # Counted whatever woke it: what others send in the meantime must not keep a gone party alive.
                self._count(awaited, min(loop.time() - before, 2 * _LOOK_SECONDS))
                if woken or event.is_set():  # another wait at this inbox may have cleared it again
                    return True
            return False
        finally:
            self._link.note(None)

    @property
    def _over(self) -> bool:
        longest = _MOST_BUSY * self._busy_timeout
        return self._gone >= self._timeout or self._busy >= self._busy_timeout or self._all >= longest

    def _count(self, awaited: PartyId | None, passed: float) -> None:
        """Books seconds in which the awaited party sent nothing."""
        presence = self._link.presence()
        me = presence.get(self._end.party)
        if me is not None and not me.connected:
            return  # nobody else's fault; the link itself gives up in time
        self._all += passed
        chain, busy = _chain(presence, self._end.party, awaited)
        if (chain, busy) != self._seen:
            self._seen = (chain, busy)
            self._gone = self._busy = 0.0
        if busy:
            self._busy += passed
        else:
            self._gone += passed


def _chain(
    presence: Mapping[PartyId, Presence], party: PartyId, awaited: PartyId | None
) -> tuple[tuple[PartyId, ...], bool]:
    """Who waits for whom, from a party on, and whether the last one is there and computes."""
    chain = [party]
    while awaited is not None and awaited not in chain:
        chain.append(awaited)
        there = presence.get(awaited)
        if there is None or not there.connected:
            return tuple(chain), False
        if there.waiting_for is None:
            return tuple(chain), True
        awaited = there.waiting_for
    return tuple(chain), False


def _check_unread(sender: PartyId, queue: Sequence[tuple[bytes, float]]) -> None:
    """Refuses a peer that sends on and on what nobody asks for: memory stays bounded.

    Raises:
        PeerError: naming it.
    """
    held = sum(len(data) for data, _ in queue)
    if len(queue) > _MOST_UNREAD or (len(queue) > 1 and held > _MOST_UNREAD_BYTES):
        raise PeerError("wire.flood", f"{sender} sent {len(queue)} messages that nobody asked for", culprit=sender)


def split_envelope(released: Released) -> tuple[bytes, memoryview]:
    """Head and body of an envelope that leaves."""
    before, body, after = around_body(released.data, released.body_bytes)
    return _LENGTH.pack(len(before), released.kind == kind_of(ErrorNotice)) + before + after, body


def joined_envelope(delivery: Delivery) -> tuple[bool, bytes]:
    """Whether a delivery claims to be an error notice, and its envelope.

    Raises:
        PeerError: a head that cannot be one.
    """
    head = delivery.head
    if len(head) < _LENGTH.size:
        raise PeerError("wire.malformed", f"malformed bytes of {delivery.sender}", culprit=delivery.sender)
    size, notice = _LENGTH.unpack_from(head)
    if len(head) < _LENGTH.size + size or notice not in (0, 1):
        raise PeerError("wire.malformed", f"malformed bytes of {delivery.sender}", culprit=delivery.sender)
    cut = _LENGTH.size + size
    return bool(notice), b"".join((head[_LENGTH.size : cut], delivery.body, head[cut:]))
