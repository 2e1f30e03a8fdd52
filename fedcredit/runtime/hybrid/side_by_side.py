"""Several runs on one event loop that need each other: a hybrid run is one for each bank, and one of all banks' sums.

A party that takes part in two of them has one role: its coroutine is played in one network and holds a channel of the
other, where a stand-in waits for it to end. What fails in one ends the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedcredit.errors import FedCreditError
from fedcredit.runtime.exchange.types import PeerRestarted
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.party_end import SECONDARY
from fedcredit.types import PartyId

__all__ = ["Played", "Presence", "all_of", "run_side_by_side"]

_GRACE_SECONDS = 3.0
"""How long the others may take to end by themselves after a failure; a little longer than within one network."""


_SETTLE_SECONDS = 0.5
"""How long one party's other roles may take to say themselves what has ended them."""


class Presence:
    """One role in two networks: what it does in the first, and its stand-in in the second.

    Args:
        role: The coroutine.
    """

    def __init__(self, role: Coroutine[Any, Any, Any]) -> None:
        self._role = role
        self._over = asyncio.Event()
        self._failed: BaseException | None = None

    async def play(self) -> Any:
        """The role itself."""
        try:
            return await self._role
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self._over.set()

    async def stand_in(self) -> None:
        """Waits until the role is over.

        Raises:
            FedCreditError: that of the role, so that the other network hears of it too.
        """
        await self._over.wait()
        if isinstance(self._failed, FedCreditError):
            raise self._failed

    def close(self) -> None:
        """Ends a role that was never begun."""
        self._role.close()


@dataclass(frozen=True)
class Played:
    """A network and the roles in it.

    Args:
        network: Not started yet.
        roles: Coroutine of each party.
    """

    network: LocalNetwork
    roles: Mapping[PartyId, Coroutine[Any, Any, Any]]


async def run_side_by_side(runs: Sequence[Played]) -> list[dict[PartyId, Any]]:
    """Plays all roles of all networks to their end; audit logs and ledgers stay open.

    Returns:
        What the roles of each network returned.

    Raises:
        FedCreditError: the first failure that is not the echo of another.
    """
    tasks = [asyncio.create_task(one.network.run_roles(one.roles, seal=False)) for one in runs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        running = [task for task in tasks if not task.done()]
        if running:
            await asyncio.wait(running, timeout=_GRACE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in runs:
            for role in one.roles.values():
                role.close()
    failures = [task.exception() for task in tasks if not task.cancelled()]
    found = [error for error in failures if error is not None]
    first = [error for error in found if not (isinstance(error, FedCreditError) and error.code in SECONDARY)]
    for error in [*first, *found]:
        raise error
    return [task.result() for task in tasks]


async def all_of(roles: Mapping[PartyId, Coroutine[Any, Any, Any]]) -> dict[PartyId, Any]:
    """Plays one party's roles in several networks at once, each to its end.

    Returns:
        What each returned, by network.

    Raises:
        PeerRestarted: a peer begins again, whatever else happened.
        FedCreditError: the first failure that is not the echo of another.
    """
    tasks = {name: asyncio.create_task(role) for name, role in roles.items()}
    try:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        running = [task for task in tasks.values() if not task.done()]
        if running:
            await asyncio.wait(running, timeout=_SETTLE_SECONDS)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for role in roles.values():
            role.close()  # one that was cancelled before its first step was never awaited
    found = [error for task in tasks.values() if not task.cancelled() and (error := task.exception()) is not None]
    for error in sorted(found, key=_rank):
        raise error
    return {name: task.result() for name, task in tasks.items()}


def _rank(error: BaseException) -> int:
    if isinstance(error, PeerRestarted):
        return 0
    return 2 if isinstance(error, FedCreditError) and error.code in SECONDARY else 1
