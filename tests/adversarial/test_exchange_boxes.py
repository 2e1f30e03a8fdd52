"""Frames that an exchange, or whoever sits in it, forged, repeated, reordered, held back or sent to the wrong party."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.crypto.sealed_body import LEAST_CHUNK
from fedcredit.errors import PeerError
from fedcredit.runtime.exchange.frames import Chunk, Head, Target, read_from_exchange
from fedcredit.runtime.exchange.inbox import Inbox
from fedcredit.runtime.exchange.limits import FRAME_BYTES, LinkLimits
from fedcredit.runtime.exchange.outbox import Outbox
from fedcredit.runtime.exchange.types import Parcel
from fedcredit.types import PartyId, RunId

BANK, TAX, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "customs"))
PARTIES = (BANK, TAX, CUSTOMS)
BODY = os.urandom(2 * LEAST_CHUNK + 10)


class Middle:
    """The bank sends; whoever uses this decides what the tax office and customs see."""

    def __init__(self, limits: LinkLimits | None = None) -> None:
        self.own = {name: OwnKeys(os.urandom(32), os.urandom(32)) for name in PARTIES}
        self.limits = limits or LinkLimits()
        self.outbox = Outbox(BANK, 1, self.keys(BANK), self.limits)
        self.inbox = {name: Inbox(name, 1, self.keys(name), self.limits) for name in (TAX, CUSTOMS)}
        self.sync()

    def keys(self, party: PartyId) -> LinkKeys:
        peers = {}
        for name, own in self.own.items():
            if name != party:
                pair = [X25519PrivateKey.from_private_bytes(raw).public_key() for raw in (own.ephemeral, own.static)]
                peers[name] = PeerKeys(*(key.public_bytes_raw() for key in pair))
        return LinkKeys(RunId("run"), party, self.own[party], peers)

    def sync(self) -> None:
        for inbox in self.inbox.values():
            inbox.resync(BANK)
            for receipt in inbox.receipts(lazy=True):
                if receipt.recipient == BANK:
                    self.outbox.receipt(receipt)

    def heads(self, to: PartyId = TAX) -> list[tuple[Head, memoryview]]:
        return [(frame, raw) for frame, raw in self.frames() if isinstance(frame, Head) and frame.recipient == to]

    def frames(self) -> list[tuple[Head | Chunk, memoryview]]:
        found: list[tuple[Head | Chunk, memoryview]] = []
        while (data := self.outbox.next_frame(1.0)) is not None:
            frame, start = read_from_exchange(data)
            assert isinstance(frame, (Head, Chunk))
            found.append((frame, memoryview(data)[start:]))
        return found

    def give(self, frame: Head | Chunk, raw: memoryview | bytes, to: PartyId = TAX) -> None:
        inbox = self.inbox[to]
        if isinstance(frame, Head):
            inbox.head(frame, memoryview(raw))
        else:
            inbox.chunk(frame, memoryview(raw))

    def give_all(self, frames: Iterable[tuple[Head | Chunk, memoryview]]) -> None:
        for frame, raw in frames:
            self.give(frame, raw)

    def refused(self, frame: Head | Chunk, raw: memoryview | bytes, code: str) -> None:
        """The tax office ends its link over a frame, and blames the bank."""
        with pytest.raises(PeerError) as caught:
            self.give(frame, raw)
        assert (caught.value.code, caught.value.culprit) == (code, "bank")
        assert "bank" in caught.value.public


def sent(*bodies: bytes) -> tuple[Middle, list[tuple[Head | Chunk, memoryview]]]:
    """What the tax office should get after the Begin."""
    middle = Middle()
    for number, body in enumerate(bodies):
        middle.outbox.put([Parcel(TAX, b"%d" % number)], body)
    frames = [one for one in middle.frames() if not (isinstance(one[0], Head) and one[0].recipient == CUSTOMS)]
    middle.give(*frames[0])
    return middle, frames[1:]


def flipped(raw: memoryview, bit: int) -> bytes:
    found = bytearray(raw)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


@pytest.mark.parametrize("byte", [0, 10, 71, 72, 88, 95, 100])
def test_a_flipped_bit_anywhere_in_a_small_payload(byte: int) -> None:
    middle, ((head, raw),) = sent(b"a body")
    assert len(raw) > 100
    middle.refused(head, flipped(raw, 8 * byte + 3), "sealed.forged")


def test_a_flipped_bit_in_a_chunk() -> None:
    middle, frames = sent(BODY)
    middle.give(*frames[0])
    middle.give(*frames[1])
    chunk, raw = frames[2]
    middle.refused(chunk, flipped(raw, 12345), "sealed.forged")


@pytest.mark.parametrize("field", ["sequence", "attempt", "sealed"])
def test_a_forged_header(field: str) -> None:
    middle, ((head, raw),) = sent(b"a body")
    assert isinstance(head, Head)
    forged = msgspec.structs.replace(head, **{field: getattr(head, field) + 1})
    middle.refused(forged, raw, "sealed.forged")


def test_bytes_in_anothers_name() -> None:
    middle, ((head, raw),) = sent(b"a body")
    with pytest.raises(PeerError, match=r"not customs's \[sealed\.forged\]") as caught:
        middle.give(msgspec.structs.replace(head, sender="customs", sync=0), raw)
    assert caught.value.culprit == "customs"


def test_a_higher_attempt_that_does_not_authenticate_restarts_nobody() -> None:
    middle, ((head, raw),) = sent(b"a body")
    middle.refused(msgspec.structs.replace(head, attempt=2, sync=0), raw, "sealed.forged")


def test_a_head_of_another_party() -> None:
    middle = Middle()
    middle.outbox.put([Parcel(TAX, b"for tax"), Parcel(CUSTOMS, b"for customs")], b"x")
    heads = middle.heads(CUSTOMS)
    for head, raw in heads:
        with pytest.raises(PeerError, match=r"sealed\.misrouted"):
            middle.give(head, raw)
        middle.refused(msgspec.structs.replace(head, recipient="tax"), raw, "sealed.forged")


def test_strangers() -> None:
    middle, ((head, raw),) = sent(b"a body")
    with pytest.raises(PeerError, match=r"sealed\.misrouted"):
        middle.give(msgspec.structs.replace(head, sender="nobody"), raw)


def test_a_replayed_payload_is_dropped_and_delivered_once() -> None:
    middle, frames = sent(b"one", b"two")
    for frame, raw in [*frames, *frames, frames[0]]:
        middle.give(frame, raw)
    inbox = middle.inbox[TAX]
    assert [one.body for one in (inbox.take(), inbox.take()) if one] == [b"one", b"two"]
    assert inbox.take() is None
    assert inbox.dropped == 3


def test_a_replay_that_was_changed_is_refused() -> None:
    middle, frames = sent(b"one", b"two")
    for frame, raw in frames:
        middle.give(frame, raw)
    head, raw = frames[0]
    middle.refused(head, flipped(raw, 5), "sealed.forged")


def test_replays_are_limited_by_the_window_too() -> None:
    middle = Middle(LinkLimits(link_window=2 * FRAME_BYTES))
    middle.outbox.put([Parcel(TAX, b"")], bytes(60_000))
    frames = middle.heads()
    for frame, raw in frames:
        middle.give(frame, raw)
    with pytest.raises(PeerError, match=r"exchange\.window"):
        middle.give_all(frames[-1:] * 60)


def test_a_payload_held_back() -> None:
    middle, frames = sent(b"one", b"two")
    middle.refused(*frames[1], "sealed.order")


def test_chunks_in_another_order_twice_or_left_out() -> None:
    middle, frames = sent(BODY)
    (head, sealed), first, second, third = frames
    middle.refused(*first, "sealed.order")  # before its head
    middle.give(head, sealed)
    middle.refused(*second, "sealed.order")
    middle.give(*first)
    middle.give(*first)
    assert middle.inbox[TAX].dropped == 1
    chunk, raw = second
    assert isinstance(chunk, Chunk)
    middle.refused(msgspec.structs.replace(chunk, index=0), raw, "sealed.forged")
    middle.give(*second)
    middle.give(*third)
    delivery = middle.inbox[TAX].take()
    assert delivery is not None
    assert delivery.body == BODY
    middle.refused(*third, "sealed.order")


def test_chunks_of_another_payload() -> None:
    middle, frames = sent(BODY, BODY)
    half = len(frames) // 2
    middle.give(*frames[0])
    chunk, raw = frames[half + 1]
    assert isinstance(chunk, Chunk)
    first, _ = frames[1]
    assert isinstance(first, Chunk)
    middle.refused(msgspec.structs.replace(chunk, to=first.to), raw, "sealed.forged")


def test_chunks_for_others_are_dropped() -> None:
    middle, frames = sent(BODY)
    middle.give(*frames[0])
    chunk, raw = frames[1]
    assert isinstance(chunk, Chunk)
    with pytest.raises(PeerError, match=r"sealed\.misrouted"):
        middle.give(msgspec.structs.replace(chunk, to=[Target("customs", 1, 1)]), raw)


def test_a_sender_that_ignores_its_credit() -> None:
    middle = Middle(LinkLimits(link_window=2 * FRAME_BYTES))
    for link in middle.outbox._links.values():
        link.credit = 1 << 40
    middle.outbox.put([Parcel(TAX, b"")], bytes(60_000))
    for _ in range(60):
        middle.outbox._links[TAX].kept = 0
        middle.outbox.put([Parcel(TAX, b"")], bytes(60_000))
    frames = middle.heads()
    with pytest.raises(PeerError, match=r"exchange\.window") as caught:
        middle.give_all(frames)
    assert caught.value.culprit == "bank"


def test_a_body_that_is_too_large_is_refused_at_its_head() -> None:
    middle = Middle()
    middle.inbox[TAX]._limits = LinkLimits(max_payload=1_000_000)
    middle.outbox.put([Parcel(TAX, b"")], bytes(1_000_001))
    (begin, head) = middle.heads()
    middle.give(*begin)
    middle.refused(*head, "sealed.oversize")
