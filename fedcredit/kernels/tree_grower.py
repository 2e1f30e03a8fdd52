"""Growth of one tree, without any input or output: who asks the sums, and how, is up to the caller.

Each round: `queries` names the vectors whose sums by bin are wanted from foreign features, `choose` takes these sums
and names the splits whose bits are wanted, `settle` takes the bits and splits the nodes. Own features and known splits
need no question.

Where several banks grow one tree, each over its own rows, everything is decided on totals over all of them: `opening`,
`choosing`, `settling` and `finishing` are computations of `fedcredit.kernels.pooled_sums`. The plain steps are these in
a pool of one.

Source: Ke et al., NeurIPS 2017 (LightGBM: leaf-wise growth, histogram of the sibling by subtraction); Shi et al.,
NeurIPS 2022 (leaf values from unquantised derivatives).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.gradients import MAX_ROWS, fixed_point
from fedcredit.kernels.histogram import histogram
from fedcredit.kernels.known_splits import KnownSplits
from fedcredit.kernels.node_search import Candidate, Leaf, NodeSearch
from fedcredit.kernels.pooled_sums import Summing, alone, joined
from fedcredit.kernels.split_search import NodeTotals
from fedcredit.kernels.tree_model import Node, Split, Tree, TreeFeature, left_bits
from fedcredit.kernels.tree_parts import Columns, GrownTree, GrowRules, TreeSample, check_sample, query_slots

__all__ = ["Columns", "GrowRules", "GrownTree", "KnownSplits", "TreeGrower", "TreeSample", "query_slots"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sums = Ints | Floats


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
        opened: False = the caller runs `opening` among several banks.

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
        *,
        opened: bool = True,
    ) -> None:
        check_sample(features, codes, sample)
        self._features, self._codes, self._known, self._rules, self._sample = features, codes, known, rules, sample
        self._own = {place: row for row, place in enumerate(p for p, one in enumerate(features) if not one.foreign)}
        self._search = NodeSearch(features, codes, known, sample.quantised, rules.search, (sample.active, sample.noise))
        self._bound = MAX_ROWS * sample.quantised.bound
        self._position = np.zeros(codes.shape[1], dtype=np.int32)
        self._made: list[_Made] = []
        self._open: list[Leaf] = []
        self._questions: list[_Question] = []
        self._summed = False  # whether the leaves of the questions have the sums of the own features
        self._chosen: dict[int, Candidate] = {}
        self._wanted: list[Split] = []
        self._round = 0
        if opened:
            alone(self.opening())

    def opening(self) -> Summing[None]:
        """The root, among several banks; comes first, and once.

        Raises:
            DataError: All banks together have too many rows.
        """
        rows = np.flatnonzero(self._sample.train).astype(np.int32)
        (totals,) = yield from joined("root", [self._totals_of(rows)], self._bound)
        if int(totals[2]) > MAX_ROWS:
            raise DataError("kernels.tree-rows", f"all banks have {totals[2]} rows; sums are exact up to {MAX_ROWS}")
        node = NodeTotals(int(totals[0]), int(totals[1]), int(totals[2]), -np.inf, np.inf)
        self._made.append(_Made(node.rows, (-np.inf, np.inf)))
        if self._divisible(node, 0):
            root = Leaf(0, 0, rows, node)
            self._open.append(root)
            self._questions.append(_Question(root, None, None))

    def _totals_of(self, rows: NDArray[np.int32]) -> Ints:
        g, h = self._sample.quantised.g, self._sample.quantised.h
        return np.array([g[rows].sum(), h[rows].sum(), rows.size], dtype=np.int64)

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
        alone(self.summing())
        return self._choose(sums)

    def choosing(self, sums: Sequence[tuple[Ints, Ints]], bound: int) -> Summing[list[Split]]:
        """`choose` among several banks.

        Args:
            sums: This bank's own answers.
            bound: Largest absolute value in any bank's answers.

        Raises:
            DataError: As `choose`.
        """
        self._check_answers(sums)
        flat = [one for pair in sums for one in pair]
        totals = yield from self._summing(flat, bound)
        pairs = list(zip(totals[::2], totals[1::2], strict=True))
        return self._choose(pairs)

    def summing(self) -> Summing[None]:
        """Sums by bin of the own features in the leaves that are looked at next; does nothing a second time."""
        yield from self._summing([], self._bound)

    def _choose(self, sums: Sequence[tuple[Sums, Sums]]) -> list[Split]:
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
        alone(self.settling(bits))

    def settling(self, bits: Mapping[Split, Bools]) -> Summing[None]:
        """`settle` among several banks.

        Raises:
            DataError: As `settle`.
        """
        yield from self.summing()
        if set(bits) != set(self._wanted):
            right = f"bits of {len(bits)} splits; those of the {len(self._wanted)} that were chosen are needed"
            raise DataError("kernels.tree-bits", right)
        for split in self._wanted:  # not in the order of the answers
            self._known.add(split, bits[split])
        self._wanted = []
        if self._sample.noise:
            yield from self.summing()  # the new bits have parted cells
        chosen = self._decided()
        self._round += 1
        leaves, self._questions = self._open, []
        self._open = [] if self._rules.growth == "depth" else [one for one in leaves if one.number not in chosen]
        parted = [leaf for leaf in leaves if leaf.number in chosen]
        left = [leaf.rows[self._bits(chosen[leaf.number].split)[leaf.rows]] for leaf in parted]
        totals = yield from joined("children", [self._totals_of(rows) for rows in left], self._bound)
        for leaf, rows, one in zip(parted, left, totals, strict=True):
            self._split(leaf, chosen[leaf.number], rows, (int(one[0]), int(one[1]), int(one[2])))
        self._summed = False
        exhausted = self._round >= self._rules.max_leaves - 1 or not (chosen or self._chosen)
        if self._rules.growth == "leaf" and exhausted:
            self._open, self._questions = [], []

    def finish(self) -> GrownTree:
        """The tree with its leaf values. Splits get their numbers in the model here; call it once.

        Raises:
            DataError: A node may still be split.
        """
        return alone(self.finishing())

    def finishing(self) -> Summing[GrownTree]:
        """`finish` among several banks: its leaf values are those of all rows.

        Raises:
            DataError: As `finish`.
        """
        if not self.done:
            raise DataError("kernels.tree-unfinished", "the tree is not finished; its nodes must be settled first")
        exact = fixed_point(self._sample.g, self._sample.h, self._sample.leaf_bits)
        rows = np.flatnonzero(self._sample.train)
        place = self._position.astype(np.uint16)[np.newaxis]
        mine = histogram(place, np.zeros(1, dtype=np.int64), len(self._made), rows, exact.g, exact.h)
        (sums,) = yield from joined("leaves", [mine], MAX_ROWS << self._sample.leaf_bits)
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

    def _check_answers(self, sums: Sequence[tuple[Sums, Sums]]) -> None:
        expected = len(self._questions) if self.needs_foreign else 0
        bins = (self._search.foreign.bins,)
        if len(sums) != expected or any(one.shape != bins for pair in sums for one in pair):
            raise DataError("kernels.tree-sums", f"{len(sums)} answers; {expected} of {bins[0]} bins are needed")

    def _summing(self, more: Sequence[Ints], bound: int) -> Summing[list[Ints]]:
        """The sums that the next decision needs, and what else is to be summed with them."""
        asked = [] if self._summed else self._questions
        stale = self._search.stale(self._open, [(one.leaf, one.sibling, one.parent) for one in asked])
        own = [self._search.own_sums(one.leaf.rows) for one in asked]
        coarse = [self._search.coarse_sums(leaf.rows) for leaf in stale]
        totals = yield from joined("bins", [*own, *coarse, *more], max(self._bound, bound))
        for question, one in zip(asked, totals, strict=False):
            question.leaf.own = one
            if question.sibling is not None and question.parent is not None:
                question.sibling.own = question.parent.own - one
        for leaf, one in zip(stale, totals[len(own) :], strict=False):
            self._search.take_coarse(leaf, one)
        for question in asked:
            self._search.take_rest(question.leaf, question.sibling, question.parent)
        self._summed = True
        return totals[len(own) + len(coarse) :]

    def _take(self, sums: Sequence[tuple[Sums, Sums]]) -> None:
        self._check_answers(sums)
        asked = self._search.asked()
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

    def _bits(self, split: Split) -> Bools:
        if self._features[split.feature].foreign:
            return self._known.bits_of(split)
        return left_bits(split, self._codes[self._own[split.feature]])

    def _split(
        self, leaf: Leaf, candidate: Candidate, left_rows: NDArray[np.int32], left: tuple[int, int, int]
    ) -> None:
        split, bits = candidate.split, self._bits(candidate.split)
        right_rows = leaf.rows[~bits[leaf.rows]]
        first = len(self._made)
        made = self._made[leaf.number]
        made.gain, made.split, made.children = candidate.gain, split, (first, first + 1)
        inside = self._position == leaf.number
        self._position[inside & bits] = first
        self._position[inside & ~bits] = first + 1
        sides = self._search.children(leaf.totals, split, left)
        self._made += [_Made(side.rows, (side.lower, side.upper)) for side in sides]
        self._open_children(leaf, [(first, left_rows, sides[0]), (first + 1, right_rows, sides[1])])

    def _open_children(self, parent: Leaf, parts: Sequence[tuple[int, NDArray[np.int32], NodeTotals]]) -> None:
        """The children that can be split: one side is summed up, the other is what remains of the parent."""
        depth = parent.depth + 1
        able = [part for part in parts if self._divisible(part[2], depth)]
        if not able:
            return
        # The smaller side is asked; of two as large the left one; where only one can be split, that one.
        number, rows, totals = min(able, key=lambda part: part[2].rows)
        asked = Leaf(number, depth, rows, totals)
        sibling: Leaf | None = None
        if len(able) == 2:
            number, rows, totals = able[1] if able[0][0] == asked.number else able[0]
            sibling = Leaf(number, depth, rows, totals)
        self._open += sorted([asked] if sibling is None else [asked, sibling], key=lambda one: one.number)
        self._questions.append(_Question(asked, sibling, parent))
