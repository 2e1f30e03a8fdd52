"""Three banks and a feature holder as people run them: submitted, approved at each house, carried by Flower."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.governance.audit import verify_directory
from fedcredit.runtime.daemon.process import running_pid
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec

if TYPE_CHECKING:
    from tests.e2e import test_operators_daemons as daemons
else:
    sys.path.append(str(Path(__file__).parent))
    import test_operators_daemons as daemons  # skips where nginx is missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BANKS, HOLDER = ("bank_01", "bank_02", "bank_03"), "tax_office"
HOUSES = (*BANKS, HOLDER)
SECTIONS: dict[str, dict[str, Any]] = {
    "partition": {"party": "bank", "by": "size", "banks": 3, "min_rows": 250, "seed": 4},
    "bin": {"prebins": 6, "max_bins": 4, "min_goods": 5, "min_bads": 5, "min_prebin_rows": 5},
}


class HybridTown(daemons.Town):
    """A consortium of three banks and a feature holder; the bank's people decide at one of them."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.config = config
        address, *own = daemons.free_ports(18)
        sources = {**dict.fromkeys(BANKS, "bank.csv"), HOLDER: f"{HOLDER}.csv"}
        raw: dict[str, Any] = {
            "name": "north",
            "trial": True,
            "coordinator": {"address": f"127.0.0.1:{address}"},
            "member": [
                *(
                    {"name": one, "data": {"loans": {"source": str(config.parent / source)}}}
                    for one, source in sources.items()
                ),
                {"name": "ops", "kind": "operator"},
            ],
        }
        self.homes = {str(k): v for k, v in provision_local(ConsortiumSpec.model_validate(raw), folder).items()}
        for home in self.homes.values():
            for path in home.glob("*.toml"):
                path.write_text(self._own_ports(path.read_text(), own))
        for who in HOUSES:
            policy = self.homes[who] / "policy.toml"
            any_run = "false" if who in {"bank_02", HOLDER} else "true"
            rules = f"any_run = {any_run}\nenforce = false"  # the made-up records are too few for the caps
            policy.write_text(policy.read_text().replace("any_run = true", rules))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, consortium: Callable[..., Path]) -> Iterator[HybridTown]:
    folder = tmp_path_factory.mktemp("records")
    config = consortium(folder, holders=(HOLDER,), rows=1500, sections=SECTIONS)
    one = HybridTown(tmp_path_factory.mktemp("homes"), config)
    try:
        one.coordinator("start", "--wait", daemons.WAIT)
        for who in HOUSES:
            one.node(who, "start", "--wait", daemons.WAIT)
        yield one
    finally:
        for who in (*HOUSES, "coordinator"):
            pid = running_pid(one.homes[who] / "state")
            if pid:
                os.kill(pid, signal.SIGKILL)


def test_houses_are_asked_and_have_the_models_of_the_simulation(town: HybridTown, tmp_path: Path) -> None:
    run = town.submit()
    for who in ("bank_02", HOLDER):
        daemons.until(lambda who=who: town.node_state(who, run) == "pending")  # type: ignore[misc]
        asked = town.node(who, "approve", run[:8], "--yes")
        assert "bank_01, bank_02, bank_03" in asked
        assert ("answers each bank in a part of its own" in asked) is (who == HOLDER)
    told = town.run("watch", run)
    assert told.splitlines()[-1].startswith(f"run {run[:12]} finished")
    simulated = simulate(load_spec(town.config), tmp_path / "simulated").out
    for bank in BANKS:
        for party in (bank, HOLDER):
            folder = town.homes[party] / "runs" / run / "banks" / bank / "model" / party
            made = (simulated / "banks" / bank / "model" / party / "scorecard.json").read_bytes()
            assert (folder / "scorecard.json").read_bytes() == made, (bank, party)
    town.run("fetch", run, "--out", str(tmp_path / "record"))
    record = json.loads((tmp_path / "record" / "record.json").read_text())
    assert all(one["ok"] for one in record["outcomes"].values())
    for bank in BANKS:
        assert 0.5 < json.loads((tmp_path / "record" / "shared" / f"{bank}.json").read_text())["auc_test"] < 1
    town.run("fetch", run, "--out", str(tmp_path / "own"), "--home", str(town.homes[HOLDER]))
    verify_directory(tmp_path / "own" / "audit")
    for bank in BANKS:
        assert (tmp_path / "own" / "banks" / bank / "model" / HOLDER / "report.html").exists()


def test_a_run_that_waits_for_a_dead_house_is_stopped_for_all(town: HybridTown) -> None:
    run = town.submit("scorecard.fit=mle", "scorecard.total_noise=0.25")  # another digest: asked anew
    for who in ("bank_02", HOLDER):
        daemons.until(lambda who=who: town.node_state(who, run) == "pending")  # type: ignore[misc]
        town.node(who, "approve", run[:8], "--yes")
    daemons.until((town.homes["bank_03"] / "state" / "runs" / run / "audit").is_dir)
    os.kill(town.pid("bank_03"), signal.SIGKILL)
    town.run("stop", run)
    town.run("watch", run, code=3)
    assert town.state(run) == "stopped"
    for who in ("bank_01", "bank_02", HOLDER):
        failed = town.homes[who] / "state" / "runs" / run / "failed"
        assert "stopped by the operator" in failed.read_text()
