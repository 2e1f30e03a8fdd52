"""Outboxes and inboxes without any network: order, resume, credit, fan-out."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.crypto.sealed_body import LEAST_CHUNK
from fedcredit.errors import BoundError, PeerError, SpecError
from fedcredit.runtime.exchange.frames import Chunk, FromExchange, Head, Receipt, read_from_exchange
from fedcredit.runtime.exchange.inbox import Inbox
from fedcredit.runtime.exchange.limits import FRAME_BYTES, LinkLimits
from fedcredit.runtime.exchange.outbox import MOST_HEAD, Outbox
from fedcredit.runtime.exchange.types import Parcel, PeerRestarted
from fedcredit.types import PartyId, RunId

BANK, TAX, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "customs"))
LEAST = 2 * FRAME_BYTES


def public(own: OwnKeys) -> PeerKeys:
    pair = [X25519PrivateKey.from_private_bytes(raw).public_key() for raw in (own.ephemeral, own.static)]
    return PeerKeys(*(key.public_bytes_raw() for key in pair))


class Table:
    """Boxes of three parties, and an exchange that is a function."""

    def __init__(self, limits: LinkLimits | None = None) -> None:
        self.limits = limits or LinkLimits()
        self.own = {name: OwnKeys(os.urandom(32), os.urandom(32)) for name in (BANK, TAX, CUSTOMS)}
        self.out: dict[PartyId, Outbox] = {}
        self.inn: dict[PartyId, Inbox] = {}
        self.passed = 0
        for name in self.own:
            self.live(name, 1)

    def live(self, name: PartyId, attempt: int) -> None:
        """A party's (next) life."""
        peers = {one: public(own) for one, own in self.own.items() if one != name}
        keys = LinkKeys(RunId("run"), name, self.own[name], peers)
        self.out[name] = Outbox(name, attempt, keys, self.limits)
        self.inn[name] = Inbox(name, attempt, keys, self.limits)

    def connect(self, names: Iterable[PartyId] = (BANK, TAX, CUSTOMS)) -> None:
        """Everybody asks everybody to go on."""
        for name in names:
            for other in names:
                if other != name:
                    self.inn[name].resync(other)
        self.receipts()

    def receipts(self, *, lazy: bool = True) -> None:
        for inbox in self.inn.values():
            for receipt in inbox.receipts(lazy=lazy):
                self.out[PartyId(receipt.recipient)].receipt(receipt)

    def frames(self, sender: PartyId, now: float = 1.0) -> list[tuple[FromExchange, bytes]]:
        """All that a party can send now."""
        found = []
        while (data := self.out[sender].next_frame(now)) is not None:
            frame, start = read_from_exchange(data)
            found.append((frame, data[start:]))
        return found

    def give(self, frame: FromExchange, raw: bytes, *, to: PartyId | None = None) -> None:
        if isinstance(frame, Head):
            self.inn[to or PartyId(frame.recipient)].head(frame, memoryview(raw))
        elif isinstance(frame, Chunk):
            for target in frame.to:
                if to in (None, target.recipient):
                    self.inn[PartyId(target.recipient)].chunk(frame, memoryview(raw))

    def flow(self, rounds: int = 50) -> None:
        """Passes everything on until nothing moves."""
        for _ in range(rounds):
            moved = 0
            for sender in self.out:
                for frame, raw in self.frames(sender):
                    self.give(frame, raw)
                    moved += 1
            self.receipts()
            self.passed += moved
            if not moved:
                return

    def got(self, name: PartyId) -> list[tuple[str, bytes, bytes]]:
        found = []
        while (one := self.inn[name].take()) is not None:
            found.append((str(one.sender), one.head, one.body))
        return found


def test_nothing_goes_out_before_somebody_asks() -> None:
    table = Table()
    table.out[BANK].put([Parcel(TAX, b"")], b"x")
    assert table.frames(BANK) == []
    assert table.out[BANK].unacknowledged() == [TAX]
    table.connect((BANK, TAX))
    table.flow()
    assert table.got(TAX) == [("bank", b"", b"x")]
    assert table.out[BANK].unacknowledged() == []


def test_begin_goes_first_and_is_no_payload() -> None:
    table = Table()
    table.connect()
    heads = [frame for frame, _ in table.frames(BANK)]
    assert [(frame.recipient, frame.sequence) for frame in heads if isinstance(frame, Head)] == [
        ("customs", 0),
        ("tax", 0),
    ]
    assert table.out[BANK].unacknowledged() == []


def test_a_small_body_travels_with_its_head_and_a_large_one_in_chunks() -> None:
    table = Table()
    table.connect()
    table.flow()
    outbox = table.out[BANK]
    for size, count in ((0, 1), (LEAST_CHUNK, 1), (LEAST_CHUNK + 1, 3), (8 * LEAST_CHUNK, 9)):
        outbox.put([Parcel(TAX, b"h")], bytes(size))
        frames = table.frames(BANK)
        assert len(frames) == count
        for frame, raw in frames:
            table.give(frame, raw)
    for size, count in ((1024, 2), (1025, 3)):
        outbox.put([Parcel(TAX, b"h"), Parcel(CUSTOMS, b"h")], bytes(size))
        assert len(table.frames(BANK)) == count


def test_resume_goes_on_in_the_middle_of_a_body() -> None:
    table = Table()
    table.connect()
    table.flow()
    body = os.urandom(3 * LEAST_CHUNK + 5)
    table.out[BANK].put([Parcel(TAX, b"a")], body)
    table.out[BANK].put([Parcel(TAX, b"b")], b"next")
    sent = table.frames(BANK)
    for frame, raw in sent[:3]:  # head and two chunks arrive, the rest is lost with the line
        table.give(frame, raw)
    table.out[BANK].offline()
    assert table.frames(BANK) == []
    table.connect((BANK, TAX))
    again = table.frames(BANK)
    assert [frame.index for frame, _ in again if isinstance(frame, Chunk)] == [2, 3]
    for frame, raw in sent[3:]:  # what was under way on the old line comes late, and is dropped
        table.give(frame, raw)
    assert table.inn[TAX].dropped == len(sent) - 3
    for frame, raw in again:
        table.give(frame, raw)
    assert table.got(TAX) == [("bank", b"a", body), ("bank", b"b", b"next")]


def test_the_same_bytes_go_out_again() -> None:
    table = Table()
    table.connect()
    table.out[BANK].put([Parcel(TAX, b"a")], b"body")
    first = [raw for _, raw in table.frames(BANK)]
    table.out[BANK].offline()
    table.connect()
    assert [raw for _, raw in table.frames(BANK)] == first


def test_one_upload_serves_all_and_one_behind_catches_up_alone() -> None:
    table = Table()
    body = os.urandom(4 * LEAST_CHUNK)
    table.connect((BANK, TAX))
    table.flow()
    table.out[BANK].put([Parcel(TAX, b""), Parcel(CUSTOMS, b"")], body)
    for _ in range(3):
        frame, start = read_from_exchange(data := table.out[BANK].next_frame(1.0) or b"")
        table.give(frame, data[start:])  # head and two chunks for the tax office
    table.connect((BANK, CUSTOMS))
    targets = [[one.recipient for one in frame.to] for frame, _ in table.frames(BANK) if isinstance(frame, Chunk)]
    assert targets == [["customs"], ["customs"], ["customs", "tax"], ["customs", "tax"]]


def test_credit_ends_and_comes_back_when_the_role_takes() -> None:
    table = Table(LinkLimits(link_window=LEAST))
    table.connect()
    table.flow()
    body = bytes(200_000)
    sent = 0
    while table.out[BANK].room([TAX]):
        table.out[BANK].put([Parcel(TAX, b"%d" % sent)], body)
        sent += 1
        table.flow()
    assert table.out[BANK].room([CUSTOMS])
    assert not table.out[BANK].room([TAX, CUSTOMS])
    assert LEAST <= sent * len(body) <= 3 * LEAST
    assert table.out[BANK].stuck
    got = 0
    while got < sent:
        got += len(table.got(TAX))
        table.receipts()
        table.flow()
    assert table.out[BANK].unacknowledged() == []
    assert not table.out[BANK].stuck


def test_reconnecting_gives_no_room_that_is_not_there() -> None:
    table = Table(LinkLimits(link_window=LEAST))
    table.connect()
    for _ in range(120):
        table.out[BANK].offline()
        table.connect()
        if table.out[BANK].room([TAX]):
            table.out[BANK].put([Parcel(TAX, b"")], bytes(60_000))
        table.flow()
    assert table.inn[TAX]._sources[BANK].held <= LEAST


def test_one_that_takes_nothing_holds_the_others_up_for_a_moment_only() -> None:
    table = Table(LinkLimits(link_window=LEAST))
    table.connect()
    table.flow()
    table.out[BANK].put([Parcel(CUSTOMS, b"")], bytes(LEAST - 100_000))
    table.flow()
    table.out[BANK].put([Parcel(TAX, b""), Parcel(CUSTOMS, b"")], bytes(300_000))
    assert [frame.recipient for frame, _ in table.frames(BANK, 10.0) if isinstance(frame, Head)] == ["customs", "tax"]
    assert table.out[BANK].next_frame(10.2) is None
    frame, _ = read_from_exchange(table.out[BANK].next_frame(10.3) or b"")
    assert isinstance(frame, Chunk)
    assert [one.recipient for one in frame.to] == ["tax"]


def test_a_life_that_begins_again_is_announced_and_older_ones_hear_nothing_else() -> None:
    table = Table()
    table.connect()
    table.out[BANK].put([Parcel(TAX, b"")], b"x")
    table.flow()
    table.live(TAX, 2)
    table.out[TAX].put([Parcel(BANK, b"")], b"for the next life of the bank")
    table.inn[TAX].resync(BANK)
    table.inn[BANK].resync(TAX)
    table.receipts()
    assert table.frames(BANK) == []
    ((frame, raw),) = table.frames(TAX)
    assert isinstance(frame, Head)
    assert (frame.sequence, frame.attempt) == (0, 2)
    with pytest.raises(PeerRestarted, match=r"tax began again as attempt 2") as caught:
        table.give(frame, raw)
    assert (caught.value.party, caught.value.attempt) == (TAX, 2)
    table.live(BANK, 2)
    table.live(CUSTOMS, 2)
    table.connect()
    table.flow()
    assert table.got(BANK) == [("tax", b"", b"for the next life of the bank")]


def test_frames_of_an_older_life_are_dropped() -> None:
    table = Table()
    table.connect()
    frames = table.frames(BANK)
    table.live(TAX, 2)
    for frame, raw in frames:
        table.give(frame, raw)
    assert table.inn[TAX].dropped == 1


def test_what_cannot_be_sent_is_refused_before_it_is_sealed() -> None:
    table = Table(LinkLimits(max_payload=1000))
    outbox = table.out[BANK]
    for recipients in ([], [TAX, TAX], [BANK], [PartyId("x")]):
        with pytest.raises(SpecError, match=r"exchange\.recipients"):
            outbox.put([Parcel(one, b"") for one in recipients], b"")
    with pytest.raises(BoundError, match=r"exchange\.head"):
        outbox.put([Parcel(TAX, bytes(MOST_HEAD + 1))], b"")
    with pytest.raises(BoundError, match=r"a body of 1001 bytes, at most 1000"):
        outbox.put([Parcel(TAX, b"")], bytes(1001))
    outbox.put([Parcel(TAX, bytes(MOST_HEAD))], bytes(1000))
    table.connect()
    table.flow()
    assert [(len(head), len(body)) for _, head, body in table.got(TAX)] == [(MOST_HEAD, 1000)]


@pytest.mark.parametrize(
    "changed", [{"next": 3}, {"next": 1, "index": 1}, {"sender": "x"}, {"recipient": "customs"}, {"next": 0, "sync": 9}]
)
def test_receipts_of_what_was_never_sent_are_refused(changed: dict[str, object]) -> None:
    table = Table()
    table.connect()
    table.out[BANK].put([Parcel(TAX, b"")], b"x")
    table.flow()
    fields: dict[str, object] = {"sender": "tax", "recipient": "bank", "sync": 1, "attempt": 1, "next": 2, "index": 0}
    receipt = Receipt(**{**fields, "credit": 0, **changed})  # type: ignore[arg-type]
    with pytest.raises(PeerError, match=r"exchange\.receipt"):
        table.out[BANK].receipt(receipt)


def test_late_receipts_change_nothing() -> None:
    table = Table()
    table.connect()
    table.connect()
    table.out[BANK].put([Parcel(TAX, b"")], b"x")
    old = Receipt(sender="tax", recipient="bank", sync=1, attempt=1, next=0, index=0, credit=0)
    table.flow()
    table.out[BANK].receipt(old)
    assert table.got(TAX) == [("bank", b"", b"x")]
    assert table.frames(BANK) == []
