"""The files `trees.json` of a boosted model, field by field.

The label holder's file holds all trees, but of another party's splits only whose they are and the owner's number of
them; the owner's file says what they mean. So each file alone says nothing of another party's columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from fedcredit.errors import IntegrityError
from fedcredit.kernels.prebin import Prebins

__all__ = [
    "Derived",
    "HeldFeature",
    "HeldSplit",
    "HolderFile",
    "LabelFile",
    "Part",
    "PartFeature",
    "PartNode",
    "PartSplit",
    "PartTree",
    "Reason",
    "damaged",
    "plain",
    "read_part",
]

Part = dict[str, Any]
"""A file as JSON gives it back."""


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to say where a feature raises a row's risk: a code for machines, a sentence for people."""

    code: str
    text: str


class HeldFeature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column of a feature holder; ``cuts`` finds the bin of any value exactly."""

    code: str
    name: str
    kind: Literal["numeric", "categorical"]
    cuts: Prebins
    reason: Reason


class HeldSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A split under the number by which the label holder knows it: bins that go left, and these in words."""

    split: int
    code: str
    left: tuple[int, ...]
    label: str


class HolderFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature holder's file."""

    party: str
    role: Literal["feature_holder"]
    features: tuple[HeldFeature, ...]
    splits: tuple[HeldSplit, ...]


class PartFeature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature of the model; what only its owner knows is null unless the owner is the label holder."""

    owner: str
    code: str
    name: str | None
    kind: Literal["numeric", "categorical"]
    bins: int
    ordered: int
    monotone: Literal["", "increasing", "decreasing"]
    thresholds: int | None
    gain: float
    splits: int
    cuts: Prebins | None
    reason: Reason | None


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a split follows from others: its owner's numbers of them, and at which of their bits a row goes left."""

    splits: tuple[int, ...]
    left: tuple[str, ...]


class PartSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A split of the model: own with bins and label, another party's by the owner's number of it."""

    number: int
    owner: str
    code: str
    split: int | None
    derived: Derived | None
    left: tuple[int, ...] | None
    label: str | None


class PartNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node; a leaf has a value and nothing else, an inner node all but a value."""

    id: int
    rows: int
    weight: float
    gain: float | None
    split: int | None
    left: int | None
    right: int | None
    value: float | None


class PartTree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tree, the root first; children come after their parent."""

    nodes: tuple[PartNode, ...]


class LabelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The label holder's file; values and base are log-odds of default, the learning rate is in them."""

    party: str
    role: Literal["label_holder"]
    base: float
    learning_rate: float
    features: tuple[PartFeature, ...]
    splits: tuple[PartSplit, ...]
    trees: tuple[PartTree, ...]


_File = TypeVar("_File", HolderFile, LabelFile)


def plain(written: HolderFile | LabelFile) -> Part:
    """A file as plain values."""
    part: Part = msgspec.json.decode(msgspec.json.encode(written))
    return part


def read_part(part: Mapping[str, Any], kind: type[_File]) -> _File:
    """Plain values as a file of one kind.

    Raises:
        IntegrityError: a field is missing, unknown or of another type.
    """
    try:
        return msgspec.convert(part, kind)
    except msgspec.ValidationError as error:
        raise damaged(str(part.get("party", "a party")), str(error)) from None


def damaged(party: str, what: str) -> IntegrityError:
    """The error for a file that cannot have been written by a run."""
    return IntegrityError("model.trees", f"trees.json of {party}: {what}; take the file as the run wrote it")
