"""Lines that break, exchanges that die, and parties that fall silent: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.errors import TransportError
from fedcredit.runtime.exchange.client import Delivery, ExchangeLink, Parcel
from fedcredit.runtime.exchange.limits import LinkLimits, ServerLimits
from fedcredit.types import PartyId

if TYPE_CHECKING:
    from tests.e2e.exchange.conftest import Wire, World

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]
BANK, TAX, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "customs"))


async def talk(one: ExchangeLink, other: ExchangeLink, bodies: list[bytes]) -> None:
    """Sends all bodies both ways at once, and checks that all arrive, in order, once."""

    async def send(link: ExchangeLink, to: PartyId) -> None:
        for number, body in enumerate(bodies):
            await link.send([Parcel(to, b"%d" % number)], body)

    async def receive(link: ExchangeLink) -> list[Delivery]:
        return [await link.receive() for _ in bodies]

    first, second = one.settings.party, other.settings.party
    *_, here, there = await asyncio.gather(send(one, second), send(other, first), receive(one), receive(other))
    for got in (here, there):
        assert [each.head for each in got] == [b"%d" % number for number in range(len(bodies))]
        assert [each.body for each in got] == bodies
    await asyncio.gather(one.close(flush=True), other.close(flush=True))


def test_an_exchange_that_dies_and_comes_back_loses_nothing(world: World, run: Run, until: Until) -> None:
    bodies = [os.urandom(size) for size in (10, 300_000, 2_500_000, 40, 1_200_000, 90)]

    async def test() -> None:
        first = world.server()
        port = await first.start()
        first.open_run(world.RUN, world.names)
        async with world.links(port, "bank", "tax") as (bank, tax):
            talking = asyncio.create_task(talk(bank, tax, bodies))
            await until(lambda: first.snapshot().runs[world.RUN].frames >= 8)
            await first.stop(0)
            await asyncio.sleep(0.1)
            async with world.exchange(port=port):
                await talking

    run(test())


def test_lines_that_are_cut_again_and_again(world: World, make_wire: type[Wire], run: Run) -> None:
    bodies = [os.urandom(size) for size in (10, 700_000, 2_500_000, 0, 1_200_000, 90, 600_000)]

    async def test() -> None:
        async with world.exchange() as (_, port):
            wire = make_wire(port)
            wire.cut_every, wire.most_cuts = 1_500_000, 5
            async with world.links(await wire.start(), "bank", "tax") as (bank, tax):
                await talk(bank, tax, bodies)
                assert wire.cuts == wire.most_cuts
            await wire.stop()

    run(test())


def test_a_half_open_connection_is_found_and_made_again(
    world: World, make_wire: type[Wire], run: Run, until: Until
) -> None:
    async def test() -> None:
        limits = ServerLimits(heartbeat_s=0.1, silence_s=0.6)
        async with world.exchange(limits=limits) as (server, port):
            wire = make_wire(port)
            quick = LinkLimits(silence_s=0.6, heartbeat_s=0.1, backoff_s=0.1)
            async with (
                world.links(port, "tax") as (tax,),
                world.links(await wire.start(), "bank", limits=quick) as (bank,),
            ):
                wire.passing.clear()  # bytes go in and nothing comes out, as behind a firewall that forgot the line
                await bank.send([Parcel(TAX, b"")], b"into the void")
                await until(lambda: bool(server.snapshot().refused.get("exchange.silent")))
                wire.cut()
                wire.passing.set()
                assert (await tax.receive()).body == b"into the void"
            await wire.stop()

    run(test())


def test_a_slow_line_only_takes_longer(world: World, make_wire: type[Wire], run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port):
            wire = make_wire(port)
            wire.delay = 0.1  # 200 ms there and back
            through = await wire.start()
            slow = LinkLimits(silence_s=5.0)
            bank, tax = world.link("bank", through, limits=slow), world.link("tax", port)
            await asyncio.gather(bank.open(), tax.open())
            await talk(bank, tax, [b"x", os.urandom(300_000), b"y"])
            await wire.stop()
            assert set(server.snapshot().refused) <= {"exchange.silent"}

    run(test())


def test_a_line_that_stays_cut_is_given_up(world: World, make_wire: type[Wire], run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (_, port):
            wire = make_wire(port)
            async with world.links(await wire.start(), "bank", reconnect_s=0.5) as (bank,):
                await wire.stop()
                start = time.monotonic()
                with pytest.raises(TransportError, match=r"bank had no connection.*for 0\.5 s.*exchange\.unreachable"):
                    await bank.receive()
                assert time.monotonic() - start < 3

    run(test())


@contextmanager
def exchange_process(folder: Path, port: int, run: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    program = Path(__file__).with_name("exchange_process.py")
    command = [sys.executable, str(program), str(folder), str(port), run]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield child, int(child.stdout.readline()) if child.stdout else 0
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


@pytest.mark.slow
def test_kill_9_of_the_exchange_in_the_middle_of_transfers(world: World, run: Run, tmp_path: Path) -> None:
    world.write(tmp_path)
    bodies = [os.urandom(3_000_000) for _ in range(12)]

    async def test() -> None:
        child, port = stack.enter_context(exchange_process(tmp_path, 0, world.RUN))
        async with world.links(port, "bank", "tax") as (bank, tax):
            talking = asyncio.create_task(talk(bank, tax, bodies))
            for _ in range(3):
                await asyncio.sleep(0.15)
                child.kill()
                child.wait()
                again = exchange_process(tmp_path, port, world.RUN)
                child, _ = await asyncio.to_thread(stack.enter_context, again)
            await talking

    with contextlib.ExitStack() as stack:
        run(test())


@pytest.mark.slow
def test_a_cut_of_thirty_seconds_with_the_limits_of_production(world: World, make_wire: type[Wire], run: Run) -> None:
    async def test() -> None:
        async with world.exchange(limits=ServerLimits()) as (_, port):
            wire = make_wire(port)
            through = await wire.start()
            async with world.links(
                through, "bank", "tax", limits=LinkLimits(), connect_timeout_s=10.0, reconnect_s=120.0
            ) as (
                bank,
                tax,
            ):
                await bank.send([Parcel(TAX, b"before")], b"x" * 1_000_000)
                wire.passing.clear()
                await bank.send([Parcel(TAX, b"during")], b"y" * 3_000_000)
                await asyncio.sleep(30)
                wire.cut()
                wire.passing.set()
                got = [await tax.receive(), await tax.receive()]
                assert [one.head for one in got] == [b"before", b"during"]
                await bank.close(flush=True)
            await wire.stop()

    run(test())
