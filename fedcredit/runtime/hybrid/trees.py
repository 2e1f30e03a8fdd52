"""The trees of a hybrid run, compared: each bank by itself, with all holders, all rows pooled, and all together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.tree_model import TreeFeature
from fedcredit.protocol.boost.columns import FeatureList
from fedcredit.protocol.boost.roles import BoostResult
from fedcredit.runtime.boost.oracle import alone, pool_columns, pooled_trees
from fedcredit.runtime.hybrid.compare import Compared, HybridOutcome, Scores
from fedcredit.runtime.hybrid.trees_oracle import (
    BankColumns,
    HybridTrees,
    TreesTogether,
    bank_columns,
    trees_together,
)
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["compare_trees"]

Allowed = Mapping[tuple[str, str], int | None]


def compare_trees(there: HybridOutcome) -> Compared:
    """Every model on every bank's held-out rows."""
    results: dict[PartyId, BoostResult] = {bank: one.results[bank] for bank, one in there.outcomes.items()}
    first = next(iter(results.values())).trees
    allowed = {(one.owner, one.code): one.thresholds for one in first.model.features if one.foreign}
    rows = {bank: (label.index, label.bad) for bank, label in results.items()}
    columns = bank_columns(there.spec, there.tables, rows, {bank: there.keep(bank) for bank in results}, there.common)
    together = trees_together(TreesTogether(there.spec, columns, allowed))
    own, with_holders = _apart(there, results)
    risk: dict[str, Scores] = {"own": own, "own_holders": with_holders}
    risk["pooled"] = {
        bank: _held_out(results[bank], one.shared_margins) for bank, one in _own_columns(there.spec, columns).items()
    }
    risk["hybrid"] = {bank: _held_out(results[bank], one.shared_margins) for bank, one in together.items()}
    main = "hybrid"
    if there.spec.hybrid.personal_trees:
        main = "personal"
        risk["personal"] = {bank: _held_out(label, label.trees.margins) for bank, label in results.items()}
    return Compared(
        risk=risk,
        bad={bank: label.bad[label.index.test].astype(np.int64) for bank, label in results.items()},
        ids={
            bank: tuple(one for one, test in zip(label.index.ids, label.index.test, strict=True) if test)
            for bank, label in results.items()
        },
        main=main,
        equal=all(_same(label, together[bank]) for bank, label in results.items()),
        facts=_facts(there.spec, first.shared, sum(first.counts.values())),
    )


def _same(label: BoostResult, expected: HybridTrees) -> bool:
    counting = label.index.train | label.index.test
    same = np.array_equal(label.trees.margins[counting], expected.margins[counting])
    return bool(same and label.trees.model == expected.model)


def _held_out(label: BoostResult, margins: NDArray[np.float64]) -> NDArray[np.float64]:
    return margins[label.index.test]


def _apart(there: HybridOutcome, results: Mapping[PartyId, BoostResult]) -> tuple[Scores, Scores]:
    """Each bank by itself, without and with the feature holders: what a run of its own would give it."""
    own, with_holders = {}, {}
    for bank, label in results.items():
        spec = there.spec.for_bank(bank)
        tables = {party: there.tables[party] for party in spec.parties}
        pooled = pool_columns((label.index, label.bad), spec, tables, there.keep(bank))
        cap = (spec.boost.holder_thresholds or None) if spec.boost else None
        allowed: Allowed = {(str(party), one.shape.code): cap for party, cut in pooled.own.items() for one in cut}
        by_itself = alone(pooled)
        # None of its columns can be split: every row is as risky as any other.
        margins = np.zeros(len(label.bad)) if by_itself is None else by_itself.margins
        own[bank] = _held_out(label, margins)
        with_holders[bank] = _held_out(label, pooled_trees(pooled, allowed).margins)
    return own, with_holders


def _own_columns(spec: RunSpec, banks: Mapping[PartyId, BankColumns]) -> dict[PartyId, HybridTrees]:
    """All rows of all banks with the banks' columns alone, from one intercept."""
    plain = spec.model_copy(
        update={
            "hybrid": spec.hybrid.model_copy(update={"own_intercepts": False, "personal_trees": 0}),
            "privacy": spec.privacy.model_copy(update={"noise_rows": 0.0}),
        }
    )
    mine = {bank: replace(one, features=_without_holders(one.features)) for bank, one in banks.items()}
    return trees_together(TreesTogether(plain, mine, {}))


def _without_holders(features: FeatureList) -> FeatureList:
    kept: tuple[TreeFeature, ...] = tuple(one for one in features.features if not one.foreign)
    return FeatureList(kept, {})


def _facts(spec: RunSpec, shared: int, disclosed: int) -> tuple[str, ...]:
    own = spec.hybrid.personal_trees
    facts = [f"{shared} trees are the same at every bank; {disclosed} splits of holders were disclosed to each."]
    if own:
        facts.append(f"{own} trees are each bank's own, from its columns and those splits: nobody was asked for them.")
    return tuple(facts)
