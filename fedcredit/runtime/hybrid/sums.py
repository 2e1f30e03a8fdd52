"""How the banks of a hybrid run add up: secure sums over a network of their own, counted as they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.secret import RunSecret
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import Escrow
from fedcredit.protocol.secure_sum.member import SumHouse
from fedcredit.protocol.secure_sum.roles import SCHEMA, SecureSumPool, relay_sums
from fedcredit.protocol.secure_sum.rules import SignedIdentity, SumRules
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["SUM_SCHEMAS", "CountedPool", "MemberHouse", "open_pool", "relay", "sum_rules"]

SUM_SCHEMAS: tuple[ProtocolSchema, ...] = (SCHEMA,)
"""Messages of the sums."""


@dataclass(frozen=True)
class MemberHouse:
    """What one bank brings to the sums.

    Args:
        secret: Its run secret for them.
        escrow: Where it binds itself to what it sums.
        keys: Signing keys of all banks; its own is used to sign.
    """

    secret: RunSecret
    escrow: Escrow
    keys: Mapping[PartyId, SigningKey]


class CountedPool:
    """A bank's pool that counts what was added.

    Args:
        pool: The secure sums.
    """

    def __init__(self, pool: SecureSumPool) -> None:
        self._pool = pool
        self.sums = 0
        """Totals opened so far."""
        self.values = 0
        """Values in them."""

    @property
    def members(self) -> tuple[PartyId, ...]:
        """See `fedcredit.protocol.pool.Pool`."""
        return self._pool.members

    async def sum(self, what: str, values: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """See `fedcredit.protocol.pool.Pool.sum`."""
        total = await self._pool.sum(what, values, bound)
        self.sums += 1
        self.values += len(values)
        return total

    async def close(self) -> None:
        """Says that no sum follows."""
        await self._pool.close()


def sum_rules(spec: RunSpec, run: str) -> SumRules:
    """The rules of a hybrid run's sums."""
    section = spec.secure_sum
    banks = tuple(bank.name for bank in spec.banks)
    return SumRules(run, banks, section.profile, section.min_banks, section.colluding)


async def open_pool(channel: Channel, rules: SumRules, house: MemberHouse) -> CountedPool:
    """One bank's pool.

    Raises:
        PeerError: another bank's key is not its own, or messages are malformed.
        TransportError: too few banks joined.
    """
    verify = {party: key.public for party, key in house.keys.items()}
    identity = SignedIdentity(house.keys[channel.party], verify)
    member = SumHouse(channel.party, house.secret, house.escrow, identity)
    return CountedPool(await SecureSumPool.open(channel, rules, member))


async def relay(channel: Channel, rules: SumRules) -> None:
    """The coordinator's part."""
    await relay_sums(channel, rules)
