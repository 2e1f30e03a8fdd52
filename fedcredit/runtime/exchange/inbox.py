"""What comes in for a party: opened, in order, each once; and the receipts that tell its senders so.

Whatever does not authenticate ends the link, naming the sender it claimed. What belongs to an older process life of a
sender, or to an earlier request, is dropped and counted: it was under way when a connection broke.
"""

from __future__ import annotations

from collections import deque

from fedcredit.crypto.sealed import OPENING_BYTES, BodyOpener, LinkKeys, Opener
from fedcredit.errors import PeerError
from fedcredit.runtime.exchange.frames import Chunk, Head, Receipt, Target
from fedcredit.runtime.exchange.limits import LinkLimits
from fedcredit.runtime.exchange.types import Delivery, PeerRestarted
from fedcredit.types import PartyId

__all__ = ["Inbox"]


class _Source:
    """The way from one peer.

    ``next`` is the number of the head that is due, or whose body is coming in; ``received`` counts raw bytes since the
    last sync; ``held`` are those of payloads that no role has asked for; ``told`` is what the last receipt said.
    """

    __slots__ = ("body", "cost", "head", "held", "next", "opener", "owed", "peer", "received", "sync", "told", "unsaid")

    def __init__(self, peer: PartyId, opener: Opener) -> None:
        self.peer = peer
        self.opener = opener
        self.next = 0
        self.head = b""
        self.body: BodyOpener | None = None
        self.cost = 0
        self.sync = 0
        self.received = 0
        self.held = 0
        self.told = 0
        self.owed = False
        """A receipt is due at once."""
        self.unsaid = False
        """Something changed that a later receipt can tell."""

    @property
    def index(self) -> int:
        """0 while the head is due, else 1 and the number of chunks."""
        return 0 if self.body is None else 1 + self.body.next

    def resync(self) -> None:
        """Asks the sender to go on from here, on whatever connection it has now."""
        self.sync += 1
        self.received = 0
        self.told = -self.held
        self.owed = True


class Inbox:
    """All that comes to a party in one attempt. Not thread-safe: its owner locks.

    Args:
        party: The party.
        attempt: Its process life.
        keys: Of its links.
        limits: Largest payload, and the ``window``: bytes a peer may have under way that no role has asked for; the
            exchange may set a smaller one before the first receipt.
    """

    def __init__(self, party: PartyId, attempt: int, keys: LinkKeys, limits: LinkLimits) -> None:
        self.party = party
        self.attempt = attempt
        self.window = limits.link_window
        self.ready: deque[tuple[Delivery, int]] = deque()
        self.dropped = 0
        self._keys = keys
        self._limits = limits
        self._sources = {peer: _Source(peer, keys.opener(peer, attempt)) for peer in sorted(keys.peers)}

    def resync(self, peer: PartyId) -> None:
        """A peer's connection, or the own one, is new: it has to be told where to go on."""
        if peer in self._sources:
            self._sources[peer].resync()

    def take(self) -> Delivery | None:
        """The next payload for the role."""
        if not self.ready:
            return None
        delivery, cost = self.ready.popleft()
        source = self._sources[delivery.sender]
        source.held -= cost
        self._credit(source)
        return delivery

    @property
    def owed(self) -> bool:
        """A receipt is due at once."""
        return any(source.owed for source in self._sources.values())

    @property
    def unsaid(self) -> bool:
        """A receipt is due some time."""
        return any(source.unsaid for source in self._sources.values())

    def receipts(self, *, lazy: bool) -> list[Receipt]:
        """Receipts that are due at once; with ``lazy`` those that could wait, too."""
        found = []
        for source in self._sources.values():
            if source.sync and (source.owed or (lazy and source.unsaid)):
                source.owed = source.unsaid = False
                source.told = max(source.told, source.received - source.held)
                found.append(
                    Receipt(
                        sender=self.party,
                        recipient=source.peer,
                        sync=source.sync,
                        attempt=self.attempt,
                        next=source.next,
                        index=source.index,
                        credit=source.told + self.window,
                    )
                )
        return found

    def head(self, head: Head, raw: memoryview) -> None:
        """A head came in, perhaps with its body.

        Raises:
            PeerError: it does not authenticate, is out of order, or more than there is room for.
            PeerRestarted: it authenticates under a higher attempt.
        """
        source = self._source(head.sender, head.recipient)
        sealed = raw[: head.sealed]
        if head.attempt > self.attempt:
            self._keys.opener(source.peer, head.attempt).open(head.sequence, sealed)
            raise PeerRestarted(source.peer, head.attempt)
        if head.attempt < self.attempt or head.sync != source.sync:
            self.dropped += 1
            return
        plain = source.opener.open(head.sequence, sealed)
        self._count(source, len(raw))
        if head.sequence < source.next or (head.sequence == source.next and source.body is not None):
            self.dropped += 1  # a duplicate that authenticates
            self._changed(source)
            return
        if head.sequence > source.next:
            raise PeerError(
                "sealed.order",
                f"number {head.sequence} of {source.peer} came where {source.next} is missing",
                culprit=source.peer,
            )
        source.body = BodyOpener(plain[:OPENING_BYTES], source.peer, self._limits.max_payload)
        source.head = plain[OPENING_BYTES:]
        source.cost = len(raw)
        if len(raw) > head.sealed:
            source.body.add(raw[head.sealed :])
        self._progress(source, source.body)

    def chunk(self, chunk: Chunk, raw: memoryview) -> None:
        """A chunk came in.

        Raises:
            PeerError: it does not authenticate, is out of order, or more than there is room for.
        """
        target = next((one for one in chunk.to if one.recipient == self.party), None)
        source = self._source(chunk.sender, target.recipient if target else "")
        if target is None or chunk.attempt != self.attempt or target.sync != source.sync:
            self.dropped += 1
            return
        self._count(source, len(raw))
        body = self._body(source, target, chunk.index)
        if chunk.index < body.next:
            body.check(chunk.index, raw)
            self.dropped += 1
            self._changed(source)
            return
        body.add(raw)
        source.cost += len(raw)
        self._progress(source, body)

    def _source(self, sender: str, recipient: str) -> _Source:
        source = self._sources.get(PartyId(sender))
        if source is None:
            raise PeerError("sealed.misrouted", "bytes of someone who is not in this run came in")
        if recipient != self.party:
            raise PeerError("sealed.misrouted", f"bytes of {sender} for another party came in", culprit=sender)
        return source

    def _count(self, source: _Source, size: int) -> None:
        source.received += size
        if source.received > source.told + self.window:
            raise PeerError(
                "exchange.window", f"{source.peer} sends more than the {self.window} bytes it may", culprit=source.peer
            )

    @staticmethod
    def _body(source: _Source, target: Target, index: int) -> BodyOpener:
        if source.body is None or target.sequence != source.next or index > source.body.next:
            raise PeerError(
                "sealed.order",
                f"chunk {index} of number {target.sequence} of {source.peer} came out of its place",
                culprit=source.peer,
            )
        return source.body

    def _progress(self, source: _Source, body: BodyOpener) -> None:
        """Hands the payload out if it is complete; number 0 is the Begin, which only says that the peer is there."""
        if body.next == body.chunks:
            delivery = Delivery(source.peer, source.head, body.body())
            if source.next > 0:
                self.ready.append((delivery, source.cost))
                source.held += source.cost
            source.owed = source.owed or source.cost >= self.window // 8  # the sender may wait for room to keep more
            source.next += 1
            source.head, source.body, source.cost = b"", None, 0
        self._changed(source)

    def _changed(self, source: _Source) -> None:
        source.unsaid = True
        self._credit(source)

    def _credit(self, source: _Source) -> None:
        """New credit is told in quarters of the window: what is left always has room for a frame."""
        if source.received - source.held - source.told >= self.window // 4:
            source.owed = True
