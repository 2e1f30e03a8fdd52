"""A party whose loop stands still is told as one that computes, and as one that waits when it turns again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from fedcredit.runtime.hybrid.pulse import HonestLink, pulse
from fedcredit.types import PartyId

BANK = PartyId("bank_01")


class Desk:
    """Notes what the exchange would be told."""

    def __init__(self) -> None:
        self.told: list[PartyId | None] = []

    def note(self, waiting_for: PartyId | None) -> None:
        self.told.append(waiting_for)


def test_a_loop_that_stands_still_waits_for_nobody() -> None:
    desk: Any = Desk()
    link = HonestLink(desk)

    async def computes() -> tuple[PartyId | None, PartyId | None]:
        beating = asyncio.create_task(pulse([link]))
        link.note(BANK)
        await asyncio.sleep(0.3)
        assert desk.told[-1] == BANK
        time.sleep(1.6)  # noqa: ASYNC251 -- another role of the loop computes
        during = desk.told[-1]
        await asyncio.sleep(0.7)
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
        return during, desk.told[-1]

    assert asyncio.run(computes()) == (None, BANK)
