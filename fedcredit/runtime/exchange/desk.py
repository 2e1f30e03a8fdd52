"""Where a role and its connection meet: outbox, inbox and presence of one party, under one lock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from fedcredit.errors import PeerError
from fedcredit.runtime.exchange.frames import (
    Beat,
    Chunk,
    FromExchange,
    Head,
    Receipt,
    Seen,
    encode_frame,
    read_from_exchange,
)
from fedcredit.runtime.exchange.inbox import Inbox
from fedcredit.runtime.exchange.outbox import Outbox
from fedcredit.runtime.exchange.types import Delivery, LinkSettings, Parcel, Presence
from fedcredit.types import PartyId

__all__ = ["Desk"]

_STEADY_SECONDS = 0.2
"""How long a role waits for someone before the others are told."""


class Desk:
    """State of a link that outlives its connections.

    The role's thread puts and takes, the connection's thread reads and writes frames; both hold the lock for
    microseconds (for one chunk's sealing or opening at most).

    Args:
        settings: The link.
        news: Called by the connection's thread when the role should look again.
    """

    def __init__(self, settings: LinkSettings, news: Callable[[], None]) -> None:
        self._settings = settings
        self._news = news
        self._lock = threading.Lock()
        self._outbox = Outbox(settings.party, settings.attempt, settings.keys, settings.limits)
        self._inbox = Inbox(settings.party, settings.attempt, settings.keys, settings.limits)
        self._control: deque[bytes] = deque()
        self._streams: dict[PartyId, int] = {}
        now = time.monotonic()
        parties = (settings.party, *settings.peers)
        self._presence: dict[PartyId, tuple[bool, float, str]] = dict.fromkeys(parties, (False, now, ""))
        self._waiting_for = self._told = ""
        self._noted = now
        self._lazy_due = 0.0

    # The role's side.

    def put(self, parcels: Sequence[Parcel], body: bytes) -> bool:
        """Takes a payload if there is room; says whether it did."""
        with self._lock:
            room = self._outbox.room([parcel.recipient for parcel in parcels])
            if room:
                self._outbox.put(parcels, body)
            return room

    def take(self) -> tuple[Delivery | None, bool]:
        """The next payload that came in, and whether a receipt is due at once."""
        with self._lock:
            return self._inbox.take(), self._inbox.owed

    def note(self, waiting_for: PartyId | None) -> None:
        """Whom the role waits for; told once it has been so for a moment, since most waits are short."""
        with self._lock:
            if self._waiting_for != (waiting_for or ""):
                self._waiting_for, self._noted = waiting_for or "", time.monotonic()

    def presence(self) -> dict[PartyId, Presence]:
        """As last told by the exchange."""
        now = time.monotonic()
        with self._lock:
            return {
                party: Presence(connected, max(0.0, now - since), PartyId(waiting) if waiting else None)
                for party, (connected, since, waiting) in self._presence.items()
            }

    def unacknowledged(self) -> list[PartyId]:
        """Peers that have not acknowledged everything."""
        with self._lock:
            return self._outbox.unacknowledged()

    def hurry(self) -> None:
        """All receipts are due now: the role has ended."""
        with self._lock:
            self._lazy_due = time.monotonic()

    @property
    def indebted(self) -> bool:
        """Some receipt has not gone out."""
        with self._lock:
            return self._inbox.unsaid or self._inbox.owed or bool(self._control)

    @property
    def dropped(self) -> int:
        """Frames that were late, of an older life, or came twice."""
        return self._inbox.dropped

    # The connection's side.

    def online(self, window: int) -> None:
        """A join is complete."""
        with self._lock:
            self._inbox.window = min(self._inbox.window, window)
            self._control.clear()
            self._beat()
            self._presence[self._settings.party] = (True, time.monotonic(), self._waiting_for)

    def offline(self) -> None:
        """The connection is gone; nothing is known of the others."""
        now = time.monotonic()
        with self._lock:
            self._streams.clear()
            self._outbox.offline()
            for party, (connected, _, waiting) in self._presence.items():
                if connected:
                    self._presence[party] = (False, now, waiting)
        self._news()

    def beat(self) -> None:
        """A heartbeat is due."""
        with self._lock:
            if not self._control:
                self._beat()

    def outgoing(self) -> bytes | None:
        """The next frame to write: heartbeats and receipts before payloads."""
        now = time.monotonic()
        with self._lock:
            lazy = self._inbox.unsaid and self._lazy_due and now >= self._lazy_due
            if lazy or self._inbox.owed:
                self._control.extend(encode_frame(one) for one in self._inbox.receipts(lazy=bool(lazy)))
            if lazy:
                self._lazy_due = 0.0
            if self._told != self._waiting_for and now - self._noted >= _STEADY_SECONDS:
                self._beat()
            if self._control:
                return self._control.popleft()
            return self._outbox.next_frame(now)

    def pause(self, longest: float) -> float:
        """Seconds until there could be something to write without any news."""
        now = time.monotonic()
        with self._lock:
            if self._inbox.unsaid:
                self._lazy_due = self._lazy_due or now + self._settings.limits.ack_delay_s
                longest = min(longest, self._lazy_due - now)
            if self._outbox.stuck or self._told != self._waiting_for:
                longest = min(longest, _STEADY_SECONDS / 2)
        return max(longest, 0.0)

    def incoming(self, data: bytes) -> FromExchange:
        """Takes a frame of the exchange.

        Returns:
            The frame; what concerns the connection itself (a refusal, a heartbeat) is left to the caller.

        Raises:
            PeerError: bytes that do not authenticate or break a rule.
            PeerRestarted: a peer began again.
        """
        frame, start = read_from_exchange(data)
        raw = memoryview(data)[start:]
        with self._lock:
            if isinstance(frame, Head):
                self._inbox.head(frame, raw)
            elif isinstance(frame, Chunk):
                self._inbox.chunk(frame, raw)
            elif isinstance(frame, Receipt):
                self._outbox.receipt(frame)
            elif isinstance(frame, Seen):
                self._seen(frame)
            ready = bool(self._inbox.ready)
        if ready or isinstance(frame, (Receipt, Seen)):
            self._news()
        return frame

    def _beat(self) -> None:
        self._told = self._waiting_for
        self._control.append(encode_frame(Beat(waiting_for=self._told)))

    def _seen(self, seen: Seen) -> None:
        party = PartyId(seen.party)
        if party not in self._presence:
            raise PeerError("exchange.stranger", "the exchange tells of someone who is not in this run")
        if party == self._settings.party:
            return
        self._presence[party] = (seen.connected, time.monotonic() - seen.seconds, seen.waiting_for)
        if seen.connected and self._streams.get(party) != seen.stream:
            self._streams[party] = seen.stream
            self._inbox.resync(party)
