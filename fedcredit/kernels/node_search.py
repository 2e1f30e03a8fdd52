"""What is known of one leaf under growth, and the best split of it: over own columns, foreign sums and known splits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.denoise import fit_to_cells, shrink_to_cells
from fedcredit.kernels.gradients import Quantised
from fedcredit.kernels.histogram import histogram
from fedcredit.kernels.known_splits import KnownSplits
from fedcredit.kernels.split_search import Evidence, NodeTotals, SplitRules, SplitSearch
from fedcredit.kernels.tree_model import Split, TreeFeature

__all__ = ["Candidate", "Leaf", "NodeSearch"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Ints = NDArray[np.int64]
Sums = Ints | NDArray[np.float64]

_NO_CELLS = np.zeros(0, dtype=np.int64)  # exact sums need none


@dataclass(frozen=True)
class Candidate:
    """A split of a leaf.

    Args:
        gain: What it gains, where that is known exactly; else a cautious estimate.
        worth: What it is compared by: less where a limited disclosure is spent.
        split: The split.
    """

    gain: float
    worth: float
    split: Split


@dataclass(eq=False)
class Leaf:
    """A leaf that may still be split.

    Args:
        number: Its number in the tree.
        depth: Splits between the root and it.
        rows: int32, its training rows, rising.
        totals: Its exact sums and bounds.
        own: int64 (2, own bins), exact sums by bin of the own features, once they are there.
        coarse: int64 (2, cells), exact sums by cell of the features with a disclosed split; and how many splits had
            been disclosed then, -1 = they are not there yet.
        foreign: Sums by foreign bin; None = none were asked.
        answers: Number of noisy answers that ``foreign`` is made of.
        asked: bool (foreign features,), which of them ``foreign`` holds.
        best: The best candidate, and how many splits had been disclosed then.
    """

    number: int
    depth: int
    rows: NDArray[np.int32]
    totals: NodeTotals
    own: Ints = field(default_factory=lambda: np.zeros((2, 0), dtype=np.int64))
    coarse: tuple[Ints, int] = field(default_factory=lambda: (np.zeros((2, 0), dtype=np.int64), -1))
    foreign: tuple[Sums, Sums] | None = None
    answers: int = 0
    asked: Bools | None = None
    best: tuple[Candidate | None, int] | None = None


class NodeSearch:
    """Sums and candidates of the leaves of one tree.

    Args:
        features: All features of the run.
        codes: (own features, n), their bins.
        known: Known splits of the run.
        quantised: Integer derivatives.
        rules: What a split is worth.
        settings: bool (F,) features that may be used, and the sd of the noise in foreign sums.
    """

    def __init__(
        self,
        features: Sequence[TreeFeature],
        codes: Codes,
        known: KnownSplits,
        quantised: Quantised,
        rules: SplitRules,
        settings: tuple[Bools, float],
    ) -> None:
        self._features, self._codes, self._known, self._quantised = tuple(features), codes, known, quantised
        self._active, self._noise = settings
        self._rules = rules
        self._units = (quantised.g_unit, quantised.h_unit)
        own = [place for place, feature in enumerate(features) if not feature.foreign]
        foreign = [place for place, feature in enumerate(features) if feature.foreign]
        self.own = SplitSearch(features, own, rules, self._units)
        self.foreign = SplitSearch(features, foreign, rules, self._units)
        self._own_active = self._active[own]
        self._coarse: tuple[SplitSearch, int] | None = None
        # Sums by cell are wanted where foreign sums are noisy or may be missing.
        capped = any(features[place].thresholds is not None for place in foreign if self._active[place])
        self._wants_known = bool(self._active[foreign].any()) and (self._noise > 0 or capped)

    def asked(self) -> Bools:
        """Foreign features whose sums can still give a new split: bool (foreign features,)."""
        members = self.foreign.members
        return np.array([self._active[one] and self._known.room(one) != 0 for one in members], dtype=np.bool_)

    def own_sums(self, rows: NDArray[np.int32]) -> Ints:
        """Sums by bin of the own features: int64 (2, own bins)."""
        q = self._quantised
        return histogram(self._codes, self.own.offsets, self.own.bins, rows, q.g, q.h)

    def coarse_sums(self, rows: NDArray[np.int32]) -> Ints:
        """Sums by cell of the features with a disclosed split: int64 (2, cells)."""
        search, q = self._coarse_now(), self._quantised
        return histogram(self._known.codes, search.offsets, search.bins, rows, q.g, q.h)

    def stale(self, leaves: Sequence[Leaf], asked: Sequence[tuple[Leaf, Leaf | None, Leaf | None]]) -> list[Leaf]:
        """Leaves whose sums by cell have to be taken anew, those that `take_rest` can tell left out.

        Args:
            leaves: All open ones.
            asked: Each new leaf with its sibling and their parent.
        """
        if not self._wants_known or not len(self._known):
            return []
        told = [
            other.number
            for _, other, parent in asked
            if other is not None and parent is not None and parent.coarse[1] == len(self._known)
        ]
        return [one for one in leaves if one.coarse[1] != len(self._known) and one.number not in told]

    def take_coarse(self, leaf: Leaf, sums: Ints) -> None:
        """Gives a leaf its sums by cell."""
        leaf.coarse = (sums, len(self._known))

    def take_rest(self, asked: Leaf, sibling: Leaf | None, parent: Leaf | None) -> None:
        """Gives a leaf what its sibling leaves of their parent's sums by cell, if nothing was disclosed since."""
        known = len(self._known)
        if sibling is not None and parent is not None and parent.coarse[1] == known == asked.coarse[1]:
            sibling.coarse = (parent.coarse[0] - asked.coarse[0], known)

    def children(self, node: NodeTotals, split: Split, left: tuple[int, int, int]) -> tuple[NodeTotals, NodeTotals]:
        """Totals and bounds of both children of a split.

        Args:
            node: The node that is split.
            split: The split.
            left: The left child's sums of g and of h, and its rows.
        """
        search = self.foreign if self._features[split.feature].foreign else self.own
        return search.children(split, node, left)

    def best(self, leaf: Leaf, granted: Collection[Split] = ()) -> Candidate | None:
        """The best split of a leaf, new foreign ones included; None where nothing gains enough.

        Args:
            leaf: The leaf.
            granted: New splits that will be asked for in this round whatever this leaf does.
        """
        if leaf.best is not None and not granted and (leaf.best[1] == len(self._known) or not self._wants_known):
            return leaf.best[0]
        found = [self._best_own(leaf), self._best_known(leaf), *self._best_foreign(leaf, granted)]
        best = self._better(found)
        if not granted:
            leaf.best = (best, len(self._known))
        return best

    def best_exact(self, leaf: Leaf) -> Candidate | None:
        """The best split of a leaf among those that are known exactly: own ones, and unions of cells."""
        return self._better([self._best_own(leaf), self._best_known(leaf)])

    def _better(self, found: Sequence[Candidate | None]) -> Candidate | None:
        enough = [one for one in found if one is not None and one.gain > self._rules.min_gain]
        return min(enough, key=lambda one: (-one.worth, one.split.feature), default=None)

    def _best_own(self, leaf: Leaf) -> Candidate | None:
        evidence = Evidence(leaf.own[0], leaf.own[1], _NO_CELLS, 0.0)
        gains, choices = self.own.best(evidence, leaf.totals, self._own_active)
        return _first(self.own, gains, choices, evidence)

    def _best_known(self, leaf: Leaf) -> Candidate | None:
        """Over unions of cells; exact."""
        if not self._wants_known or not len(self._known):
            return None
        search, sums = self._coarse_now(), self._coarse_of(leaf)
        evidence = Evidence(sums[0], sums[1], _NO_CELLS, 0.0)
        allowed = self._active[list(search.members)]
        found = _first(search, *search.best(evidence, leaf.totals, allowed), evidence)
        return None if found is None else Candidate(found.gain, found.gain, self._known.fine(found.split))

    def _coarse_now(self) -> SplitSearch:
        """The search over the cells as they are now."""
        if self._coarse is None or self._coarse[1] != len(self._known):
            features = list(self._features)
            for member in self._known.features:
                features[member] = self._known.coarse(member)
            search = SplitSearch(features, self._known.features, self._rules, self._units)
            self._coarse = (search, len(self._known))
        return self._coarse[0]

    def _coarse_of(self, leaf: Leaf) -> Ints:
        if leaf.coarse[1] != len(self._known):
            raise DataError("kernels.tree-cells", f"leaf {leaf.number} lacks sums of the splits disclosed last")
        return leaf.coarse[0]

    def _best_foreign(self, leaf: Leaf, granted: Collection[Split]) -> list[Candidate | None]:
        """Over the sums that were asked: at most as many new splits of a feature as its cap leaves."""
        if leaf.foreign is None or leaf.asked is None:
            return []
        evidence = self._evidence(leaf, leaf.foreign)
        members = self.foreign.members
        taken = [sum(split.feature == one for split in granted) for one in members]
        room = [self._known.room(one) for one in members]
        free = np.array([left is None or left > gone for left, gone in zip(room, taken, strict=True)], dtype=np.bool_)
        gains, choices = self.foreign.best(evidence, leaf.totals, leaf.asked & free)
        found: list[Candidate | None] = []
        while (one := _first(self.foreign, gains, choices, evidence)) is not None:
            if not self._noise or one.split not in self._known:
                found.append(self._priced(one))
                break
            gains[members.index(one.split.feature)] = -np.inf  # its exact gain is looked at among the known ones
        for split in granted:  # even where its feature has no room for another
            member = members.index(split.feature)
            if leaf.asked[member] and not free[member]:
                gain = self.foreign.gain(split, evidence, leaf.totals)
                found.append(Candidate(gain, gain, split))
        return found

    def _priced(self, one: Candidate) -> Candidate:
        """A candidate over foreign sums; a new split of a feature with a limit is worth less than it gains."""
        if self._features[one.split.feature].thresholds is None or one.split in self._known:
            return one
        return Candidate(one.gain, one.gain * (1.0 - self._rules.economy), one.split)

    def _evidence(self, leaf: Leaf, foreign: tuple[Sums, Sums]) -> Evidence:
        """Foreign sums; noisy ones are held against all that is known exactly."""
        if not self._noise:
            return Evidence(*foreign, _NO_CELLS, 0.0)
        g, h = foreign[0].astype(np.float64), foreign[1].astype(np.float64)
        variance = leaf.answers * self._noise * self._noise
        all_cells = [self._known.cells(member) for member in self.foreign.members]
        for member, start, cells in zip(self.foreign.members, self.foreign.offsets.tolist(), all_cells, strict=True):
            here, exact = slice(start, start + cells.size), self._exact(leaf, member)
            fit_to_cells(g[here], cells, exact[0])
            fit_to_cells(h[here], cells, exact[1])
            if not self._features[member].ordered:
                shrink_to_cells(g[here], h[here], cells, variance)
        return Evidence(g, h, np.concatenate(all_cells), variance)

    def _exact(self, leaf: Leaf, member: int) -> tuple[Ints, Ints]:
        """Exact sums of a foreign feature by cell."""
        if member not in self._known.features:
            return np.array([leaf.totals.g], dtype=np.int64), np.array([leaf.totals.h], dtype=np.int64)
        search, sums = self._coarse_now(), self._coarse_of(leaf)
        place = search.members.index(member)
        start = int(search.offsets[place])
        here = slice(start, start + int(self._known.cells(member).max()) + 1)
        return sums[0, here], sums[1, here]


def _first(search: SplitSearch, gains: NDArray[np.float64], choices: Ints, evidence: Evidence) -> Candidate | None:
    """Best over features; of equals the first feature."""
    places = range(len(search.members))
    best = min(places, key=lambda place: (-gains[place], search.members[place]), default=None)
    if best is None or gains[best] == -np.inf:
        return None
    gain = float(gains[best])
    return Candidate(gain, gain, search.split_of(best, int(choices[best]), evidence))
