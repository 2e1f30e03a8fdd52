"""Encrypted boosting against trees grown by hand: plain Python over pooled bins, as literal and as slow as can be.

No noise and no caps. Nothing of the product's tree code is used: only bins, labels, and the label holder's uniforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.crypto.prg import SEED_BYTES, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_tables
from fedcredit.kernels.tree_model import BoostedTrees, Tree
from fedcredit.protocol.boost.columns import FeatureList
from fedcredit.protocol.boost.draws import HolderDraws, LabelDraws
from fedcredit.protocol.boost.roles import BoostResult
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.boost.oracle import PooledColumns, pool_columns
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.model import BoostSection
from fedcredit.types import PartyId

Make = Callable[..., Path]
Keys = Mapping[str, Any]
Left = frozenset[int]

BOOST: Keys = {"trees": 3, "bins": 6, "holder_bins": 5, "min_bin_rows": 20, "min_child_rows": 10}
FREE: Keys = {"holder_thresholds": 0}
LEAF: Keys = {"growth": "leaf", "depth": 4, "max_leaves": 6}


@dataclass(frozen=True)
class Column:
    """A column in bins, whoever holds it."""

    owner: str
    code: str
    bins: int
    ordered: int
    bin_of: Sequence[int]


@dataclass
class Grown:
    """A node: the rows in it, all that the caller may compare."""

    rows: list[int]
    depth: int = 0
    split: tuple[int, Left] | None = None
    gain: float = 0.0
    children: tuple[int, int] = (-1, -1)
    value: float = 0.0


@dataclass
class ByHand:
    """Boosting by hand. ``trained`` are the rows that count, ``margins`` those of all rows."""

    columns: Sequence[Column]
    bad: Sequence[bool]
    trained: set[int]
    rules: BoostSection
    largest: int
    margins: list[float] = field(default_factory=list)

    def tree(self, uniforms: tuple[Sequence[float], Sequence[float]], seen: set[int], active: Sequence[bool]) -> Any:
        p = [1 / (1 + math.exp(-margin)) for margin in self.margins]
        exact = [(p[row] - self.bad[row], p[row] * (1 - p[row])) for row in range(len(p))]
        units = (1.0 / self.largest, 0.25 / self.largest)
        whole = [
            (
                max(-self.largest, min(self.largest, math.floor(g * self.largest + uniforms[0][row]))),
                max(0, min(self.largest, math.floor(h * 4 * self.largest + uniforms[1][row]))),
            )
            for row, (g, h) in enumerate(exact)
        ]
        counted = self.trained & seen
        nodes = [Grown(list(range(len(p))))]
        leaves = [0]
        while True:
            best = {}
            for number in leaves:
                inside = [row for row in nodes[number].rows if row in counted]
                found = self.best(inside, nodes[number].depth, (whole, units), active)
                if found is not None:
                    best[number] = found
            if self.rules.growth == "leaf" and best:
                first = max(best, key=lambda number: (best[number][0], -number))
                best = {first: best[first]} if len(leaves) < self.rules.leaves else {}
            if not best:
                break
            for number, (gain, feature, left) in sorted(best.items()):
                self.split(nodes, number, gain, (feature, left))
            leaves = [number for number, node in enumerate(nodes) if node.split is None]
        for number in leaves:
            node = nodes[number]
            g = math.fsum(exact[row][0] for row in node.rows if row in counted)
            h = math.fsum(exact[row][1] for row in node.rows if row in counted)
            node.value = -g / (h + self.rules.l2) * self.rules.learning_rate
            for row in node.rows:
                self.margins[row] += node.value
        return nodes, counted

    def split(self, nodes: list[Grown], number: int, gain: float, split: tuple[int, Left]) -> None:
        node, column = nodes[number], self.columns[split[0]]
        sides: tuple[list[int], list[int]] = ([], [])
        for row in node.rows:
            sides[column.bin_of[row] not in split[1]].append(row)
        node.gain, node.split, node.children = gain, split, (len(nodes), len(nodes) + 1)
        nodes += [Grown(side, node.depth + 1) for side in sides]

    def best(
        self, rows: list[int], depth: int, integers: tuple[Any, tuple[float, float]], active: Sequence[bool]
    ) -> tuple[float, int, Left] | None:
        whole, units = integers
        total = [sum(whole[row][field] for row in rows) for field in range(2)]
        enough = len(rows) >= 2 * self.rules.min_child_rows
        if depth >= self.rules.depth or not enough or total[1] * units[1] < 2 * self.rules.min_child_weight:
            return None
        found: tuple[float, int, Left] | None = None
        for feature, column in enumerate(self.columns):
            if not active[feature]:
                continue
            sums = [[0, 0] for _ in range(column.bins)]
            for row in rows:
                sums[column.bin_of[row]][0] += whole[row][0]
                sums[column.bin_of[row]][1] += whole[row][1]
            for left in self.candidates(column, sums, units):
                mine = [sum(sums[bin_][field] for bin_ in left) for field in range(2)]
                gain = self.gain(mine, total, len(rows), units)
                if gain > max(1e-6, -math.inf if found is None else found[0]):
                    found = (gain, feature, left if 0 in left else frozenset(range(column.bins)) - left)
        return found

    def candidates(
        self, column: Column, sums: Sequence[Sequence[int]], units: tuple[float, float]
    ) -> Iterator[frozenset[int]]:
        if not column.ordered:
            weight = [self.weight(g * units[0], h * units[1]) for g, h in sums]
            order = sorted(range(column.bins), key=lambda bin_: (weight[bin_], bin_))
            for size in range(1, column.bins):
                yield frozenset(order[:size])
            return
        extras = range(column.ordered, column.bins)
        for mask in range(1 << len(extras)):
            moved = {bin_ for place, bin_ in enumerate(extras) if mask >> place & 1}
            lasts = range(column.ordered) if mask == 0 else reversed(range(column.ordered))
            for last in lasts:
                left = frozenset(range(last + 1)) | moved
                if len(left) < column.bins:
                    yield left

    def weight(self, g: float, h: float) -> float:
        """By which categories are sorted; one too light to be a child by itself is neutral."""
        return -g / (h + self.rules.l2) if h > 0 and h >= self.rules.min_child_weight else 0.0

    def gain(self, left: Sequence[int], total: Sequence[int], rows: int, units: tuple[float, float]) -> float:
        right = [all_ - one for all_, one in zip(total, left, strict=True)]
        for side in (left, right):
            if (
                side[1] * units[1] < self.rules.min_child_weight
                or rows * side[1] < self.rules.min_child_rows * total[1]
            ):
                return -math.inf

        def score(side: Sequence[int]) -> float:
            g, h = side[0] * units[0], side[1] * units[1] + self.rules.l2
            return g * g / h if h > 0 else 0.0

        return score(left) + score(right) - score(total)


def started(folder: Path, consortium: Make, boost: Keys, privacy: Keys, holders: Sequence[str]) -> LoadedSpec:
    sections = {
        "run": {"model": "boost"},
        "boost": {**BOOST, **FREE, **boost},
        "privacy": {"noise_rows": 0.0, "enforce": False, **privacy},
        "crypto": {"profile": "rlwe-8192"},
    }
    free: Keys = {"monotone": {}}
    return load_spec(
        consortium(folder, holders=holders, rows=500, sections=sections, parties=dict.fromkeys(holders, free))
    )


def kept(party: PartyId) -> KeptSecrets:
    return KeptSecrets(RunSecret.fresh(), UnsafeSeededEntropy(bytes(SEED_BYTES)).child(party), NoEscrow())


def pooled(loaded: LoadedSpec, label: BoostResult) -> PooledColumns:
    spec = loaded.spec
    fresh = {party: kept(party) for party in spec.parties}
    return pool_columns((label.index, label.bad), spec, load_tables(loaded), fresh)


def by_hand(columns: PooledColumns, label: BoostResult) -> tuple[list[tuple[list[Grown], set[int]]], ByHand]:
    """All trees, and what is left at the end; rows are those that are not held out."""
    spec, model = columns.spec, label.trees.model
    boost, leader = spec.boost or BoostSection(), spec.label_holder.name
    here = np.flatnonzero(label.index.train)
    own = {(party, one.shape.code): one for party, each in columns.own.items() for one in each}
    listed = [
        Column(one.owner, one.code, one.bins, one.ordered, own[PartyId(one.owner), one.code].codes[here].tolist())
        for one in model.features
    ]
    bad, trained = label.bad[here].tolist(), label.trees.train[here]
    hand = ByHand(listed, bad, set(np.flatnonzero(trained).tolist()), boost, 2 ** (spec.privacy.gradient_bits - 1) - 1)
    bads = sum(bad[row] for row in hand.trained)
    hand.margins = [math.log(bads / (len(hand.trained) - bads))] * len(here)
    draws = LabelDraws(columns.seeds[leader])
    trees = []
    for number in range(len(label.trees.history)):
        sampled = draws.rows(number, len(here)) < spec.privacy.row_sampling
        uniforms = tuple(one.tolist() for one in draws.rounding(number, len(here)))
        active = allowed(columns, model, number, boost)
        trees.append(hand.tree((uniforms[0], uniforms[1]), set(np.flatnonzero(sampled).tolist()), active))
    return trees, hand


def allowed(columns: PooledColumns, model: BoostedTrees, number: int, boost: BoostSection) -> list[bool]:
    """Each owner's own draw of columns, the single-bin ones of a feature holder included."""
    leader = columns.spec.label_holder.name
    chosen: dict[tuple[PartyId, str], bool] = {}
    for party, each in columns.own.items():
        mine = [one for one in each if one.shape.bins > 1] if party == leader else list(each)
        draws = LabelDraws(columns.seeds[party]) if party == leader else HolderDraws(columns.seeds[party])
        offered = draws.columns(number, len(mine), boost.column_sampling)
        chosen |= {(party, one.shape.code): bool(yes) for one, yes in zip(mine, offered, strict=True)}
    local = number < boost.first_trees_local
    return [chosen[PartyId(one.owner), one.code] and not (local and one.foreign) for one in model.features]


def same(tree: Tree, model: BoostedTrees, nodes: list[Grown], counted: set[int]) -> None:
    assert len(tree.nodes) == len(nodes)
    for found, mine in zip(tree.nodes, nodes, strict=True):
        split = None if found.split < 0 else model.splits[found.split]
        assert mine.split == (None if split is None else (split.feature, frozenset(split.left)))
        assert found.rows == sum(row in counted for row in mine.rows)
        assert (found.left, found.right) == mine.children
        assert math.isclose(found.gain, mine.gain, rel_tol=1e-12, abs_tol=1e-12)
        assert math.isclose(found.value, mine.value, rel_tol=1e-9, abs_tol=1e-9)


OPTIONS: dict[str, tuple[Keys, Keys, int]] = {
    "depth": ({}, {}, 2),
    "three-holders": ({"trees": 2}, {}, 3),
    "one-holder": ({}, {}, 1),
    "depth-4": ({"depth": 4, "trees": 2}, {}, 2),
    "stumps": ({"depth": 1, "trees": 6, "learning_rate": 1.0}, {}, 2),
    "leaf": (LEAF, {}, 2),
    "columns": ({"column_sampling": 0.5, "trees": 4}, {}, 2),
    "rows": ({}, {"row_sampling": 0.7}, 2),
    "local-first": ({"first_trees_local": 1}, {}, 2),
    "coarse": ({}, {"gradient_bits": 2}, 2),
    "fine": ({}, {"gradient_bits": 16}, 2),
    "no-penalty": ({"l2": 0.0, "min_child_weight": 0.5, "min_child_rows": 1}, {}, 2),
    "stopping": ({"trees": 6, "learning_rate": 1.0}, {"early_stopping": 1}, 2),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_encrypted_trees_are_those_grown_by_hand(tmp_path: Path, consortium: Make, name: str) -> None:
    boost, privacy, holders = OPTIONS[name]
    loaded = started(tmp_path, consortium, boost, privacy, ("tax_office", "customs", "utility")[:holders])
    results = Rehearsal(loaded, secrets={party: kept(party) for party in loaded.spec.parties}).play()
    label: BoostResult = results[loaded.spec.label_holder.name]
    model = label.trees.model
    trees, hand = by_hand(pooled(loaded, label), label)
    assert any(model.features[split.feature].foreign for split in model.splits)
    for found, (nodes, counted) in zip(model.trees, trees, strict=False):
        same(found, model, nodes, counted)
    if len(model.trees) == len(trees):  # not cut back
        assert np.allclose(label.trees.margins[label.index.train], hand.margins, rtol=0, atol=1e-8)


def test_a_column_order_of_its_own(tmp_path: Path, consortium: Make) -> None:
    """The label holder's columns come first, then each holder's in the order of the spec: ties go by that."""
    loaded = started(tmp_path, consortium, {"trees": 1}, {}, ("tax_office", "customs"))
    results = Rehearsal(loaded, secrets={party: kept(party) for party in loaded.spec.parties}).play()
    features = results[loaded.spec.label_holder.name].trees.model.features
    owners = [one.owner for one in features]
    assert list(dict.fromkeys(owners)) == ["bank", "tax_office", "customs"]
    assert FeatureList(features, {}).of_party(PartyId("bank")) == [0, 1, 2, 3]
