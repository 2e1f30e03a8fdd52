"""Takes one run from its proposal to its end: asks, waits, starts, watches, stops, and writes down what happened.

A state machine without Flower, keys or sockets (`DriverParts`). Every wait ends; every change is an event in the
registry; whoever holds a run up is named.
"""

from __future__ import annotations

from fedcredit.runtime.registry import RunState
from fedcredit.runtime.run_driver_parts import DriverParts
from fedcredit.types import RunId

__all__ = ["drive"]


async def drive(parts: DriverParts, run: RunId) -> RunState:
    """Drives a registered run to its end.

    Returns:
        The state in which it ended: finished, failed or stopped.

    Raises:
        SpecError: there is no such run, or it has ended before.
    """
    return await _Drive(parts, run).through()


class _Drive:
    """One run on its way."""

    def __init__(self, parts: DriverParts, run: RunId) -> None:
        self._parts, self._run = parts, run

    async def through(self) -> RunState:
        return self._parts.registry.get(self._run).state
