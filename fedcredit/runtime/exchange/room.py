"""What the exchange knows of one run while it is open: who is connected, and which frames are on their way out.

Nothing waits here for a party that is not connected: its peers keep what it has not acknowledged. A frame for several
parties is held once, whatever the number of its recipients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedcredit.errors import PeerError
from fedcredit.runtime.exchange.frames import Beat, Chunk, Head, Receipt, Refused, Seen, encode_frame
from fedcredit.runtime.exchange.limits import FRAME_BYTES, ServerLimits
from fedcredit.types import PartyId, RunId

__all__ = ["Room", "Stream"]

_BEAT = encode_frame(Beat())


class _Held:
    """A frame on its way out, and to how many parties."""

    __slots__ = ("data", "waiting")

    def __init__(self, data: bytes, waiting: int) -> None:
        self.data = data
        self.waiting = waiting


@dataclass(frozen=True)
class _Seat:
    """What is told of a party."""

    connected: bool = False
    since: float = 0.0
    stream: int = 0
    waiting_for: str = ""


class Stream:
    """One party's connection to one run, and what is to be written to it.

    Control frames (who is there, receipts, heartbeats) go before payloads. They replace older ones of their kind, so
    that a party that does not read makes nothing grow.

    Args:
        room: The run.
        party: The party, as its certificate says.
        attempt: Its process life.
        number: Tells the streams of the exchange apart.
        now: Seconds of the exchange's clock.
    """

    def __init__(self, room: Room, party: PartyId, attempt: int, number: int, now: float) -> None:
        self.room = room
        self.party = party
        self.attempt = attempt
        self.number = number
        self.heard = self.written = now
        self.writing = False
        self.ending: Refused | None = None
        self.gone = asyncio.Event()
        self.wake = asyncio.Event()
        self.queue: deque[tuple[_Held, PartyId]] = deque()
        self.queued: dict[PartyId, int] = {}
        self.receipts: dict[PartyId, bytes] = {}
        self.unseen: set[PartyId] = set()
        self.beat_due = False

    def end(self, code: str, text: str) -> None:
        """Nothing but a refusal is written any more."""
        if self.ending is None:
            self.ending = Refused(code=code, text=text[:1024])
            self.room.count(code, text)
        self.gone.set()
        self.wake.set()

    def control(self) -> bytes | None:
        """The next control frame."""
        if self.unseen:
            return encode_frame(self.room.seen(self.unseen.pop()))
        if self.receipts:
            return self.receipts.pop(next(iter(self.receipts)))
        if self.beat_due:
            self.beat_due = False
            return _BEAT
        return None

    def hold(self, held: _Held, sender: PartyId) -> None:
        """Queues a frame of a sender."""
        self.queue.append((held, sender))
        self.queued[sender] = self.queued.get(sender, 0) + len(held.data)
        self.wake.set()

    def release(self) -> None:
        """Drops the oldest frame of the queue, if there still is one: it was written, or never will be."""
        if self.queue:
            held, sender = self.queue.popleft()
            self.queued[sender] -= len(held.data)
            self.room.release(held)


class Room:
    """One open run.

    Args:
        run: Its name.
        members: Who may join.
        limits: Of the exchange.
        clock: Seconds that never go back.
        count: Is told code and text of every stream that is ended.
    """

    def __init__(
        self,
        run: RunId,
        members: Iterable[PartyId],
        limits: ServerLimits,
        clock: Callable[[], float],
        count: Callable[[str, str], None],
    ) -> None:
        self.run = run
        self.members = frozenset(members)
        self.streams: dict[PartyId, Stream] = {}
        self.stopped = ""
        self.stored = 0
        self.most_stored = 0
        self.frames = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.undelivered = 0
        self.count = count
        self._limits = limits
        self._clock = clock
        self._seats = dict.fromkeys(self.members, _Seat(since=clock()))
        self._attempts: dict[PartyId, int] = {}
        self._drained = asyncio.Event()

    def latest(self, party: PartyId) -> int:
        """Highest attempt a party has joined with; -1 before its first join."""
        return self._attempts.get(party, -1)

    def enter(self, stream: Stream) -> None:
        """A stream has completed its join; an older one of the party ends."""
        old = self.streams.get(stream.party)
        if old is not None:
            same = old.attempt == stream.attempt
            code = "exchange.replaced" if same else "exchange.superseded"
            old.end(code, f"{stream.party} joined run {self.run} again, as attempt {stream.attempt}")
            self._empty(old)
        self.streams[stream.party] = stream
        self._attempts[stream.party] = stream.attempt
        stream.unseen.update(self.members - {stream.party})
        self._sit(stream.party, _Seat(True, self._clock(), stream.number))

    def leave(self, stream: Stream) -> None:
        """A stream has ended."""
        self._empty(stream)
        if self.streams.get(stream.party) is stream:
            del self.streams[stream.party]
            self._sit(stream.party, _Seat(False, self._clock(), stream.number))

    def end(self, code: str, text: str) -> None:
        """Ends all streams."""
        for stream in self.streams.values():
            stream.end(code, text)
        self._drained.set()

    def beat(self, stream: Stream, beat: Beat) -> None:
        """A heartbeat; whom the party waits for is told to the others where it changed.

        Raises:
            PeerError: it waits for a stranger.
        """
        seat = self._seats[stream.party]
        if beat.waiting_for and beat.waiting_for not in self.members:
            raise PeerError("exchange.malformed", f"{stream.party} waits for someone who is not in run {self.run}")
        if self.streams.get(stream.party) is stream and seat.waiting_for != beat.waiting_for:
            self._sit(stream.party, _Seat(seat.connected, seat.since, seat.stream, beat.waiting_for))

    def seen(self, party: PartyId) -> Seen:
        """What is told of a party."""
        seat = self._seats[party]
        seconds = max(0.0, self._clock() - seat.since)
        return Seen(
            party=party,
            connected=seat.connected,
            stream=seat.stream,
            seconds=seconds,
            waiting_for=seat.waiting_for,
        )

    def forward(self, stream: Stream, frame: Head | Chunk | Receipt, data: bytes) -> list[Stream]:
        """Passes a frame on to whoever of its recipients is connected.

        Returns:
            The streams a payload was queued to.

        Raises:
            PeerError: it is in another's name, or for a stranger.
        """
        targets = [one.recipient for one in frame.to] if isinstance(frame, Chunk) else [frame.recipient]
        others = self.members - {stream.party}
        if frame.sender != stream.party or not others.issuperset(targets) or len(set(targets)) != len(targets):
            raise PeerError("exchange.spoofed", f"{stream.party} sent a frame in another's name or for a stranger")
        there = [found for name in targets if (found := self.streams.get(PartyId(name))) is not None]
        self.frames += 1
        self.bytes_in += len(data)
        self.undelivered += len(targets) - len(there)
        if isinstance(frame, Receipt):
            for one in there:
                one.receipts[stream.party] = data
                one.wake.set()
            return []
        if there:
            held = _Held(data, len(there))
            self.stored += len(data)
            self.most_stored = max(self.most_stored, self.stored)
            for one in there:
                one.hold(held, stream.party)
        return there

    def release(self, held: _Held) -> None:
        """One recipient less has a frame to come."""
        held.waiting -= 1
        if held.waiting == 0:
            self.stored -= len(held.data)
        self._drained.set()

    async def drained(self, stream: Stream, there: list[Stream]) -> None:
        """Waits while the run, or the way from this sender to one of its recipients, holds all it may."""
        most = self._limits.link_window + FRAME_BYTES
        while not stream.gone.is_set() and (
            self.stored >= self._limits.run_window or any(one.queued.get(stream.party, 0) > most for one in there)
        ):
            self._drained.clear()
            await self._drained.wait()
            stream.heard = self._clock()  # it was not read from meanwhile

    def _empty(self, stream: Stream) -> None:
        while stream.queue:
            stream.release()
        stream.receipts.clear()
        stream.unseen.clear()

    def _sit(self, party: PartyId, seat: _Seat) -> None:
        self._seats[party] = seat
        for other, stream in self.streams.items():
            if other != party:
                stream.unseen.add(party)
                stream.wake.set()
