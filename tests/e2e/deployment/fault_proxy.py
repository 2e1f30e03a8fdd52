"""A line between a house and the exchange that can be slow, cut, deaf or full of resets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from typing import Any

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes close() a reset


class Proxy:
    """Forwards TCP connections on the loopback interface; lives in a thread of its own.

    Args:
        target: Port of the exchange.
        delay: Seconds a byte is under way, each way.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self.target, self.delay, self.port = target, delay, 0
        self.connections = self.upward = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._deaf: set[asyncio.StreamWriter] = set()
        self._most: int | None = None
        self.full = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self._do(self._listen())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _live(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._open |= {writer, onward}
        pumps = [
            asyncio.create_task(self._pump(reader, onward, up=True)),
            asyncio.create_task(self._pump(there, writer, up=False)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._open -= {writer, onward}
        for one in (writer, onward):
            one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(4096)
        fill = asyncio.create_task(self._fill(reader, queue))
        try:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if up:
                    self.upward += len(data)
                    while self._most is not None and self.upward > self._most:
                        self.full.set()
                        await asyncio.sleep(0.01)
                if writer in self._deaf:
                    await asyncio.Event().wait()  # until the connection's end
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            fill.cancel()
            await asyncio.gather(fill, return_exceptions=True)

    async def _fill(self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            await queue.put((time.monotonic() + self.delay, data))

    def cut(self) -> None:
        """Ends all connections and takes no new ones."""
        self._cut = True
        self.reset()

    def mend(self) -> None:
        """Takes connections again."""
        self._cut = False

    def deafen(self) -> None:
        """From now on nothing passes on the connections there are; nobody is told."""
        self._deaf |= self._open

    def stall_after(self, count: int) -> None:
        """Lets so many more bytes towards the exchange pass; then nothing, and `full` is set."""
        self.full.clear()
        self._most = self.upward + count

    def flow(self) -> None:
        """Ends a stall."""
        self._most = None

    def reset(self) -> None:
        """Resets all connections."""
        self._do(self._reset())

    async def _reset(self) -> None:
        for one in list(self._open):
            found: socket.socket | None = one.get_extra_info("socket")
            if found is not None:
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.transport.abort()

    def close(self) -> None:
        self.cut()
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _stop(self) -> None:
        self._server.close()
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Resets:
    """Resets a line's connections again and again.

    Args:
        proxy: The line.
        seed: Of the pauses.
        pauses: Least and most seconds between two.
    """

    def __init__(self, proxy: Proxy, seed: int, pauses: tuple[float, float]) -> None:
        self._proxy, self._random, self._pauses = proxy, random.Random(seed), pauses
        self._over = threading.Event()
        self.count = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._random.uniform(*self._pauses)):
            self._proxy.reset()
            self.count += 1

    def end(self) -> None:
        self._over.set()
        self._thread.join(10)
