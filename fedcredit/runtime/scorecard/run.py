"""The scorecard as a `ModelRun`: its roles, its oracle, its files."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import combinations
from typing import Any

import numpy as np

from fedcredit.errors import DataError
from fedcredit.kernels.woe import WOE_LIMIT_UNITS
from fedcredit.protocol.bin.conversation import bin_conversation
from fedcredit.protocol.group_sum.session import Conversation, Session
from fedcredit.protocol.scorecard.plan import pairs, plan_fit
from fedcredit.protocol.scorecard.roles import SCHEMAS, LabelResult, coordinate, hold, lead
from fedcredit.runtime import quality
from fedcredit.runtime.accounts import ChosenAnswers
from fedcredit.runtime.model_run import HeldOutRows, ModelRun, Outcome, Seat, Written
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.scorecard.oracle import Pooled, PooledResult, pool, pooled_scorecard
from fedcredit.runtime.scorecard.parts import holder_part, label_holder_part
from fedcredit.runtime.summary import own_rows, sizes
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["SCORECARD_RUN", "chosen_answers", "conversations"]

_SECONDS = {
    "start": "align",
    "reference": "align",
    "align": "align",
    "bin": "bin",
    "scorecard": "train",
    "score": "score",
}


def _role(spec: RunSpec, seat: Seat, held_out: HeldOutRows) -> Coroutine[Any, Any, Any]:
    del spec
    if seat.holding.leads:
        return lead(seat.channel, seat.holding, held_out)
    return hold(seat.channel, seat.holding)


def _own(files: RunFiles, outcome: Outcome, party: PartyId) -> Written:
    spec = outcome.spec
    if party != outcome.leader:
        index, features = outcome.results[party]
        files.parts({party: holder_part(features, spec.scorecard, party)}, "scorecard.json")
        return Written({**own_rows(index), "features": len(features)}, ())
    label: LabelResult = outcome.results[party]
    alone = _alone(pool(label, spec, {party: outcome.tables[party]}, outcome.keep), party)
    _, summary = _label_holder(files, spec, label, alone)
    return Written(summary, conversations(label, spec), chosen_answers(label, spec))


def _write(files: RunFiles, outcome: Outcome) -> Written:
    spec, leader = outcome.spec, outcome.leader
    label: LabelResult = outcome.results[leader]
    pooled = pool(label, spec, outcome.tables, outcome.keep)
    together = pooled_scorecard(pooled, label.budgets, [leader, *label.budgets])
    rows, summary = _label_holder(files, spec, label, _alone(pooled, leader))
    for holder in spec.feature_holders:
        _own(files, outcome, holder.name)
    metrics, compared = _compared(rows, pooled, together)
    summary |= {**compared, "metrics": summary["metrics"] | metrics}
    return Written(summary, conversations(label, spec), chosen_answers(label, spec))


def _label_holder(
    files: RunFiles, spec: RunSpec, label: LabelResult, alone: PooledResult | None
) -> tuple[quality.HeldOut, dict[str, Any]]:
    """Writes the label holder's files; returns its held-out rows and its summary."""
    leader = spec.label_holder.name
    rows = quality.held_out(label, spec.scorecard, alone.fitted.scores if alone else None)
    files.parts({leader: label_holder_part(label, spec.scorecard, leader)}, "scorecard.json")
    files.predictions(rows)
    federated = quality.measure(rows.bad, -rows.score, rows.sample_probability)
    own = quality.measure(rows.bad, -rows.alone) if rows.alone is not None else None
    return rows, {
        **sizes(label.index, label.bad),
        **{f"{name}_test": federated[name] for name in ("auc", "ks", "brier", "ece")},
        "auc_label_holder_alone": own["auc"] if own else None,
        "metrics": {"federated": federated, "alone": own},
        "calibration": quality.calibration(rows, spec.scorecard),
        "fit": {
            "method": spec.scorecard.fit,
            "totals": label.fitted.totals,
            "ridge": spec.scorecard.ridge,
            "features_offered": len(label.binned.features),
            "features_tried": len(label.candidates.features),
            "features_selected": len(label.fitted.features),
            "features_beyond_ledgers": sum(one.reason in {"equations", "bins"} for one in label.dropped),
        },
    }


def _alone(pooled: Pooled, leader: PartyId) -> PooledResult | None:
    """The label holder's own scorecard; None where none of its features passes the selection."""
    try:
        return pooled_scorecard(pooled, {}, [leader])
    except DataError:
        return None


def _compared(rows: quality.HeldOut, pooled: Pooled, together: PooledResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of the pooled scorecards, and what the summary says of the comparison."""
    pooled_measures = quality.measure(rows.bad, -together.fitted.scores)
    reference = quality.reference(pooled, together)
    library, difference = None, None
    if reference is not None:
        library = quality.measure(rows.bad, reference.risk)
        difference = float(np.abs(reference.coefficients - together.fitted.coefficients).max())
    return {"pooled_plaintext": pooled_measures, "reference": library}, {
        "auc_pooled_plaintext": pooled_measures["auc"],
        "auc_pooled_reference": library["auc"] if library else None,
        "coefficients_from_reference": difference,
        "scores_equal_pooled_plaintext": bool(np.array_equal(rows.score, together.fitted.scores)),
    }


def conversations(result: LabelResult, spec: RunSpec) -> list[tuple[Conversation, int, int]]:
    """Every conversation of a scorecard run with its number of answered sums and a bound of their weights' norm.

    Returns:
        Conversation, answers, largest squared norm of an answered column.
    """
    session, rows = Session("", spec.crypto.profile, {}), len(result.bad)
    plan, leader = plan_fit(spec.scorecard), spec.label_holder.name
    columns = {p.name: len(result.candidates.of(p.name)) for p in spec.party}
    holders = [p.name for p in spec.feature_holders if columns[p.name]]
    binned = bin_conversation(session, rows)
    prebins = sum(f.shape.bins for f in result.binned.features if f.owner != leader)
    found = [(binned, prebins * sum(len(p.vectors) for p in binned.plans), rows)]
    if not holders:
        return found
    merged = sum(f.merged.bins for f in result.candidates.features if f.owner != leader)
    bins = plan.bins(session, rows, columns[leader])
    asked = int(columns[leader] > 0) + result.fitted.totals
    if asked:
        found.append((bins, merged * sum(len(p.vectors) for p in bins.plans[:asked]), rows))
    products = plan.products(session, rows)
    within = sum(len(pairs(columns[party])) for party in holders)
    if within:
        found.append((products, within, rows * products.weight_bound**2))
    if result.index.hidden:  # products of two holders' columns are then answers to a choice
        return found
    for first, second in combinations(sorted(holders), 2):
        cross = plan.cross(session, rows, first, second, columns[first])
        vectors = sum(len(p.vectors) for p in cross.plans)
        found.append((cross, vectors * columns[second], rows * cross.weight_bound**2))
    return found


def chosen_answers(result: LabelResult, spec: RunSpec) -> ChosenAnswers | None:
    """What the holders answered to the encrypted choice of rows; None where every row counts.

    Each holder answers every round and the scoring, whether features of its are in the model or not. Of each pair of
    holders with candidates the first answers once for each of its columns, the second twice for each pair of columns.
    """
    if not result.index.hidden:
        return None
    columns = sorted((p.name, len(result.candidates.of(p.name))) for p in spec.feature_holders)
    columns = [(name, count) for name, count in columns if count]
    pairs_of_columns = sum(first * second for (_, first), (_, second) in combinations(columns, 2))
    totals = len(spec.feature_holders) * (result.fitted.totals + 1)
    shaded = sum(count for _, count in columns[:-1])
    return ChosenAnswers(len(result.bad), totals + shaded, 2 * pairs_of_columns, WOE_LIMIT_UNITS)


SCORECARD_RUN = ModelRun(SCHEMAS, _SECONDS, _role, coordinate, _own, _write)
"""``model = "scorecard"``."""
