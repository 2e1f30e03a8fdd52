"""Payloads through a running exchange over mutual TLS, and what it says of the parties."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.crypto.sealed_body import LEAST_CHUNK, PLAIN_CHUNK
from fedcredit.errors import SpecError, TransportError
from fedcredit.runtime.exchange.client import ExchangeLink, Parcel, PeerRestarted
from fedcredit.runtime.exchange.limits import LinkLimits
from fedcredit.types import PartyId

if TYPE_CHECKING:
    from tests.e2e.exchange.conftest import World

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]
BANK, TAX, CUSTOMS, UTILITY = (PartyId(name) for name in ("bank", "tax", "customs", "utility"))
QUICK = LinkLimits(silence_s=1.0, heartbeat_s=0.1, backoff_s=0.2, flush_s=5.0)


async def told(link: ExchangeLink, true: Callable[[], bool]) -> None:
    """Waits for something the exchange tells."""
    async with asyncio.timeout(10):
        while not true():
            await link._news_or(0.05)


def test_payloads_arrive_in_order_and_unchanged(world: World, run: Run) -> None:
    sizes = [0, 1, 1024, 1025, LEAST_CHUNK, LEAST_CHUNK + 1, PLAIN_CHUNK, PLAIN_CHUNK + 1, 9 * PLAIN_CHUNK, 7]
    bodies = [os.urandom(size) for size in sizes]

    async def test() -> None:
        async with world.exchange() as (server, port), world.links(port) as (bank, tax, customs, _):
            for number, body in enumerate(bodies):
                await bank.send([Parcel(TAX, b"%d" % number)], body)
                await customs.send([Parcel(TAX, b"c%d" % number)], body[:10])
            got = [await tax.receive() for _ in range(2 * len(bodies))]
            of_bank = [one for one in got if one.sender == BANK]
            assert [one.head for one in of_bank] == [b"%d" % number for number in range(len(bodies))]
            assert [one.body for one in of_bank] == bodies
            assert [one.body for one in got if one.sender == CUSTOMS] == [body[:10] for body in bodies]
            await bank.close(flush=True)
            assert server.snapshot().refused == {}

    run(test())


def test_a_body_for_three_is_uploaded_once(world: World, run: Run) -> None:
    body = os.urandom(4_000_000)

    async def test() -> None:
        async with world.exchange() as (server, port), world.links(port) as (bank, *others):
            parcels = [Parcel(peer, peer.encode()) for peer in (TAX, CUSTOMS, UTILITY)]
            await bank.send(parcels, b"")  # once all have answered, nobody is behind
            await asyncio.gather(*(one.receive() for one in others))
            await bank.send(parcels, body)
            got = await asyncio.gather(*(one.receive() for one in others))
            assert [one.body for one in got] == [body] * 3
            assert [one.head for one in got] == [b"tax", b"customs", b"utility"]
            state = server.snapshot().runs[world.RUN]
            assert len(body) < state.bytes_in < 1.01 * len(body)
            assert state.bytes_out > 3 * len(body)
            assert state.most_stored < 1.1 * len(body)
            assert state.stored == 0

    run(test())


def test_a_party_that_joins_later_gets_what_was_sent_before(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (_, port), world.links(port, "bank") as (bank,):
            await bank.send([Parcel(TAX, b"early"), Parcel(CUSTOMS, b"early")], b"x" * 3000)
            for name in ("tax", "customs"):
                async with world.links(port, name) as (late,):
                    assert (await late.receive()).head == b"early"
                    await late.close(flush=True)
            await bank.close(flush=True)

    run(test())


def test_a_run_that_opens_later_is_waited_for(world: World, run: Run, until: Until) -> None:
    async def test() -> None:
        async with world.exchange(open_run=False) as (server, port):
            bank = world.link("bank", port)
            opening = asyncio.create_task(bank.open())
            await until(lambda: bool(server.snapshot().refused.get("exchange.run-not-open")))
            assert not opening.done()
            server.open_run(world.RUN, world.names)
            server.open_run(world.RUN, world.names)
            with pytest.raises(SpecError, match=r"exchange\.members"):
                server.open_run(world.RUN, world.names[:2])
            await opening
            await bank.close(flush=True)

    run(test())


def test_a_run_that_never_opens_is_given_up(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange(open_run=False) as (_, port):
            with pytest.raises(TransportError, match=r"run is not open.*exchange\.unreachable"):
                await world.link("bank", port, reconnect_s=0.4).open()

    run(test())


def test_an_exchange_that_is_not_there_is_given_up(world: World, run: Run) -> None:
    async def test() -> None:
        link = world.link("bank", 1, reconnect_s=0.3)
        with pytest.raises(TransportError, match=r"no connection .*127\.0\.0\.1:1.*exchange\.unreachable"):
            await link.open()
        with pytest.raises(TransportError, match=r"exchange\.unreachable"):
            await link.send([Parcel(TAX, b"")], b"")
        await link.close(flush=True)

    run(test())


def test_a_stopped_run_ends_everywhere_with_its_reason(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port), world.links(port, "bank", "tax") as (bank, tax):
            waiting = asyncio.create_task(tax.receive())
            await bank.send([Parcel(CUSTOMS, b"")], b"nobody will read this")
            server.stop_run(world.RUN, "the operator changed its mind")
            with pytest.raises(TransportError, match=r"changed its mind \[run\.stopped\]"):
                await waiting
            with pytest.raises(TransportError, match=r"run\.stopped"):
                await bank.receive()
            with pytest.raises(TransportError, match=r"changed its mind \[run\.stopped\]"):
                await world.link("customs", port).open()
            server.close_run(world.RUN)
            server.close_run(world.RUN)
            assert server.snapshot().runs == {}

    run(test())


def test_a_peer_that_begins_again_is_noticed_and_joined(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (_, port):
            keys = {name: world.keys(name) for name in ("bank", "tax")}
            async with world.links(port, "bank") as (bank,):
                async with world.links(port, "tax") as (tax,):
                    await bank.send([Parcel(TAX, b"1")], b"one")
                    assert (await tax.receive()).body == b"one"
                    await bank.send([Parcel(TAX, b"2")], b"lost with the life of the tax office")
                async with world.links(port, "tax", attempt=2, keys=keys["tax"]) as (tax,):
                    with pytest.raises(PeerRestarted) as caught:
                        await bank.receive()
                    assert (caught.value.party, caught.value.attempt) == (TAX, 2)
                    await bank.close(flush=False)
                    async with world.links(port, "bank", attempt=2, keys=keys["bank"]) as (bank_again,):
                        await bank_again.send([Parcel(TAX, b"again")], b"new")
                        assert (await tax.receive()).body == b"new"

    run(test())


def test_an_older_life_does_not_come_back_and_a_twin_ends_the_first(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port), world.links(port, "bank", attempt=3) as (bank,):
            with pytest.raises(TransportError, match=r"attempt 3 was here already \[exchange\.superseded\]"):
                await world.link("bank", port, 2).open()
            twin = world.link("bank", port, 3)
            await twin.open()
            with pytest.raises(TransportError, match=r"exchange\.replaced"):
                await bank.receive()
            newer = world.link("bank", port, 4)
            await newer.open()
            with pytest.raises(TransportError, match=r"exchange\.superseded"):
                await twin.receive()
            assert server.snapshot().runs[world.RUN].connected == {BANK: 4}
            await newer.close(flush=False)
            await twin.close(flush=False)

    run(test())


def test_presence_says_who_is_there_and_whom_it_waits_for(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (_, port), world.links(port, "bank") as (bank,):
            assert bank.presence()[BANK].connected
            assert not bank.presence()[TAX].connected
            async with world.links(port, "tax") as (tax,):
                await told(bank, lambda: bank.presence()[TAX].connected)
                tax.note(CUSTOMS)
                await told(bank, lambda: bank.presence()[TAX].waiting_for == CUSTOMS)
                tax.note(None)
                await told(bank, lambda: bank.presence()[TAX].waiting_for is None)
            await told(bank, lambda: not bank.presence()[TAX].connected)
            assert bank.presence()[TAX].seconds < 5

    run(test())


def test_closing_waits_for_acknowledgements_and_names_who_gave_none(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (_, port), world.links(port, "tax") as (tax,):
            bank = world.link("bank", port, limits=LinkLimits(flush_s=0.3))
            await bank.open()
            await bank.send([Parcel(TAX, b""), Parcel(CUSTOMS, b"")], b"x" * 2000)
            with pytest.raises(TransportError, match=r"^customs did not acknowledge.*exchange\.unacknowledged"):
                await bank.close(flush=True)
            assert (await tax.receive()).body == b"x" * 2000
            with pytest.raises(TransportError, match=r"exchange\.closed"):
                await bank.receive()

    run(test())


def test_a_role_that_computes_does_not_silence_its_link(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port), world.links(port, "tax") as (tax,):

            async def compute() -> None:
                async with world.links(port, "bank") as (bank,):
                    await told(bank, lambda: bank.presence()[TAX].connected)
                    time.sleep(1.2)  # noqa: ASYNC251 - the loop is held up on purpose, longer than the silence allowed
                    await bank.send([Parcel(TAX, b"")], b"done")
                    await bank.close(flush=True)

            await asyncio.to_thread(lambda: asyncio.run(compute()))
            assert (await tax.receive()).body == b"done"
            assert server.snapshot().refused == {}

    run(test())


def test_keys_of_another_run_or_roster_are_refused(world: World) -> None:
    with pytest.raises(SpecError, match=r"exchange\.keys"):
        world.link("bank", 1, keys=world.keys("tax"))
    with pytest.raises(SpecError, match=r"exchange\.keys"):
        world.link("bank", 1, keys=world.keys("bank", ("bank", "tax")))
