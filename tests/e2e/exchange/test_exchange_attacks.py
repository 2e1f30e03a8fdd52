"""Strangers, members that break the rules, an exchange that lies: refused by name, bounded, and no one else notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import psutil
import pytest

from fedcredit.errors import PeerError, TransportError
from fedcredit.runtime.exchange.client import Parcel
from fedcredit.runtime.exchange.frames import (
    Alive,
    Beat,
    Chunk,
    Head,
    Join,
    Receipt,
    Refused,
    Target,
    Welcome,
    encode_frame,
    read_from_exchange,
)
from fedcredit.runtime.exchange.limits import FRAME_BYTES, TRANSPORT_BYTES, LinkLimits, ServerLimits
from fedcredit.runtime.exchange.room import Room
from fedcredit.runtime.exchange.tls import KnownKey, key_digest
from fedcredit.types import PartyId, RunId

if TYPE_CHECKING:
    from tests.e2e.exchange.conftest import LoopLink, World

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]
BANK, TAX, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "customs"))
LEAST = 2 * FRAME_BYTES


async def refusal(call: Any) -> Refused:
    """The frame with which the exchange ends a stream."""
    async with asyncio.timeout(10):
        while isinstance(data := await call.read(), bytes):
            frame, _ = read_from_exchange(data)
            if isinstance(frame, Refused):
                return frame
    raise AssertionError(f"the stream ended without a word: {await call.code()}")


@asynccontextmanager
async def transfer(world: World, port: int) -> AsyncIterator[Callable[[], int]]:
    """Two parties that exchange payloads all the time; gives the number that has arrived, and fails if one does not."""
    async with world.links(port, "tax", "customs") as (tax, customs):
        arrived = 0

        async def play() -> None:
            nonlocal arrived
            while True:
                body = os.urandom(60_000)
                await tax.send([Parcel(CUSTOMS, b"%d" % arrived)], body)
                got = await customs.receive()
                assert (got.head, got.body) == (b"%d" % arrived, body)
                arrived += 1

        playing = asyncio.create_task(play())
        try:
            yield lambda: arrived
            before = arrived
            async with asyncio.timeout(20):
                while arrived < before + 3:
                    assert not playing.done()
                    await asyncio.sleep(0.01)
        finally:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing


# Who may come in.


def test_a_key_that_nobody_knows_is_refused_by_name(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port):
            stranger = world.authority.issue("bank")  # the right authority and name, another key
            with pytest.raises(TransportError, match=r"belongs to no member.*exchange\.unknown-key"):
                await world.link("bank", port, tls=stranger, connect_timeout_s=60).open()  # one dial, however long
            assert server.snapshot().refused == {"exchange.unknown-key": 1}

    run(test())


def test_certificates_of_another_consortium_end_in_the_handshake(
    world: World, make_world: type[World], run: Run
) -> None:
    async def test() -> None:
        other = make_world()
        async with world.exchange() as (server, port), transfer(world, port):
            with pytest.raises(TransportError, match=r"exchange\.unreachable"):
                await world.link("bank", port, tls=other.pem[BANK], reconnect_s=0.3).open()
            assert server.snapshot().refused == {}

    run(test())


def test_an_exchange_with_another_certificate_is_not_spoken_to(world: World, run: Run) -> None:
    async def test() -> None:
        world.pem[PartyId("exchange")] = world.authority.issue("customs")  # a member that plays the exchange
        async with world.exchange() as (server, port):
            with pytest.raises(TransportError, match=r"exchange\.unreachable"):
                await world.link("bank", port, reconnect_s=0.3).open()
            assert server.snapshot().runs[world.RUN].connected == {}

    run(test())


def test_operators_and_parties_of_other_runs_join_none(world: World, run: Run) -> None:
    async def test() -> None:
        world.known[key_digest(world.pem[CUSTOMS].certificate)] = KnownKey(CUSTOMS, "operator")
        async with world.exchange(open_run=False) as (server, port):
            server.open_run(world.RUN, [BANK, TAX])
            for name, code in (("customs", "exchange.kind"), ("utility", "exchange.not-member")):
                with pytest.raises(TransportError, match=code):
                    await world.link(name, port).open()
            for changed, code in (({"party": "tax"}, "exchange.wrong-party"), ({"version": 2}, "exchange.version")):
                async with world.raw("bank", port) as call:
                    fields: Any = {"run": world.RUN, "party": "bank", "attempt": 0, "version": 1, **changed}
                    await call.write(encode_frame(Join(**fields)))
                    assert (await refusal(call)).code == code

    run(test())


def test_a_member_that_is_revoked_is_put_out(world: World, run: Run) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port), world.links(port, "bank") as (bank,):
            server.replace_known({key: one for key, one in world.known.items() if one.party != BANK})
            with pytest.raises(TransportError, match=r"exchange\.unknown-key"):
                await bank.receive()

    run(test())


# TLS 1.3.


@asynccontextmanager
async def tls12_line(world: World, port: int, folder: Path) -> AsyncIterator[int]:
    """A line from a plain port of its own to the exchange, in TLS 1.2 and with the bank's certificate."""
    pem = world.pem[BANK]
    for name, content in (("ca", pem.ca), ("certificate", pem.certificate), ("key", pem.key)):
        (folder / name).write_bytes(content)
    context = ssl.create_default_context(cafile=str(folder / "ca"))
    context.load_cert_chain(folder / "certificate", folder / "key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="exchange")
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, here), pump(there, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


def test_tls_1_2_is_refused_by_name(world: World, run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            world.exchange() as (server, port),
            tls12_line(world, port, tmp_path) as plain,
            grpc.aio.insecure_channel(f"127.0.0.1:{plain}") as channel,
        ):
            call: Any = channel.stream_stream("/fedcredit.Exchange/Link")()
            found = await refusal(call)
            assert found.code == "exchange.tls-version"
            assert "TLSv1.2" in found.text
            assert server.snapshot().runs[world.RUN].connected == {}
            call.cancel()

    run(test())


def test_a_process_that_pins_tls_1_3_does_not_even_finish_an_older_handshake(world: World, tmp_path: Path) -> None:
    world.write(tmp_path)
    program = Path(__file__).with_name("exchange_process.py")
    with subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), "0", world.RUN], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            assert handshake(tmp_path, world, port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                handshake(tmp_path, world, port, ssl.TLSVersion.TLSv1_2)
        finally:
            child.kill()


def handshake(folder: Path, world: World, port: int, version: ssl.TLSVersion) -> str | None:
    (folder / "certificate").write_bytes(world.pem[BANK].certificate)
    (folder / "key").write_bytes(world.pem[BANK].key)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "certificate", folder / "key")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])

    async def test() -> str | None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="exchange")
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        try:
            return found.version()
        finally:
            writer.transport.abort()

    return asyncio.run(test())


# Frames that break the rules.


def bad_frames() -> dict[str, tuple[bytes, str]]:
    """Frames of the bank, and how the exchange refuses them."""
    head = Head(sender="bank", recipient="tax", sync=0, attempt=1, sequence=0, sealed=100)
    chunk = Chunk(sender="bank", attempt=1, index=0, to=[Target("tax", 0, 1)])
    receipt = Receipt(sender="bank", recipient="tax", sync=1, attempt=1, next=0, index=0, credit=1)

    def changed(frame: Any, **fields: Any) -> bytes:
        values = {name: getattr(frame, name) for name in frame.__struct_fields__}
        raw = b"x" * 100 if isinstance(frame, (Head, Chunk)) else b""
        return encode_frame(type(frame)(**{**values, **fields}), raw)

    return {
        "random bytes": (os.urandom(64), "exchange.malformed"),
        "empty": (b"", "exchange.malformed"),
        "a header longer than the frame": (b"\xff\xff1234", "exchange.malformed"),
        "another's name on a head": (changed(head, sender="customs"), "exchange.spoofed"),
        "another's name on a chunk": (changed(chunk, sender="customs"), "exchange.spoofed"),
        "another's name on a receipt": (changed(receipt, sender="customs"), "exchange.spoofed"),
        "a head for itself": (changed(head, recipient="bank"), "exchange.spoofed"),
        "a head for a stranger": (changed(head, recipient="x"), "exchange.spoofed"),
        "a chunk twice for one": (changed(chunk, to=[Target("tax", 0, 1)] * 2), "exchange.spoofed"),
        "a head longer than its bytes": (changed(head, sealed=101), "exchange.malformed"),
        "raw bytes behind a receipt": (encode_frame(receipt, b"x"), "exchange.malformed"),
        "an oversize chunk": (encode_frame(chunk, bytes((1 << 20) + 1)), "exchange.malformed"),
        "an oversize frame": (encode_frame(chunk, bytes(FRAME_BYTES)), "exchange.oversize"),
        "a second join": (encode_frame(Join(run="r", party="bank", attempt=1, version=1)), "exchange.malformed"),
        "waiting for a stranger": (encode_frame(Beat(waiting_for="nobody")), "exchange.malformed"),
        "a welcome": (encode_frame(Welcome(token=bytes(16), window=1)), "exchange.malformed"),
        "bytes after the header": (encode_frame(Beat(waiting_for=""), b"\x00"), "exchange.malformed"),
    }


@pytest.mark.parametrize("what", sorted(bad_frames()))
def test_a_bad_frame_ends_its_stream_and_no_other(world: World, run: Run, what: str) -> None:
    data, code = bad_frames()[what]

    async def test() -> None:
        async with world.exchange() as (server, port), transfer(world, port), world.raw("bank", port) as call:
            await world.join(call, "bank")
            await call.write(data)
            assert (await refusal(call)).code == code
            assert server.snapshot().refused == {code: 1}

    run(test())


def test_a_frame_that_grpc_cuts_off_ends_its_stream_and_no_other(world: World, run: Run, until: Until) -> None:
    async def test() -> None:
        async with world.exchange() as (server, port), transfer(world, port):
            bank = world.link("bank", port)
            options = [("grpc.ssl_target_name_override", "exchange"), ("grpc.max_send_message_length", -1)]
            credentials = grpc.ssl_channel_credentials(
                world.pem[BANK].ca, world.pem[BANK].key, world.pem[BANK].certificate
            )
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
                call: Any = channel.stream_stream("/fedcredit.Exchange/Link")()
                await world.join(call, "bank")
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(bytes(TRANSPORT_BYTES + 1))
                    while isinstance(await call.read(), bytes):
                        pass
                assert await call.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK}
            await until(lambda: server.snapshot().calls == 2)
            await bank.open()
            await bank.close(flush=False)

    run(test())


@pytest.mark.parametrize("what", ["beat", "noise", "alive"])
def test_a_stream_that_does_not_begin_with_a_join_is_refused(world: World, run: Run, what: str) -> None:
    first = {"beat": encode_frame(Beat()), "noise": b"\x00\x01\xc0", "alive": encode_frame(Alive(token=bytes(16)))}

    async def test() -> None:
        async with world.exchange() as (_, port), world.raw("bank", port) as call:
            await call.write(first[what])
            assert (await refusal(call)).code == "exchange.malformed"

    run(test())


def test_a_join_without_proof_of_life_takes_nobodys_place(world: World, run: Run) -> None:
    async def test() -> None:
        limits = ServerLimits(heartbeat_s=0.1, handshake_s=0.3)
        async with (
            world.exchange(limits=limits) as (server, port),
            world.links(port, "bank") as (bank,),
            world.raw("bank", port) as mute,
            world.raw("bank", port) as wrong,
        ):
            join = encode_frame(Join(run=world.RUN, party="bank", attempt=9, version=1))
            for call in (mute, wrong):
                await call.write(join)
            await wrong.write(encode_frame(Alive(token=bytes(16))))
            assert (await refusal(wrong)).code == "exchange.malformed"
            assert (await refusal(mute)).code == "exchange.late"
            assert server.snapshot().runs[world.RUN].connected == {BANK: 1}
            bank._check()

    run(test())


# Those who take and give nothing.


def test_slow_openers_are_put_out_and_disturb_nobody(world: World, run: Run) -> None:
    async def test() -> None:
        limits = ServerLimits(heartbeat_s=0.1, handshake_s=0.3)
        async with world.exchange(limits=limits) as (server, port), transfer(world, port):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]  # not even a TLS hello
            async with world.raw("bank", port) as call:  # TLS, a stream, and no frame
                assert (await refusal(call)).code == "exchange.late"
            async with asyncio.timeout(5):
                for reader, writer in silent:
                    while await reader.read(1000):
                        pass  # the exchange may send its settings before it closes
                    writer.close()
            assert server.snapshot().refused == {"exchange.late": 1}

    run(test())


def test_streams_have_a_limit_for_each_party_and_for_all(world: World, run: Run, until: Until) -> None:
    async def test() -> None:
        limits = ServerLimits(heartbeat_s=0.1, max_streams_party=3, max_streams=5)
        async with world.exchange(limits=limits) as (server, port), contextlib.AsyncExitStack() as stack:
            for name, count in (("bank", 3), ("tax", 2)):
                for _ in range(count):
                    await stack.enter_async_context(world.raw(name, port))
            await until(lambda: server.snapshot().calls == 5)
            fourth = await stack.enter_async_context(world.raw("bank", port))
            assert "streams" in (await refusal(fourth)).text
            async with world.raw("customs", port) as call:
                found = await refusal(call)
            assert (found.code, found.text) == ("exchange.busy", "all 5 streams of the exchange are taken")

    run(test())


def test_a_reader_that_never_reads_makes_nothing_grow(world: World, run: Run, until: Until) -> None:
    """The tax office joins, promises endless credit and reads nothing; the bank sends and sends."""
    limits = ServerLimits(heartbeat_s=0.1, link_window=LEAST, run_window=2 * LEAST, stall_s=0.5)

    async def test() -> None:
        async with (
            world.exchange(limits=limits) as (server, port),
            world.links(port, "bank", "customs") as (bank, customs),
            world.raw("tax", port) as call,
        ):
            await world.join(call, "tax")
            endless = Receipt(sender="tax", recipient="bank", sync=1, attempt=1, next=0, index=0, credit=1 << 40)
            await call.write(encode_frame(endless))
            memory = psutil.Process().memory_info().rss
            body = os.urandom(12_000_000)
            await bank.send([Parcel(TAX, b"")], body)
            room = server._rooms[world.RUN]
            async with asyncio.timeout(10):
                while not server.snapshot().refused.get("exchange.stalled"):
                    assert room.stored <= limits.run_window + FRAME_BYTES
                    await asyncio.sleep(0.02)
            assert server.snapshot().runs[world.RUN].most_stored <= limits.run_window + FRAME_BYTES
            assert psutil.Process().memory_info().rss - memory < 80_000_000  # twice the body, and the queues
            await bank.send([Parcel(CUSTOMS, b"")], b"the others go on")
            assert (await customs.receive()).body == b"the others go on"
            await until(lambda: room.stored == 0)
            assert server.snapshot().calls == 3  # the stalled one keeps its slot while gRPC keeps its messages
            call.cancel()
            await until(lambda: server.snapshot().calls == 2)

    run(test())


def test_a_role_that_never_receives_stops_its_sender_at_the_window(world: World, run: Run) -> None:
    async def test() -> None:
        window = LinkLimits(link_window=LEAST, window_wait_s=0.5)
        async with (
            world.exchange() as (server, port),
            world.links(port, "bank", limits=window) as (bank,),
            world.links(port, "tax", limits=window) as (tax,),
        ):
            body, sent = os.urandom(600_000), 0

            async def send() -> None:
                nonlocal sent
                for _ in range(40):
                    await bank.send([Parcel(TAX, b"")], body)
                    sent += 1

            with pytest.raises(TransportError, match=r"tax has taken nothing for 0\.5 s \[exchange\.window\]"):
                await send()
            assert sent * len(body) < 4 * LEAST
            assert tax._desk._inbox._sources[BANK].held < 2 * LEAST
            assert server.snapshot().runs[world.RUN].stored == 0
            for _ in range(sent):
                assert (await tax.receive()).body == body

    run(test())


def test_a_flood_of_frames_is_slowed_down(world: World, run: Run) -> None:
    async def test() -> None:
        limits = ServerLimits(heartbeat_s=0.1, frames_per_s=200)
        async with (
            world.exchange(limits=limits) as (server, port),
            transfer(world, port) as arrived,
            world.raw("bank", port) as call,
        ):
            await world.join(call, "bank")
            junk = encode_frame(Receipt(sender="bank", recipient="tax", sync=0, attempt=0, next=0, index=0, credit=0))

            async def flood() -> None:
                while True:
                    await call.write(junk)

            before, payloads = server.snapshot().runs[world.RUN].frames, arrived()
            flooding = asyncio.create_task(flood())
            await asyncio.sleep(1.0)
            flooding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flooding
            others = 3 * (arrived() - payloads + 1)  # a head, a receipt, now and then one more
            assert server.snapshot().runs[world.RUN].frames - before - others < 200 + 200 + 100  # burst, a second, late

    run(test())


# Garbage in numbers.


async def garbage(port: int, count: int) -> None:
    """Connections with noise, half a hello, or nothing, some 50 at a time."""
    hello = bytes.fromhex("16030100c8010000c40303") + os.urandom(40)
    kinds = [os.urandom(300), hello, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]
    gate = asyncio.Semaphore(50)

    async def one(number: int) -> None:
        async with gate:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(kinds[number % len(kinds)])
                await writer.drain()
                writer.transport.abort()

    await asyncio.gather(*(one(number) for number in range(count)))


async def malformed(world: World, port: int, count: int) -> None:
    """Streams of a member that send noise."""
    for number in range(count):
        async with world.raw("bank", port) as call:
            if number % 2:
                await world.join(call, "bank")
            await call.write(os.urandom(50))
            assert (await refusal(call)).code == "exchange.malformed"


async def under_fire(world: World, until: Until, connections: int, streams: int) -> None:
    async with world.exchange() as (server, port), transfer(world, port) as arrived:
        before = arrived()
        await asyncio.gather(garbage(port, connections), malformed(world, port, streams))
        assert arrived() > before
        assert server.snapshot().refused == {"exchange.malformed": streams}
        await until(lambda: sorted(server.snapshot().runs[world.RUN].connected) == [CUSTOMS, TAX])


def test_hundreds_of_garbage_connections_do_not_disturb_a_transfer(world: World, run: Run, until: Until) -> None:
    run(under_fire(world, until, 500, 10))


@pytest.mark.slow
def test_ten_thousand_garbage_connections_do_not_disturb_a_transfer(world: World, run: Run, until: Until) -> None:
    files = psutil.Process().num_fds()
    run(under_fire(world, until, 10_000, 200))
    assert psutil.Process().num_fds() < files + 100


# An exchange that lies.


@pytest.mark.parametrize("how", ["flips a bit of a head", "flips a bit of a chunk", "drops a head", "sends twice"])
def test_an_exchange_that_tampers_is_found_out(
    world: World, run: Run, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Room.forward
    body = os.urandom(400_000)

    def forward(room: Room, stream: Any, frame: Any, data: bytes) -> Any:
        if isinstance(frame, Head) and frame.sequence == 2 and frame.sender == BANK:
            if how == "flips a bit of a head":
                data = data[:-1] + bytes([data[-1] ^ 1])
            elif how == "drops a head":
                return []
            elif how == "sends twice":
                honest(room, stream, frame, data)
        if isinstance(frame, Chunk) and how == "flips a bit of a chunk" and frame.to[0].sequence == 2:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return honest(room, stream, frame, data)

    async def test() -> None:
        monkeypatch.setattr(Room, "forward", forward)
        async with world.exchange() as (_, port), world.links(port, "bank", "tax") as (bank, tax):
            await bank.send([Parcel(TAX, b"1")], body)
            await bank.send([Parcel(TAX, b"2")], body)
            await bank.send([Parcel(TAX, b"3")], body)
            assert (await tax.receive()).head == b"1"
            if how == "sends twice":
                assert [(await tax.receive()).head for _ in range(2)] == [b"2", b"3"]
                assert tax.dropped == 1
                return
            with pytest.raises(PeerError) as caught:
                await tax.receive()
            expected = "sealed.order" if how == "drops a head" else "sealed.forged"
            assert (caught.value.code, caught.value.culprit) == (expected, "bank")

    run(test())


@pytest.mark.slow
def test_twenty_four_parties_in_eight_runs_at_once(make_world: type[World], run: Run) -> None:
    names = [f"party{number:02d}" for number in range(24)]
    world = make_world(names)
    runs = [RunId(f"run-{number}") for number in range(8)]

    async def play(link: LoopLink, rounds: int) -> None:
        me, peers = link.settings.party, link.settings.peers
        for number in range(rounds):
            await link.send([Parcel(peer, b"%d" % number) for peer in peers], me.encode() * 200)
        counts = dict.fromkeys(peers, 0)
        for _ in range(rounds * len(peers)):
            got = await link.receive()
            assert got.head == b"%d" % counts[got.sender]
            assert got.body == got.sender.encode() * 200
            counts[got.sender] += 1
        await link.close()

    async def test() -> None:
        async with world.exchange(open_run=False, limits=ServerLimits()) as (server, port):
            for one in runs:
                server.open_run(one, world.names)
            patient: Any = {"limits": LinkLimits(), "connect_timeout_s": 100.0, "reconnect_s": 200.0}
            links = [world.loop_link(name, port, run=one, **patient) for one in runs for name in names]
            await asyncio.gather(*(link.open() for link in links))
            found = server.snapshot()
            assert [len(one.connected) for one in found.runs.values()] == [24] * 8
            await asyncio.gather(*(play(link, 1) for link in links))
            assert server.snapshot().refused == {}

    run(test())
