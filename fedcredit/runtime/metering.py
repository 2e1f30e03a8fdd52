"""What a run costs: processor seconds of each party, and the network time it would have taken."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fedcredit.errors import SpecError
from fedcredit.types import PartyId

__all__ = ["Meter", "NetworkModel", "metered"]

T = TypeVar("T")


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
    """A virtual clock for each party: what the messages alone would have cost on a real network.

    Each party has one uplink, on which its messages queue; a message is there one latency after its last bit left.
    Nobody sleeps, and computing takes no virtual time.

    Args:
        bandwidth_mbps: Uplink of each party in 10^6 bits a second; 0 = unlimited.
        latency_ms: One way; 0 = none.

    Raises:
        SpecError: a negative figure.
    """

    bandwidth_mbps: float = 0.0
    latency_ms: float = 0.0
    _now: dict[PartyId, float] = field(default_factory=dict)
    _uplink_free: dict[PartyId, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses negative figures."""
        if not (self.bandwidth_mbps >= 0 and self.latency_ms >= 0):
            raise SpecError("network.model", "[network] bandwidth_mbps and latency_ms are numbers from 0 up")

    def sent(self, sender: PartyId, size: int) -> float:
        """Books a message of ``size`` bytes on its sender's uplink; returns the virtual second it arrives."""
        start = max(self._now.get(sender, 0.0), self._uplink_free.get(sender, 0.0))
        duration = size * 8 / (self.bandwidth_mbps * 1e6) if self.bandwidth_mbps else 0.0
        self._uplink_free[sender] = start + duration
        return start + duration + self.latency_ms / 1e3

    def received(self, recipient: PartyId, arrival: float) -> None:
        """Moves the recipient's clock on to the arrival of a message it has read."""
        self._now[recipient] = max(self._now.get(recipient, 0.0), arrival)

    @property
    def seconds(self) -> float:
        """Virtual seconds until the last party was done."""
        return max((*self._now.values(), *self._uplink_free.values()), default=0.0)
