"""A party's connection to the exchange: made, watched, and made again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc.aio

from fedcredit.errors import FedCreditError, TransportError
from fedcredit.runtime.exchange.desk import Desk
from fedcredit.runtime.exchange.frames import (
    METHOD,
    SERVICE,
    VERSION,
    Alive,
    Join,
    Leave,
    Refused,
    Welcome,
    encode_frame,
    read_from_exchange,
)
from fedcredit.runtime.exchange.tls import client_credentials, client_options
from fedcredit.runtime.exchange.types import LinkSettings, PeerRestarted

__all__ = ["PASSING", "Dialer"]

PASSING = frozenset({"exchange.run-not-open", "exchange.busy", "exchange.silent", "exchange.stalled", "exchange.late"})
"""Refusals that may be over at the next attempt; all others are final."""

_FIRST_PAUSE = 1 / 20
_LEAVE_SECONDS = 1.0

_Call = grpc.aio.StreamStreamCall[bytes, bytes]


class Dialer:
    """Keeps one link connected; lives in the link's own thread and event loop.

    Args:
        settings: The link.
        desk: Its state.
    """

    def __init__(self, settings: LinkSettings, desk: Desk) -> None:
        self._settings = settings
        self._desk = desk
        self._wake = asyncio.Event()
        self._leaving = False
        self._left = asyncio.Event()
        self._heard = 0.0
        self._why = "no connection was made"
        self.joined = asyncio.Event()

    def wake(self) -> None:
        """There may be something to write."""
        self._wake.set()

    def leave(self) -> None:
        """Ends the link once what can be written now is written."""
        self._leaving = True
        self._desk.hurry()
        self._left.set()
        self._wake.set()

    async def run(self) -> None:
        """Connects until `leave`.

        Raises:
            TransportError: no connection for ``reconnect_s``, or the exchange refuses for good.
            PeerError: bytes that do not authenticate.
            PeerRestarted: a peer began again.
        """
        limits = self._settings.limits
        pause = limits.backoff_s * _FIRST_PAUSE
        lost = time.monotonic()
        while not self._leaving:
            self.joined.clear()
            await self._connection()
            if self.joined.is_set():
                pause, lost = limits.backoff_s * _FIRST_PAUSE, time.monotonic()
            left = self._settings.reconnect_s - (time.monotonic() - lost)
            if left <= 0:
                raise TransportError(
                    "exchange.unreachable",
                    f"{self._settings.party} had no connection to the exchange at {self._settings.address} for "
                    f"{self._settings.reconnect_s:g} s: {self._why}",
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), min(pause, left))
            pause = min(2 * pause, limits.backoff_s)

    async def _connection(self) -> None:
        """One connection, from its handshake to its end, whatever ends it."""
        settings = self._settings
        channel = grpc.aio.secure_channel(
            settings.address, client_credentials(settings.tls), client_options(settings.server_name)
        )
        try:
            call: _Call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            try:
                async with asyncio.timeout(settings.connect_timeout_s):
                    self._desk.online(await self._join(call))
                    await self._frame(call)  # the exchange tells who is there: it has taken the join
                self.joined.set()
                await self._talk(call)
            finally:
                call.cancel()
        except (FedCreditError, PeerRestarted):
            raise
        except TimeoutError:
            self._why = f"no answer within {settings.connect_timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - whatever gRPC raises, the connection is over
            self._why = _reason(error)
        finally:
            self._desk.offline()
            await channel.close()

    async def _join(self, call: _Call) -> int:
        """Says who this is, and shows that it reads.

        Returns:
            The exchange's window.
        """
        settings = self._settings
        join = Join(run=settings.run, party=settings.party, attempt=settings.attempt, version=VERSION)
        # The answer is awaited first: who is refused on sight may be told, and the stream ended, before a join is out.
        data, _ = await asyncio.gather(call.read(), call.write(encode_frame(join)), return_exceptions=True)
        if isinstance(data, Exception):
            raise data
        if not isinstance(data, bytes):
            raise ConnectionError(await _ending(call))
        frame, _ = read_from_exchange(data)
        if isinstance(frame, Refused):
            self._refused(frame)
        if not isinstance(frame, Welcome):
            raise ConnectionError("the exchange did not welcome")
        await call.write(encode_frame(Alive(token=frame.token)))
        return frame.window

    async def _talk(self, call: _Call) -> None:
        """Reads and writes until either ends."""
        tasks = [asyncio.create_task(one) for one in (self._read(call), self._write(call), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=tasks.index):  # what the reader found says most
                task.result()
        finally:
            call.cancel()
            await asyncio.wait(tasks[:1], timeout=_LEAVE_SECONDS)  # gRPC ends the read; so nothing of it comes later
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, call: _Call) -> None:
        while True:
            await self._frame(call)
            self._wake.set()

    async def _frame(self, call: _Call) -> None:
        """Reads one frame."""
        data = await call.read()
        if not isinstance(data, bytes):
            raise ConnectionError(await _ending(call))
        self._heard = time.monotonic()
        frame = self._desk.incoming(data)
        if isinstance(frame, Refused):
            self._refused(frame)

    async def _write(self, call: _Call) -> None:
        limits, loop, wake = self._settings.limits, asyncio.get_running_loop(), self._wake
        beat = time.monotonic() + limits.heartbeat_s
        while True:
            if (now := time.monotonic()) >= beat:
                self._desk.beat()
                beat = now + limits.heartbeat_s
            wake.clear()
            frame = self._desk.outgoing()
            if frame is not None:
                await call.write(frame)
            elif self._leaving:
                await self._say_goodbye(call)
                return
            else:
                timer = loop.call_later(self._desk.pause(max(0.0, beat - now)), wake.set)
                await wake.wait()
                timer.cancel()

    @staticmethod
    async def _say_goodbye(call: _Call) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await call.write(encode_frame(Leave()))
                await call.done_writing()
                while isinstance(await call.read(), bytes):
                    pass

    async def _watch(self) -> None:
        """Ends the connection when the exchange has been silent too long, or does not take what is left at the end."""
        silence = self._settings.limits.silence_s
        while time.monotonic() - self._heard < silence:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), silence / 8)
                await asyncio.sleep(2 * _LEAVE_SECONDS)
                return
        raise ConnectionError(f"the exchange was silent for {silence:g} s")

    def _refused(self, refused: Refused) -> None:
        """A refusal that may pass ends the connection, another one the link."""
        text = " ".join(refused.text.split())  # one line, whatever the exchange says
        if refused.code not in PASSING:
            raise TransportError(refused.code, text)
        raise ConnectionError(f"{text} [{refused.code}]")


async def _ending(call: _Call) -> str:
    return f"the exchange ended the stream ({(await call.code()).name})"


def _reason(error: Any) -> str:
    """One line on a broken connection."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {(error.details() or '').splitlines()[0][:200] if error.details() else ''}"
    return str(error) or type(error).__name__
