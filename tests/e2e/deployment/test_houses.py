"""Houses in processes of their own give what the simulation gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcredit.runtime.simulate import simulate
from fedcredit.types import RunId

RUN = RunId("ab" * 16)


@pytest.mark.slow
def test_processes_and_simulation_agree(houses: Callable[..., Any], tmp_path: Path) -> None:
    made = houses()
    made.start_exchange()
    made.open_run(RUN)
    order = made.order(RUN)
    for party in made.parties:
        made.start_program(party, RUN, order)
    ended = made.all_finished(RUN)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    out = simulate(made.loaded, tmp_path / "out").out
    for party in made.loaded.spec.parties:
        folder = made.homes[party].runs / RUN
        name = f"model/{party}/scorecard.json"
        assert json.loads((folder / name).read_text()) == json.loads((out / name).read_text())
        assert (folder / ("report.html" if party == "bank" else f"model/{party}/report.html")).exists()
