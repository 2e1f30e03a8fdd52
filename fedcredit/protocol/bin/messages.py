"""Messages of binning."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message, Part
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = ["SCHEMA", "Budgets", "FeatureShape", "FeatureShapes", "RunBasis"]

_Code = Annotated[str, Meta(min_length=1, max_length=20)]


class FeatureShape(Part, frozen=True, kw_only=True):
    """What the label holder must know of a feature to merge its bins; no name, no edges."""

    code: _Code
    bins: Annotated[int, Meta(ge=1, le=10_000)]
    ordered: Annotated[int, Meta(ge=0, le=10_000)]
    monotone: Literal["", "increasing", "decreasing", "auto"]


class FeatureShapes(Message, frozen=True, kw_only=True, tag="bin.shapes"):
    """All features of a holder, in an order drawn for this run."""

    features: list[FeatureShape]


class RunBasis(Message, frozen=True, kw_only=True, tag="bin.basis"):
    """Signed by the label holder: the sizes that set the holders' caps."""

    n_eff: Annotated[int, Meta(ge=1)]
    n_bad: Annotated[int, Meta(ge=1)]


class Budgets(Message, frozen=True, kw_only=True, tag="bin.budgets"):
    """What the holder's ledger leaves after the binning, for each feature in the order of the shapes."""

    equations: list[Annotated[float, Meta(ge=0.0)]]


_L, _P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})
_SHAPES = 1 << 22

SCHEMA = ProtocolSchema(
    name="bin",
    messages=(
        Declared(message=RunBasis, senders=_L, receivers=_P, max_bytes=1 << 10),
        Declared(message=FeatureShapes, senders=_P, receivers=_L, max_bytes=_SHAPES, spends=True),
        Declared(message=Budgets, senders=_P, receivers=_L, max_bytes=_SHAPES),
    ),
)
"""All messages of this protocol besides those of its group sums."""
