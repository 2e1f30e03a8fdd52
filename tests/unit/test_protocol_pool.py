"""Pools that add in the clear, and the pool of one."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from fedcredit.errors import BoundError, PeerError
from fedcredit.protocol.pool import Alone, UnsafeLocalPools
from fedcredit.types import PartyId

A, B, C = PartyId("a"), PartyId("b"), PartyId("c")


def _values(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def test_alone_is_the_identity() -> None:
    values = _values(-3, 4)
    total = asyncio.run(Alone(A).sum("x", values, 4))
    assert total.tolist() == [-3, 4]
    assert total is not values
    assert Alone(A).members == (A,)


@pytest.mark.parametrize(
    ("values", "bound", "code"),
    [
        (_values(5), 4, "pool.value"),
        (_values(-5), 4, "pool.value"),
        (_values(0), 0, "pool.bound"),
        (_values(0), 1 << 62, "pool.bound"),
        (_values(), 4, "pool.shape"),
        (np.zeros(2, dtype=np.int32), 4, "pool.shape"),
        (np.zeros((2, 2), dtype=np.int64), 4, "pool.shape"),
    ],
)
def test_what_would_not_add_up_is_refused(
    values: np.ndarray[tuple[int], np.dtype[np.int64]], bound: int, code: str
) -> None:
    with pytest.raises(BoundError) as caught:
        asyncio.run(Alone(A).sum("x", values, bound))
    assert caught.value.code == code


def test_members_get_the_total_and_may_go_on_at_different_speeds() -> None:
    pools = UnsafeLocalPools([C, A, B])

    async def member(party: PartyId, number: int) -> list[list[int]]:
        pool = pools.pool(party)
        totals = []
        for step in range(3):
            for _ in range(number):
                await asyncio.sleep(0)
            totals.append((await pool.sum(f"s{step}", _values(number, -step), 10)).tolist())
        return totals

    async def everyone() -> list[list[list[int]]]:
        return list(await asyncio.gather(*(member(party, at) for at, party in enumerate((A, B, C)))))

    found = asyncio.run(everyone())
    assert found == [[[3, 0], [3, -3], [3, -6]]] * 3
    assert pools.sums == [("s0", 2, 10), ("s1", 2, 10), ("s2", 2, 10)]
    assert pools.pool(B).members == (A, B, C)


def test_members_that_disagree_are_told() -> None:
    pools = UnsafeLocalPools([A, B])

    async def everyone() -> list[object]:
        first, second = pools.pool(A).sum("x", _values(1), 2), pools.pool(B).sum("y", _values(1), 2)
        return list(await asyncio.gather(first, second, return_exceptions=True))

    for error in asyncio.run(everyone()):
        assert isinstance(error, PeerError)
        assert error.code == "pool.about"


def test_one_that_leaves_is_not_waited_for() -> None:
    pools = UnsafeLocalPools([A, B, C])

    async def everyone() -> list[list[int]]:
        waiting = asyncio.gather(pools.pool(A).sum("x", _values(1), 9), pools.pool(B).sum("x", _values(2), 9))
        await asyncio.sleep(0)
        pools.leave(C)
        return [total.tolist() for total in await waiting]

    assert asyncio.run(everyone()) == [[3], [3]]
    assert pools.members == (A, B)
