"""A feature holder's book-keeping in a hybrid run: what several banks learn of it, they could put together.

Each bank has an account of its own in the holder's ledger. In a hybrid run two things are added to that. The caps of
all accounts follow from the smallest bank: its rows are the fewest that the equations could be solved for. And where
two banks may have an enterprise in common, each answer to one is booked to the other too: both hold equations about the
same row. The parts of a run ask the same questions, so the price of an answer is multiplied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import msgspec

from fedcredit.errors import BoundError, TransportError
from fedcredit.protocol.bin.messages import RunBasis
from fedcredit.protocol.boost.messages import BoostBasis
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.message import Message

__all__ = ["JointAccount", "JointChannel"]

M = TypeVar("M", bound=Message)

_SHARED = frozenset({CostKind.EQUATIONS, CostKind.ROW_BITS})
"""Currencies that count what is said of rows; bins returned and ids asked are not said of them."""


class JointAccount:
    """What the parts of a hybrid run have in common at one feature holder; one event loop.

    Args:
        banks: All banks of the run.
        timeout_s: Longest wait for the sizes of the other banks, which do their part meanwhile.
    """

    def __init__(self, banks: Sequence[PartyId], timeout_s: float = 3600.0) -> None:
        self._banks, self._timeout_s = frozenset(banks), timeout_s
        self._sizes: dict[PartyId, tuple[int, int]] = {}
        self._ids: dict[PartyId, frozenset[str] | None] = {}
        self._complete = asyncio.Event()

    def channel(self, inner: Channel, bank: PartyId, ids: Collection[str] | None) -> Channel:
        """The holder's channel in one part of the run, from the moment its rows are known.

        Args:
            inner: The channel as it is.
            bank: Whose part it is.
            ids: The common ids; None where the holder does not know which of them count.
        """
        return JointChannel(inner, self, bank, None if ids is None else frozenset(ids))

    async def meet(self, bank: PartyId, sizes: tuple[int, int], ids: frozenset[str] | None) -> tuple[int, int, int]:
        """Waits until the sizes of all banks are known.

        Args:
            bank: Who has signed them.
            sizes: Its rows and bads.
            ids: Its common ids, or None.

        Returns:
            Rows and bads of the smallest bank, each by itself; banks whose questions are about the same rows, this one
            included.

        Raises:
            BoundError: a bank of another run, or one that was here before.
            TransportError: a bank has not said its size in time.
        """
        if bank not in self._banks or bank in self._sizes:
            raise BoundError("hybrid.account", f"{bank} is no bank of this run, or has said its size before")
        self._sizes[bank], self._ids[bank] = sizes, ids
        if self._sizes.keys() == self._banks:
            self._complete.set()
        try:
            await asyncio.wait_for(self._complete.wait(), self._timeout_s)
        except TimeoutError:
            missing = min(self._banks - self._sizes.keys())
            raise TransportError("hybrid.sizes", f"{missing} has not said its size: nothing is answered") from None
        rows, bads = (min(each) for each in zip(*self._sizes.values(), strict=True))
        return rows, min(bads, rows), 1 + sum(self._may_share(bank, other) for other in self._banks - {bank})

    def _may_share(self, first: PartyId, second: PartyId) -> bool:
        one, other = self._ids[first], self._ids[second]
        return one is None or other is None or not one.isdisjoint(other)


class JointChannel:
    """A feature holder's channel that books to one bank what others learn of the same rows.

    It stands between role and channel, so that nothing that is answered can pass by it. See
    `fedcredit.protocol.channel.Channel`.

    Args:
        inner: The channel.
        account: Of the run.
        bank: Whose part it is.
        ids: Its common ids, or None.
    """

    def __init__(self, inner: Channel, account: JointAccount, bank: PartyId, ids: frozenset[str] | None) -> None:
        self._inner, self._account, self._bank, self._ids = inner, account, bank, ids
        self._times: int | None = None

    @property
    def party(self) -> PartyId:
        """The feature holder."""
        return self._inner.party

    async def send(self, to: PartyId, message: Message, *, spend: Spend | None = None) -> None:
        """Sends, at the price of all who learn of the same rows."""
        if spend is not None and self._bank in {to, spend.learner}:
            spend = replace(spend, costs=self._priced(spend.costs))
        await self._inner.send(to, message, spend=spend)

    async def broadcast(self, to: Sequence[PartyId], message: Message) -> None:
        """As it is."""
        await self._inner.broadcast(to, message)

    async def receive(self, sender: PartyId, kind: type[M]) -> M:
        """Receives; the sizes that a bank signs become those of the smallest bank."""
        message = await self._inner.receive(sender, kind)
        if sender != self._bank or not isinstance(message, (RunBasis, BoostBasis)):
            return message
        sizes = (message.n_eff, message.n_bad)
        rows, bads, self._times = await self._account.meet(self._bank, sizes, self._ids)
        return cast("M", msgspec.structs.replace(message, n_eff=rows, n_bad=bads))

    async def gather(self, senders: Sequence[PartyId], kind: type[M]) -> dict[PartyId, M]:
        """As it is."""
        return await self._inner.gather(senders, kind)

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        """Declares the price of all who learn of the same rows."""
        if counterparty == self._bank:
            declaration = replace(declaration, costs=self._priced(declaration.costs))
        self._inner.declare(counterparty, declaration)

    def headroom(
        self, counterparty: PartyId, data_version: str, basis: Basis, kind: CostKind, features: Sequence[str]
    ) -> tuple[float, ...]:
        """What is left, in answers to this bank."""
        left = self._inner.headroom(counterparty, data_version, basis, kind, features)
        if counterparty != self._bank or kind not in _SHARED:
            return left
        return tuple(room / self._priced_times() for room in left)

    def stage(self, name: str) -> None:
        """As it is."""
        self._inner.stage(name)

    def _priced(self, costs: Sequence[Cost]) -> tuple[Cost, ...]:
        return tuple(
            replace(one, amount=one.amount * self._priced_times()) if one.kind in _SHARED else one for one in costs
        )

    def _priced_times(self) -> int:
        if self._times is None:
            raise BoundError("hybrid.account", f"{self._bank}: nothing is answered before the banks' sizes are known")
        return self._times
