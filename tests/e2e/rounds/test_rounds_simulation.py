"""Rounds carried by Flower's simulation engine over Ray: as in one process, byte for byte."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedcredit.errors import FedCreditError
from fedcredit.runtime.flower_office import FlowerJob, FlowerOffice
from fedcredit.runtime.rounds.driver import RoundLimits

if TYPE_CHECKING:
    from tests.e2e.rounds import rounds_stub as stub
else:
    sys.path.append(str(Path(__file__).parent))
    import rounds_stub as stub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def carried(town: stub.Town, limits: RoundLimits | None = None) -> tuple[list[int], list[str], float]:
    """Totals, who was lost, and seconds without the engine's start and end."""
    (town.folder / "stub").write_text(f"{town.count} {town.rounds}")
    job = FlowerJob(
        run=stub.RUN,
        folder=str(town.folder),
        parties=list(town.banks),
        visit="rounds_stub:flower_visit",
        timeout_s=60,
        cpus=2,
        paths=[str(Path(__file__).parent)],
    )

    async def through() -> tuple[list[int], list[str], float]:
        async with FlowerOffice(job, town.folder / "logs" / "flower.log") as office:
            with town.driver(office.visit, limits) as (driver, relay):
                began = time.perf_counter()
                await driver.through()
                return relay.totals, [str(one) for one in driver.lost], time.perf_counter() - began

    return asyncio.run(through())


def test_eight_banks(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    town = stub.Town(tmp_path, 8, 5)
    totals, lost, seconds = carried(town)
    assert (totals, lost) == (stub.expected(range(1, 9), 5), [])
    record_property("seconds", seconds)
    here = stub.Town(tmp_path / "here", 8, 5)
    with here.driver(here.at_once) as (driver, _):
        asyncio.run(driver.through())
    for party in town.banks:
        place = Path("checkpoints") / party
        assert (town.folder / place).read_bytes() == (here.folder / place).read_bytes(), "down to the last envelope"


def test_a_bank_that_dies_in_a_round_is_left_out_by_the_others(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 5, 3)
    (tmp_path / "bank_02.sleeps").touch()
    (tmp_path / "bank_05.broken").touch()
    totals, lost, _ = carried(town, RoundLimits(round_s=4, again_s=0.5))
    assert sorted(lost) == [
        "bank_02: no answer within 4 s [rounds.late]",
        "bank_05: the party's own records do not carry this run [node.failed]",
    ]
    assert totals == stub.expected([1, 3, 4], 3)


def test_too_few_banks_left(tmp_path: Path) -> None:
    town = stub.Town(tmp_path, 4, 3)
    for party in ("bank_01", "bank_04"):
        (tmp_path / f"{party}.broken").touch()
    with pytest.raises(FedCreditError) as error:
        carried(town)
    assert error.value.code == "secure_sum.floor"
    assert "bank_01" in error.value.public
    assert "bank_04" in error.value.public
