"""A simulation whose inner results can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcredit.crypto.secret import RunSecret
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime import simulate as simulation
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.runtime.oracle import PooledResult, pool, pooled_scorecard
from fedcredit.spec.load import load_spec


@pytest.fixture
def looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """Runs a configuration; gives spec, tables, the label holder's result, the holders' parts, and the oracle's."""

    def run(config: Path) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        write = simulation._write

        def spy(*arguments: Any) -> Any:
            seen["spec"], seen["tables"], seen["outcome"] = arguments[1:4]
            return write(*arguments)

        monkeypatch.setattr(simulation, "_write", spy)
        seen["summary"] = simulation.simulate(load_spec(config), tmp_path / "looked-into").summary
        monkeypatch.setattr(simulation, "_write", write)
        spec, label = seen["spec"], seen["outcome"].label
        fresh = {
            party: KeptSecrets(RunSecret.fresh(), simulation.replayable_entropy(spec, party), NoEscrow())
            for party in spec.parties
        }
        pooled = pool(label, spec, seen["tables"], fresh)
        oracle: PooledResult = pooled_scorecard(pooled, label.budgets, [spec.label_holder.name, *label.budgets])
        return {**seen, "label": label, "held": seen["outcome"].held, "oracle": oracle}

    return run
