"""What consent is asked for is what runs; and asking does not load the models."""

from __future__ import annotations

import subprocess
import sys

from fedcredit.runtime.model_schemas import MODEL_SCHEMAS
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.rounds.models import ROUND_MODELS


def test_schemas_are_those_of_the_models() -> None:
    schemas = {name: model.schemas for name, model in MODEL_RUNS.items()}
    rounds = {name: model.schemas for name, model in ROUND_MODELS.items()}
    assert {**schemas, **rounds} == dict(MODEL_SCHEMAS)


def test_the_driver_of_runs_starts_without_the_models() -> None:
    code = "import sys, fedcredit.runtime.runs.coordinator_parts; print('numba' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
