"""A party's end at the exchange: envelopes cut and joined, waits that end, and memory that does not grow."""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.errors import DataError, DisclosureRefused, PeerError, PolicyDenied, TransportError
from fedcredit.governance.gate import Released
from fedcredit.runtime.exchange.channel import ExchangeWires, LinkPatience, joined_envelope, split_envelope
from fedcredit.runtime.exchange.types import Delivery, Parcel, PeerRestarted, Presence
from fedcredit.runtime.party_end import PartyEnd, notice_of
from fedcredit.runtime.refusals import inside_text, public_error
from fedcredit.runtime.waiting import Post
from fedcredit.types import PartyId
from fedcredit.wire.envelope import Route, SigningKey, body_digest, seal
from fedcredit.wire.message import encode, kind_of
from fedcredit.wire.notice import Begin, ErrorNotice

ME, BANK, TAX, CUSTOMS = (PartyId(name) for name in ("coordinator", "bank", "tax_office", "customs"))
KEY = SigningKey(b"\x01" * 32)
names = st.text(min_size=1, max_size=128)


def released(body: bytes, kind: str, route: Route) -> Released:
    data = seal(KEY, route, kind, body)
    return Released(data, kind, route.sequence, body_digest(body), len(body))


@settings(max_examples=150, deadline=None)
@given(names, names, names, st.binary(max_size=70_000), st.integers(0, 2**53), st.booleans())
def test_what_is_cut_is_joined_again(
    run: str, stage: str, party: str, body: bytes, sequence: int, notice: bool
) -> None:
    kind = kind_of(ErrorNotice) if notice else "group_sum.request"
    out = released(body, kind, Route(run, "p", stage, PartyId(party), BANK, sequence))
    head, cut = split_envelope(out)
    assert joined_envelope(Delivery(PartyId(party), head, bytes(cut))) == (notice, out.data)
    assert bytes(cut) == body
    assert len(head) < 60 * 1024


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=50))
def test_heads_that_are_none_are_named(head: bytes, body: bytes) -> None:
    size = int.from_bytes(head[:2], "big")
    if len(head) >= 3 + size and head[2] < 2:
        joined = head[3 : 3 + size] + body + head[3 + size :]
        assert joined_envelope(Delivery(BANK, head, body)) == (bool(head[2]), joined)
    else:
        with pytest.raises(PeerError) as caught:
            joined_envelope(Delivery(BANK, head, body))
        assert (caught.value.code, caught.value.culprit) == ("wire.malformed", BANK)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose seconds pass at once when nothing else is to be done."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not ready and scheduled:
            self.now = max(self.now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]

    _timer_cancelled_count: int


def virtual(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


@dataclass
class Line:
    """A link of which a test says who is there."""

    told: Callable[[float], Mapping[str, tuple[bool, str | None]]]
    notes: list[PartyId | None] = field(default_factory=list)
    deliveries: list[Delivery | BaseException] = field(default_factory=list)

    def note(self, waiting_for: PartyId | None) -> None:
        self.notes.append(waiting_for)

    def presence(self) -> Mapping[PartyId, Presence]:
        now = asyncio.get_running_loop().time()
        return {
            PartyId(party): Presence(there, 0.0, None if waits is None else PartyId(waits))
            for party, (there, waits) in self.told(now).items()
        }

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        """Nobody listens."""

    async def receive(self) -> Delivery:
        if not self.deliveries:
            await asyncio.Event().wait()
        found = self.deliveries.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found


def end() -> Any:
    roster = dict.fromkeys((BANK, TAX, CUSTOMS, ME))
    gate = SimpleNamespace(admit=lambda data, *_: data, admit_notice=lambda *_: ErrorNotice(code="x.y", text="why"))
    made = PartyEnd.__new__(PartyEnd)
    made.__dict__.update(
        party=ME, post=Post(), context=SimpleNamespace(roster=roster), gate=gate, stage="start", house=None
    )
    return made


def waited(told: Callable[[float], Mapping[str, tuple[bool, str | None]]], **times: float) -> tuple[str, str, float]:
    """Code, culprit and seconds of a wait for the bank."""

    async def wait() -> tuple[str, str, float]:
        mine, line = end(), Line(told)
        wires = ExchangeWires(line, mine, times.get("timeout", 30.0), times.get("busy", 300.0))
        with pytest.raises(TransportError) as caught:
            await mine.receive(BANK, Begin, wires, wires.patience())
        assert line.notes[0] == BANK
        assert line.notes[-1] is None
        return caught.value.code, caught.value.culprit, asyncio.get_running_loop().time()

    found: tuple[str, str, float] = virtual(wait())
    return found


def test_a_gone_party_is_named_in_the_time_out() -> None:
    code, culprit, seconds = waited(lambda _: {"coordinator": (True, None), "bank": (False, "customs")})
    assert (code, culprit) == ("run.timeout", "bank")  # whom it waited for when it was last there says nothing
    assert 30 <= seconds <= 31


def test_a_party_nobody_has_heard_of_is_gone() -> None:
    assert waited(lambda _: {})[:2] == ("run.timeout", "bank")


def test_a_busy_party_is_waited_for_much_longer() -> None:
    code, culprit, seconds = waited(lambda _: {"bank": (True, None)})
    assert (code, culprit) == ("run.timeout", "bank")
    assert 300 <= seconds <= 301


def test_the_end_of_the_chain_is_named() -> None:
    chain = {"bank": (True, "tax_office"), "tax_office": (True, "customs"), "customs": (False, None)}
    code, culprit, seconds = waited(lambda _: chain)
    assert (code, culprit) == ("run.timeout", "customs")
    assert 30 <= seconds <= 31
    busy = {**chain, "customs": (True, None)}
    code, culprit, seconds = waited(lambda _: busy)
    assert (code, culprit) == ("run.timeout", "customs")
    assert 300 <= seconds <= 301


@pytest.mark.parametrize("last", ["coordinator", "bank", "tax_office"])
def test_chains_that_close_end_in_the_time_out(last: str) -> None:
    chain = {"coordinator": (True, "bank"), "bank": (True, "tax_office"), "tax_office": (True, last)}
    code, culprit, seconds = waited(lambda _: chain)
    assert code == "run.timeout"
    assert culprit in {"bank", "tax_office"}
    assert 30 <= seconds <= 31


def test_names_the_relay_makes_up_blame_nobody() -> None:
    chain = {"bank": (True, "somebody\x1b[2J else"), "somebody\x1b[2J else": (True, None)}
    assert waited(lambda _: chain)[1] == "bank"


def test_an_own_outage_is_nobody_elses_fault() -> None:
    code, culprit, seconds = waited(lambda now: {"coordinator": (now > 100, None), "bank": (False, None)})
    assert (code, culprit) == ("run.timeout", "bank")
    assert 130 <= seconds <= 132


def test_a_story_that_changes_all_the_time_ends_at_last() -> None:
    told = lambda now: {"bank": (int(now) % 20 < 10, None)}  # noqa: E731 - a story of two lines
    code, culprit, seconds = waited(told)
    assert (code, culprit) == ("run.timeout", "bank")
    assert 24 * 300 <= seconds <= 24 * 300 + 2


@pytest.mark.parametrize("pause", [0.1, 0.9, 1.5])
def test_who_else_talks_does_not_keep_a_gone_party_alive(pause: float) -> None:
    async def wait() -> float:
        mine, line = end(), Line(lambda _: {"bank": (False, None), "tax_office": (True, None)})
        wires = ExchangeWires(line, mine, 30.0, 300.0)

        async def talk() -> None:
            while True:
                await asyncio.sleep(pause)
                mine.post.queues.setdefault(TAX, []).append((b"", 0.0))
                mine.post.changed.set()

        talking = asyncio.create_task(talk())
        with pytest.raises(TransportError, match="bank did not send"):
            await mine.receive(BANK, Begin, wires, wires.patience())
        talking.cancel()
        return asyncio.get_running_loop().time()

    assert 30 <= virtual(wait()) <= 32


def test_what_came_in_time_is_read() -> None:
    async def wait() -> Any:
        mine, line = end(), Line(lambda _: {"bank": (False, None)})
        patience = LinkPatience(line, mine, 30.0, 300.0)
        mine.post.waits_for = BANK
        asyncio.get_running_loop().call_later(29.5, mine.post.changed.set)
        return await patience.wait(mine.post.changed)

    assert virtual(wait()) is True


def envelope(body: bytes = b"x", kind: str = "k") -> tuple[bytes, bytes]:
    head, cut = split_envelope(released(body, kind, Route("r", "p", "s", BANK, ME, 0)))
    return head, bytes(cut)


def pumped(deliveries: Sequence[Delivery | BaseException]) -> Any:
    """A party's end after all this has come in."""

    async def pump() -> Any:
        mine, line = end(), Line(lambda _: {}, deliveries=list(deliveries))
        wires = ExchangeWires(line, mine, 30.0, 300.0)
        task = asyncio.create_task(wires.pump())
        for _ in range(len(deliveries) + 2):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return mine

    return virtual(pump())


def test_a_peer_that_sends_what_nobody_asks_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    head, body = envelope()
    post = pumped([Delivery(BANK, head, body)] * 1025).post
    assert (post.broken.code, post.broken.culprit) == ("wire.flood", BANK)
    assert pumped([Delivery(BANK, head, body)] * 1024).post.broken is None
    monkeypatch.setattr("fedcredit.runtime.exchange.channel._MOST_UNREAD_BYTES", 3000)
    big = envelope(bytes(2000))
    assert pumped([Delivery(BANK, *big), Delivery(TAX, *big)]).post.broken is None
    assert pumped([Delivery(BANK, *big), Delivery(BANK, *big)]).post.broken.code == "wire.flood"
    assert pumped([Delivery(BANK, *envelope(bytes(5000)))]).post.broken is None  # one alone may be as large as it gets


def test_notices_do_not_pile_up() -> None:
    head, body = envelope(encode(ErrorNotice(code="a.b", text="")), kind_of(ErrorNotice))
    assert len(pumped([Delivery(BANK, head, body)] * 500).post.notices) == 4


def test_bytes_that_are_no_envelope_end_the_link() -> None:
    post = pumped([Delivery(BANK, b"", b"")]).post
    assert (post.broken.code, post.broken.culprit) == ("wire.malformed", BANK)


@pytest.mark.parametrize(
    ("broken", "read"),
    [
        (PeerRestarted(TAX, 2), True),
        (TransportError("exchange.unreachable", "x"), True),
        (TransportError("run.stopped", "x"), False),
        (TransportError("run.left", "x"), False),
        (PeerError("sealed.forged", "x"), False),
    ],
    ids=str,
)
def test_what_had_come_before_the_link_ended(broken: Exception, read: bool) -> None:
    head, body = envelope(b"body")

    queue = pumped([Delivery(BANK, head, body)]).post.queues[BANK]

    async def receive() -> Any:
        mine = end()
        mine.post.queues[BANK], mine.post.broken = queue, broken
        wires = ExchangeWires(Line(lambda _: {}), mine, 1.0, 1.0)
        return await mine.receive(BANK, Begin, wires, wires.patience())

    if read:
        assert virtual(receive()) == seal(KEY, Route("r", "p", "s", BANK, ME, 0), "k", b"body")
    else:
        with pytest.raises(type(broken)):
            virtual(receive())


SECRET = "E00042 has 3 bads"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("split.empty", SECRET), "data"),
        (DisclosureRefused("ledger.cap", SECRET), "ledger.cap"),
        (OSError(28, SECRET, f"/var/{SECRET}"), "run.storage"),
        (FileNotFoundError(2, SECRET, SECRET), "run.storage"),
        (PermissionError(SECRET), "run.storage"),
        (ValueError(SECRET), "run.internal"),
        (KeyError(SECRET), "run.internal"),
        (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET), "run.internal"),
        (MemoryError(SECRET), "run.internal"),
        (PolicyDenied("policy.limit", "a limit", SECRET), "policy.limit"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else one,
)
def test_no_error_tells_others_what_is_in_the_records(error: Exception, code: str) -> None:
    notice = notice_of(error)
    assert public_error(error) == (notice.code, notice.text, "")
    assert notice.code == code
    assert SECRET not in notice.text
    if not isinstance(error, (DataError, DisclosureRefused, PolicyDenied, OSError)):
        assert SECRET not in inside_text(error)


def raised(path: Path) -> Iterator[Exception]:
    for name in ("missing", "bad\udc80name"):
        try:
            (path / name).read_bytes()
        except (OSError, UnicodeError) as error:
            yield error


def test_names_of_files_stay_in_the_house(tmp_path: Path) -> None:
    for error in raised(tmp_path):
        code, text, culprit = public_error(error)
        assert str(tmp_path) not in text
        assert (code, culprit) == ("run.storage", "")
        assert str(tmp_path) in inside_text(error)
