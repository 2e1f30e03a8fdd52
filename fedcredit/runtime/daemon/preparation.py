"""What a daemon gets ready after it has started: compiled loops, so that no run waits for a compiler."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.spare import FOLDER, SparePool
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.ready_loops import place_loops, ready_loops_beside

__all__ = ["Keep", "Preparation", "Prepare", "nothing_to_prepare", "prepare_loops"]

Keep = Callable[[], Awaitable[None]]
"""Keeps something up until it is cancelled."""

Prepare = Callable[[], Awaitable[Keep | None]]
"""Gets something ready, and says what is to be kept up from then on; raises `FedCreditError` where it cannot."""

_SPARES = (("nodes.worker", 2), ("coordinator.worker", 1))  # a node decides in one and plays in the next
_AGAIN_S = 30.0  # until another try


class Preparation:
    """Prepares, again and again until it has succeeded, and tells how far it is.

    Args:
        prepare: What to do.
        log: Where its end goes.
    """

    def __init__(self, prepare: Prepare, log: Log) -> None:
        self._prepare, self._log = prepare, log
        idle = prepare is nothing_to_prepare
        self.lacks = "" if idle else "preparing: compiling loops, once for this machine and version"

    async def through(self) -> None:
        """Goes on until it has succeeded; `lacks` is then empty; then keeps up what is to be kept."""
        keep = None
        while self.lacks:
            try:
                keep = await self._prepare()
            except FedCreditError as error:
                self.lacks = f"preparing: {error.public} [{error.code}]"
                self._log.warning("prepared", code=error.code)
                await asyncio.sleep(_AGAIN_S)
            else:
                self.lacks = ""
                self._log.info("prepared")
        if keep is not None:
            await keep()


async def nothing_to_prepare() -> None:
    """For a daemon whose processes need nothing."""


def prepare_loops(home: Home) -> Prepare:
    """Compiles the loops of a house's workers; then keeps spare workers, which have loaded them."""
    place = place_loops(home.folder)
    module, count = _SPARES[home.kind is MemberKind.COORDINATOR]
    log = home.logs / "spares.log"
    pool = SparePool(home.folder / FOLDER, module, count, {**os.environ, **place}, log)

    async def prepare() -> Keep:
        await ready_loops_beside(place)
        return pool.keep

    return prepare
