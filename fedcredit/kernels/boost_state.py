"""A boosted model under growth: what every way of growing it shares, in the clear or encrypted.

Source: Friedman, Annals of Statistics 29 (2001); Chen & Guestrin, KDD 2016; Shi et al., NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.gradients import (
    EXACT_BITS,
    base_margin,
    fixed_point,
    gradient_bound,
    logistic_gradients,
    quantise,
)
from fedcredit.kernels.known_splits import KnownSplits
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.pooled_rows import POOLED_BITS, Among, auc_sums
from fedcredit.kernels.pooled_sums import Summing, alone, joined
from fedcredit.kernels.tree_draws import Draws, NoDraws, TreeDraws
from fedcredit.kernels.tree_grower import GrowRules, TreeGrower, TreeSample
from fedcredit.kernels.tree_model import BoostedTrees, Split, Tree, TreeFeature, left_bits

__all__ = [
    "BoostCheckpoint",
    "BoostRules",
    "BoostState",
    "Boosted",
    "Draws",
    "NoDraws",
    "Records",
    "TreeDraws",
    "TreeRecord",
]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BoostRules:
    """How a model is grown.

    Args:
        trees: Most trees, >= 1.
        grow: Shape of a tree.
        gradient_bits: Bits of an integer derivative, sign included, for stochastic rounding; None = to the nearest
            2^-40, which is as good as exact.
        row_sampling: Share of the training rows that each tree sees, in (0, 1].
        first_trees_local: First trees from the label holder's own features only.
        early_stopping: Trees without a better validation AUC after which growth stops; 0 = never. The model is cut
            back to its best tree.
        noise_rows: Standard deviation of the noise in each foreign sum, in rows of the greatest derivative; 0 = none.

    Raises:
        SpecError: A value is out of its range.
    """

    trees: int = 20
    grow: GrowRules = field(default_factory=GrowRules)
    gradient_bits: int | None = None
    row_sampling: float = 1.0
    first_trees_local: int = 0
    early_stopping: int = 0
    noise_rows: float = 0.0

    def __post_init__(self) -> None:
        for key, least in (("trees", 1), ("first_trees_local", 0), ("early_stopping", 0), ("noise_rows", 0)):
            if not least <= getattr(self, key) < float("inf"):
                raise SpecError("spec.boost", f"boost.{key} is {getattr(self, key)}; it must be at least {least}")
        if not 0 < self.row_sampling <= 1:
            raise SpecError("spec.boost", f"privacy.row_sampling is {self.row_sampling}; it must be in (0, 1]")
        if self.gradient_bits is not None:
            gradient_bound(self.gradient_bits)
        elif self.noise_rows:
            raise SpecError("spec.boost", "noise is counted in integer units; set privacy.gradient_bits")

    @property
    def noise(self) -> float:
        """Standard deviation of the noise in each foreign sum, in integer units."""
        return 0.0 if self.gradient_bits is None else self.noise_rows * gradient_bound(self.gradient_bits)


@dataclass(frozen=True)
class TreeRecord:
    """What a tree brought.

    Args:
        train_auc: AUC of the training rows with all trees up to this one.
        validation_auc: The same of the other rows; None where there are none, or of one class only.
    """

    train_auc: float
    validation_auc: float | None


@dataclass(frozen=True, eq=False)
class Boosted:
    """A finished model.

    Args:
        model: The trees up to the best one.
        margins: float64 (n,), log-odds of default of all rows.
        history: One record a tree, those after the best one too.
        best_tree: Number of the last tree of the model, from 0.
    """

    model: BoostedTrees
    margins: Floats
    history: tuple[TreeRecord, ...]
    best_tree: int


@dataclass(frozen=True, eq=False)
class BoostCheckpoint:
    """All that further trees depend on.

    Args:
        trees: Trees so far.
        splits: Splits of these trees, in order of first use.
        history: One record a tree.
        known: Known foreign splits, in order of disclosure.
        known_bits: uint8 (known, ceil(n / 8)), their bits, packed as `numpy.packbits` does.
        margins: float64 (n,).
        best_margins: float64 (n,), after the best tree.
    """

    trees: tuple[Tree, ...]
    splits: tuple[Split, ...]
    history: tuple[TreeRecord, ...]
    known: tuple[Split, ...]
    known_bits: NDArray[np.uint8]
    margins: Floats
    best_margins: Floats


@dataclass(frozen=True, eq=False)
class Records:
    """What trees are grown from.

    Args:
        features: All features of the run.
        codes: uint8 or uint16 (own features, n), bins of the features that are not foreign, in order of features.
        bad: bool (n,), True = defaulted.
        train_rows: bool (n,), rows to train on; all others are validation rows.
        among: Where the rows start from and whose they are, if the model is one of several banks.
    """

    features: tuple[TreeFeature, ...]
    codes: Codes
    bad: Bools
    train_rows: Bools
    among: Among | None = None


class BoostState:
    """A model under growth, tree by tree; the caller answers each grower's questions.

    Args:
        records: What trees are grown from.
        rules: How.

    Raises:
        DataError: Shapes differ, the training rows are of one class, or early stopping has no validation rows.
    """

    def __init__(self, records: Records, rules: BoostRules) -> None:
        n = records.codes.shape[1]
        if any(one.shape != (n,) or one.dtype != np.bool_ for one in (records.bad, records.train_rows)):
            raise DataError("kernels.tree-labels", f"labels and training rows must be bool, one for each of {n} rows")
        self.records, self.rules = records, rules
        if records.among is None:
            bads = int((records.bad & records.train_rows).sum())
            self.base = base_margin(bads, int(records.train_rows.sum()) - bads)
            self._margins = np.full(n, self.base)
        else:
            self.base, self._margins = records.among.base, records.among.checked(n)
        validation = records.bad[~records.train_rows]
        self._validates = bool(validation.any()) and not bool(validation.all())
        if rules.early_stopping and not self._validates and not self._pooled:
            raise _unjudged()
        self.known = KnownSplits(records.features, n)
        self._features = records.features
        self._best_margins = self._margins
        self._first = 0  # trees that were there before
        self._trees: list[Tree] = []
        self._history: list[TreeRecord] = []

    @property
    def _pooled(self) -> bool:
        return self.records.among is not None and self.records.among.bank is not None

    @property
    def history(self) -> tuple[TreeRecord, ...]:
        """One record a tree."""
        return tuple(self._history)

    @property
    def best_tree(self) -> int:
        """Number of the tree that a model would end with now: the last, or with early stopping the best; -1 = none."""
        if not self.rules.early_stopping:
            return len(self._trees) - 1
        scores = [record.validation_auc or 0.0 for record in self._history]
        return self._first + (scores.index(max(scores)) if scores else -1)

    @property
    def finished(self) -> bool:
        """Whether no further tree is wanted."""
        patience = self.rules.early_stopping
        stale = bool(patience) and len(self._trees) - 1 - self.best_tree >= patience
        return len(self._trees) - self._first >= self.rules.trees or stale

    def next_tree(self, draws: TreeDraws) -> TreeGrower:
        """Begins the next tree.

        Args:
            draws: Chance, asked for the tree's number.
        """
        return alone(self.growing(draws))

    def growing(self, draws: TreeDraws) -> Summing[TreeGrower]:
        """`next_tree` among several banks.

        Args:
            draws: Chance; its rounding is the bank's own, the columns are the same at every bank.
        """
        number, records, rules = len(self._trees), self.records, self.rules
        n = self._margins.size
        g, h = logistic_gradients(self._margins, records.bad)
        train = records.train_rows
        if rules.row_sampling < 1:
            train = train & (draws.rows(number, n) < rules.row_sampling)
        active = draws.columns(number).copy()
        if number < rules.first_trees_local:
            active &= np.array([not feature.foreign for feature in records.features], dtype=np.bool_)
        bits = rules.gradient_bits
        integers = fixed_point(g, h) if bits is None else quantise(g, h, bits, draws.rounding(number, n))
        noise = rules.noise if records.among is None else rules.noise * records.among.noise_factor
        leaf_bits = POOLED_BITS if self._pooled else EXACT_BITS
        sample = TreeSample(g, h, integers, train, active, noise, leaf_bits)
        grower = TreeGrower(records.features, records.codes, self.known, rules.grow, sample, opened=False)
        yield from grower.opening()
        return grower

    def add(self, grower: TreeGrower) -> TreeRecord:
        """Takes a finished tree in.

        Raises:
            DataError: The tree is not finished.
        """
        return alone(self.adding(grower))

    def adding(self, grower: TreeGrower) -> Summing[TreeRecord]:
        """`add` among several banks.

        Raises:
            DataError: The tree is not finished, or early stopping has no validation rows of both classes anywhere.
        """
        grown = yield from grower.finishing()
        self._trees.append(grown.tree)
        self._margins = self._margins + grown.update
        record = yield from self._record()
        self._history.append(record)
        if self.best_tree == len(self._trees) - 1:
            self._best_margins = self._margins
        return self._history[-1]

    def _record(self) -> Summing[TreeRecord]:
        train, bad, among = self.records.train_rows, self.records.bad, self.records.among
        if among is None or among.bank is None:
            validation = auc(bad[~train], self._margins[~train]) if self._validates else None
            return TreeRecord(auc(bad[train], self._margins[train]), validation)
        parts = [auc_sums(bad[rows], self._margins[rows], among.bank[rows]) for rows in (train, ~train)]
        totals = yield from joined("record", [one.values for one in parts], parts[0].bound)
        means = [one.mean(total) for one, total in zip(parts, totals, strict=True)]
        if self.rules.early_stopping and means[1] is None:
            raise _unjudged()
        return TreeRecord(0.5 if means[0] is None else means[0], means[1])

    def personal(self, rules: BoostRules) -> BoostState:
        """More trees for this bank's own rows, from the best tree on: over own features and splits known by then.

        They cost nothing: no sum of anyone is asked, and no bit.

        Args:
            rules: How they are grown; ``trees`` counts them alone.

        Raises:
            DataError: Early stopping has no validation rows.
        """
        closed = self.known.closed(len(self.result().model.splits))
        among = Among(self.base, self._best_margins)
        state = BoostState(replace(self.records, features=closed.shapes, among=among), rules)
        state.known, state._features = closed, self._features
        state._trees = self._trees[: self.best_tree + 1]
        state._first = len(state._trees)
        return state

    def result(self) -> Boosted:
        """The model up to its best tree."""
        trees = tuple(self._trees[: self.best_tree + 1])
        used = 1 + max((node.split for tree in trees for node in tree.nodes), default=-1)
        model = BoostedTrees(self.base, self._features, self.known.numbered[:used], trees)
        return Boosted(model, self._best_margins, self.history, self.best_tree)

    def bits(self, rows: Bools | None = None) -> Bools:
        """Bits of rows in each split of :meth:`result`: bool (rows, S).

        Args:
            rows: bool (n,), which rows; None = all.
        """
        splits = self.result().model.splits
        chosen = np.ones(self._margins.size, dtype=np.bool_) if rows is None else rows
        bits = np.empty((int(chosen.sum()), len(splits)), dtype=np.bool_)
        for number, split in enumerate(splits):
            if self.records.features[split.feature].foreign:
                bits[:, number] = self.known.bits_of(split)[chosen]
            else:
                own = sum(not feature.foreign for feature in self.records.features[: split.feature])
                bits[:, number] = left_bits(split, self.records.codes[own][chosen])
        return bits

    def to_state(self) -> BoostCheckpoint:
        """All that further trees depend on."""
        return BoostCheckpoint(
            tuple(self._trees),
            self.known.numbered,
            self.history,
            self.known.splits,
            np.packbits(self.known.bits, axis=1),
            self._margins,
            self._best_margins,
        )

    @classmethod
    def from_state(cls, records: Records, rules: BoostRules, checkpoint: BoostCheckpoint) -> BoostState:
        """Goes on where a checkpoint was taken, with the same records and rules.

        Raises:
            DataError: The checkpoint is of another number of rows.
        """
        state = cls(records, rules)
        n = state._margins.size
        if checkpoint.margins.shape != (n,) or checkpoint.known_bits.shape != (len(checkpoint.known), (n + 7) // 8):
            raise DataError("kernels.tree-checkpoint", f"the checkpoint is not of {n} rows")
        for split, packed in zip(checkpoint.known, checkpoint.known_bits, strict=True):
            state.known.add(split, np.unpackbits(packed, count=n).view(np.bool_))
        for split in checkpoint.splits:
            state.known.number(split)
        state._trees, state._history = list(checkpoint.trees), list(checkpoint.history)
        state._margins, state._best_margins = checkpoint.margins, checkpoint.best_margins
        return state


def _unjudged() -> DataError:
    return DataError("kernels.tree-validation", "early stopping needs validation rows of both classes")
