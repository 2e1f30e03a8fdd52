"""Contributions of features against their definition by brute force, and against the field's library."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.errors import BoundError
from fedcredit.kernels.tree_model import BoostedTrees, Node, Split, Tree, TreeFeature, canonical_split, margins
from fedcredit.kernels.tree_model import pooled_bits as bits_of
from fedcredit.kernels.tree_shap import shapley

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass
class Grower:
    """Random trees: each node that is deep enough splits on a random feature, wherever both sides have rows."""

    rng: np.random.Generator
    codes: Codes
    features: tuple[TreeFeature, ...]
    depth: int
    chain: bool = False  # only the left child goes on, on another feature each time
    splits: list[Split] = field(default_factory=list)

    def model(self, trees: int) -> BoostedTrees:
        grown = tuple(self.tree() for _ in range(trees))
        return BoostedTrees(-0.7, self.features, tuple(self.splits), grown)

    def tree(self) -> Tree:
        nodes: list[Node | None] = []
        self.node(nodes, np.ones(self.codes.shape[1], np.bool_), 0)
        return Tree(tuple(node for node in nodes if node is not None))

    def node(self, nodes: list[Node | None], rows: Rows, level: int) -> int:
        place = len(nodes)
        nodes.append(None)
        split = self.split(rows, level) if level < self.depth else None
        if split is None:
            nodes[place] = Node(int(rows.sum()), 1.0, 0.0, -1, -1, -1, float(self.rng.normal()))
            return place
        goes = np.isin(self.codes[split.feature], split.left)
        left = self.node(nodes, rows & goes, level + 1)
        right = self.node(nodes, rows & ~goes, 99 if self.chain else level + 1)
        if split not in self.splits:
            self.splits.append(split)
        nodes[place] = Node(int(rows.sum()), 1.0, 1.0, self.splits.index(split), left, right, 0.0)
        return place

    def split(self, rows: Rows, level: int) -> Split | None:
        for _ in range(20):
            feature = level if self.chain else int(self.rng.integers(len(self.features)))
            shape = self.features[feature]
            if shape.ordered:
                left = set(range(int(self.rng.integers(1, shape.ordered + 1))))
                left |= {bin_ for bin_ in range(shape.ordered, shape.bins) if self.rng.random() < 0.5}
            else:
                left = {bin_ for bin_ in range(shape.bins) if self.rng.random() < 0.5}
            if not 0 < len(left) < shape.bins:
                continue
            found = canonical_split(feature, left, shape.bins)
            goes = np.isin(self.codes[feature], found.left)
            if (rows & goes).any() and (rows & ~goes).any():
                return found
        return None


def grower(seed: int, shapes: list[tuple[int, int]], rows: int, depth: int) -> Grower:
    rng = np.random.default_rng(seed)
    codes = np.array([rng.integers(0, bins, rows) for bins, _ in shapes])
    features = tuple(TreeFeature("bank", f"F{i}", bins, ordered) for i, (bins, ordered) in enumerate(shapes))
    return Grower(rng, codes, features, depth)


def conditional(model: BoostedTrees, tree: Tree, bits: Rows, known: frozenset[int], at: int = 0) -> float:
    """Expectation of a tree's value for one row where only some features are known."""
    node = tree.nodes[at]
    if node.split < 0:
        return node.value
    if model.splits[node.split].feature in known:
        return conditional(model, tree, bits, known, node.left if bits[node.split] else node.right)
    return sum(
        tree.nodes[child].rows / node.rows * conditional(model, tree, bits, known, child)
        for child in (node.left, node.right)
    )


def by_definition(model: BoostedTrees, bits: Rows) -> Floats:
    """Shapley values of one row: the mean marginal contribution over all subsets."""
    count = len(model.features)
    result = np.zeros(count)
    for feature in range(count):
        others = [one for one in range(count) if one != feature]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for subset in itertools.combinations(others, size):
                known = frozenset(subset)
                for tree in model.trees:
                    with_it = conditional(model, tree, bits, known | {feature})
                    result[feature] += weight * (with_it - conditional(model, tree, bits, known))
    return result


@pytest.mark.parametrize("seed", range(6))
def test_definition(seed: int) -> None:
    grown = grower(seed, [(4, 3), (3, 0), (5, 5), (2, 1), (4, 0)], 120, 4)
    model = grown.model(3)
    bits = bits_of(model, grown.codes)
    paths = [[model.splits[node.split].feature for node in tree.nodes if node.split >= 0] for tree in model.trees]
    assert any(len(set(path)) < len(path) for path in paths)  # features do come again
    found, expected = shapley(model, bits)
    assert found.shape == (120, 5)
    assert found.dtype == np.float64
    for row in range(8):
        np.testing.assert_allclose(found[row], by_definition(model, bits[row]), atol=1e-12)
    empty: frozenset[int] = frozenset()
    mean = sum(conditional(model, tree, bits[0], empty) for tree in model.trees)
    assert expected == pytest.approx(model.base + mean, abs=1e-12)


def written(model: BoostedTrees, tree: Tree) -> dict[str, NDArray[np.generic]]:
    """A tree in the form that the library reads."""
    default, feature, threshold = [], [], []
    for node in tree.nodes:
        split = model.splits[node.split] if node.split >= 0 else Split(-2, (0,))
        missing = model.features[split.feature].bins - 1 if node.split >= 0 else -1
        default.append(node.left if missing in split.left else node.right)
        feature.append(split.feature)
        threshold.append(max(bin_ for bin_ in split.left if bin_ != missing) + 0.5)
    return {
        "children_left": np.array([node.left for node in tree.nodes]),
        "children_right": np.array([node.right for node in tree.nodes]),
        "children_default": np.array(default),
        "features": np.array(feature),
        "thresholds": np.array(threshold),
        "values": np.array([[node.value] for node in tree.nodes]),
        "node_sample_weight": np.array([float(node.rows) for node in tree.nodes]),
    }


def library(model: BoostedTrees, columns: Floats) -> tuple[Floats, float]:
    """Values by the shap package; numeric splits, the last bin is a missing value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing it brings along uses what others have deprecated
        shap = pytest.importorskip("shap")
    trees = [written(model, tree) for tree in model.trees]
    document = {
        "trees": trees,
        "base_offset": np.array([model.base]),
        "internal_dtype": np.float64,
        "input_dtype": np.float64,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = shap.TreeExplainer(document, feature_perturbation="tree_path_dependent")
        values = explainer.shap_values(columns, check_additivity=False)
    return np.asarray(values).reshape(columns.shape), float(np.ravel(explainer.expected_value)[0])


@pytest.mark.parametrize(
    ("seed", "depth", "trees", "chain"),
    [(1, 3, 20, False), (2, 7, 6, False), (3, 14, 3, True)],
    ids=["3", "7", "chain"],
)
def test_library(seed: int, depth: int, trees: int, chain: bool) -> None:
    grown = grower(seed, [(9, 8)] * 16, 4000, depth)
    grown.chain = chain
    model = grown.model(trees)
    columns = np.where(grown.codes == 8, np.nan, grown.codes).T
    columns = np.ascontiguousarray(columns[:300])
    bits = bits_of(model, grown.codes)[:300]
    found, expected = shapley(model, bits)
    right, mean = library(model, columns)
    np.testing.assert_allclose(found, right, atol=1e-9)
    assert expected == pytest.approx(mean, abs=1e-9)
    if chain:
        assert max(tree.leaves for tree in model.trees) > 12  # paths too long for a table are walked row by row


@pytest.mark.parametrize(("depth", "chain"), [(2, False), (6, False), (30, True)])
def test_adds_up(depth: int, chain: bool) -> None:
    grown = grower(5, [(6, 4), (5, 0), (3, 2)] * 10, 3000, depth)
    grown.chain = chain
    model = grown.model(8)
    bits = bits_of(model, grown.codes)
    found, expected = shapley(model, bits)
    np.testing.assert_allclose(found.sum(axis=1) + expected, margins(model, bits), rtol=0, atol=1e-9)
    assert margins(model, bits).mean() == pytest.approx(expected, abs=1e-9)  # all rows trained


def test_a_feature_outside_the_model_earns_nothing() -> None:
    grown = grower(6, [(4, 4), (4, 4), (4, 4)], 200, 3)
    model = grown.model(4)
    idle = BoostedTrees(model.base, (*model.features, model.features[0]), model.splits, model.trees)
    found, _ = shapley(idle, bits_of(model, grown.codes))
    assert not found[:, 3].any()
    assert found[:, :3].any(axis=0).all()


def test_no_trees_no_rows_and_a_lone_leaf() -> None:
    features = (TreeFeature("bank", "F1", 2, 2),)
    found, expected = shapley(BoostedTrees(0.25, features, (), ()), np.zeros((3, 0), np.bool_))
    assert (found.tolist(), expected) == ([[0.0]] * 3, 0.25)
    leaf = Tree((Node(5, 1.0, 0.0, -1, -1, -1, 0.5),))
    found, expected = shapley(BoostedTrees(0.25, features, (), (leaf,)), np.zeros((0, 0), np.bool_))
    assert (found.shape, expected) == ((0, 1), 0.75)


def test_what_does_not_fit_is_refused() -> None:
    features = (TreeFeature("bank", "F1", 2, 2),)
    leaf = Node(0, 0.0, 0.0, -1, -1, -1, 1.0)
    model = BoostedTrees(0.0, features, (Split(0, (0,)),), (Tree((Node(0, 0.0, 0.0, 0, 1, 2, 0.0), leaf, leaf)),))
    shapes: list[NDArray[Any]] = [np.zeros((3, 2), np.bool_), np.zeros((3, 1), np.int8), np.zeros(3, np.bool_)]
    for bits in shapes:
        with pytest.raises(BoundError, match="bool, one column for 1 splits"):
            shapley(model, bits)
    with pytest.raises(BoundError, match="tree 0: the inner node 0 has no training rows"):
        shapley(model, np.zeros((3, 1), np.bool_))


def test_it_is_fast() -> None:
    grown = grower(7, [(9, 8)] * 20, 9000, 3)
    model = grown.model(20)
    bits = bits_of(model, grown.codes)
    shapley(model, bits[:10])  # compiled
    spent = min(_seconds(model, bits) for _ in range(3))
    assert spent < 1.0


def _seconds(model: BoostedTrees, bits: Rows) -> float:
    start = time.process_time()
    shapley(model, bits)
    return time.process_time() - start
