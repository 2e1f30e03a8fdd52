"""Inboxes, and waits that end."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from fedcredit.runtime.metering import Meter
from fedcredit.types import PartyId
from fedcredit.wire.notice import ErrorNotice

__all__ = ["Deadline", "Post"]


class Post:
    """One party's inbox: a queue for each sender, notices of failures, who has stopped or ended, whom it waits for.

    ``broken`` is what ends the run here: the link is gone, or the run was stopped from outside.
    """

    def __init__(self) -> None:
        self.queues: dict[PartyId, deque[tuple[bytes, float]]] = {}
        self.notices: deque[tuple[PartyId, bytes]] = deque()
        self.stopped: dict[PartyId, ErrorNotice] = {}
        self.ended: dict[PartyId, str] = {}
        self.waits_for: PartyId | None = None
        self.broken: BaseException | None = None
        self.changed = asyncio.Event()


class Deadline:
    """A bounded wait; time in which roles of this process compute does not count.

    Args:
        seconds: Longest idle wait.
        busy: Meter of all roles of the process.
    """

    def __init__(self, seconds: float, busy: Meter) -> None:
        self.seconds = seconds
        self._busy = busy
        self._start = busy.idle()

    async def wait(self, event: asyncio.Event) -> bool:
        """Waits for an event; False when the time-out has passed, True when it is worth looking again."""
        left = self.seconds - (self._busy.idle() - self._start)
        if left <= 0:
            return False
        with suppress(TimeoutError):  # computing roles may have held up the loop: the idle clock decides
            async with asyncio.timeout(left):  # wait_for can swallow a cancellation
                await event.wait()
        return True
