"""Banks and a relay in one process that pass each other messages; what crossed is kept for attacks to play on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.secret import RunSecret
from fedcredit.protocol.secure_sum.member import SumHouse, SumMember, SumTotal
from fedcredit.protocol.secure_sum.messages import Contribution, Shares
from fedcredit.protocol.secure_sum.relay import SumRelay
from fedcredit.protocol.secure_sum.rules import SignedIdentity, SumRules
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import Message, decode, encode

Profile = Literal["masked+he", "masked"]
Ints = NDArray[np.int64]


def names(count: int) -> tuple[PartyId, ...]:
    return tuple(PartyId(f"bank_{number:02d}") for number in range(1, count + 1))


def signing_key(party: PartyId) -> SigningKey:
    return SigningKey(party.encode().ljust(32, b"\1"))


def house(party: PartyId, banks: Collection[PartyId], seed: int = 0) -> SumHouse:
    secret = RunSecret(f"{seed}/{party}".encode().ljust(32, b"\2"))
    identity = SignedIdentity(signing_key(party), {one: signing_key(one).public for one in banks})
    return SumHouse(party, secret, NoEscrow(), identity)


def crossed(message: Any) -> Any:
    """A message after it went over the wire."""
    return decode(type(message), encode(message))


@dataclass
class Town:
    """So many banks under one set of rules."""

    count: int
    profile: Profile = "masked+he"
    min_banks: int = 3
    colluding: int = 1
    seed: int = 0
    banks: tuple[PartyId, ...] = ()
    rules: SumRules = field(init=False)
    relay: SumRelay = field(init=False)
    members: dict[PartyId, SumMember] = field(init=False)
    wire: list[tuple[PartyId, Message]] = field(default_factory=list)
    """What the relay got, and from whom."""

    def __post_init__(self) -> None:
        self.banks = names(self.count)
        self.rules = SumRules("ab" * 16, self.banks, self.profile, self.min_banks, self.colluding)
        self.relay = SumRelay(self.rules)
        self.houses = {bank: house(bank, self.banks, self.seed) for bank in self.banks}
        self.members = {bank: SumMember(self.rules, self.houses[bank]) for bank in self.banks}

    def told(self, bank: PartyId, message: Message) -> None:
        self.wire.append((bank, message))
        self.relay.take(bank, crossed(message))

    def start(self, late_join: Collection[str] = (), late_box: Collection[str] = ()) -> Town:
        for bank in self.banks:
            if bank not in late_join:
                self.told(bank, self.members[bank].join())
        self.relay.missing(self.relay.waiting)
        for bank, message in self.relay.advance().items():
            if bank not in late_box:
                self.told(bank, self.members[bank].prepare(crossed(message)))
        self.relay.missing(self.relay.waiting)
        for bank, message in self.relay.advance().items():
            self.members[bank].begin(crossed(message))
        return self

    def contribute(self, values: Mapping[PartyId, Ints], bound: int, late: Collection[str] = ()) -> None:
        """Vectors of all; those of the late are made and recorded, but reach the relay when it has gone on."""
        for bank in self.relay.members:
            message = self.members[bank].contribute("x", values[bank], bound)
            if bank in late:
                self.wire.append((bank, message))
            else:
                self.told(bank, message)
        self.relay.missing(self.relay.waiting)

    def answer(self, silent: Collection[str] = ()) -> None:
        for bank, message in self.relay.advance().items():
            if bank not in silent:
                self.told(bank, self.members[bank].unmask(crossed(message)))
        self.relay.missing(self.relay.waiting)

    def opened(self) -> dict[PartyId, SumTotal]:
        return {bank: self.members[bank].open(crossed(one)) for bank, one in self.relay.advance().items()}

    def sum(
        self,
        values: Mapping[PartyId, Ints],
        bound: int,
        late: Collection[str] = (),
        silent: Collection[str] = (),
    ) -> dict[PartyId, SumTotal]:
        self.contribute(values, bound, late)
        self.answer(silent)
        return self.opened()

    def forget(self) -> None:
        """Every bank goes on in another process."""
        for bank, member in self.members.items():
            self.members[bank] = SumMember(self.rules, self.houses[bank], member.state())

    def contribution(self, bank: PartyId, number: int = 1) -> Contribution:
        return next(m for who, m in self.wire if who == bank and isinstance(m, Contribution) and m.number == number)

    def shares(self, number: int = 1) -> dict[PartyId, Shares]:
        return {who: m for who, m in self.wire if isinstance(m, Shares) and m.number == number}


def vectors(banks: Collection[PartyId], length: int, bound: int, seed: int = 0) -> dict[PartyId, Ints]:
    rng = np.random.default_rng(seed)
    return {bank: rng.integers(-bound, bound + 1, length) for bank in banks}
