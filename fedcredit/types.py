"""Names that every room shares."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

__all__ = ["COORDINATOR", "PartyId", "Role", "RunId"]

PartyId = NewType("PartyId", str)
"""Name of a party in a run, as written in the spec."""

RunId = NewType("RunId", str)
"""Hex name of one execution of a spec; fresh each time."""

COORDINATOR = PartyId("coordinator")
"""The one party that is in every run and in no spec."""


class Role(StrEnum):
    """What a party does in a run."""

    LABEL_HOLDER = "label_holder"
    FEATURE_HOLDER = "feature_holder"
    COORDINATOR = "coordinator"
