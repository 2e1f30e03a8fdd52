"""What a run costs: processor seconds of each party, and the network time it would have taken."""

from __future__ import annotations

import time
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fedcredit.crypto.sealed_body import chunk_bytes
from fedcredit.errors import SpecError
from fedcredit.types import COORDINATOR, PartyId

__all__ = ["Meter", "NetworkModel", "metered"]

T = TypeVar("T")

_HEADERS = 1.05
"""Bytes on the line for each byte sent: 66 of Ethernet, IP and TCP on 1,448, 22 of TLS on 16,384."""

_MESSAGE_BYTES = 350
"""What each message adds on each line: its frame's header, sealed keys, HTTP/2, and what acknowledges it."""


@dataclass
class Meter:
    """Time spent inside the steps of a coroutine.

    Attributes:
        cpu: Seconds of processor time of this process, all threads.
        wall: Seconds on the clock.
    """

    cpu: float = 0.0
    wall: float = 0.0
    _entered: tuple[float, float] | None = None

    def enter(self) -> None:
        """A step begins."""
        self._entered = (time.process_time(), time.perf_counter())

    def leave(self) -> None:
        """A step ends."""
        if self._entered is not None:
            self.cpu += time.process_time() - self._entered[0]
            self.wall += time.perf_counter() - self._entered[1]
            self._entered = None

    def idle(self) -> float:
        """Seconds of a clock that stands still during steps, the one under way included."""
        if self._entered is not None:
            return self._entered[1] - self.wall
        return time.perf_counter() - self.wall


def metered(coroutine: Coroutine[Any, Any, T], meters: tuple[Meter, ...]) -> Coroutine[Any, Any, T]:
    """The same coroutine, with the time of every resumed step added to the meters.

    Between two awaits nothing else runs on the loop, so the process's time over a step is that of this coroutine.
    """

    @types.coroutine
    def steps() -> Generator[Any, Any, T]:
        resume: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731 - rebound for every step
        while True:
            for meter in meters:
                meter.enter()
            try:
                yielded = resume()
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            finally:
                for meter in meters:
                    meter.leave()
            try:
                value = yield yielded
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to the coroutine, cancellation included
                resume = _thrower(coroutine, error)
            else:
                resume = _sender(coroutine, value)

    async def run() -> T:
        return await steps()

    return run()


def _sender(coroutine: Coroutine[Any, Any, T], value: object) -> Callable[[], Any]:
    return lambda: coroutine.send(value)


def _thrower(coroutine: Coroutine[Any, Any, T], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


@dataclass
class NetworkModel:
    """A virtual clock for each party: what the messages alone would have cost between houses.

    Every party has one line, to the exchange beside the coordinator; the coordinator itself has none. A message takes
    its place on its sender's uplink, half the latency to the exchange, its place on the recipient's downlink, and the
    other half. The body of a broadcast is uploaded once and goes down to each recipient. A body travels in pieces
    (`fedcredit.crypto.sealed_body.chunk_bytes`), each of which the exchange passes on when it has all of it: so a small
    message takes its time on both lines one after the other, and the pieces of a larger one overlap. Nobody sleeps, and
    computing takes no virtual time.

    Lines carry more than envelopes: headers of Ethernet, IP, TCP and TLS (a share of all bytes) and what sealing,
    framing and acknowledging adds to each message on each line. TCP itself is taken to fill the line, with windows that
    are never too small; making connections, and the beginning and end of a session, are not modelled.

    Args:
        bandwidth_mbps: Each party's line in 10^6 bits a second, each way; 0 = unlimited.
        latency_ms: One way between two parties, through the exchange; 0 = none.
        hub: The party beside the exchange.

    Raises:
        SpecError: a negative figure.
    """

    bandwidth_mbps: float = 0.0
    latency_ms: float = 0.0
    hub: PartyId = COORDINATOR
    uploaded: Counter[PartyId] = field(default_factory=Counter)
    """Bytes that each party's line has carried to the exchange."""
    downloaded: Counter[PartyId] = field(default_factory=Counter)
    """Bytes that it has carried from there."""
    _now: dict[PartyId, float] = field(default_factory=dict)
    _free: dict[tuple[PartyId, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses negative figures."""
        if not (self.bandwidth_mbps >= 0 and self.latency_ms >= 0):
            raise SpecError("network.model", "[network] bandwidth_mbps and latency_ms are numbers from 0 up")

    def sent(self, sender: PartyId, sizes: Mapping[PartyId, int]) -> dict[PartyId, float]:
        """Books one message, for one or several recipients, on the lines it takes.

        Args:
            sender: Who sends it.
            sizes: Bytes of the envelope for each recipient; their bodies are one.

        Returns:
            The virtual second at which each recipient has it.
        """
        start = self._now.get(sender, 0.0)
        body = min(sizes.values(), default=0)
        arrivals = dict.fromkeys(sizes, start)
        for to, size in sizes.items():
            head = size - body + _MESSAGE_BYTES if len(sizes) > 1 else _MESSAGE_BYTES
            arrivals[to] = self._down(to, head, self._up(sender, head, start))
        for piece in _pieces(body):
            there = self._up(sender, piece, start)
            for to in sizes:
                arrivals[to] = self._down(to, piece, there)
        return arrivals

    def _up(self, sender: PartyId, size: int, ready: float) -> float:
        """When some bytes of a sender are at the exchange."""
        return ready if sender == self.hub else self._carried((sender, "up"), self.uploaded, size, ready)

    def _down(self, recipient: PartyId, size: int, ready: float) -> float:
        """When some bytes at the exchange are at a recipient."""
        return ready if recipient == self.hub else self._carried((recipient, "down"), self.downloaded, size, ready)

    def _carried(self, line: tuple[PartyId, str], count: Counter[PartyId], size: int, ready: float) -> float:
        carried = size * _HEADERS
        count[line[0]] += round(carried)
        duration = carried * 8 / (self.bandwidth_mbps * 1e6) if self.bandwidth_mbps else 0.0
        self._free[line] = max(ready, self._free.get(line, 0.0)) + duration
        return self._free[line] + self.latency_ms / 2e3

    def received(self, recipient: PartyId, arrival: float) -> None:
        """Moves the recipient's clock on to the arrival of a message it has read."""
        self._now[recipient] = max(self._now.get(recipient, 0.0), arrival)

    @property
    def seconds(self) -> float:
        """Virtual seconds until the last party was done."""
        return max((*self._now.values(), *self._free.values()), default=0.0)


def _pieces(size: int) -> list[int]:
    """Bytes of the pieces that a body travels in."""
    piece = chunk_bytes(size)
    whole, rest = divmod(size, piece)
    return [piece] * whole + ([rest] if rest else [])
