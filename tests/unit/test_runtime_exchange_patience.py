"""Who waits for whom, and for how long, over the exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fedcredit.runtime.exchange import channel as exchange_channel
from fedcredit.runtime.exchange.channel import LinkPatience
from fedcredit.runtime.exchange.types import Delivery, Parcel, Presence
from fedcredit.types import PartyId

ME, BANK, TAX = PartyId("coordinator"), PartyId("bank"), PartyId("tax_office")
HERE, GONE = Presence(connected=True, seconds=0.0, waiting_for=None), Presence(False, 0.0, None)
LOOK = 0.01
View = Mapping[PartyId, Presence]


def waits(whom: PartyId) -> Presence:
    return Presence(connected=True, seconds=0.0, waiting_for=whom)


class Views:
    """A link that shows one view after another, then the last one for ever."""

    def __init__(self, *views: View) -> None:
        self._views, self.looks = list(views), 0

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        raise AssertionError

    async def receive(self) -> Delivery:
        raise AssertionError

    def note(self, waiting_for: PartyId | None) -> None:
        pass

    def presence(self) -> View:
        self.looks += 1
        return self._views.pop(0) if len(self._views) > 1 else self._views[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_channel, "_LOOK_SECONDS", LOOK)


def patient(views: Views, *, timeout: float, busy: float) -> tuple[bool, LinkPatience]:
    async def wait() -> tuple[bool, LinkPatience]:
        end: Any = SimpleNamespace(party=ME, post=SimpleNamespace(waits_for=BANK))
        patience = LinkPatience(views, end, timeout, busy)
        async with asyncio.timeout(20):
            return await patience.wait(asyncio.Event()), patience

    return asyncio.run(wait())


@pytest.mark.parametrize(
    "view",
    [
        {BANK: GONE},
        {BANK: waits(TAX), TAX: GONE},
        {BANK: waits(TAX), TAX: waits(BANK)},
        {BANK: waits(ME)},
        {},
    ],
    ids=["gone", "waits for one that is gone", "each for the other", "for this party", "unknown"],
)
def test_a_chain_that_leads_nowhere_ends_in_the_time_out(view: View) -> None:
    views = Views(view)
    ended, patience = patient(views, timeout=5 * LOOK, busy=1000.0)
    assert not ended
    assert patience.seconds == 5 * LOOK
    assert 3 <= views.looks <= 6


def test_a_party_that_computes_has_the_longer_time_out() -> None:
    views = Views({BANK: waits(TAX), TAX: HERE})
    ended, patience = patient(views, timeout=2 * LOOK, busy=8 * LOOK)
    assert not ended
    assert patience.seconds == 8 * LOOK
    assert views.looks >= 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({BANK: waits(TAX), TAX: waits(BANK)}, {BANK: waits(TAX), TAX: HERE}),
        ({BANK: waits(TAX), TAX: GONE}, {BANK: waits(TAX), TAX: HERE}),
        ({BANK: HERE}, {BANK: waits(TAX), TAX: HERE}),
    ],
    ids=["messages on their way", "short outages", "work that changes hands"],
)
def test_a_run_that_goes_on_is_not_given_up(one: View, other: View) -> None:
    """However long it takes in all: the coordinator waits for the bank through a whole training."""
    views = Views(*(view for _ in range(30) for view in (one, other)), {BANK: GONE})
    ended, _ = patient(views, timeout=4 * LOOK, busy=4 * LOOK)
    assert not ended
    assert views.looks > 60


def test_no_time_counts_while_the_own_line_is_down() -> None:
    away: Callable[[View], View] = lambda view: {**view, ME: GONE}  # noqa: E731
    views = Views(*(away({BANK: GONE}) for _ in range(30)), {BANK: GONE, ME: HERE})
    ended, _ = patient(views, timeout=3 * LOOK, busy=1000.0)
    assert not ended
    assert views.looks > 30
