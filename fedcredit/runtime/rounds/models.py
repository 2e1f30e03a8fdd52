"""The models that are learned in rounds, by ``run.model``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedcredit.runtime.averaging.run import FEDAVG_RUN
from fedcredit.runtime.rounds.model import RoundModel

__all__ = ["ROUND_MODELS"]

ROUND_MODELS: Mapping[str, RoundModel] = MappingProxyType({"fedavg": FEDAVG_RUN})
"""As `fedcredit.runtime.runs.driver_parts.IN_ROUNDS` lists them."""
