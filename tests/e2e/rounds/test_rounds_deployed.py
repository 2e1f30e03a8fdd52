"""Averaging between houses over Flower's messages: four banks, the digest of the simulation, and banks that fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedcredit.errors import FedCreditError
from fedcredit.governance.audit import verify_directory
from fedcredit.runtime.averaging.simulation import simulate_averaging
from fedcredit.runtime.daemon.proxy import find_nginx
from fedcredit.spec.load import load_spec
from fedcredit.types import COORDINATOR, PartyId

if TYPE_CHECKING:
    from tests.e2e.rounds import made_up_banks, rounds_town
else:
    sys.path.append(str(Path(__file__).parent))
    import made_up_banks
    import rounds_town

try:
    find_nginx()
except FedCreditError as missing:
    pytest.skip(f"NOT TESTED: {missing}", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rounds_town.Town]:
    folder = tmp_path_factory.mktemp("banks")
    sections: dict[str, dict[str, object]] = {
        "secure_sum": {"profile": "masked+he"},
        "fedavg": {"rounds": 1, "round_timeout_s": 300.0},
    }
    config = made_up_banks.write_banks(folder / "records", 4, sections=sections)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        made, proxy = rounds_town.build(folder, load_spec(config))
        try:
            made.start(proxy)
            yield made
        finally:
            made.stop()


def test_banks_get_the_model_of_the_simulation(
    town: rounds_town.Town, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run = town.launch()
    assert town.ended(run) == "finished: all parties have finished", town.told()
    out = simulate_averaging(town.loaded, tmp_path / "out")
    simulated = json.loads((out / "summary.json").read_text())
    assert simulated["model_equals_plain_sums"] is True
    for party in town.nodes:
        folder = town.homes[party].runs / run
        assert town.summary(party, run)["model_digest"] == simulated["model_digest"]
        assert (folder / f"model/{party}/model.json").read_bytes() == (out / f"model/{party}/model.json").read_bytes()
        assert not (folder / "secrets").exists()
        assert not (folder / "checkpoints").exists()
        verify_directory(folder / "audit")
    assert set(town.registry.outcomes(run)) == {*town.nodes, COORDINATOR}
    steps = town.events(run, "round")
    record_property("steps", steps)
    assert len(steps) == 11


def test_the_others_go_on_without_a_bank_that_is_killed_in_a_round(town: rounds_town.Town) -> None:
    run, gone = town.launch({"round_timeout_s": 120.0}), PartyId("bank_04")
    town.until(400, lambda: len(town.events(run, "round")) >= 4)
    town.stop_node(gone)
    end = town.ended(run)
    assert end.startswith(f"finished: all parties have finished; without {gone}: no answer within 120 s"), town.told()
    left = [party for party in town.nodes if party != gone]
    assert len({town.summary(party, run)["model_digest"] for party in left}) == 1
    assert {*town.summary(left[0], run)["members"]} == {*left}
    assert any(gone in one for one in town.events(run, "missing"))
    town.start_node(gone)


def test_below_the_floor_the_run_fails_and_names_who_is_missing(town: rounds_town.Town) -> None:
    run, gone = town.launch({"round_timeout_s": 120.0}), [PartyId("bank_03"), PartyId("bank_04")]
    town.until(400, lambda: len(town.events(run, "round")) >= 4)
    for party in gone:
        town.stop_node(party)
    end = town.ended(run)
    assert end.startswith("failed: "), end
    assert end.endswith("[secure_sum.floor]"), end
    assert all(party in end for party in gone)
    for party in gone:
        town.start_node(party)
