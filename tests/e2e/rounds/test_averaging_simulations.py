"""Simulations of averaging: in one process and on Flower the same model; killed ones go on; banks that fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from fedcredit.cli import main
from fedcredit.errors import DisclosureRefused, FedCreditError, SpecError
from fedcredit.governance.audit import verify_directory
from fedcredit.protocol.fedavg.model import AveragedModel
from fedcredit.runtime.progress import Progress
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec

if TYPE_CHECKING:
    from tests.e2e.rounds import made_up_banks
else:
    sys.path.append(str(Path(__file__).parent))
    import made_up_banks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def summary(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text()))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_banks.write_banks(tmp_path_factory.mktemp("records"), 8)


@pytest.fixture(scope="module")
def here(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in one process."""
    out = tmp_path_factory.mktemp("here") / "out"
    assert main(["simulate", str(records), "--out", str(out)]) == 0
    return out


def test_a_run_directory_has_everything(here: Path) -> None:
    found = summary(here)
    assert found["model_equals_plain_sums"] is True
    assert (found["engine"], found["lost"], len(found["members"])) == ("local", [], 8)
    assert found["auc_test"] > 0.65
    assert {bank["name"] for bank in found["banks"]} == {f"bank_{number:02d}" for number in range(1, 9)}
    for bank in found["banks"]:
        folder = here / "model" / bank["name"]
        model = AveragedModel.from_bytes((folder / "model.json").read_bytes())
        assert model.digest() == found["model_digest"]
        assert pl.read_parquet(folder / "predictions.parquet").height == bank["rows_test"]
        assert len(json.loads((folder / "rounds.json").read_text())) == 3
    verify_directory(here / "audit")
    assert "Averaged" in (here / "report.html").read_text()
    assert not list(here.parent.glob(".*")), "nothing is left beside it"
    assert not (here / "secrets").exists()
    assert not (here / "checkpoints").exists()
    steps = json.loads((here / "leakage.json").read_text())["steps"]
    assert {step["protocol"] for step in steps} == {"fedavg", "secure_sum"}


def test_flower_gives_the_same_model_and_the_same_messages(
    records: Path, here: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    out = tmp_path / "out"
    assert main(["simulate", str(records), "--out", str(out), "--engine", "flower"]) == 0
    mine, flower = summary(here), summary(out)
    assert flower["engine"] == "flower"
    assert flower["model_digest"] == mine["model_digest"]
    assert flower["bytes_sent"].keys() == mine["bytes_sent"].keys()
    assert flower["messages"] == mine["messages"]
    verify_directory(out / "audit")
    for bank in ("bank_01", "bank_08"):
        part = f"model/{bank}/predictions.parquet"
        assert pl.read_parquet(here / part).equals(pl.read_parquet(out / part))
    record_property("seconds", flower["seconds"])


def test_an_interrupted_run_goes_on_where_it_was(records: Path, here: Path, tmp_path: Path) -> None:
    def interrupt(at: Progress) -> None:
        if at.stage == "rounds" and at.done == 7:
            raise KeyboardInterrupt

    loaded, out = load_spec(records), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        simulate(loaded, out, progress=interrupt)
    assert len(list(tmp_path.glob(".out.*"))) == 1
    asked: list[int] = []

    def count(at: Progress) -> None:
        if at.stage == "rounds" and at.done is not None:
            asked.append(at.done)

    found = simulate(loaded, out, progress=count, resume=True).summary
    assert asked[0] == 8, "what was asked before is not asked again"
    assert found["restarts"] == 1
    assert found["model_digest"] == summary(here)["model_digest"]
    verify_directory(out / "audit")


def test_noise_is_booked_and_what_costs_too_much_is_refused_before_it_starts(tmp_path: Path) -> None:
    noisy: dict[str, dict[str, object]] = {"differential_privacy": {"unit": "record"}, "fedavg": {"rounds": 2}}
    config = made_up_banks.write_banks(tmp_path / "records", 3, 120, noisy)
    found = simulate(load_spec(config), tmp_path / "out").summary
    block = found["differential_privacy"]
    assert block["unit"] == "record"
    assert block["epsilon"] == block["planned_epsilon"] > 0
    assert all(bank["epsilon"] <= block["epsilon"] for bank in found["banks"])
    dear = load_spec(config, ["differential_privacy.max_epsilon=0.5"])
    with pytest.raises(DisclosureRefused, match="not one round would fit"):
        simulate(dear, tmp_path / "dear")
    assert not (tmp_path / "dear").exists()


def test_a_bank_that_cannot_take_part_is_left_out_or_stops_the_run(tmp_path: Path) -> None:
    config = made_up_banks.write_banks(tmp_path / "records", 4, 120, {"fedavg": {"rounds": 1}})
    loaded = load_spec(config)
    odd = pl.read_csv(tmp_path / "records" / "bank_04.csv").rename({"delay": "waiting"})
    odd.write_csv(tmp_path / "records" / "bank_04.csv")
    with pytest.raises(FedCreditError) as error:
        simulate(loaded, tmp_path / "out")
    assert "bank" in error.value.public


def test_an_engine_is_for_rounds_only(consortium: Callable[..., Path], tmp_path: Path) -> None:
    config = consortium(tmp_path / "records", rows=200)
    assert main(["simulate", str(config), "--out", str(tmp_path / "out"), "--engine", "flower"]) == SpecError.exit_code
