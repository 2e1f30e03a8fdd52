"""The way back from the files of a boosted model to scores: each owner its bits, the label holder the sum.

An owner finds the bits of its splits from its own columns and its own file alone; the label holder adds up its trees
from everyone's bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.prebin import Prebins
from fedcredit.kernels.tree_model import BoostedTrees, Node, Split, Tree, TreeFeature, canonical_split, left_bits
from fedcredit.protocol.boost.slots import pack_bits
from fedcredit.runtime.boost.files import HolderFile, LabelFile, Part, PartNode, damaged, read_part
from fedcredit.types import Role

__all__ = ["OwnBits", "OwnSplits", "all_bits", "boosted_trees", "own_splits"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class OwnBits:
    """Which rows go left at a party's own splits.

    Args:
        numbers: The party's number of each split.
        bits: bool (n, splits).
    """

    numbers: tuple[int, ...]
    bits: Bools


@dataclass(frozen=True)
class OwnSplits:
    """A party's own splits, ready for rows of its own table.

    Args:
        party: Whose they are.
        numbers: The party's number of each split: at the label holder the model's.
        columns: Name of the column of each split.
        cuts: Grouping of each column that is split.
        lefts: Bins that go left.
    """

    party: str
    numbers: tuple[int, ...]
    columns: tuple[str, ...]
    cuts: Mapping[str, Prebins]
    lefts: tuple[tuple[int, ...], ...]

    def bits(self, table: Mapping[str, pl.Series], rows: int) -> OwnBits:
        """Bits of rows of the party's own table.

        Args:
            table: Its columns by name, as read: numbers, or text for categories; null is missing.
            rows: Number of rows.

        Raises:
            DataError: a column is missing, of another type, or of another length.
        """
        codes = {}
        for name in dict.fromkeys(self.columns):
            column = table.get(name)
            if column is None or len(column) != rows:
                found = "is missing" if column is None else f"has {len(column)} rows"
                raise DataError(
                    "model.column", f"{self.party}: column {name!r} {found}; the model needs all {rows} rows"
                )
            codes[name] = self.cuts[name].apply(column)
        bits = np.empty((rows, len(self.numbers)), np.bool_)
        for place, (name, left) in enumerate(zip(self.columns, self.lefts, strict=True)):
            bits[:, place] = left_bits(Split(place, left), codes[name])
        return OwnBits(self.numbers, bits)

    def packed(self, table: Mapping[str, pl.Series], rows: int) -> bytes:
        """The same, row by row, one bit a split, most significant first, padded with zeros at the end."""
        return pack_bits(self.bits(table, rows).bits)


def own_splits(part: Part) -> OwnSplits:
    """A party's own splits from its file, be it a feature holder or the label holder.

    Raises:
        IntegrityError: the file is damaged.
    """
    if part.get("role") == Role.LABEL_HOLDER.value:
        label = read_part(part, LabelFile)
        named = {f.code: (f.name, f.cuts) for f in label.features if f.name is not None and f.cuts is not None}
        found = [(one.number, one.code, one.left) for one in label.splits if one.left is not None]
    else:
        held = read_part(part, HolderFile)
        named = {f.code: (f.name, f.cuts) for f in held.features}
        found = [(one.split, one.code, one.left) for one in held.splits]
    party = str(part["party"])
    for number, code, left in found:
        if code not in named:
            raise damaged(party, f"split {number} is of no feature of the file")
        _check_left(party, number, left, named[code][1].bins)
    return OwnSplits(
        party,
        tuple(number for number, _, _ in found),
        tuple(named[code][0] for _, code, _ in found),
        dict(named.values()),
        tuple(left for _, _, left in found),
    )


def boosted_trees(part: Part) -> BoostedTrees:
    """The model in a label holder's file.

    Returns:
        The model as it was trained, but that the left side of another party's splits is empty: which bins these are is
        not in the file, and prediction takes one bit a row and split.

    Raises:
        IntegrityError: the file is damaged or not the label holder's.
    """
    file = read_part(part, LabelFile)
    places = {(one.owner, one.code): place for place, one in enumerate(file.features)}
    splits = []
    for number, one in enumerate(file.splits):
        place = places.get((one.owner, one.code))
        ways = [one.split is not None, one.derived is not None, one.left is not None]
        if place is None or one.number != number or sum(ways) != 1 or ways[2] != (one.owner == file.party):
            raise damaged(file.party, f"split {number} is of no feature, or does not say once how it is found")
        if one.left is not None:
            _check_left(file.party, number, one.left, file.features[place].bins)
        splits.append(Split(place, one.left or ()))
    features = [
        TreeFeature(
            f.owner, f.code, f.bins, f.ordered, f.monotone, foreign=f.owner != file.party, thresholds=f.thresholds
        )
        for f in file.features
    ]
    trees = [_tree(file.party, number, tree.nodes, len(splits)) for number, tree in enumerate(file.trees)]
    return BoostedTrees(file.base, tuple(features), tuple(splits), tuple(trees))


def all_bits(part: Part, bits: Mapping[str, OwnBits]) -> Bools:
    """Bits of all splits of the model, put together from those of their owners.

    Args:
        part: The label holder's file.
        bits: Each party's bits of the same rows, the label holder's among them.

    Returns:
        bool (n, splits), for `fedcredit.kernels.tree_model.margins` and `fedcredit.kernels.tree_shap.shapley`.

    Raises:
        DataError: bits of a split are missing, or the parties' rows are not as many.
        IntegrityError: the file is damaged or not the label holder's.
    """
    file = read_part(part, LabelFile)
    rows = {len(one.bits) for one in bits.values()}
    if len(rows) != 1:
        raise DataError("model.bits", f"bits of {sorted(rows)} rows; all parties must tell them of the same rows")
    columns = {
        (party, number): own.bits[:, place] for party, own in bits.items() for place, number in enumerate(own.numbers)
    }
    result = np.zeros((rows.pop(), len(file.splits)), np.bool_)
    for place, one in enumerate(file.splits):
        used = one.derived.splits if one.derived else (one.number if one.split is None else one.split,)
        if any((one.owner, number) not in columns for number in used):
            raise DataError("model.bits", f"{one.owner}: no bits of its split {used[0]}, the model needs them")
        sides = [columns[one.owner, number] for number in used]
        for pattern in one.derived.left if one.derived else ("1",):
            if len(pattern) != len(sides):
                raise damaged(file.party, f"split {place} follows from {len(sides)} splits, but by other bits")
            result[:, place] |= np.all([side == (bit == "1") for side, bit in zip(sides, pattern, strict=True)], axis=0)
    return result


def _check_left(party: str, number: int, left: tuple[int, ...], bins: int) -> None:
    try:
        right = canonical_split(0, left, bins).left == left
    except DataError:
        right = False
    if not right:
        raise damaged(party, f"split {number} parts {bins} bins in no way that a split can")


def _tree(party: str, number: int, nodes: Sequence[PartNode], splits: int) -> Tree:
    children = sorted(child for node in nodes if node.split is not None for child in (node.left or 0, node.right or 0))
    sound = children == list(range(1, len(nodes))) and bool(nodes)
    found = []
    for place, node in enumerate(nodes):
        inner = (node.gain, node.split, node.left, node.right)
        if node.id != place or node.rows < 0:
            sound = False
        if node.value is not None and inner == (None, None, None, None):
            found.append(Node(node.rows, node.weight, 0.0, -1, -1, -1, node.value))
        elif node.value is None and None not in inner:
            split, left, right = (int(one) if one is not None else -1 for one in inner[1:])
            sound = sound and 0 <= split < splits and min(left, right) > place
            found.append(Node(node.rows, node.weight, node.gain or 0.0, split, left, right, 0.0))
        else:
            sound = False
    if not sound:
        raise damaged(party, f"tree {number} is no tree")
    return Tree(tuple(found))
