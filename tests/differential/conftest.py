"""A simulation whose inner results can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcredit.runtime import simulate as simulation
from fedcredit.runtime.houses import Origin, oracle_secrets
from fedcredit.runtime.model_run import Outcome, Written
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.scorecard.oracle import PooledResult, pool, pooled_scorecard
from fedcredit.runtime.scorecard.run import SCORECARD_RUN
from fedcredit.spec.load import load_spec


@pytest.fixture
def looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """Runs a configuration; gives spec, tables, the label holder's result, the holders' parts, and the oracle's."""

    def run(config: Path) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def spy(files: RunFiles, outcome: Outcome) -> Written:
            seen["outcome"] = outcome
            return SCORECARD_RUN.write(files, outcome)

        watched = {"scorecard": replace(SCORECARD_RUN, write=spy)}
        with monkeypatch.context() as patch:
            patch.setattr(simulation, "MODEL_RUNS", watched)
            summary = simulation.simulate(load_spec(config), tmp_path / "looked-into").summary
        outcome: Outcome = seen["outcome"]
        spec, label = outcome.spec, outcome.results[outcome.leader]
        fresh = oracle_secrets(Origin.of(spec, outcome.tables), {party: bytes(32) for party in spec.parties})
        pooled = pool(label, spec, outcome.tables, fresh)
        oracle: PooledResult = pooled_scorecard(pooled, label.budgets, [outcome.leader, *label.budgets])
        held = {party: outcome.results[party][1] for party in spec.parties if party != outcome.leader}
        return {
            "summary": summary,
            "spec": spec,
            "tables": outcome.tables,
            "outcome": outcome,
            "label": label,
            "held": held,
            "oracle": oracle,
        }

    return run
