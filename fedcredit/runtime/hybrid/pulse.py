"""What others are told of whom a party waits for, where several roles share one event loop.

A role that waits has said for whom. While another role of the same process computes, the loop stands still: what the
first one waits for may have come long ago, and the others, who wait for it, would see a circle in which nobody does
anything and give up. So a thread looks at the loop. While it stands still, the party is told as one that computes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from fedcredit.runtime.exchange.channel import Link
from fedcredit.runtime.exchange.types import Delivery, Parcel, Presence
from fedcredit.types import PartyId

__all__ = ["HonestLink", "pulse"]

_BEAT_SECONDS = 0.25
_STILL_SECONDS = 1.0
"""How long a loop may not have turned before it counts as one that computes."""


class HonestLink:
    """A link that can be told that nobody waits at it just now.

    Args:
        link: The link itself.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: PartyId | None = None

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        """As it is."""
        await self._link.send(parcels, body)

    async def receive(self) -> Delivery:
        """As it is."""
        return await self._link.receive()

    def note(self, waiting_for: PartyId | None) -> None:
        """Says whom the role waits for, and remembers it."""
        self._waiting = waiting_for
        self._link.note(waiting_for)

    def presence(self) -> Mapping[PartyId, Presence]:
        """As it is."""
        return self._link.presence()

    def computes(self) -> None:
        """Says that the role waits for nobody; from any thread."""
        self._link.note(None)

    def turns(self) -> None:
        """Says again whom it waits for."""
        self._link.note(self._waiting)


async def pulse(links: Sequence[HonestLink]) -> None:
    """Goes on until it is cancelled.

    Args:
        links: Those of all roles of this loop.
    """
    beat, over = [time.monotonic()], threading.Event()

    def look() -> None:
        while not over.wait(_BEAT_SECONDS):
            if time.monotonic() - beat[0] > _STILL_SECONDS:
                for link in links:
                    with suppress(RuntimeError):  # its connection may just have ended
                        link.computes()

    thread = threading.Thread(target=look, name="hybrid-pulse", daemon=True)
    thread.start()
    still = False
    try:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            now = time.monotonic()
            still, before = now - beat[0] > _STILL_SECONDS, still
            beat[0] = now
            if still or before:  # once more at the next beat, in case the thread was just about to speak
                for link in links:
                    link.turns()
    finally:
        over.set()
        thread.join()
