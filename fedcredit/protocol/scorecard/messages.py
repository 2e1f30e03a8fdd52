"""Messages of the scorecard."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message, Name, Part
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = [
    "SCHEMA",
    "Choice",
    "EncryptedPartial",
    "EncryptedTotal",
    "FitStep",
    "Kept",
    "MaskPublicKey",
    "MaskedProducts",
    "OtherHolder",
    "PartialPoints",
    "ProductMasks",
    "Selection",
    "TotalsKey",
]

_Code = Annotated[str, Meta(min_length=1, max_length=20)]
_Round = Annotated[int, Meta(ge=0, le=100)]
_Rows = Literal["train", "test"]
_Table = list[Annotated[int, Meta(ge=-(2**30), le=2**30)]]


class Choice(Part, frozen=True, kw_only=True):
    """What the owner of a chosen feature needs: which prebins were merged, and each merged bin's WOE."""

    code: _Code
    group: list[Annotated[int, Meta(ge=0, le=10_000)]]
    woe: list[Annotated[int, Meta(ge=-100, le=100)]]


class OtherHolder(Part, frozen=True, kw_only=True):
    """Another feature holder of the fit and how many columns it brings."""

    party: Name
    columns: Annotated[int, Meta(ge=1, le=10_000)]


class Selection(Message, frozen=True, kw_only=True, tag="scorecard.selection"):
    """Candidates of one holder, and how many columns the others bring."""

    choices: list[Choice]
    own_columns: Annotated[int, Meta(ge=0, le=10_000)]
    others: list[OtherHolder]


class MaskedProducts(Message, frozen=True, kw_only=True, tag="scorecard.masked_products"):
    """Products of two holders' columns, masked by the second of them; opened by the first, who learns nothing."""

    other: Name
    masked: list[bytes]


class ProductMasks(Message, frozen=True, kw_only=True, tag="scorecard.product_masks"):
    """The masks of those products."""

    other: Name
    masks: list[bytes]


class Kept(Message, frozen=True, kw_only=True, tag="scorecard.kept"):
    """The candidates that stay in the scorecard, after collinear ones were dropped."""

    codes: list[_Code]


class TotalsKey(Message, frozen=True, kw_only=True, tag="scorecard.totals_key"):
    """Public key under which partial points are encrypted for the label holder."""

    public: bytes


class MaskPublicKey(Message, frozen=True, kw_only=True, tag="scorecard.mask_key"):
    """A feature holder's key for the pairwise masks."""

    key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class FitStep(Message, frozen=True, kw_only=True, tag="scorecard.step"):
    """Whether another round of totals and sums follows, or the scoring."""

    more: bool


class PartialPoints(Message, frozen=True, kw_only=True, tag="scorecard.points"):
    """Integer points of each bin of each kept feature of one holder; in the last round, its part of the model."""

    round: _Round
    rows: _Rows
    tables: list[_Table]


class EncryptedPartial(Message, frozen=True, kw_only=True, tag="scorecard.partial"):
    """One holder's points of every row: masked, then encrypted under the label holder's key."""

    round: _Round
    rows: _Rows
    body: bytes


class EncryptedTotal(Message, frozen=True, kw_only=True, tag="scorecard.total"):
    """The encrypted sum over all holders."""

    round: _Round
    rows: _Rows
    body: bytes


_L, _P, _C = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER}), frozenset({Role.COORDINATOR})
_TABLES = 1 << 22
_BLOCKS = 1 << 30  # 245 kB for 8192 rows

SCHEMA = ProtocolSchema(
    name="scorecard",
    messages=(
        Declared(message=Selection, senders=_L, receivers=_P, max_bytes=_TABLES, spends=True),
        Declared(message=MaskedProducts, senders=_P, receivers=_L, max_bytes=1 << 28, spends=True),
        Declared(message=ProductMasks, senders=_P, receivers=_L, max_bytes=1 << 28, spends=True),
        Declared(message=Kept, senders=_L, receivers=_P, max_bytes=_TABLES),
        Declared(message=TotalsKey, senders=_L, receivers=_P | _C, max_bytes=1 << 22),
        Declared(message=MaskPublicKey, senders=_P, receivers=_P, max_bytes=1 << 10),
        Declared(message=FitStep, senders=_L, receivers=_P | _C, max_bytes=1 << 10),
        Declared(message=PartialPoints, senders=_L, receivers=_P, max_bytes=_TABLES),
        Declared(message=EncryptedPartial, senders=_P, receivers=_C, max_bytes=_BLOCKS, spends=True),
        Declared(message=EncryptedTotal, senders=_C, receivers=_L, max_bytes=_BLOCKS),
    ),
)
"""All messages of this protocol besides those of its group sums."""
