"""One stream at the exchange: its join, and its reading and writing until either ends."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections.abc import Callable, Mapping

import grpc.aio

from fedcredit.errors import PeerError, TransportError
from fedcredit.runtime.exchange.frames import (
    VERSION,
    Alive,
    Beat,
    Chunk,
    FromParty,
    Head,
    Join,
    Leave,
    Receipt,
    Refused,
    Welcome,
    encode_frame,
    read_from_party,
)
from fedcredit.runtime.exchange.limits import ServerLimits
from fedcredit.runtime.exchange.room import Room, Stream
from fedcredit.types import PartyId, RunId

__all__ = ["Context", "join", "refuse", "serve"]

Context = grpc.aio.ServicerContext[bytes, bytes]

_REFUSAL_SECONDS = 1.0
"""How long a peer may take to read why it is refused."""

_TOKEN = 16


async def join(context: Context, party: PartyId, rooms: Mapping[RunId, Room], limits: ServerLimits) -> tuple[Room, int]:
    """Reads a party's join and lets it show that it is alive.

    Args:
        context: The call.
        party: Whose certificate it is.
        rooms: Open runs.
        limits: Of the exchange.

    Returns:
        The run, and the party's attempt.

    Raises:
        TransportError: refused; the code says why.
        PeerError: malformed frames.
    """
    try:
        async with asyncio.timeout(limits.handshake_s):
            wish = await _read(context)
            if not isinstance(wish, Join):
                raise PeerError("exchange.malformed", f"{party} began with something else than a join")
            _admit(wish, party, rooms)
            token = os.urandom(_TOKEN)
            await context.write(encode_frame(Welcome(token=token, window=limits.link_window)))
            answer = await _read(context)
    except TimeoutError:
        raise TransportError(
            "exchange.late", f"{party} did not join within {limits.handshake_s:g} s of its connection"
        ) from None
    if not isinstance(answer, Alive) or not hmac.compare_digest(answer.token, token):
        raise PeerError("exchange.malformed", f"{party} did not answer the welcome")
    return _admit(wish, party, rooms), wish.attempt  # again: meanwhile the run may have ended


def _admit(wish: Join, party: PartyId, rooms: Mapping[RunId, Room]) -> Room:
    """The run a party may join."""
    if wish.version != VERSION:
        raise TransportError("exchange.version", f"{party} speaks version {wish.version}, the exchange {VERSION}")
    if wish.party != party:
        raise TransportError("exchange.wrong-party", f"the certificate of {party} joins as another party")
    room = rooms.get(RunId(wish.run))
    if room is None:
        raise TransportError("exchange.run-not-open", "this run is not open at the exchange")
    if party not in room.members:
        raise TransportError("exchange.not-member", f"{party} is no member of run {room.run}")
    if room.stopped:
        raise TransportError("run.stopped", room.stopped)
    if wish.attempt < room.latest(party):
        raise TransportError(
            "exchange.superseded",
            f"{party} joins run {room.run} as attempt {wish.attempt}, attempt {room.latest(party)} was here already",
        )
    return room


async def _read(context: Context) -> FromParty:
    data = await _next(context)
    if data is None:
        raise TransportError("exchange.late", "the stream ended before its join")
    return read_from_party(data)[0]


async def _next(context: Context) -> bytes | None:
    """The next message; None at the end of the stream, which gRPC tells by an object of its own."""
    data: object = await context.read()
    return data if isinstance(data, bytes) else None


async def refuse(context: Context, code: str, text: str) -> None:
    """Tells a peer why its stream ends."""
    with contextlib.suppress(Exception):  # it may be gone; there is nobody else to tell
        async with asyncio.timeout(_REFUSAL_SECONDS):
            await context.write(encode_frame(Refused(code=code, text=text[:1024])))


async def serve(context: Context, stream: Stream, limits: ServerLimits, clock: Callable[[], float]) -> None:
    """Reads and writes a joined stream until it ends; ``stream.ending`` says why, unless the party left."""
    reader = asyncio.create_task(_read_all(context, stream, limits, clock))
    writer = asyncio.create_task(_write_all(context, stream, clock))
    gone = asyncio.create_task(stream.gone.wait())
    try:
        await asyncio.wait({reader, writer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if reader.done() and isinstance(error := reader.exception(), PeerError):
            stream.end(error.code, error.public)
        if stream.ending is not None:
            await asyncio.wait({writer}, timeout=_REFUSAL_SECONDS)  # it still says why
    finally:
        for task in (reader, writer, gone):
            task.cancel()
        await asyncio.gather(reader, writer, gone, return_exceptions=True)


async def _read_all(context: Context, stream: Stream, limits: ServerLimits, clock: Callable[[], float]) -> None:
    rate, room = float(limits.frames_per_s), stream.room
    allowance, last = rate, clock()
    while True:
        data = await _next(context)
        if data is None:
            return
        now = stream.heard = clock()
        allowance = min(rate, allowance + (now - last) * rate) - 1.0
        last = now
        if allowance < 0.0:
            await asyncio.sleep(-allowance / rate)
        frame, _ = read_from_party(data)
        if isinstance(frame, (Head, Chunk, Receipt)):
            there = room.forward(stream, frame, data)
            if there:
                await room.drained(stream, there)
        elif isinstance(frame, Beat):
            room.beat(stream, frame)
        elif isinstance(frame, Leave):
            return
        else:
            raise PeerError("exchange.malformed", f"{stream.party} joins twice on one stream")


async def _write_all(context: Context, stream: Stream, clock: Callable[[], float]) -> None:
    room = stream.room
    while stream.ending is None:
        stream.wake.clear()
        control = stream.control()
        data = stream.queue[0][0].data if control is None and stream.queue else control
        if data is None:
            await stream.wake.wait()
            continue
        stream.written, stream.writing = clock(), True
        await context.write(data)
        stream.writing = False
        room.bytes_out += len(data)
        if control is None and stream.ending is None:
            stream.release()
    await refuse(context, stream.ending.code, stream.ending.text)
