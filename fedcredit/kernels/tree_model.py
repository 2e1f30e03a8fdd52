"""Boosted trees as plain data: splits are sets of bins, and a row is what bit it has in each split.

A model holds no value of any column: whoever holds a column knows what its bins are, and one bit a row and split is
all that prediction needs.

Source: Friedman, Annals of Statistics 29 (2001); Chen & Guestrin, KDD 2016.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.compiled import compiled

__all__ = [
    "BoostedTrees",
    "Node",
    "Split",
    "Tree",
    "TreeFeature",
    "canonical_split",
    "gain_by_feature",
    "leaf_of",
    "left_bits",
    "margins",
    "pooled_bits",
    "splits_by_feature",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]
Leaves = NDArray[np.int32]


@dataclass(frozen=True)
class TreeFeature:
    """A column in bins, as a tree sees it.

    Args:
        owner: Party that holds it.
        code: Its name in the run.
        bins: Number of bins, >= 1 (one bin can never be split); bin numbers are 0..bins-1.
        ordered: Leading bins in order of value; the others ("extras": special codes, missing) have no order.
            0 = categorical: no bin has an order.
        monotone: How the risk of default may move with the value, over the ordered bins; ``""`` = freely.
        foreign: Whether another party than the one that grows the trees holds the bins.
        thresholds: Foreign only: most distinct splits that may be asked of its owner; None = no limit.

    Raises:
        DataError: A count is out of its range.
    """

    owner: str
    code: str
    bins: int
    ordered: int
    monotone: Literal["", "increasing", "decreasing"] = ""
    foreign: bool = False
    thresholds: int | None = None

    def __post_init__(self) -> None:
        name = f"feature {self.owner}/{self.code}"
        if self.bins < 1:
            raise DataError("kernels.tree-bins", f"{name} has {self.bins} bins; at least 1 is needed")
        if not 0 <= self.ordered <= self.bins:
            raise DataError("kernels.tree-bins", f"{name} has {self.ordered} ordered bins of {self.bins}")
        if self.monotone and not self.ordered:
            raise DataError("kernels.tree-monotone", f"{name} is categorical; only ordered bins can be monotone")
        if self.thresholds is not None and self.thresholds < 0:
            raise DataError("kernels.tree-thresholds", f"{name} has {self.thresholds} thresholds; give 0 or more")


@dataclass(frozen=True)
class Split:
    """A question about one column; make it with :func:`canonical_split`.

    Args:
        feature: Index into the model's features.
        left: Bins whose rows go left, rising; never all bins, and bin 0 is always among them.
    """

    feature: int
    left: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A node of a tree.

    Args:
        rows: Training rows in it (of this tree, where rows are sampled).
        weight: Sum of the exact second derivatives over these rows.
        gain: What its split gains; 0 for a leaf.
        split: Index into the model's splits; -1 for a leaf.
        left: Number of the left child; -1 for a leaf.
        right: Number of the right child; -1 for a leaf.
        value: What a leaf adds to the margin, learning rate included; 0 for an inner node.
    """

    rows: int
    weight: float
    gain: float
    split: int
    left: int
    right: int
    value: float


@dataclass(frozen=True)
class Tree:
    """A tree.

    Args:
        nodes: The root first; children come after their parent.
    """

    nodes: tuple[Node, ...]

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return sum(node.split < 0 for node in self.nodes)


@dataclass(frozen=True)
class BoostedTrees:
    """A model: log-odds of default are ``base`` plus one leaf value of every tree.

    Args:
        base: Log-odds of default that all rows start from.
        features: All columns of the run.
        splits: Each distinct split once, in order of first use.
        trees: In order of growth.
    """

    base: float
    features: tuple[TreeFeature, ...]
    splits: tuple[Split, ...]
    trees: tuple[Tree, ...]


def canonical_split(feature: int, left: Iterable[int], bins: int) -> Split:
    """The split in the one form in which it is ever written: the side with bin 0 is the left one.

    Args:
        feature: Index of the feature.
        left: Bins of one side.
        bins: Number of bins of the feature.

    Raises:
        DataError: A side is empty, or a bin is outside [0, bins).
    """
    side = set(left)
    if not 0 < len(side) < bins or not side <= set(range(bins)):
        raise DataError("kernels.tree-split", f"a split of feature {feature} leaves a side of {bins} bins empty")
    if 0 not in side:
        side = set(range(bins)) - side
    return Split(feature, tuple(sorted(side)))


def left_bits(split: Split, codes: Codes) -> Bools:
    """Which rows go left.

    Args:
        split: A split of the feature.
        codes: (n,), the feature's bin of each row.

    Returns:
        bool (n,).
    """
    highest = max(int(codes.max(initial=0)), split.left[-1])
    table = np.zeros(highest + 1, dtype=np.bool_)
    table[list(split.left)] = True
    bits: Bools = table[codes]
    return bits


def pooled_bits(model: BoostedTrees, codes: Codes) -> Bools:
    """Every split's bit of every row, from the bins of all features in one place.

    Args:
        model: The model.
        codes: (F, n), bins of all features.

    Returns:
        bool (n, S), S = number of splits.
    """
    bits = np.empty((codes.shape[1], len(model.splits)), dtype=np.bool_)
    for number, split in enumerate(model.splits):
        bits[:, number] = left_bits(split, codes[split.feature])
    return bits


class _Table(NamedTuple):
    """A tree in columns."""

    split: Ints
    left: Ints
    right: Ints
    value: Floats


def _table(tree: Tree) -> _Table:
    def column(name: str) -> Ints:
        return np.array([getattr(node, name) for node in tree.nodes], dtype=np.int64)

    return _Table(column("split"), column("left"), column("right"), np.array([node.value for node in tree.nodes]))


@compiled
def _walk(table: _Table, bits: Bools, leaf: Leaves) -> None:
    for row in range(leaf.size):
        at = 0
        while table.split[at] >= 0:
            at = table.left[at] if bits[row, table.split[at]] else table.right[at]
        leaf[row] = at


def _checked(splits: int, bits: Bools) -> Bools:
    if bits.dtype != np.bool_ or bits.ndim != 2 or bits.shape[1] < splits:
        right = f"bits are {bits.dtype} {bits.shape}; bool (rows, at least {splits}) is needed, one column a split"
        raise DataError("kernels.tree-bits", right)
    return np.ascontiguousarray(bits)


def leaf_of(tree: Tree, bits: Bools) -> Leaves:
    """Number of the node in which each row ends.

    Args:
        tree: A tree of a model.
        bits: bool (n, S), the row's bit in each split of the model.

    Returns:
        int32 (n,).

    Raises:
        DataError: The bits are of another type, or lack a split of the tree.
    """
    checked = _checked(1 + max(node.split for node in tree.nodes), bits)
    leaf = np.empty(len(checked), dtype=np.int32)
    _walk(_table(tree), checked, leaf)
    return leaf


def margins(model: BoostedTrees, bits: Bools) -> Floats:
    """Log-odds of default of each row: the base and then the trees, added in order, so floats come out the same.

    Args:
        model: The model.
        bits: bool (n, S), the row's bit in each split of the model.

    Returns:
        float64 (n,).

    Raises:
        DataError: The bits are of another shape or type.
    """
    checked = _checked(len(model.splits), bits)
    total = np.full(len(checked), model.base)
    leaf = np.empty(len(checked), dtype=np.int32)
    for tree in model.trees:
        table = _table(tree)
        _walk(table, checked, leaf)
        total += table.value[leaf]
    return total


def gain_by_feature(model: BoostedTrees) -> Floats:
    """Sum of the gains of all nodes that split on each feature: float64 (F,)."""
    gains = np.zeros(len(model.features))
    for tree in model.trees:
        for node in tree.nodes:
            if node.split >= 0:
                gains[model.splits[node.split].feature] += node.gain
    return gains


def splits_by_feature(model: BoostedTrees) -> Ints:
    """Number of nodes that split on each feature: int64 (F,)."""
    counts = np.zeros(len(model.features), dtype=np.int64)
    for tree in model.trees:
        for node in tree.nodes:
            if node.split >= 0:
                counts[model.splits[node.split].feature] += 1
    return counts
