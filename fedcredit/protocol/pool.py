"""Banks that decide something on a total: one interface, whether there is one bank, a secure sum, or a test.

Code of a label holder asks its pool for the total of a vector over all banks and goes on with that. In a run of one
bank the pool is `Alone` and the total is the vector. Between banks it is `fedcredit.protocol.secure_sum`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, PeerError
from fedcredit.types import PartyId

__all__ = ["LARGEST_TOTAL", "Alone", "Pool", "UnsafeLocalPools", "check_summand"]

LARGEST_TOTAL = 1 << 62
"""Members times bound stay below this: a total is exact in int64 whatever the pool."""


class Pool(Protocol):
    """The banks of one run, from the side of one of them."""

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks whose vectors the next total will hold, this one included, sorted; they may become fewer."""
        ...

    async def sum(self, what: str, values: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """The exact total of one vector over the members; one call at a time, in the same order at every member.

        Args:
            what: Name of the sum, the same at every member.
            values: int64 (m,), m > 0 the same at every member.
            bound: Largest absolute value any member may bring, at least 1, the same at every member.

        Returns:
            int64 (m,), the same at every member. `members` says afterwards whom it is the sum of.

        Raises:
            BoundError: a value exceeds the bound, or totals of that bound may exceed what is proven.
            PeerError: members disagree about name, length or bound.
            TransportError: too few banks are left.
        """
        ...


class Alone:
    """The pool of one bank: a total is its own vector.

    Args:
        party: The bank.
    """

    def __init__(self, party: PartyId) -> None:
        self._members = (party,)

    @property
    def members(self) -> tuple[PartyId, ...]:
        """The bank."""
        return self._members

    async def sum(self, what: str, values: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """A copy of ``values``, held against the bound as in a pool of many.

        Raises:
            BoundError: as `Pool.sum`.
        """
        check_summand(what, values, bound, 1)
        return values.copy()


@dataclass(frozen=True)
class _Asked:
    """What one member wants summed."""

    what: str
    values: NDArray[np.int64]
    bound: int


class UnsafeLocalPools:
    """Pools of several banks in one process that add in the clear: for tests and oracles.

    Unsafe: whoever runs it sees every vector.

    Args:
        members: The banks.

    Raises:
        BoundError: no member, or one named twice.
    """

    def __init__(self, members: Sequence[PartyId]) -> None:
        if not members or len(set(members)) != len(members):
            raise BoundError("pool.members", f"a pool of {len(members)} members; at least one, each once, is needed")
        self._members = tuple(sorted(members))
        self._asked: dict[PartyId, _Asked] = {}
        self._total: asyncio.Future[NDArray[np.int64]] | None = None
        self.sums: list[tuple[str, int, int]] = []
        """Name, length and bound of every sum so far."""

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks that are still there, sorted."""
        return self._members

    def pool(self, party: PartyId) -> Pool:
        """One member's end.

        Raises:
            BoundError: no such member.
        """
        if party not in self._members:
            raise BoundError("pool.member", f"{party} is no member of this pool")
        return _LocalPool(self, party)

    def leave(self, party: PartyId) -> None:
        """A member goes; a sum that waits for it alone is one of the others."""
        self._members = tuple(member for member in self._members if member != party)
        self._asked.pop(party, None)
        self._finish()

    async def _ask(self, party: PartyId, asked: _Asked) -> NDArray[np.int64]:
        if party not in self._members or party in self._asked:
            raise BoundError(
                "pool.turn", f"{party} asks for a sum while it has left, or while another one is under way"
            )
        check_summand(asked.what, asked.values, asked.bound, len(self._members))
        if self._total is None:
            self._total = asyncio.get_running_loop().create_future()
        total = self._total
        self._asked[party] = asked
        self._finish()
        return (await asyncio.shield(total)).copy()

    def _finish(self) -> None:
        if self._total is None or self._asked.keys() != set(self._members):
            return
        total, asked = self._total, [self._asked[party] for party in self._members]
        self._total, self._asked = None, {}
        about = {(one.what, len(one.values), one.bound) for one in asked}
        if len(about) > 1:
            total.set_exception(PeerError("pool.about", f"members ask for different sums: {sorted(about)}"))
            return
        self.sums.append(about.pop())
        total.set_result(np.sum([one.values for one in asked], axis=0, dtype=np.int64))


class _LocalPool:
    """One member's end of `UnsafeLocalPools`."""

    def __init__(self, pools: UnsafeLocalPools, party: PartyId) -> None:
        self._pools = pools
        self._party = party

    @property
    def members(self) -> tuple[PartyId, ...]:
        return self._pools.members

    async def sum(self, what: str, values: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        return await self._pools._ask(self._party, _Asked(what, values.copy(), bound))  # noqa: SLF001 - its own half


def check_summand(what: str, values: NDArray[np.int64], bound: int, members: int) -> None:
    """Refuses what would not add up exactly.

    Args:
        what: Name of the sum.
        values: int64 (m,), m > 0.
        bound: Largest absolute value of a member.
        members: Number of members.

    Raises:
        BoundError: a bound below 1, totals that may reach 2^62, another shape or type, or a value beyond the bound.
    """
    if bound < 1 or members * bound >= LARGEST_TOTAL:
        raise BoundError("pool.bound", f"sum {what}: {members} members within {bound}; totals stay below 2^62")
    if values.dtype != np.int64 or values.ndim != 1 or not len(values):
        raise BoundError("pool.shape", f"sum {what}: {values.dtype} of shape {values.shape}; int64 (m,) is needed")
    if int(values.max()) > bound or int(values.min()) < -bound:
        raise BoundError("pool.value", f"sum {what}: a value exceeds the bound of {bound}")
