"""Networks side by side: one role in two of them, one clock for all, and failures that end everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fedcredit.errors import DataError, FedCreditError, TransportError
from fedcredit.protocol.channel import Channel
from fedcredit.runtime.hybrid.side_by_side import Played, Presence, run_side_by_side
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.runtime.metering import Meter
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.message import Message
from fedcredit.wire.schema import Declared, ProtocolSchema

pytestmark = pytest.mark.usefixtures("virtual_time")

NORTH, SOUTH, TAX = PartyId("north"), PartyId("south"), PartyId("tax")
BANKS = (NORTH, SOUTH)
L, P, C = (frozenset({role}) for role in (Role.LABEL_HOLDER, Role.FEATURE_HOLDER, Role.COORDINATOR))


class Count(Message, frozen=True, kw_only=True, tag="probe.count"):
    number: int


class Whole(Message, frozen=True, kw_only=True, tag="probe.whole"):
    number: int


SCHEMA = ProtocolSchema("probe", (Declared(Count, L | P, L | C, max_bytes=100), Declared(Whole, C, L, max_bytes=100)))


class Counting:
    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int, /) -> bytes:
        self._taken += 1
        return self._taken.to_bytes(size, "big")


def network(name: str, roster: dict[PartyId, Role], busy: Meter, timeout_s: float = 5.0) -> LocalNetwork:
    return LocalNetwork(
        LocalSettings(RunId(name), "digest", roster, [SCHEMA], Counting(), timeout_s=timeout_s, busy=busy)
    )


async def holder(channel: Channel, bank: PartyId, number: int) -> None:
    if number < 0:
        raise DataError("probe.broken", f"{bank}: nothing to count")
    await channel.send(bank, Count(number=number))


async def bank(channel: Channel, sums: Channel) -> int:
    told = await channel.receive(TAX, Count)
    await sums.send(COORDINATOR, Count(number=told.number))
    return (await sums.receive(COORDINATOR, Whole)).number


async def adder(channel: Channel) -> None:
    found = await channel.gather(BANKS, Count)
    for one in BANKS:
        await channel.send(one, Whole(number=sum(count.number for count in found.values())))


def played(numbers: dict[PartyId, int], timeout_s: float = 5.0) -> tuple[list[Played], list[Presence]]:
    busy = Meter()
    sums = network("sums", dict.fromkeys(BANKS, Role.LABEL_HOLDER) | {COORDINATOR: Role.COORDINATOR}, busy, timeout_s)
    runs, presences, stand_ins = [], [], {}
    for one, number in numbers.items():
        own = network(str(one), {one: Role.LABEL_HOLDER, TAX: Role.FEATURE_HOLDER}, busy, timeout_s)
        presence = Presence(bank(own.channel(one), sums.channel(one)))
        presences.append(presence)
        stand_ins[one] = presence.stand_in()
        runs.append(Played(own, {one: presence.play(), TAX: holder(own.channel(TAX), one, number)}))
    return [*runs, Played(sums, {**stand_ins, COORDINATOR: adder(sums.channel(COORDINATOR))})], presences


def run(numbers: dict[PartyId, int], timeout_s: float = 5.0) -> list[dict[PartyId, Any]]:
    runs, presences = played(numbers, timeout_s)
    try:
        return asyncio.run(run_side_by_side(runs))
    finally:
        for presence in presences:
            presence.close()
        for one in runs:
            one.network.close()


def test_one_role_speaks_in_two_networks() -> None:
    results = run({NORTH: 3, SOUTH: 4})
    assert [results[0][NORTH], results[1][SOUTH]] == [7, 7]


def test_a_failure_in_one_network_ends_all_and_is_the_one_told() -> None:
    with pytest.raises(FedCreditError) as caught:
        run({NORTH: 3, SOUTH: -1})
    assert caught.value.code == "probe.broken"


def test_a_bank_that_says_nothing_is_named_in_the_sums() -> None:
    runs, presences = played({NORTH: 3, SOUTH: 4}, timeout_s=0.3)
    runs[1].roles[TAX].close()
    silent = asyncio.sleep(30)
    runs[1] = Played(runs[1].network, {**runs[1].roles, TAX: silent})
    with pytest.raises(TransportError):
        asyncio.run(run_side_by_side(runs))
    for presence in presences:
        presence.close()
    for one in runs:
        one.network.close()


def test_time_in_which_another_network_computes_is_nobody_s_waiting_time(virtual_time: Callable[[float], None]) -> None:
    runs, _ = played({NORTH: 3, SOUTH: 4}, timeout_s=0.3)
    runs[1].roles[TAX].close()
    runs[1] = Played(runs[1].network, {**runs[1].roles, TAX: slow(runs[1].network.channel(TAX), virtual_time)})
    results = asyncio.run(run_side_by_side(runs))
    assert results[0][NORTH] == 7
    for one in runs:
        one.network.close()


async def slow(channel: Channel, compute: Callable[[float], None]) -> None:
    await asyncio.sleep(0.01)
    for _ in range(4):
        compute(0.25)
        await asyncio.sleep(0)
    await channel.send(SOUTH, Count(number=4))
