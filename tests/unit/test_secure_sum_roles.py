"""Pools of banks over the local network: totals, drop-outs, what each role receives."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.errors import PeerError, TransportError
from fedcredit.protocol.pool import Pool
from fedcredit.protocol.secure_sum import roles as roles_of
from fedcredit.protocol.secure_sum.relay import SumRelay
from fedcredit.protocol.secure_sum.roles import SCHEMA, SecureSumPool, relay_sums
from fedcredit.protocol.secure_sum.rules import SumRules
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.leakage import parse_leakage

if TYPE_CHECKING:
    from tests.adversarial.secure_sum_town import Profile, house, names, signing_key, vectors
else:
    sys.path.append(str(Path(__file__).parents[1] / "adversarial"))
    from secure_sum_town import Profile, house, names, signing_key, vectors

RUN = RunId("ab" * 16)
BANKS = names(4)
BOUND = 1000


def network(**changes: Any) -> LocalNetwork:
    roster = {**dict.fromkeys(BANKS, Role.LABEL_HOLDER), COORDINATOR: Role.COORDINATOR}
    keys = {party: signing_key(party) for party in roster}
    entropy = UnsafeSeededEntropy(b"\5" * 32)
    return LocalNetwork(
        LocalSettings(RUN, "d" * 64, roster, [SCHEMA], entropy, signing_keys=keys, **{"timeout_s": 30.0, **changes})
    )


async def opened(net: LocalNetwork, bank: PartyId, rules: SumRules) -> SecureSumPool:
    return await SecureSumPool.open(net.channel(bank), rules, house(bank, BANKS))


async def summing(net: LocalNetwork, bank: PartyId, rules: SumRules, sums: int) -> list[list[int]]:
    """A bank that takes part in so many sums and then says good-bye."""
    pool = await opened(net, bank, rules)
    typed: Pool = pool
    found = []
    for step in range(sums):
        values = vectors(BANKS, 5, BOUND, step)[bank]
        found.append((await typed.sum(f"step {step}", values, BOUND)).tolist())
    await pool.close()
    return found


def run(net: LocalNetwork, roles: dict[PartyId, Coroutine[Any, Any, Any]]) -> dict[PartyId, Any]:
    return asyncio.run(net.run_roles(roles))


def expected(step: int, banks: tuple[PartyId, ...]) -> list[int]:
    values = vectors(BANKS, 5, BOUND, step)
    return [int(value) for value in np.sum([values[bank] for bank in banks], axis=0)]


@pytest.mark.parametrize("profile", ["masked+he", "masked"])
def test_pools_give_plain_totals(profile: Profile) -> None:
    net, rules = network(), SumRules(RUN, BANKS, profile)
    roles: dict[PartyId, Coroutine[Any, Any, Any]] = {bank: summing(net, bank, rules, 3) for bank in BANKS}
    found = run(net, {**roles, COORDINATOR: relay_sums(net.channel(COORDINATOR), rules)})
    for bank in BANKS:
        assert found[bank] == [expected(step, BANKS) for step in range(3)]
    assert isinstance(found[COORDINATOR], SumRelay)
    assert not found[COORDINATOR].dropped
    assert {entry.recipient for entry in net.transcript if entry.sender in BANKS} == {COORDINATOR}
    page = parse_leakage((Path(roles_of.__file__).parent / "LEAKAGE.md").read_text(encoding="utf-8"))
    received = {(net.settings.roster[entry.recipient], entry.kind) for entry in net.transcript}
    assert received == {(row.receiver, row.message) for row in page}, "every kind of the page was received"


def test_a_bank_that_ends_is_gone_and_the_others_go_on() -> None:
    net, rules = network(), SumRules(RUN, BANKS, "masked")

    async def short(bank: PartyId) -> None:
        pool = await opened(net, bank, rules)
        await pool.sum("step 0", vectors(BANKS, 5, BOUND, 0)[bank], BOUND)

    roles: dict[PartyId, Coroutine[Any, Any, Any]] = {bank: summing(net, bank, rules, 3) for bank in BANKS[:3]}
    roles |= {BANKS[3]: short(BANKS[3]), COORDINATOR: relay_sums(net.channel(COORDINATOR), rules)}
    found = run(net, roles)
    assert found[COORDINATOR].dropped == [BANKS[3]]
    assert found[BANKS[0]] == [expected(0, BANKS), expected(1, BANKS[:3]), expected(2, BANKS[:3])]


def test_a_bank_that_goes_while_a_sum_is_under_way_is_not_in_it() -> None:
    """It has said that a sum follows, and ends before it sends its vector; a second one before it sends its shares."""
    net, rules = network(), SumRules(RUN, BANKS, "masked")

    async def breaks(bank: PartyId) -> None:
        pool = await opened(net, bank, rules)
        pool._member.contribute("step 0", vectors(BANKS, 5, BOUND, 0)[bank], BOUND)

    roles: dict[PartyId, Coroutine[Any, Any, Any]] = {bank: summing(net, bank, rules, 2) for bank in BANKS[:3]}
    roles |= {BANKS[3]: breaks(BANKS[3]), COORDINATOR: relay_sums(net.channel(COORDINATOR), rules)}
    found = run(net, roles)
    assert found[BANKS[1]] == [expected(step, BANKS[:3]) for step in range(2)]


def test_too_few_banks_end_the_run() -> None:
    net, rules = network(), SumRules(RUN, BANKS, "masked")

    async def ends(bank: PartyId) -> None:
        await opened(net, bank, rules)

    roles: dict[PartyId, Coroutine[Any, Any, Any]] = {bank: summing(net, bank, rules, 2) for bank in BANKS[:2]}
    roles |= {bank: ends(bank) for bank in BANKS[2:]}
    with pytest.raises(TransportError, match=r"secure_sum\.floor"):
        run(net, {**roles, COORDINATOR: relay_sums(net.channel(COORDINATOR), rules)})


def test_banks_that_disagree_end_the_run() -> None:
    net, rules = network(), SumRules(RUN, BANKS, "masked")

    async def other(bank: PartyId) -> None:
        pool = await opened(net, bank, rules)
        await pool.sum("another", np.zeros(5, dtype=np.int64), BOUND)

    roles: dict[PartyId, Coroutine[Any, Any, Any]] = {bank: summing(net, bank, rules, 1) for bank in BANKS[:3]}
    with pytest.raises(PeerError, match=rf"{BANKS[3]}: its vector is for another sum.*secure_sum\.about"):
        run(net, {**roles, BANKS[3]: other(BANKS[3]), COORDINATOR: relay_sums(net.channel(COORDINATOR), rules)})
