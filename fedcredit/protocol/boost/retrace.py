"""The vectors that an honest label holder asked, derived once more from what it kept: no peer, no sum, no ciphertext.

The trees are grown again by the same `TreeGrower` over the label holder's own bins and labels, its draws, and the
bitmaps that it was sent. Derivatives, margins, rows of each node, which child is asked in which slot, leaf values and
the end of growth all follow, and the trees have to come out as recorded. What sums told is not kept, so a choice that
hung on sums is taken over from the record, after all of it that can be checked has been:

- with noise, a node takes its best exact candidate, so every split is derived; only which new splits were disclosed
  is taken over;
- without noise, the split of each node is taken over; its gain has to be exactly what was recorded, and no split that
  the label holder knew could have been worth more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, IntegrityError, PeerError
from fedcredit.kernels.node_search import Candidate, Leaf
from fedcredit.kernels.pooled_sums import alone
from fedcredit.kernels.split_search import Evidence, SplitSearch
from fedcredit.kernels.tree_grower import TreeGrower
from fedcredit.kernels.tree_model import BoostedTrees, Split, Tree, left_bits
from fedcredit.kernels.trees import BoostState, Records
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.archive import Archive
from fedcredit.protocol.boost.columns import FeatureList, code_matrix
from fedcredit.protocol.boost.draws import LabelDraws, OfferedDraws
from fedcredit.protocol.boost.label_holder import training_rows
from fedcredit.protocol.boost.plan import FIELDS, BoostPlan
from fedcredit.protocol.boost.slots import SlotFormat, unpack_bits
from fedcredit.types import PartyId

__all__ = ["Asked", "Growth", "Retraced", "retrace"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_NO_CELLS = np.zeros(0, dtype=np.int64)  # exact sums need none


@dataclass(frozen=True)
class Growth:
    """What the label holder had, and what it kept.

    Args:
        label_holder: Its name.
        own: Its features.
        bad: bool (n,), labels in the common order.
        index: Common rows.
        holders: All feature holders, in the order of the spec.
        plan: The run.
        draws: Rounding and samples.
        archive: What it wrote down.
    """

    label_holder: PartyId
    own: Sequence[OwnFeature]
    bad: Bools
    index: RowIndex
    holders: Sequence[PartyId]
    plan: BoostPlan
    draws: LabelDraws
    archive: Archive


@dataclass(frozen=True, eq=False)
class Asked:
    """One request.

    Args:
        tree: Number of the tree, from 0.
        round: Round of the tree, from 0.
        columns: int64 (rows that are not held out,) each: g and h of every slot, zeros in slots that are not used.
    """

    tree: int
    round: int
    columns: tuple[Ints, ...]


@dataclass(frozen=True, eq=False)
class Retraced:
    """Where growth ended.

    Args:
        finished: Whether the rules want no further tree.
        grown: Number of trees, those after the best one included.
        train: bool (n,), rows trained on.
        model: The model up to its best tree.
    """

    finished: bool
    grown: int
    train: Bools
    model: BoostedTrees


def retrace(growth: Growth) -> Iterator[Asked | Retraced]:
    """Every request in the order in which an honest label holder sends them; at last, where growth ended.

    Requests of a tree that was never finished are left out.

    Raises:
        IntegrityError: the record is not one of honest training.
        DataError: the records carry no model.
    """
    path = _Path(growth)
    for tree in range(len(growth.archive.trees)):
        if path.state.finished:
            _differs(tree, "growth had ended before it")
        yield from path.tree(tree)
    yield path.end()


class _Path:
    """The model under growth once more."""

    def __init__(self, growth: Growth) -> None:
        self._growth, self._plan, self._archive = growth, growth.plan, growth.archive
        missing = [party for party in growth.holders if party not in growth.archive.shapes]
        if missing:
            raise IntegrityError("replay.archive", f"the label holder kept no announcement of {missing[0]}")
        shapes = {party: self._archive.shapes[party].features for party in growth.holders}
        cap = self._plan.cap if self._plan.capped else None
        self._features = FeatureList.of(growth.label_holder, growth.own, shapes, cap)
        self._formats = {party: SlotFormat(self._features.bins_of(party)) for party in growth.holders}
        self._rows = np.flatnonzero(growth.index.train)
        self._train = training_rows(growth.index, growth.bad, self._plan, growth.draws)
        codes = code_matrix(growth.own, self._rows)
        records = Records(self._features.features, codes, growth.bad[self._rows], self._train[self._rows])
        self.state = BoostState(records, self._plan.rules)

    def tree(self, tree: int) -> Iterator[Asked]:
        """One tree; it has to come out as recorded."""
        known = len(self.state.known.numbered)
        splits = self._splits(tree)
        grower = _Follower(self.state.next_tree(OfferedDraws(self._growth.draws, self._active(tree))), (tree, splits))
        kept = self._archive.trees[tree]
        if tree < self._plan.boost.first_trees_local:
            while not grower.done:
                grower.follow({}, kept.tree)
        else:
            for number, slots in enumerate(self._plan.slots):
                columns = [column for one in grower.queries() for column in (one.g, one.h)]
                columns += [np.zeros(len(self._rows), np.int64)] * (FIELDS * slots - len(columns))
                yield Asked(tree, number, tuple(columns))
                grower.follow(self._bits((tree, number)), kept.tree)
        if not grower.done:
            _differs(tree, "it has nodes left to split")
        self.state.add(grower)
        state = self.state.to_state()
        if (state.trees[-1], state.splits[known:]) != (kept.tree, kept.splits):
            _differs(tree, "its nodes, splits or leaf values are others")

    def end(self) -> Retraced:
        """Where growth ended."""
        return Retraced(self.state.finished, len(self.state.history), self._train, self.state.result().model)

    def _splits(self, tree: int) -> tuple[Split, ...]:
        """All splits that the record numbers up to a tree."""
        splits = tuple(split for number in range(tree + 1) for split in self._archive.trees[number].splits)
        for split in splits:
            sound = 0 <= split.feature < len(self._features.features)
            if not sound or not split.left or split.left[-1] >= self._features.features[split.feature].bins:
                _differs(tree, "a split is of no feature")
        return splits

    def _active(self, tree: int) -> Bools:
        """Features that the tree may use: the label holder's by its draw, the others' as they offered."""
        share, growth = self._plan.boost.column_sampling, self._growth
        active = np.ones(len(self._features.features), np.bool_)
        own = self._features.of_party(growth.label_holder)
        active[own] = growth.draws.columns(tree, len(own), share)
        if share >= 1 or tree < self._plan.boost.first_trees_local:
            return active
        for party in growth.holders:
            offer = self._archive.offers.get((party, tree))
            if offer is None:
                _differs(tree, f"no offer of {party} is on record")
            offered = _unpacked(tree, offer.offered, len(self._features.shapes[party]))
            active[self._features.of_party(party)] = offered[self._features.announced(party)]
        return active

    def _bits(self, at: tuple[int, int]) -> dict[Split, Bools]:
        """The bitmaps of a round, as they came."""
        found: dict[Split, Bools] = {}
        for party in self._growth.holders:
            wanted, answer = self._archive.wanted.get((party, *at)), self._archive.bitmaps.get((party, *at))
            if wanted is None:
                _differs(at[0], f"what it wanted of {party} in round {at[1]} is not on record")
            try:
                named = self._formats[party].read(wanted.slots, self._plan.wanted(at[1]))
            except PeerError as error:
                _differs(at[0], error.public)
            bitmaps = [] if answer is None else answer.bitmaps
            if len(bitmaps) != len(named):
                _differs(at[0], f"{len(bitmaps)} bitmaps of {party} in round {at[1]}, {len(named)} were wanted")
            places = dict(zip(self._features.announced(party), self._features.of_party(party), strict=True))
            for (feature, left), bitmap in zip(named, bitmaps, strict=True):
                if feature not in places:
                    _differs(at[0], f"a split of a feature of {party} that has one bin only")
                found[Split(places[feature], left)] = _unpacked(at[0], bitmap, len(self._rows))
        return found


class _Follower(TreeGrower):
    """A grower that is told what sums would have told it, and checks what it is told.

    Args:
        grower: One that has just begun; its state is taken over.
        kept: Number of the tree, and the splits that the record numbers.
    """

    def __init__(self, grower: TreeGrower, kept: tuple[int, Sequence[Split]]) -> None:
        vars(self).update(vars(grower))
        self._number, self._named = kept

    def follow(self, bits: Mapping[Split, Bools], kept: Tree) -> None:
        """One round.

        Args:
            bits: bool (n,) of the splits disclosed in it.
            kept: The tree as recorded.
        """
        alone(self.summing())
        if any(not self.asked[split.feature] or split in self._known for split in bits):
            _differs(self._number, "a split was disclosed that no honest label holder asks for")
        if not self.needs_foreign:
            self.choose([])
            self.settle({})
        elif self._sample.noise:
            # Leaves are decided on exact gains; of the choice, only whether there was any has a bearing.
            self._chosen = {place: Candidate(0.0, 0.0, split) for place, split in enumerate(bits)}
            self._wanted = list(bits)
            self.settle(bits)
        else:
            exact = {leaf.number: self._search.best_exact(leaf) for leaf in self._open}
            told = self._told(bits, kept)
            self._check_worth(told, exact, bits)
            self._chosen = told
            self.settle({})

    def _told(self, bits: Mapping[Split, Bools], kept: Tree) -> dict[int, Candidate]:
        """Takes the bits in; the recorded split of each leaf that was split now, with the gain that it really has."""
        limited = {split for split in bits if self._features[split.feature].thresholds is not None}
        for split in bits:
            self._known.add(split, bits[split])
        told: dict[int, Candidate] = {}
        for leaf in self._open:
            if leaf.number >= len(kept.nodes):
                _differs(self._number, "a node is missing")
            node = kept.nodes[leaf.number]
            later = self._rules.growth == "leaf" and node.left != len(self._made)
            if node.split < 0 or later:
                continue
            if node.split >= len(self._named):
                _differs(self._number, "a node is split by no split")
            split = self._named[node.split]
            gain = self._exact_gain(leaf, split)
            if gain != node.gain or not gain > self._rules.search.min_gain:
                _differs(self._number, f"the gain of node {leaf.number} is not what its rows give")
            worth = gain * (1.0 - self._rules.search.economy) if split in limited else gain
            told[leaf.number] = Candidate(gain, worth, split)
        if not set(bits) <= {one.split for one in told.values()}:
            _differs(self._number, "a split was disclosed and not used at once")
        return told

    def _exact_gain(self, leaf: Leaf, split: Split) -> float:
        """Gain of a split from the rows of a leaf, on the label holder's own knowledge."""
        feature = self._features[split.feature]
        if not self._sample.active[split.feature] or (feature.foreign and split not in self._known):
            _differs(self._number, f"node {leaf.number} is split by a feature that is not offered or bits not known")
        bits = (
            self._known.bits_of(split) if feature.foreign else left_bits(split, self._codes[self._own[split.feature]])
        )
        left, quantised = leaf.rows[bits[leaf.rows]], self._sample.quantised
        search = self._search.foreign if feature.foreign else self._search.own
        sums = (int(quantised.g[left].sum()), int(quantised.h[left].sum()))
        return search.gain(split, _evidence(search, split, sums), leaf.totals)

    def _check_worth(
        self, told: Mapping[int, Candidate], exact: Mapping[int, Candidate | None], bits: Mapping[Split, Bools]
    ) -> None:
        """No leaf had a better split among those that were known exactly when it was split, or left alone."""
        used = [one.split for one in told.values()]
        for leaf in self._open:
            best, taken = exact[leaf.number], told.get(leaf.number)
            if best is None:
                continue
            if taken is None and self._rules.growth == "leaf" and told:
                first, other = next(iter(told.items()))
                fair = (-other.worth, first) < (-best.worth, leaf.number)
            elif taken is None:
                fair = False
            else:
                # A leaf may share a split that another one asks for: then it costs nothing more.
                shared = taken.split in bits and used.count(taken.split) > 1
                worth = taken.gain if shared else taken.worth
                fair = (-worth, taken.split.feature) <= (-best.worth, best.split.feature)
            if not fair:
                _differs(self._number, f"node {leaf.number} had a better split")


def _evidence(search: SplitSearch, split: Split, left: tuple[int, int]) -> Evidence:
    """Sums by bin that tell no more than the sums of one side of a split."""
    g, h = np.zeros(search.bins, np.int64), np.zeros(search.bins, np.int64)
    place = int(search.offsets[search.members.index(split.feature)]) + split.left[0]
    g[place], h[place] = left
    return Evidence(g, h, _NO_CELLS, 0.0)


def _unpacked(tree: int, data: bytes, count: int) -> Bools:
    try:
        return unpack_bits(data, (count,), "bits on record")
    except (PeerError, DataError) as error:
        _differs(tree, error.public)


def _differs(tree: int, what: str) -> NoReturn:
    raise IntegrityError("replay.tree", f"tree {tree + 1} is not what honest training gives: {what}")
