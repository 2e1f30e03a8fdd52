"""What a tree is grown by and from: its shape, its derivatives and rows, the questions it asks.

Source: Ke et al., NeurIPS 2017 (LightGBM: leaf-wise growth).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.gradients import EXACT_BITS, Quantised
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_model import Tree, TreeFeature

__all__ = ["Columns", "GrowRules", "GrownTree", "TreeSample", "check_sample", "query_slots"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAX_DEPTH: Final = 12  # node numbers stay within 16 bits


@dataclass(frozen=True)
class GrowRules:
    """The shape of a tree.

    Args:
        growth: ``"depth"``: every node of a level is split; ``"leaf"``: the leaf that gains most, one at a time.
        depth: Most splits between the root and a leaf, >= 1.
        max_leaves: Most leaves in leaf-wise growth, >= 2; depth-wise growth is bounded by ``depth`` alone.
        search: What a split is worth.
        learning_rate: Factor of the leaf values, in (0, 1].

    Raises:
        SpecError: A value is out of its range.
    """

    growth: Literal["depth", "leaf"] = "depth"
    depth: int = 3
    max_leaves: int = 8
    search: SplitRules = field(default_factory=SplitRules)
    learning_rate: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= _MAX_DEPTH:
            raise SpecError("spec.boost", f"boost.depth is {self.depth}; it must be 1 to {_MAX_DEPTH}")
        if not 2 <= self.max_leaves <= 1 << _MAX_DEPTH:
            raise SpecError("spec.boost", f"boost.max_leaves is {self.max_leaves}; it must be 2 to {1 << _MAX_DEPTH}")
        if not 0 < self.learning_rate <= 1:
            raise SpecError("spec.boost", f"boost.learning_rate is {self.learning_rate}; it must be in (0, 1]")


def query_slots(rules: GrowRules) -> tuple[int, ...]:
    """Most queries of each round of a tree: what a feature holder is shown does not depend on labels or tree."""
    if rules.growth == "leaf":
        return (1,) * (rules.max_leaves - 1)
    return (1, *(1 << max(0, level - 1) for level in range(1, rules.depth)))


@dataclass(frozen=True, eq=False)
class Columns:
    """A query: sums of both vectors by bin are wanted. Rows that do not count are 0.

    Args:
        g: int64 (n,), integer first derivatives.
        h: int64 (n,), integer second derivatives.
    """

    g: Ints
    h: Ints


@dataclass(frozen=True, eq=False)
class TreeSample:
    """What one tree is grown from.

    Args:
        g: float64 (n,), exact first derivatives, for the leaf values.
        h: float64 (n,), exact second derivatives.
        quantised: Integer derivatives, for the splits.
        train: bool (n,), rows that count; all others are only led to their leaf.
        active: bool (F,), features that may be used.
        noise: Standard deviation of the noise in each foreign sum, in integer units; 0 = exact.
        leaf_bits: Binary digits after the point of the derivatives that leaf values are made of.
    """

    g: Floats
    h: Floats
    quantised: Quantised
    train: Bools
    active: Bools
    noise: float = 0.0
    leaf_bits: int = EXACT_BITS


@dataclass(frozen=True, eq=False)
class GrownTree:
    """A finished tree.

    Args:
        tree: The tree; its nodes' splits are numbers of `KnownSplits.numbered`.
        leaf: int32 (n,), node in which each row ends.
        update: float64 (n,), what is added to each row's margin.
    """

    tree: Tree
    leaf: NDArray[np.int32]
    update: Floats


def check_sample(features: Sequence[TreeFeature], codes: Codes, sample: TreeSample) -> None:
    """Refuses what loops without bounds checks would leave their arrays for.

    Raises:
        DataError: Shapes or types do not fit each other, or a bin is out of its range.
    """
    own = [feature for feature in features if not feature.foreign]
    if codes.ndim != 2 or len(codes) != len(own) or codes.dtype not in (np.uint8, np.uint16):
        right = f"codes are {codes.dtype} {codes.shape}; uint8 or uint16, one row for each of {len(own)} own features"
        raise DataError("kernels.tree-codes", right)
    rows = (codes.shape[1],)
    if any(one.shape != rows for one in (sample.g, sample.h, sample.train, sample.quantised.g, sample.quantised.h)):
        raise DataError("kernels.tree-sample", f"the sample does not fit codes of {rows[0]} rows")
    if sample.active.shape != (len(features),) or sample.active.dtype != np.bool_ or sample.train.dtype != np.bool_:
        raise DataError("kernels.tree-sample", f"train and active must be bool, active one for each of {len(features)}")
    for feature, highest in zip(own, codes.max(axis=1, initial=0).tolist(), strict=True):
        if highest >= feature.bins:
            name = f"{feature.owner}/{feature.code}"
            raise DataError("kernels.tree-codes", f"feature {name} has a bin beyond its {feature.bins} bins")
