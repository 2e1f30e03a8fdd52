"""Growth of one tree, without any input or output: who asks the sums, and how, is up to the caller.

Each round: `queries` names the vectors whose sums by bin are wanted from foreign features, `choose` takes these sums
and names the splits whose bits are wanted, `settle` takes the bits and splits the nodes. Own features and known splits
need no question.

Source: Ke et al., NeurIPS 2017 (LightGBM: leaf-wise growth, histogram of the sibling by subtraction); Shi et al.,
NeurIPS 2022 (leaf values from unquantised derivatives).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.gradients import Quantised, fixed_point
from fedcredit.kernels.histogram import histogram
from fedcredit.kernels.known_splits import KnownSplits
from fedcredit.kernels.node_search import Candidate, Leaf, NodeSearch
from fedcredit.kernels.split_search import NodeTotals, SplitRules
from fedcredit.kernels.tree_model import Node, Split, Tree, TreeFeature, left_bits

__all__ = ["Columns", "GrowRules", "GrownTree", "KnownSplits", "TreeGrower", "TreeSample", "query_slots"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sums = Ints | Floats

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
    """

    g: Floats
    h: Floats
    quantised: Quantised
    train: Bools
    active: Bools
    noise: float = 0.0


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


@dataclass(eq=False)
class _Made:
    """A node of the tree under growth."""

    rows: int
    bounds: tuple[float, float]
    gain: float = 0.0
    split: Split | None = None
    children: tuple[int, int] = (-1, -1)


@dataclass(frozen=True, eq=False)
class _Question:
    """A query: whose sums are asked, and who gets the rest of the parent's."""

    leaf: Leaf
    sibling: Leaf | None
    parent: Leaf | None


class TreeGrower:
    """Grows one tree.

    Args:
        features: All features of the run.
        codes: uint8 or uint16 (own features, n): bins of the features that are not foreign, in order of features.
        known: Known splits of the run; new ones are added to it.
        rules: Shape of the tree.
        sample: Derivatives, rows and features of this tree.

    Raises:
        DataError: Shapes do not fit each other.
    """

    def __init__(
        self,
        features: Sequence[TreeFeature],
        codes: Codes,
        known: KnownSplits,
        rules: GrowRules,
        sample: TreeSample,
    ) -> None:
        _check(features, codes, sample)
        self._features, self._codes, self._known, self._rules, self._sample = features, codes, known, rules, sample
        self._own = {place: row for row, place in enumerate(p for p, one in enumerate(features) if not one.foreign)}
        self._search = NodeSearch(features, codes, known, sample.quantised, rules.search, (sample.active, sample.noise))
        rows = np.flatnonzero(sample.train).astype(np.int32)
        self._position = np.zeros(codes.shape[1], dtype=np.int32)
        self._made = [_Made(int(rows.size), (-np.inf, np.inf))]
        self._open: list[Leaf] = []
        self._questions: list[_Question] = []
        self._chosen: dict[int, Candidate] = {}
        self._wanted: list[Split] = []
        self._round = 0
        g, h = sample.quantised.g, sample.quantised.h
        totals = NodeTotals(int(g[rows].sum()), int(h[rows].sum()), int(rows.size), -np.inf, np.inf)
        if self._divisible(totals, 0):
            root = Leaf(0, 0, rows, totals, self._search.own_sums(rows), self._search.coarse_sums(rows))
            self._open.append(root)
            self._questions.append(_Question(root, None, None))

    @property
    def done(self) -> bool:
        """Whether no node can be split any more; then `queries` is empty and `settle` changes nothing."""
        return not self._open

    @property
    def asked(self) -> Bools:
        """Which features' sums are looked at: bool (F,), those foreign, active, and not used up."""
        mask = np.zeros(len(self._features), dtype=np.bool_)
        mask[list(self._search.foreign.members)] = self._search.asked()
        return mask

    @property
    def needs_foreign(self) -> bool:
        """Whether any foreign feature can still give a new split."""
        return bool(self._search.asked().any())

    def queries(self) -> list[Columns]:
        """Vectors whose sums by foreign bin are wanted in this round, at most `query_slots` of the round."""
        if not self.needs_foreign:
            return []
        quantised = self._sample.quantised
        columns = []
        for question in self._questions:
            g, h = np.zeros_like(quantised.g), np.zeros_like(quantised.h)
            rows = question.leaf.rows
            g[rows], h[rows] = quantised.g[rows], quantised.h[rows]
            columns.append(Columns(g, h))
        return columns

    def choose(self, sums: Sequence[tuple[Sums, Sums]]) -> list[Split]:
        """Takes the answers and names the new foreign splits whose bits are wanted, by feature and bins.

        Args:
            sums: For each query the sums of g and of h, int64 or float64 (foreign bins,) each: bins of *all* foreign
                features in order of features; what stands at features not `asked` is not looked at.

        Returns:
            Distinct splits that are not known, within each feature's limit.

        Raises:
            DataError: There are more or fewer answers than queries, or one has another number of bins.
        """
        self._take(sums)
        granted: list[Split] = []
        self._chosen = {}
        waiting = {leaf.number: (leaf, self._search.best(leaf)) for leaf in self._open}
        while waiting:
            leaf, best = min(waiting.values(), key=lambda one: (-one[1].worth if one[1] else np.inf, one[0].number))
            if best is not None and granted:
                again = self._search.best(leaf, granted)
                if again != best:  # its feature is used up by a leaf that gains more: take its turn anew
                    waiting[leaf.number] = (leaf, again)
                    continue
            del waiting[leaf.number]
            if best is None:
                continue
            self._chosen[leaf.number] = best
            if self._features[best.split.feature].foreign and not self._known.follows(best.split, granted):
                granted.append(best.split)
            if self._rules.growth == "leaf":
                break
        # Not in order of gain: whoever is asked for the bits need not learn which split gains more.
        self._wanted = sorted(granted, key=lambda split: (split.feature, split.left))
        return list(self._wanted)

    def settle(self, bits: Mapping[Split, Bools]) -> None:
        """Takes the bits of the chosen splits, splits the nodes and begins the next round.

        Args:
            bits: bool (n,) of each split that :meth:`choose` named.

        Raises:
            DataError: These are not the bits of exactly the chosen splits, or are of another shape or type.
        """
        if set(bits) != set(self._wanted):
            right = f"bits of {len(bits)} splits; those of the {len(self._wanted)} that were chosen are needed"
            raise DataError("kernels.tree-bits", right)
        for split in self._wanted:  # not in the order of the answers
            self._known.add(split, bits[split])
        self._wanted = []
        chosen = self._decided()
        self._round += 1
        leaves, self._questions = self._open, []
        self._open = [] if self._rules.growth == "depth" else [one for one in leaves if one.number not in chosen]
        for leaf in leaves:
            if leaf.number in chosen:
                self._split(leaf, chosen[leaf.number])
        exhausted = self._round >= self._rules.max_leaves - 1 or not (chosen or self._chosen)
        if self._rules.growth == "leaf" and exhausted:
            self._open, self._questions = [], []

    def finish(self) -> GrownTree:
        """The tree with its leaf values. Splits get their numbers in the model here; call it once.

        Raises:
            DataError: A node may still be split.
        """
        if not self.done:
            raise DataError("kernels.tree-unfinished", "the tree is not finished; its nodes must be settled first")
        exact = fixed_point(self._sample.g, self._sample.h)
        rows = np.flatnonzero(self._sample.train)
        place = self._position.astype(np.uint16)[np.newaxis]
        sums = histogram(place, np.zeros(1, dtype=np.int64), len(self._made), rows, exact.g, exact.h)
        for number in range(len(self._made) - 1, -1, -1):  # children come after their parent
            if self._made[number].split is not None:
                sums[:, number] = sums[:, list(self._made[number].children)].sum(axis=1)
        nodes = [
            self._node(made, float(sums[0, number]) * exact.g_unit, float(sums[1, number]) * exact.h_unit)
            for number, made in enumerate(self._made)
        ]
        values = np.array([node.value for node in nodes])
        return GrownTree(Tree(tuple(nodes)), self._position, values[self._position])

    def _node(self, made: _Made, g: float, h: float) -> Node:
        if made.split is not None:
            return Node(made.rows, h, made.gain, self._known.number(made.split), *made.children, 0.0)
        total = h + self._rules.search.l2
        weight = -g / total if total > 0 else 0.0
        value = min(max(weight, made.bounds[0]), made.bounds[1]) * self._rules.learning_rate
        return Node(made.rows, h, 0.0, -1, -1, -1, value)

    def _divisible(self, totals: NodeTotals, depth: int) -> bool:
        rules = self._rules.search
        enough = totals.rows >= 2 * max(1, rules.min_child_rows)
        weight = totals.h * self._sample.quantised.h_unit
        return depth < self._rules.depth and enough and weight >= 2 * rules.min_child_weight

    def _take(self, sums: Sequence[tuple[Sums, Sums]]) -> None:
        asked = self._search.asked()
        expected = len(self._questions) if asked.any() else 0
        bins = (self._search.foreign.bins,)
        if len(sums) != expected or any(one.shape != bins for pair in sums for one in pair):
            raise DataError("kernels.tree-sums", f"{len(sums)} answers; {expected} of {bins[0]} bins are needed")
        for question, pair in zip(self._questions, sums, strict=False):
            question.leaf.foreign, question.leaf.answers, question.leaf.asked = pair, 1, asked
            sibling, parent = question.sibling, question.parent
            if sibling is not None and parent is not None and parent.foreign is not None:
                sibling.foreign = (parent.foreign[0] - pair[0], parent.foreign[1] - pair[1])
                sibling.answers, sibling.asked = parent.answers + 1, asked

    def _decided(self) -> dict[int, Candidate]:
        """Which leaves are split and how: where sums are noisy, by what is exact now that the bits are here."""
        if not self._sample.noise:
            return self._chosen
        exact = {leaf.number: self._search.best_exact(leaf) for leaf in self._open}
        found = {number: best for number, best in exact.items() if best is not None}
        if self._rules.growth == "leaf" and found:
            first = min(found, key=lambda number: (-found[number].worth, number))
            return {first: found[first]}
        return found

    def _split(self, leaf: Leaf, candidate: Candidate) -> None:
        split, feature = candidate.split, self._features[candidate.split.feature]
        bits = (
            self._known.bits_of(split) if feature.foreign else left_bits(split, self._codes[self._own[split.feature]])
        )
        left_rows, right_rows = leaf.rows[bits[leaf.rows]], leaf.rows[~bits[leaf.rows]]
        first = len(self._made)
        made = self._made[leaf.number]
        made.gain, made.split, made.children = candidate.gain, split, (first, first + 1)
        inside = self._position == leaf.number
        self._position[inside & bits] = first
        self._position[inside & ~bits] = first + 1
        sides = self._search.children(leaf.totals, split, left_rows)
        self._made += [_Made(side.rows, (side.lower, side.upper)) for side in sides]
        self._open_children(leaf, [(first, left_rows, sides[0]), (first + 1, right_rows, sides[1])])

    def _open_children(self, parent: Leaf, parts: Sequence[tuple[int, NDArray[np.int32], NodeTotals]]) -> None:
        """Sums of the children that can be split: one side is summed up, the other is what remains of the parent."""
        depth, search = parent.depth + 1, self._search
        able = [part for part in parts if self._divisible(part[2], depth)]
        if not able:
            return
        # The smaller side is asked; of two as large the left one; where only one can be split, that one.
        number, rows, totals = min(able, key=lambda part: part[2].rows)
        asked = Leaf(number, depth, rows, totals, search.own_sums(rows), search.coarse_sums(rows))
        sibling: Leaf | None = None
        if len(able) == 2:
            number, rows, totals = able[1] if able[0][0] == asked.number else able[0]
            sibling = Leaf(number, depth, rows, totals, *search.rest(parent, asked, rows))
        self._open += sorted([asked] if sibling is None else [asked, sibling], key=lambda one: one.number)
        self._questions.append(_Question(asked, sibling, parent))


def _check(features: Sequence[TreeFeature], codes: Codes, sample: TreeSample) -> None:
    """Raises where loops without bounds checks would leave their arrays."""
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
