"""What is known of one leaf under growth, and the best split of it: over own columns, foreign sums and known splits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.gradients import Quantised
from fedcredit.kernels.histogram import bin_offsets, histogram
from fedcredit.kernels.known_splits import KnownSplits
from fedcredit.kernels.split_search import Evidence, NodeTotals, SplitRules, SplitSearch
from fedcredit.kernels.tree_model import Split, TreeFeature

__all__ = ["Candidate", "Leaf", "NodeSearch"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Ints = NDArray[np.int64]
Sums = Ints | NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A split of a leaf and what it gains."""

    gain: float
    split: Split


@dataclass(eq=False)
class Leaf:
    """A leaf that may still be split.

    Args:
        number: Its number in the tree.
        depth: Splits between the root and it.
        rows: int32, its training rows, rising.
        totals: Its exact sums and bounds.
        own: int64 (2, own bins), exact sums by bin of the own features.
        known: int64 (2, S), exact sums on the left side of the first S known splits.
        foreign: Sums by foreign bin; None = none were asked.
        answers: Number of noisy answers that ``foreign`` is made of.
        asked: bool (foreign features,), which of them ``foreign`` holds.
        best: The best candidate, and for how many known splits that was found.
    """

    number: int
    depth: int
    rows: NDArray[np.int32]
    totals: NodeTotals
    own: Ints
    known: Ints
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
        self._min_gain = rules.min_gain
        units = (quantised.g_unit, quantised.h_unit)
        own = [place for place, feature in enumerate(features) if not feature.foreign]
        foreign = [place for place, feature in enumerate(features) if feature.foreign]
        self.own = SplitSearch(features, own, rules, units)
        self.foreign = SplitSearch(features, foreign, rules, units)
        self._member = {feature: place for place, feature in enumerate(foreign)}
        self._own_active = self._active[own]
        # Sums of known splits are wanted where foreign sums are noisy or may be missing.
        capped = any(features[place].thresholds is not None for place in foreign if self._active[place])
        self._wants_known = bool(self._active[foreign].any()) and (self._noise > 0 or capped)

    def asked(self) -> Bools:
        """Foreign features whose sums can still give a new split: bool (foreign features,)."""
        members = self.foreign.members
        return np.array([self._active[one] and self._known.left(one) != 0 for one in members], dtype=np.bool_)

    def own_sums(self, rows: NDArray[np.int32]) -> Ints:
        """Sums by bin of the own features: int64 (2, own bins)."""
        q = self._quantised
        return histogram(self._codes, self.own.offsets, self.own.bins, rows, q.g, q.h)

    def known_sums(self, rows: NDArray[np.int32], first: int = 0) -> Ints:
        """Sums on the left side of the known splits from ``first`` on: int64 (2, S)."""
        if not self._wants_known:
            return np.zeros((2, 0), dtype=np.int64)
        bits, q = self._known.bits[first:], self._quantised
        return histogram(bits, bin_offsets([2] * len(bits)), 2 * len(bits), rows, q.g, q.h)[:, 1::2]

    def known_so_far(self, leaf: Leaf) -> Ints:
        """Sums of a leaf on the left side of every known split: int64 (2, S)."""
        done = leaf.known.shape[1]
        if self._wants_known and done < len(self._known):
            leaf.known = np.concatenate((leaf.known, self.known_sums(leaf.rows, done)), axis=1)
        return leaf.known

    def children(self, node: NodeTotals, split: Split, left_rows: NDArray[np.int32]) -> tuple[NodeTotals, NodeTotals]:
        """Totals and bounds of both children of a split, from the rows that go left."""
        g, h = int(self._quantised.g[left_rows].sum()), int(self._quantised.h[left_rows].sum())
        search = self.foreign if self._features[split.feature].foreign else self.own
        return search.children(split, node, (g, h, int(left_rows.size)))

    def best(self, leaf: Leaf, granted: Collection[Split] = ()) -> Candidate | None:
        """The best split of a leaf, new foreign ones included; None where nothing gains enough.

        Args:
            leaf: The leaf.
            granted: New splits that will be asked for in this round whatever this leaf does.
        """
        if leaf.best is not None and not granted and (leaf.best[1] == len(self._known) or not self._wants_known):
            return leaf.best[0]
        found = [self._best_own(leaf), *self._best_foreign(leaf, granted), self._best_known(leaf, exact=False)]
        best = self._better(found)
        if not granted:
            leaf.best = (best, len(self._known))
        return best

    def best_exact(self, leaf: Leaf) -> Candidate | None:
        """The best split of a leaf among those whose gain is known exactly: own ones and known ones."""
        return self._better([self._best_own(leaf), self._best_known(leaf, exact=True)])

    def _better(self, found: Sequence[Candidate | None]) -> Candidate | None:
        enough = [one for one in found if one is not None and one.gain > self._min_gain]
        return min(enough, key=lambda one: (-one.gain, one.split.feature), default=None)

    def _best_own(self, leaf: Leaf) -> Candidate | None:
        evidence = Evidence(leaf.own[0], leaf.own[1], 0.0)
        gains, choices = self.own.best(evidence, leaf.totals, self._own_active)
        return _first(self.own, gains, choices, evidence)

    def _best_known(self, leaf: Leaf, *, exact: bool) -> Candidate | None:
        """Over known splits; unless ``exact``, those that the leaf's own exact foreign sums hold are left out."""
        if not self._wants_known or not len(self._known):
            return None
        sums = self.known_so_far(leaf)
        held = leaf.asked if leaf.asked is not None and not self._noise and not exact else None
        best: Candidate | None = None
        for place, split in enumerate(self._known.splits):
            member = self._member[split.feature]
            if not self._active[split.feature] or (held is not None and held[member]):
                continue
            left = (int(sums[0, place]), int(sums[1, place]))
            gain = self.foreign.gain_of_sums(member, split, left, leaf.totals)
            if best is None or (gain, -split.feature) > (best.gain, -best.split.feature):
                best = Candidate(gain, split)
        return best

    def _best_foreign(self, leaf: Leaf, granted: Collection[Split]) -> list[Candidate | None]:
        """Over the sums that were asked: at most as many new splits of a feature as its cap leaves."""
        if leaf.foreign is None or leaf.asked is None:
            return []
        evidence = self._evidence(leaf)
        members = self.foreign.members
        taken = [sum(split.feature == one for split in granted) for one in members]
        room = [self._known.left(one) for one in members]
        free = np.array([left is None or left > gone for left, gone in zip(room, taken, strict=True)], dtype=np.bool_)
        gains, choices = self.foreign.best(evidence, leaf.totals, leaf.asked & free)
        found: list[Candidate | None] = []
        while (one := _first(self.foreign, gains, choices, evidence)) is not None:
            if not self._noise or one.split not in self._known:
                found.append(one)
                break
            gains[self._member[one.split.feature]] = -np.inf  # its exact gain is looked at elsewhere
        # Features without room: what is known or granted is still allowed.
        again = [*granted, *(() if self._noise else self._known.splits)]
        for split in again:
            member = self._member[split.feature]
            if leaf.asked[member] and not free[member]:
                found.append(Candidate(self.foreign.gain(member, split, evidence, leaf.totals), split))
        return found

    def _evidence(self, leaf: Leaf) -> Evidence:
        """Foreign sums; noisy ones are moved, all bins alike, to what is known: the node's exact totals."""
        if leaf.foreign is None:
            return Evidence(np.zeros(0), np.zeros(0), 0.0)
        g, h = leaf.foreign
        if not self._noise:
            return Evidence(g, h, 0.0)
        g, h = g.astype(np.float64), h.astype(np.float64)
        for member, start in zip(self.foreign.members, self.foreign.offsets.tolist(), strict=True):
            bins = self._features[member].bins
            here = slice(start, start + bins)
            g[here] += (leaf.totals.g - sum(g[here].tolist())) / bins
            h[here] += (leaf.totals.h - sum(h[here].tolist())) / bins
        return Evidence(g, h, leaf.answers * self._noise * self._noise)


def _first(search: SplitSearch, gains: NDArray[np.float64], choices: Ints, evidence: Evidence) -> Candidate | None:
    """Best over features; the first of equals."""
    if not gains.size:
        return None
    member = int(np.argmax(gains))
    if gains[member] == -np.inf:
        return None
    return Candidate(float(gains[member]), search.split_of(member, int(choices[member]), evidence))
