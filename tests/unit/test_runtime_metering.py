"""Processor time goes to the party that used it; modelled network time follows from sizes alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from fedcredit.crypto.sealed_body import LEAST_CHUNK, PLAIN_CHUNK, chunk_bytes
from fedcredit.errors import SpecError
from fedcredit.runtime import metering
from fedcredit.runtime.metering import Meter, NetworkModel, metered
from fedcredit.runtime.waiting import Deadline
from fedcredit.types import COORDINATOR, PartyId

A, B, C, D = (PartyId(name) for name in "abcd")


def _burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_steps_are_charged_to_their_own_coroutine() -> None:
    async def role(seconds: float) -> float:
        for _ in range(3):
            _burn(seconds / 3)
            await asyncio.sleep(0)
        return seconds

    async def run() -> list[float]:
        return list(await asyncio.gather(metered(role(0.15), (busy, both)), metered(role(0.0), (lazy, both))))

    busy, lazy, both = Meter(), Meter(), Meter()
    assert asyncio.run(run()) == [0.15, 0.0]
    assert busy.cpu >= 0.15
    assert lazy.cpu < 0.05
    assert both.cpu == pytest.approx(busy.cpu + lazy.cpu, abs=0.02)


def test_errors_and_cancellation_pass_through() -> None:
    seen: list[str] = []

    async def failing() -> None:
        await asyncio.sleep(0)
        raise SpecError("a.b", "text")

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run() -> None:
        with pytest.raises(SpecError):
            await metered(failing(), (Meter(),))
        task = asyncio.create_task(metered(waiting(), (Meter(),)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert seen == ["cancelled"]


def test_time_computed_is_not_time_waited(virtual_time: Callable[[float], None]) -> None:
    async def run() -> bool:
        meter = Meter()
        deadline = Deadline(0.05, meter)

        async def compute() -> None:
            virtual_time(0.2)

        await metered(compute(), (meter,))
        return await deadline.wait(asyncio.Event())

    assert asyncio.run(run()) is True


@pytest.mark.usefixtures("virtual_time")
def test_time_waited_is_bounded() -> None:
    async def run() -> list[bool]:
        deadline = Deadline(0.05, Meter())
        return [await deadline.wait(asyncio.Event()) for _ in range(2)]

    assert asyncio.run(run())[-1] is False


SIZE = 60_000
SMALL = (SIZE + metering._MESSAGE_BYTES) * metering._HEADERS
"""Bytes on each line for an envelope of one piece."""


def model(latency_ms: float = 100) -> NetworkModel:
    return NetworkModel(bandwidth_mbps=SMALL * 8 / 1e6, latency_ms=latency_ms)  # such an envelope takes a second


def test_a_message_takes_its_time_on_both_lines_and_the_latency() -> None:
    network = model()
    assert network.sent(A, {B: SIZE})[B] == pytest.approx(2.1, rel=0.01)
    assert network.uploaded == {A: pytest.approx(SMALL, abs=2)}
    assert network.downloaded == {B: pytest.approx(SMALL, abs=2)}


def test_messages_queue_on_each_line() -> None:
    network = model()
    assert network.sent(A, {B: SIZE})[B] == pytest.approx(2.1, rel=0.01)
    assert network.sent(A, {C: SIZE})[C] == pytest.approx(3.1, rel=0.01)  # behind the first on the way up
    assert network.sent(D, {B: SIZE})[B] == pytest.approx(3.1, rel=0.01)  # up at once, behind it on the way down
    assert network.sent(B, {A: SIZE})[A] == pytest.approx(2.1, rel=0.01)  # up and down do not disturb each other


def test_a_party_sends_once_it_has_read_what_it_waited_for() -> None:
    network = model()
    network.received(B, network.sent(A, {B: SIZE})[B])
    assert network.sent(B, {A: SIZE})[A] == pytest.approx(4.2, rel=0.01)
    assert network.seconds == pytest.approx(4.15, rel=0.01)  # of the lines: nobody has read it


def test_a_broadcast_goes_up_once() -> None:
    network = model()
    arrivals = network.sent(A, dict.fromkeys((B, C, D), SIZE))
    assert [arrivals[to] for to in (B, C, D)] == pytest.approx([2.1] * 3, rel=0.02)
    assert network.uploaded[A] == pytest.approx(SMALL, rel=0.02)
    assert sum(network.downloaded.values()) == pytest.approx(3 * SMALL, rel=0.02)


@pytest.mark.parametrize("size", [8 * LEAST_CHUNK, 50 * PLAIN_CHUNK])
def test_pieces_of_a_large_message_overlap(size: int) -> None:
    """Down goes one piece behind up."""
    alone = NetworkModel(bandwidth_mbps=8).sent(A, {COORDINATOR: size})[COORDINATOR]
    piece = chunk_bytes(size) * metering._HEADERS / 1e6
    assert NetworkModel(bandwidth_mbps=8).sent(A, {B: size})[B] == pytest.approx(alone + piece, rel=0.01)


def test_who_sits_beside_the_exchange_has_no_line() -> None:
    network = model()
    assert network.sent(A, {COORDINATOR: SIZE})[COORDINATOR] == pytest.approx(1.05, rel=0.01)
    assert network.sent(COORDINATOR, {B: SIZE})[B] == pytest.approx(1.05, rel=0.01)
    assert COORDINATOR not in {**network.uploaded, **network.downloaded}


def test_small_messages_cost_what_is_carried_beside_them() -> None:
    network = NetworkModel(bandwidth_mbps=8)
    network.sent(A, {B: 0})
    assert network.uploaded[A] == network.downloaded[B] >= metering._MESSAGE_BYTES


def test_an_unmodelled_network_takes_no_time() -> None:
    network = NetworkModel()
    network.received(B, network.sent(A, {B: 10**9})[B])
    assert network.seconds == 0
    for figures in ((-1, 0), (0, -1), (float("nan"), 0)):
        with pytest.raises(SpecError):
            NetworkModel(*figures)
