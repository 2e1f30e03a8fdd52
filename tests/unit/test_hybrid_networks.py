"""Networks and rooms of hybrid runs: who is in which, what they are called, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedcredit.errors import FedCreditError, PeerError, SpecError, TransportError
from fedcredit.runtime.daemon.logs import Logs
from fedcredit.runtime.daemon.runs import RunKeeper
from fedcredit.runtime.exchange.channel import LinkPatience
from fedcredit.runtime.exchange.types import PeerRestarted, Presence
from fedcredit.runtime.hybrid.networks import SUMS, network_run, networks_of
from fedcredit.runtime.hybrid.rooms import MOST_ROOMS, check_rooms, rooms_of
from fedcredit.runtime.hybrid.side_by_side import all_of
from fedcredit.runtime.party_end import PEER_FAILED
from fedcredit.runtime.runs.registry import Registry
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

RUN = RunId("ab" * 16)
BANKS = [PartyId(f"bank_{number}") for number in range(3)]
TAX, CUSTOMS = PartyId("tax_office"), PartyId("customs")
ROLES = {**dict.fromkeys(BANKS, Role.LABEL_HOLDER), TAX: Role.FEATURE_HOLDER, CUSTOMS: Role.FEATURE_HOLDER}


def spec_of(roles: dict[PartyId, Role]) -> str:
    return json.dumps({"party": [{"name": name, "role": str(role)} for name, role in roles.items()]})


def test_no_bank_is_in_anothers_part_and_no_holder_in_the_sums() -> None:
    found = networks_of(RUN, ROLES)
    assert list(found) == [*BANKS, SUMS]
    for bank in BANKS:
        assert set(found[bank].roster) == {bank, TAX, CUSTOMS, COORDINATOR}
    assert set(found[SUMS].roster) == {*BANKS, COORDINATOR}
    names = {one.run for one in found.values()}
    assert len(names) == 4
    assert RUN not in names
    assert not names & {one.run for one in networks_of(RunId("cd" * 16), ROLES).values()}


def test_a_bank_cannot_be_called_as_the_sums_are() -> None:
    with pytest.raises(SpecError, match='party "sums"'):
        networks_of(RUN, {**ROLES, SUMS: Role.LABEL_HOLDER})
    assert SUMS in networks_of(RUN, {**ROLES, SUMS: Role.FEATURE_HOLDER})[BANKS[0]].roster


def test_more_banks_than_rooms_are_refused_by_number() -> None:
    def banks(count: int) -> dict[PartyId, Role]:
        return {**{PartyId(f"b{n}"): Role.LABEL_HOLDER for n in range(count)}, TAX: Role.FEATURE_HOLDER}

    check_rooms(banks(MOST_ROOMS - 1))
    check_rooms({PartyId(f"b{n}"): Role.LABEL_HOLDER for n in range(60)})  # averaging: one room
    with pytest.raises(SpecError, match=f"{MOST_ROOMS} banks .* at most {MOST_ROOMS - 1}"):
        check_rooms(banks(MOST_ROOMS))


class Switchboard:
    """An exchange with few rooms."""

    def __init__(self, most: int) -> None:
        self.most, self.open, self.stopped = most, dict[RunId, tuple[PartyId, ...]](), list[RunId]()

    async def open_run(self, run: RunId, members: Sequence[PartyId]) -> None:
        if len(self.open) >= self.most:
            raise TransportError("exchange.runs", "full")
        self.open[run] = tuple(members)

    async def stop_run(self, run: RunId, _: str) -> None:
        self.stopped.append(run)

    async def close_run(self, run: RunId) -> None:
        self.open.pop(run, None)


class Grounded:
    """Flower that carries one run and says nothing."""

    def __init__(self) -> None:
        self.launched: list[RunId] = []

    def ready(self) -> bool:
        return True

    async def launch(self, run: RunId) -> str:
        self.launched.append(run)
        return "1"

    async def ended(self, _: Sequence[str]) -> frozenset[str]:
        return frozenset()

    async def cancel(self, _: str) -> None:
        return


@pytest.mark.parametrize("most", [3, 4])
def test_the_rooms_of_a_run_are_opened_stopped_and_closed_together(tmp_path: Path, most: int) -> None:
    registry, exchange, flower = Registry(tmp_path / "registry.sqlite"), Switchboard(most), Grounded()
    logs = Logs("coordinator", tmp_path, quiet=True)
    run = registry.submit(spec_of(ROLES), "first", "d" * 64, "scorecard", "loans")
    rooms = rooms_of(registry.get(run))
    assert set(rooms) == {network_run(run, name) for name in (*BANKS, SUMS)}

    async def steps() -> None:
        keeper = RunKeeper(registry, exchange, flower, logs.log)
        await keeper.recover()
        await asyncio.sleep(0.05)
        await keeper.step()
        if most < len(rooms):
            assert exchange.open == {}  # whole or not at all
            assert flower.launched == []
            await keeper.close()
            return
        assert exchange.open == rooms
        registry.cut(run, "stopped by the operator")
        await keeper.step()
        assert set(exchange.stopped) == set(rooms)
        registry.set_state(run, "failed", "it is")
        await keeper.step()
        assert exchange.open == {}
        await keeper.close()

    try:
        asyncio.run(steps())
    finally:
        registry.close()
        logs.close()


def test_a_run_of_one_bank_has_its_own_room(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    roles = {BANKS[0]: Role.LABEL_HOLDER, TAX: Role.FEATURE_HOLDER}
    run = registry.submit(spec_of(roles), "first", "d" * 64, "scorecard", "loans")
    assert rooms_of(registry.get(run)) == {run: (BANKS[0], TAX, COORDINATOR)}
    registry.close()


def test_several_waits_at_one_inbox_all_look_again() -> None:
    """What came for one of them is seen although another has cleared the event in between."""
    link: Any = SimpleNamespace(
        note=lambda _: None, presence=lambda: {PartyId("x"): Presence(connected=True, seconds=0.0, waiting_for=None)}
    )
    end: Any = SimpleNamespace(party=COORDINATOR, post=SimpleNamespace(waits_for=PartyId("x")))

    async def waits() -> list[bool]:
        event, seen = asyncio.Event(), []

        async def one(*, clears: bool) -> bool:
            found = await LinkPatience(link, end, 30.0, 30.0).wait(event)
            seen.append(found)
            if clears:
                event.clear()
            return found

        tasks = [asyncio.create_task(one(clears=True)), asyncio.create_task(one(clears=False))]
        await asyncio.sleep(0.01)
        event.set()
        async with asyncio.timeout(0.5):
            return list(await asyncio.gather(*tasks))

    assert asyncio.run(waits()) == [True, True]


def test_of_several_roles_the_cause_is_told_before_its_echo() -> None:
    async def fails(error: Exception, after: float) -> None:
        await asyncio.sleep(after)
        raise error

    def told(*errors: Exception) -> BaseException:
        roles = {PartyId(f"n{at}"): fails(one, 0.01 * at) for at, one in enumerate(errors)}
        with pytest.raises((FedCreditError, PeerRestarted)) as found:
            asyncio.run(all_of(roles))
        return found.value

    echo, cause, again = PeerError(PEER_FAILED, "x"), TransportError("run.timeout", "y"), PeerRestarted(TAX, 2)
    assert told(echo, cause) is cause
    assert told(cause, echo) is cause
    assert told(echo, cause, again) is again
