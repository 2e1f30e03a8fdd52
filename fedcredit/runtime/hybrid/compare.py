"""What a hybrid run is held against: every model on every bank's held-out rows, in the clear, in simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.model_run import Outcome
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["MODELS", "Compared", "HybridOutcome", "ModelLine", "Scores"]

Scores = Mapping[PartyId, NDArray[np.float64]]
"""For each bank float64 (m,), risk of its held-out rows: higher is riskier."""


@dataclass(frozen=True)
class ModelLine:
    """One model of the comparison.

    Args:
        key: In ``summary.json``.
        name: Head of a column.
        what: What it is, in a sentence.
    """

    key: str
    name: str
    what: str


MODELS = (
    ModelLine("own", "own columns, own rows", "What each bank can do by itself."),
    ModelLine("own_holders", "own rows, all holders", "Each bank alone with all feature holders: a run of one bank."),
    ModelLine("pooled", "own columns, all rows", "The banks' columns and all their rows in one place, one intercept."),
    ModelLine("hybrid", "hybrid", "All banks and all feature holders; what the banks have in common of it."),
    ModelLine("personal", "hybrid, personal", "The same, and from there each bank's own."),
)
"""The models that are compared, the bank by itself first."""


@dataclass(frozen=True)
class HybridOutcome:
    """What a run left, and what repeating it in the clear needs.

    Args:
        spec: The hybrid run.
        tables: Records by party.
        outcomes: Of each bank's part.
        keep: Secrets of every party as it began a bank's part, fresh at every call.
        common: For each feature holder the bytes that its order of features follows from.
    """

    spec: RunSpec
    tables: Mapping[PartyId, HolderTable]
    outcomes: Mapping[PartyId, Outcome]
    keep: Callable[[PartyId], Mapping[PartyId, KeptSecrets]]
    common: Mapping[PartyId, bytes]


@dataclass(frozen=True)
class Compared:
    """What the comparison found.

    Args:
        risk: By model; a model that is not there could not be built.
        bad: For each bank int64 (m,).
        ids: For each bank the ids of its held-out rows.
        main: Key of the model that the run itself made.
        equal: Whether every bank's scores are those of the same steps in the clear.
        facts: Sentences for the report.
    """

    risk: Mapping[str, Scores]
    bad: Mapping[PartyId, NDArray[np.int64]]
    ids: Mapping[PartyId, tuple[str, ...]]
    main: str
    equal: bool
    facts: tuple[str, ...] = ()
