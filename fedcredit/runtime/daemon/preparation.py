"""What a daemon gets ready after it has started: compiled loops, so that no run waits for a compiler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.ready_loops import place_loops, ready_loops_beside

__all__ = ["Preparation", "Prepare", "nothing_to_prepare", "prepare_loops"]

Prepare = Callable[[], Awaitable[None]]
"""Gets something ready; raises `FedCreditError` where it cannot."""

_AGAIN_S = 30.0  # until another try


class Preparation:
    """Prepares, again and again until it has succeeded, and tells how far it is.

    Args:
        prepare: What to do.
        log: Where its end goes.
    """

    def __init__(self, prepare: Prepare, log: Log) -> None:
        self._prepare, self._log = prepare, log
        self.lacks = "preparing: compiling loops, once for this machine and version"

    async def through(self) -> None:
        """Returns when it has succeeded; `lacks` is then empty."""
        while self.lacks:
            try:
                await self._prepare()
            except FedCreditError as error:
                self.lacks = f"preparing: {error.public} [{error.code}]"
                self._log.warning("prepared", code=error.code)
                await asyncio.sleep(_AGAIN_S)
            else:
                self.lacks = ""
                self._log.info("prepared")


async def nothing_to_prepare() -> None:
    """For a daemon whose processes need nothing."""


def prepare_loops(home: Home) -> Prepare:
    """Compiles the loops of a house's workers."""

    async def prepare() -> None:
        await ready_loops_beside(place_loops(home.folder))

    return prepare
