"""What a party has sent and its peers have not acknowledged yet, and which frame goes out next.

Nothing leaves the outbox but by an acknowledgement of the recipient itself: whatever connection or exchange dies, the
recipient's next request says where to go on, and the same sealed bytes go out again.

A body for several recipients is uploaded once while they are at the same chunk. One that is behind catches up alone
and joins the others; one that takes nothing holds the others up for a moment only, then they go ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby

from fedcredit.crypto.sealed import LinkKeys, Sealer
from fedcredit.crypto.sealed_body import LEAST_CHUNK, OPENING_BYTES, TAG_BYTES, SealedBody
from fedcredit.errors import BoundError, PeerError, SpecError
from fedcredit.runtime.exchange.frames import Chunk, Head, Receipt, Target, encode_frame
from fedcredit.runtime.exchange.limits import HEAD_BYTES, LinkLimits
from fedcredit.runtime.exchange.types import Parcel
from fedcredit.types import PartyId

__all__ = ["MOST_HEAD", "Outbox"]

MOST_HEAD = HEAD_BYTES - OPENING_BYTES - TAG_BYTES
"""Most bytes of a head before it is sealed."""

_INLINE_ALONE = LEAST_CHUNK
"""A body for one recipient up to this size travels in the frame of its head."""

_INLINE_SHARED = 1024
"""The same for a body of several recipients, who then each get a copy."""

_PATIENCE = 0.25
"""Seconds that recipients of one chunk wait for one of them that has no room."""


class _Load:
    """One payload: a body and its place in the order of sending."""

    __slots__ = ("body", "inline", "order")

    def __init__(self, body: SealedBody, order: int, recipients: int) -> None:
        self.body = body
        self.order = order
        self.inline = 0 < body.size <= (_INLINE_ALONE if recipients == 1 else _INLINE_SHARED)


class _Item:
    """A payload on one link."""

    __slots__ = ("load", "sealed", "sequence", "size")

    def __init__(self, sequence: int, sealed: bytes, load: _Load) -> None:
        self.sequence = sequence
        self.sealed = sealed
        self.load = load
        self.size = len(sealed) + load.body.size


class _Link:
    """The way to one peer; ``at`` and ``index`` say what goes next: head (-1) or chunk of an item."""

    __slots__ = (
        "at",
        "attempt",
        "begin_only",
        "credit",
        "index",
        "items",
        "kept",
        "live",
        "peer",
        "sealer",
        "sent",
        "stuck",
        "sync",
    )

    def __init__(self, peer: PartyId, sealer: Sealer) -> None:
        self.peer = peer
        self.sealer = sealer
        self.items: deque[_Item] = deque()
        self.kept = 0
        self.live = False
        self.begin_only = False
        self.attempt = self.sync = -1
        self.at = 0
        self.index = -1
        self.sent = self.credit = 0
        self.stuck = 0.0  # since when it has no room; 0 is not at all

    def add(self, head: bytes, load: _Load) -> None:
        sequence, sealed = self.sealer.seal(load.body.opening + head)
        item = _Item(sequence, sealed, load)
        self.items.append(item)
        self.kept += item.size

    @property
    def acknowledged(self) -> int:
        """Number of the oldest item the peer has not acknowledged."""
        return self.items[0].sequence if self.items else self.sealer.next

    def current(self) -> _Item | None:
        """The item to go on with."""
        place = self.at - self.acknowledged
        if not self.live or place >= len(self.items) or (self.begin_only and self.at > 0):
            return None
        return self.items[place]

    def restart(self, receipt: Receipt, *, begin_only: bool) -> None:
        """Goes on where a peer asks; one in an older life gets the Begin again, and nothing more."""
        self.attempt, self.sync, self.live, self.begin_only = receipt.attempt, receipt.sync, True, begin_only
        self.at, self.index = (0, -1) if begin_only else (receipt.next, receipt.index - 1)
        self.sent, self.credit, self.stuck = 0, receipt.credit, 0.0

    def check(self, receipt: Receipt, *, fresh: bool) -> None:
        """Refuses receipts of what does not exist."""
        place = receipt.next - self.acknowledged
        known = 0 <= place < len(self.items)
        load = self.items[place].load if known else None
        chunks = load.body.chunks if load is not None and not load.inline else 0
        behind = place < 0 and fresh
        if behind or receipt.next > self.sealer.next or receipt.index > chunks:
            raise PeerError(
                "exchange.receipt",
                f"a receipt of {receipt.sender} is of what was never sent to it",
                culprit=receipt.sender,
            )

    def advance(self, item: _Item) -> None:
        """One frame of the item went out."""
        self.index += 1
        if item.load.inline or self.index >= item.load.body.chunks:
            self.at, self.index = item.sequence + 1, -1

    def acknowledge(self, upto: int) -> None:
        while self.items and self.items[0].sequence < upto:
            self.kept -= self.items.popleft().size


class Outbox:
    """All links of a party in one attempt. Not thread-safe: its owner locks.

    Args:
        party: The party.
        attempt: Its process life.
        keys: Towards the peers; every one of them gets a sealed empty Begin as number 0.
        limits: Largest payload, and what is kept before `room` says no.
    """

    def __init__(self, party: PartyId, attempt: int, keys: LinkKeys, limits: LinkLimits) -> None:
        self.party = party
        self.attempt = attempt
        self._limits = limits
        self._order = 0
        self._links = {peer: _Link(peer, keys.sealer(peer, attempt)) for peer in sorted(keys.peers)}
        for link in self._links.values():
            link.add(b"", _Load(SealedBody(b"", shared=False), 0, 1))

    def room(self, recipients: Sequence[PartyId]) -> bool:
        """Whether one more payload for them is taken."""
        return all(self._links[peer].kept < self._limits.link_window for peer in recipients if peer in self._links)

    def unacknowledged(self) -> list[PartyId]:
        """Peers that have not acknowledged everything; the Begin alone does not count."""
        return [peer for peer, link in self._links.items() if link.items and link.items[-1].sequence > 0]

    def put(self, parcels: Sequence[Parcel], body: bytes) -> None:
        """Seals a payload and keeps it until all recipients have it.

        Raises:
            SpecError: no recipient, one twice, or one that is no peer.
            BoundError: a head or the body is too large.
        """
        names = [parcel.recipient for parcel in parcels]
        strangers = [name for name in names if name not in self._links]
        if not names or strangers or len(set(names)) != len(names):
            raise SpecError("exchange.recipients", f"{self.party} sends to {names}; peers are {sorted(self._links)}")
        longest = max(len(parcel.head) for parcel in parcels)
        if longest > MOST_HEAD:
            raise BoundError("exchange.head", f"a head of {longest} bytes, at most {MOST_HEAD} fit")
        if len(body) > self._limits.max_payload:
            raise BoundError("exchange.body", f"a body of {len(body)} bytes, at most {self._limits.max_payload} fit")
        self._order += 1
        load = _Load(SealedBody(body, shared=len(names) > 1), self._order, len(names))
        for parcel in parcels:
            self._links[parcel.recipient].add(parcel.head, load)

    def offline(self) -> None:
        """The party's own connection is gone: nothing goes out until a peer asks again."""
        for link in self._links.values():
            link.live = False

    def receipt(self, receipt: Receipt) -> None:
        """Takes a peer's receipt: acknowledgement, credit, or a request to go on somewhere.

        Raises:
            PeerError: it acknowledges what was never sent.
        """
        link = self._links.get(PartyId(receipt.sender))
        if link is None or receipt.recipient != self.party:
            raise PeerError("exchange.receipt", "a receipt of a stranger, or for another party, came in")
        life, known = (receipt.attempt, receipt.sync), (link.attempt, link.sync)
        if receipt.attempt > self.attempt:
            link.live = False  # its Begin, which authenticates, is on the way; this one proves nothing
        elif receipt.attempt < self.attempt:
            if life > known:
                link.restart(receipt, begin_only=True)
        elif life >= known:
            link.check(receipt, fresh=life > known)
            if life > known:
                link.restart(receipt, begin_only=False)
            link.credit = max(link.credit, receipt.credit)
            link.acknowledge(receipt.next)

    def next_frame(self, now: float) -> bytes | None:
        """The next frame, or None while there is nothing to send or no room for it.

        Args:
            now: Seconds of a clock that never goes back.
        """
        for members in self._groups():
            able = [(link, item) for link, item in members if self._has_room(link, item, now)]
            if able and (len(able) == len(members) or self._out_of_patience(members, now)):
                return self._frame(able)
        return None

    def _groups(self) -> Iterator[list[tuple[_Link, _Item]]]:
        """Links at the same place of the same payload; oldest payload first, then whoever is furthest behind."""
        ready = [(link, item) for link in self._links.values() if (item := link.current()) is not None]
        if len(ready) == 1:
            yield ready
            return
        ready.sort(key=lambda one: (one[1].load.order, one[0].index, one[0].peer))
        for (_, index), group in groupby(ready, key=lambda one: (one[1].load.order, one[0].index)):
            if index < 0:
                for one in group:  # heads differ, so each travels alone
                    yield [one]
            else:
                yield list(group)

    def _has_room(self, link: _Link, item: _Item, now: float) -> bool:
        fits = link.begin_only or link.sent + _cost(link, item) <= link.credit  # a Begin ends the peer's life anyway
        link.stuck = 0.0 if fits else link.stuck or now
        return fits

    @property
    def stuck(self) -> bool:
        """Some peer has no room; worth another look when patience ends."""
        return any(link.live and link.stuck for link in self._links.values())

    @staticmethod
    def _out_of_patience(members: Sequence[tuple[_Link, _Item]], now: float) -> bool:
        return any(link.stuck and now - link.stuck > _PATIENCE for link, _ in members)

    def _frame(self, able: Sequence[tuple[_Link, _Item]]) -> bytes:
        first, item = able[0]
        load, index = item.load, first.index
        if index < 0:
            head = Head(
                sender=self.party,
                recipient=first.peer,
                sync=first.sync,
                attempt=self.attempt,
                sequence=item.sequence,
                sealed=len(item.sealed),
            )
            frame = encode_frame(head, item.sealed, load.body.chunk(0) if load.inline else b"")
        else:
            to = [Target(link.peer, link.sync, one.sequence) for link, one in able]
            chunk = Chunk(sender=self.party, attempt=self.attempt, index=index, to=to)
            frame = encode_frame(chunk, load.body.chunk(index))
        for link, one in able:
            link.sent += _cost(link, one)
            link.advance(one)
        return frame


def _cost(link: _Link, item: _Item) -> int:
    """Raw bytes of the next frame of an item."""
    body = item.load.body
    if link.index < 0:
        return len(item.sealed) + (body.size + TAG_BYTES if item.load.inline else 0)
    return min(body.chunk_bytes, body.size - link.index * body.chunk_bytes) + TAG_BYTES
