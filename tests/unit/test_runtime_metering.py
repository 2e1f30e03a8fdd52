"""Processor time goes to the party that used it; modelled network time follows from sizes alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from fedcredit.errors import SpecError
from fedcredit.runtime.metering import Meter, NetworkModel, metered
from fedcredit.runtime.waiting import Deadline
from fedcredit.types import PartyId

A, B = PartyId("a"), PartyId("b")


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


def test_time_computed_is_not_time_waited() -> None:
    async def run() -> bool:
        meter = Meter()
        deadline = Deadline(0.05, meter)

        async def compute() -> None:
            _burn(0.2)

        await metered(compute(), (meter,))
        return await deadline.wait(asyncio.Event())

    assert asyncio.run(run()) is True


def test_time_waited_is_bounded() -> None:
    async def run() -> list[bool]:
        deadline = Deadline(0.05, Meter())
        return [await deadline.wait(asyncio.Event()) for _ in range(2)]

    started = time.perf_counter()
    assert asyncio.run(run())[-1] is False
    assert time.perf_counter() - started < 30


def test_messages_queue_on_the_uplink_and_travel_in_parallel() -> None:
    model = NetworkModel(bandwidth_mbps=8, latency_ms=100)  # a megabyte a second
    first, second = model.sent(A, 1_000_000), model.sent(A, 1_000_000)
    other = model.sent(B, 1_000_000)
    assert [first, second, other] == pytest.approx([1.1, 2.1, 1.1])
    model.received(B, second)
    assert model.sent(B, 0) == pytest.approx(2.2)
    assert model.seconds == pytest.approx(2.1)


def test_an_unmodelled_network_takes_no_time() -> None:
    model = NetworkModel()
    model.received(B, model.sent(A, 10**9))
    assert model.seconds == 0
    for figures in ((-1, 0), (0, -1), (float("nan"), 0)):
        with pytest.raises(SpecError):
            NetworkModel(*figures)
