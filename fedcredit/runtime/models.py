"""The models that can be run, by ``run.model``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedcredit.runtime.boost.run import BOOST_RUN
from fedcredit.runtime.model_run import ModelRun
from fedcredit.runtime.scorecard.run import SCORECARD_RUN

__all__ = ["MODEL_RUNS"]

MODEL_RUNS: Mapping[str, ModelRun] = MappingProxyType({"scorecard": SCORECARD_RUN, "boost": BOOST_RUN})
"""What can be run, by ``run.model``."""
