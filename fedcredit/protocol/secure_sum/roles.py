"""Secure sums over a channel: the pool of a bank, and the coordinator's loop.

A bank that does not answer within the channel's time-out, or has ended, is out for good and the others go on without
it, as long as enough are left. A bank that stops with an error stops the run, as everywhere.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import TransportError
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.secure_sum.member import SumHouse, SumMember
from fedcredit.protocol.secure_sum.messages import SCHEMA, Begin, Opening, Survivors, Turn, Welcome
from fedcredit.protocol.secure_sum.relay import SumRelay
from fedcredit.protocol.secure_sum.rules import SumRules
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.message import Message

__all__ = ["SCHEMA", "SecureSumPool", "relay_sums"]


class SecureSumPool:
    """A bank's end of a series of secure sums; implements `fedcredit.protocol.pool.Pool`. Made by `open`."""

    def __init__(self, channel: Channel, member: SumMember) -> None:
        self._channel, self._member = channel, member
        self.totals = 0
        """Sums opened so far."""

    @classmethod
    async def open(cls, channel: Channel, rules: SumRules, house: SumHouse) -> SecureSumPool:
        """Joins the other banks; the channel serves these sums alone until `close`.

        Raises:
            PeerError: malformed messages, or keys that are not whose they should be.
            TransportError: too few banks joined, code ``secure_sum.floor``, or the coordinator is gone.
        """
        channel.stage(rules.name)
        member = SumMember(rules, house)
        await channel.send(COORDINATOR, member.join())
        await channel.send(COORDINATOR, member.prepare(await channel.receive(COORDINATOR, Welcome)))
        member.begin(await channel.receive(COORDINATOR, Begin))
        return cls(channel, member)

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks of the next sum, sorted."""
        return self._member.members

    async def sum(self, what: str, values: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """The total over the banks whose vectors arrived; see `fedcredit.protocol.pool.Pool.sum`.

        Raises:
            BoundError: a value beyond the bound, or totals that are not proven exact.
            PeerError: members ask for different sums, or bytes are not what they should be.
            TransportError: too few banks are left, code ``secure_sum.floor``.
        """
        message = self._member.contribute(what, values, bound)
        await self._channel.send(COORDINATOR, Turn(more=True))
        await self._channel.send(COORDINATOR, message)
        survivors = await self._channel.receive(COORDINATOR, Survivors)
        await self._channel.send(COORDINATOR, self._member.unmask(survivors))
        total = self._member.open(await self._channel.receive(COORDINATOR, Opening))
        self.totals += 1
        return total.values

    async def close(self) -> None:
        """Says that no sum follows."""
        await self._channel.send(COORDINATOR, Turn(more=False))


async def relay_sums(channel: Channel, rules: SumRules) -> SumRelay:
    """The coordinator's part, until no bank wants another sum.

    Returns:
        The relay, which says who dropped out.

    Raises:
        PeerError: a bank's message is malformed, or banks disagree about a sum.
        TransportError: too few banks are left, code ``secure_sum.floor``.
    """
    channel.stage(rules.name)
    relay = SumRelay(rules)
    for _ in range(2):  # keys, then boxes
        await _collect(channel, relay)
        await _tell(channel, relay)
    while await _more(channel, relay):
        for _ in range(2):  # vectors, then shares
            await _collect(channel, relay)
            await _tell(channel, relay)
    return relay


async def _more(channel: Channel, relay: SumRelay) -> bool:
    """Whether another sum follows; a bank that goes before the others is missing to them."""
    turns, gone = await _heard(channel, sorted(relay.waiting), Turn)
    going = {party for party, turn in turns.items() if isinstance(turn, Turn) and turn.more}
    if not going:
        return False
    relay.missing({*gone, *turns} - going)
    return True


async def _collect(channel: Channel, relay: SumRelay) -> None:
    came, gone = await _heard(channel, sorted(relay.waiting), relay.expects)
    for party, message in came.items():
        relay.take(party, message)
    relay.missing(gone)


async def _heard(
    channel: Channel, parties: list[PartyId], kind: type[Message]
) -> tuple[dict[PartyId, Message], set[PartyId]]:
    """What each bank sent, and who sent nothing in time; all are waited for at once."""
    found = await asyncio.gather(*(channel.receive(party, kind) for party in parties), return_exceptions=True)
    came: dict[PartyId, Message] = {}
    gone: set[PartyId] = set()
    for party, one in zip(parties, found, strict=True):
        if isinstance(one, TransportError):
            gone.add(party)
        elif isinstance(one, BaseException):
            raise one
        else:
            came[party] = one
    return came, gone


async def _tell(channel: Channel, relay: SumRelay) -> None:
    """Sends what follows; who cannot be reached will be missing in the next step."""
    for party, message in relay.advance().items():
        with suppress(TransportError):
            await channel.send(party, message)
