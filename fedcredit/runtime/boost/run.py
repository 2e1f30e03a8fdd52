"""Boosted trees as a `ModelRun`: roles, oracle, files."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.calibration import prior_shift
from fedcredit.kernels.points import points_of_logit
from fedcredit.kernels.tree_model import gain_by_feature, splits_by_feature
from fedcredit.kernels.tree_shap import shapley
from fedcredit.kernels.trees import TreeRecord
from fedcredit.protocol.boost.plan import plan_boost
from fedcredit.protocol.boost.roles import SCHEMAS, BoostResult, coordinate, hold, lead
from fedcredit.protocol.group_sum.session import Conversation, Session
from fedcredit.runtime import quality
from fedcredit.runtime.accounts import ChosenAnswers
from fedcredit.runtime.boost.oracle import PooledTrees, alone, pool_columns, pooled_trees, unprotected
from fedcredit.runtime.boost.parts import holder_part, label_holder_part, model_digest, reasons
from fedcredit.runtime.boost.reference import reference_margins
from fedcredit.runtime.model_run import HeldOutRows, ModelRun, Outcome, Report, Seat, Written
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.summary import own_rows, sizes
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["BOOST_RUN"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SECONDS = {"start": "align", "reference": "align", "align": "align", "boost": "train", "score": "score"}

_REASONS = 4
"""Features named for each row: those that raise its risk most."""


def _role(spec: RunSpec, seat: Seat, held_out: HeldOutRows) -> Coroutine[Any, Any, Any]:
    del spec
    if seat.holding.leads:
        return lead(seat.channel, seat.holding, held_out, seat.checkpoints, partial(_tell, seat.report))
    return hold(seat.channel, seat.holding, seat.checkpoints)


def _tell(report: Report, done: int, total: int, record: TreeRecord) -> None:
    part = "training" if record.validation_auc is None else "validation"
    value = record.train_auc if record.validation_auc is None else record.validation_auc
    report(done, total, f"AUC {value:.4f} on the {part} part")


def _own(files: RunFiles, outcome: Outcome, party: PartyId) -> Written:
    spec = outcome.spec
    if party != outcome.leader:
        index, trees = outcome.results[party]
        files.parts({party: holder_part(trees, party)}, "trees.json")
        return Written({**own_rows(index), "splits": len(trees.splits), "splits_disclosed": trees.disclosed}, ())
    result: BoostResult = outcome.results[party]
    mine = {party: outcome.tables[party]}
    own = alone(pool_columns((result.index, result.bad), spec, mine, outcome.keep))
    rows = _held_out(spec, result, own)
    part = _label_holder(files, result, spec, rows)
    metrics = _measured(result, rows, own)
    summary = _summary(outcome, result, metrics, rows)
    summary["model_digest"] = model_digest({party: part})
    return Written(summary, _answered(outcome, result), _chosen(result))


def _write(files: RunFiles, outcome: Outcome) -> Written:
    spec, leader = outcome.spec, outcome.leader
    result: BoostResult = outcome.results[leader]
    pooled = pool_columns((result.index, result.bad), spec, outcome.tables, outcome.keep)
    allowed = {(one.owner, one.code): one.thresholds for one in result.trees.model.features if one.foreign}
    together = pooled_trees(pooled, allowed)
    open_columns, bare = unprotected(pooled)
    own = alone(pooled)
    library = reference_margins(open_columns, result.trees.train)
    rows, counting = _held_out(spec, result, own), result.index.train | result.index.test
    parts: dict[str, Any] = {leader: _label_holder(files, result, spec, rows)}
    for holder in spec.feature_holders:
        parts[holder.name] = holder_part(outcome.results[holder.name][1], holder.name)
    files.parts(parts, "trees.json")
    metrics = _measured(result, rows, own)
    for name, margin in (
        ("pooled_plaintext", together.margins),
        ("unprotected", bare.margins),
        ("reference", library),
    ):
        metrics[name] = _measure(result, margin)
    summary = {
        **_summary(outcome, result, metrics, rows),
        "auc_pooled_plaintext": _auc(metrics["pooled_plaintext"]),
        "auc_pooled_unprotected": _auc(metrics["unprotected"]),
        "auc_pooled_reference": _auc(metrics["reference"]),
        "model_digest": model_digest(parts),
        "model_equals_pooled_plaintext": together.model == result.trees.model,
        "scores_equal_pooled_plaintext": bool(
            np.array_equal(together.margins[counting], result.trees.margins[counting])
        ),
    }
    return Written(summary, _answered(outcome, result), _chosen(result))


def _label_holder(files: RunFiles, result: BoostResult, spec: RunSpec, rows: quality.HeldOut) -> Any:
    """Writes the label holder's files; returns its part of the model."""
    leader = spec.label_holder.name
    part = label_holder_part(result, spec, leader)
    files.parts({leader: part}, "trees.json")
    files.predictions(rows)
    _explain(files, result)
    return part


def _measure(result: BoostResult, margin: Floats | None) -> dict[str, float] | None:
    test = result.index.test
    return None if margin is None else quality.measure(result.bad[test].astype(np.int64), margin[test])


def _measured(result: BoostResult, rows: quality.HeldOut, own: PooledTrees | None) -> dict[str, Any]:
    """Metrics of what the label holder knows."""
    test = result.index.test
    federated = quality.measure(rows.bad, result.trees.margins[test], rows.sample_probability)
    return {"federated": federated, "alone": _measure(result, own.margins if own else None)}


def _summary(
    outcome: Outcome, result: BoostResult, metrics: Mapping[str, Any], rows: quality.HeldOut
) -> dict[str, Any]:
    """What the label holder's summary says, beside digests and comparisons."""
    return {
        **sizes(result.index, result.bad),
        **{f"{name}_test": metrics["federated"][name] for name in ("auc", "ks", "brier", "ece")},
        "auc_label_holder_alone": _auc(metrics["alone"]),
        "metrics": dict(metrics),
        "calibration": quality.calibration(rows, outcome.spec.scorecard),
        "boost": _figures(outcome, result, metrics),
    }


def _auc(measures: Mapping[str, float] | None) -> float | None:
    return measures["auc"] if measures else None


def _held_out(spec: RunSpec, result: BoostResult, own: PooledTrees | None) -> quality.HeldOut:
    test, scale = result.index.test, quality.point_scale(spec.scorecard)
    margin = result.trees.margins[test]
    sample = probability = np.exp(-np.logaddexp(0.0, -margin))
    if spec.scorecard.true_bad_rate is not None:
        rate = float(result.bad[result.trees.train].mean())
        probability = np.exp(-np.logaddexp(0.0, -prior_shift(margin, rate, spec.scorecard.true_bad_rate)))
    ids = tuple(one for one, held in zip(result.index.ids, test, strict=True) if held)
    points = points_of_logit(scale, -margin)
    alone_points = None if own is None else points_of_logit(scale, -own.margins[test])
    return quality.HeldOut(ids, result.bad[test].astype(np.int64), points, probability, sample, alone_points)


def _explain(files: RunFiles, result: BoostResult) -> None:
    test, trees = result.index.test, result.trees
    contributions, _ = shapley(trees.model, trees.bits[test])
    ids = [one for one, held in zip(result.index.ids, test, strict=True) if held]
    files.table("explanations.parquet", reasons(ids, contributions, trees.model.features, _REASONS))


def _figures(outcome: Outcome, result: BoostResult, metrics: Mapping[str, Any]) -> dict[str, Any]:
    spec, trees = outcome.spec, result.trees
    plan, model = plan_boost(spec), trees.model
    told = sum(entry.bytes for entry in outcome.transcript if entry.stage == "boost" and entry.kind not in _ONCE)
    asked = max(0, len(trees.history) - plan.boost.first_trees_local)
    gains, counts = gain_by_feature(model), splits_by_feature(model)
    return {
        "trees": len(model.trees),
        "trees_grown": len(trees.history),
        "trees_local": plan.boost.first_trees_local,
        "stopped_early": len(trees.history) < plan.boost.trees,
        "depth": plan.boost.depth,
        "growth": plan.boost.growth,
        "max_leaves": plan.boost.leaves,
        "leaves": sum(tree.leaves for tree in model.trees),
        "splits": len(model.splits),
        "splits_of_holders": sum(model.features[split.feature].foreign for split in model.splits),
        "thresholds_disclosed": dict(trees.counts),
        "thresholds_cap": plan.boost.holder_thresholds or None,
        "gradient_bits": plan.privacy.gradient_bits,
        "bins": plan.boost.bins,
        "holder_bins": plan.boost.holder_bins,
        "noise_rows": plan.privacy.noise_rows,
        "bytes_per_tree": told // asked if asked else 0,
        "history": [
            {"tree": number, "train_auc": one.train_auc, "validation_auc": one.validation_auc}
            for number, one in enumerate(trees.history, start=1)
        ],
        "importance": [
            {"owner": one.owner, "code": one.code, "gain": float(gain), "splits": int(count)}
            for one, gain, count in zip(model.features, gains, counts, strict=True)
        ],
        "price": {
            "protected": metrics["federated"]["auc"],
            "unprotected": _auc(metrics.get("unprotected")),
            "label_holder_alone": _auc(metrics["alone"]),
            "reference": _auc(metrics.get("reference")),
        },
    }


_ONCE = frozenset(
    {"group_sum.grouping_commitment", "group_sum.setup", "group_sum.hints", "boost.basis", "boost.shapes"}
)
"""Kinds that are sent once a run, whatever the number of trees."""


def _answered(outcome: Outcome, result: BoostResult) -> list[tuple[Conversation, int, int]]:
    """The run's one conversation with the number of sums that were answered."""
    spec, plan = outcome.spec, plan_boost(outcome.spec)
    conversation = plan.conversation(Session("", spec.crypto.profile, {}), int(result.index.summed.sum()))
    trees = max(0, len(result.trees.history) - plan.boost.first_trees_local)
    vectors = sum(len(one.vectors) for one in conversation.plans[: trees * len(plan.slots)])
    return [(conversation, max(1, vectors * result.trees.outputs), conversation.rows)]


def _chosen(result: BoostResult) -> ChosenAnswers | None:
    """The bitmaps of all disclosed splits, and the paths in those of the model; None where every row counts."""
    if not result.index.hidden:
        return None
    answered = sum(result.trees.counts.values()) + len(result.trees.disclosed)
    return ChosenAnswers(len(result.bad), answered, 0, 0)


BOOST_RUN = ModelRun(SCHEMAS, _SECONDS, _role, coordinate, _own, _write)
"""``model = "boost"``."""
