"""How much operators may ask of the coordinator, and how many runs may wait: what one of them can use up is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.runtime.runs.registry_records import ENDED

__all__ = ["LOOKS", "MOST_LIVE", "Allowances", "check_room"]

LOOKS: Final = frozenset({"List", "Get", "Events"})
"""What is asked every second while a run is watched, and changes nothing."""

MOST_LIVE: Final = 128
"""Runs that have been submitted and not ended."""

_LOOK: Final = (400.0, 40.0)  # at once, and a second: several terminals that watch
_FETCH: Final = (400.0, 40.0)  # slices of half a megabyte
_CHANGE: Final = (60.0, 0.2)  # submissions, stops, resumptions: each stays in the book for good


class Allowances:
    """Requests left to each operator; full at first, and again after a while.

    Args:
        clock: Seconds; any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._left: dict[tuple[str, tuple[float, float], bool], tuple[float, float]] = {}

    def take(self, caller: str, method: str) -> None:
        """Takes one request.

        Args:
            caller: The operator: a member of the roster, so that there are few.
            method: What it asks.

        Raises:
            PolicyDenied: none is left; the text says when there will be.
        """
        looks = method in LOOKS
        most, rate = limits = _LOOK if looks else _FETCH if method == "Fetch" else _CHANGE
        with self._lock:
            now, key = self._clock(), (caller, limits, looks)
            left, then = self._left.get(key, (most, now))
            left = min(most, left + rate * (now - then))
            self._left[key] = (left - 1, now) if left >= 1 else (left, now)
        if left < 1:
            text = f"{caller} asks too often; the next request is heard in {(1 - left) / rate:.0f} s"
            raise PolicyDenied("operator.rate", text)


def check_room(counts: Mapping[str, int]) -> None:
    """Refuses another run where too many have not ended.

    Args:
        counts: Runs by state.

    Raises:
        SpecError: with the number that may be.
    """
    live = sum(count for state, count in counts.items() if state not in ENDED)
    if live >= MOST_LIVE:
        text = f"{live} runs have not ended, at most {MOST_LIVE} may be; wait, or stop some: `fedcredit run stop RUN`"
        raise SpecError("submit.full", text)
