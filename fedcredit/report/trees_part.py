"""Boosted trees in the label holder's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedcredit.report.compare import difference, reference
from fedcredit.report.files import Boost
from fedcredit.report.read import check_owners, damaged, read_trees
from fedcredit.report.sections import Evidence, LabelPart, Tile
from fedcredit.report.tables import Floats, read_ids, read_reasons
from fedcredit.report.tree_charts import learning
from fedcredit.report.tree_names import TreeNames
from fedcredit.report.tree_picture import LEVELS, Shown, picture
from fedcredit.report.tree_reasons import MOST, Told, examples, frequent, shares
from fedcredit.report.trees_price import compared, cost, price, protected
from fedcredit.report.words import amount, count, decimals, join, percent, signed, size
from fedcredit.runtime.boost.files import LabelFile, PartFeature

__all__ = ["label_trees"]

_PICTURES: Final = 2
_PRICE: Final = 0.01  # a hundredth of AUC is felt in a portfolio
_BITS: Final = 30  # a column with more bins has more splits than any cap
_OVERFIT: Final = 0.05
_DOMINANT: Final = 0.5  # a feature with more than half of the gain may know the answer

_CALM: Final = (
    "The price of protection, the gap to the training rows, the weight of single features, calibration and disclosure "
    "are inside the limits that this report checks."
)

_TERMS: Final = (
    ("Gain", "How much a split lowers the loss, summed over all nodes that use it. Share: of the gain of all splits."),
    ("Weight", "Sum of p (1 − p) over the training rows in a node, p being their probability at that moment."),
    ("Threshold", "A split of a feature holder's column that was disclosed: one bit for each row."),
    (
        "Contribution",
        "Path-dependent Shapley value of a feature for one row, in log-odds of default; all of them and a base add up.",
    ),
)


@dataclass(frozen=True)
class _Feature:
    """One line of the table of features; ``uses`` counts nodes, ``splits`` distinct splits."""

    owner: str
    name: str
    full: str
    own: bool
    share: float
    uses: int
    splits: int
    reasons: float


@dataclass(frozen=True)
class _Holder:
    """Thresholds of one feature holder."""

    party: str
    features: int
    disclosed: int | None
    cap: int | None
    kept: int


def label_trees(seen: Evidence) -> LabelPart:
    """The trees at the label holder.

    Raises:
        DataError: A file is missing or damaged, or summary.json or spec.toml says nothing of boosting.
    """
    summary, name = seen.summary, f"model/{seen.summary.bank}/trees.json"
    boost = summary.boost
    if boost is None or not boost.history:
        raise damaged("summary.json says nothing of boosting, or names no tree; a run of boosted trees does")
    if seen.settings.boost is None:
        raise damaged("spec.toml has no [boost]; that of a run of boosted trees does")
    file = read_trees(seen.run, summary.bank)
    check_owners([one.owner for one in file.features], seen.colours, name)
    names, ids = TreeNames(file), read_ids(seen.run)
    told = Told(file.features, names, read_reasons(seen.run, ids, names.place))
    features, holders = _features(file, names, shares(told, len(ids))), _holders(seen, file, boost)
    used = sum(one.uses > 0 for one in features)
    return LabelPart(
        template="trees.html.j2",
        contents=(("curve", "Learning"), ("features", "Features"), ("trees", "Trees"), ("reasons", "Reasons")),
        values={
            **_grown(seen, file, boost),
            **_explained(seen, told, ids),
            "features": features,
            "unused": [one.full for one in features if not one.uses],
            "owners": _by_owner(features, seen.colours),
            "holders": holders,
            "cap": seen.settings.boost.holder_thresholds,
            "noise_rows": seen.settings.privacy.noise_rows,
        },
        about=f"{count(len(file.trees))} trees of depth {boost.depth}",
        tile=Tile("Features", count(used), f"in use, of {len(features)} offered"),
        lift_title=f"Lift over {summary.bank} alone{', and the price of protection' * protected(seen.settings)}",
        rivals=compared(seen, boost),
        statements=(
            *price(seen),
            reference(summary, seen.figures.auc, f"XGBoost, each column in {boost.bins} bins,"),
        ),
        sentences=_sentences(seen, boost, holders),
        attention=_attention(seen, boost, features),
        calm=_CALM,
        terms=_TERMS,
        disclosed="trees_disclosed.html.j2",
        cost=f"{size(boost.bytes_per_tree)} for each tree, setup apart." if boost.bytes_per_tree else "",
    )


def _grown(seen: Evidence, file: LabelFile, boost: Boost) -> dict[str, object]:
    """The learning curve, and the first trees as pictures."""
    shown = Shown(file, TreeNames(file), seen.colours)
    return {
        "boost": boost,
        "early": boost.history[0].validation_auc is not None,
        "learning": learning(boost, seen.figures.auc),
        "pictures": [picture(number, shown) for number in range(min(_PICTURES, len(file.trees)))],
        "levels": LEVELS,
        "deeper": boost.depth > LEVELS,
        "base": file.base,
    }


def _explained(seen: Evidence, told: Told, ids: Sequence[str]) -> dict[str, object]:
    riskiest, often = frequent(told, seen.held_out)
    return {"riskiest": riskiest, "frequent": often, "most": MOST, "examples": examples(told, seen.held_out, ids)}


def _features(file: LabelFile, names: TreeNames, reasons: Floats) -> list[_Feature]:
    """All features, the most gain first."""
    total = sum(one.gain for one in file.features) or 1.0
    distinct: dict[tuple[str, str], int] = {}
    for split in file.splits:
        distinct[split.owner, split.code] = distinct.get((split.owner, split.code), 0) + 1
    found = [
        _Feature(
            owner=one.owner,
            name=names.short(one),
            full=names.full(one),
            own=names.own(one),
            share=one.gain / total,
            uses=one.splits,
            splits=distinct.get((one.owner, one.code), 0),
            reasons=float(reasons[place]),
        )
        for place, one in enumerate(file.features)
    ]
    return sorted(found, key=lambda one: (-one.share, one.full))


def _by_owner(features: Sequence[_Feature], colours: Mapping[str, str]) -> list[tuple[str, int, int, float, int]]:
    """Owner, features in use, features, share of gain, nodes."""
    groups = [(owner, [one for one in features if one.owner == owner]) for owner in colours]
    return [
        (
            owner,
            sum(one.uses > 0 for one in held),
            len(held),
            sum(one.share for one in held),
            sum(one.uses for one in held),
        )
        for owner, held in groups
        if held
    ]


def _holders(seen: Evidence, file: LabelFile, boost: Boost) -> list[_Holder]:
    found = []
    for party in seen.colours:
        if party != file.party:
            held = [one for one in file.features if one.owner == party]
            kept = sum(one.owner == party and one.split is not None for one in file.splits)
            disclosed = boost.thresholds_disclosed.get(party)
            found.append(_Holder(party, len(held), disclosed, _cap(held), kept))
    return found


def _cap(features: Sequence[PartFeature]) -> int | None:
    """Most thresholds that can be disclosed: a column of few bins has few splits; None without a cap."""
    total = 0
    for one in features:
        if one.thresholds is None:
            return None
        total += min(one.thresholds, (1 << min(one.bins - 1, _BITS)) - 1)
    return total


def _sentences(seen: Evidence, boost: Boost, holders: Sequence[_Holder]) -> list[str]:
    """The run in three sentences."""
    summary, noise = seen.summary, seen.settings.privacy.noise_rows
    others, they = join([one.party for one in holders]), "they" if len(holders) > 1 else "it"
    rows = f" on {count(summary.rows_train)} rows" if summary.rows_train is not None else ""
    kept = f" and kept {count(boost.trees)} of them" if boost.trees < boost.trees_grown else ""
    trees = f"{count(boost.trees_grown)} trees of at most {boost.max_leaves} leaves{rows}{kept}"
    columns, disclosed = sum(one.features for one in holders), sum(one.disclosed or 0 for one in holders)
    caps = [one.cap for one in holders if one.cap is not None]
    most = f" of at most {count(sum(caps))}" if caps else ""
    cover = "encrypted sums" if summary.encryption.enabled else "sums in the clear"
    under = f"each under noise as large as {amount(noise)} rows" if noise else "without noise"
    answered = f"{they} answered {cover} of gradients, {under}, and disclosed {count(disclosed)}{most} thresholds"
    ours, alone, lost = seen.figures.auc, seen.figures.alone, cost(seen)
    reach = f"On {count(seen.held_out.bad.size)} held-out rows the trees reach AUC {decimals(ours, 4)}"
    lift = "" if alone is None else f", {signed(difference(ours, alone), 4)} over {summary.bank} alone"
    paid = "" if lost is None else f" and {signed(-lost, 4)} against the same trees without noise and caps"
    return [
        f"Together with {others}, {summary.bank}, which knows who defaulted, grew {trees}.",
        f"The {count(columns)} columns of {others} stayed where they are: {answered}.",
        f"{reach}{lift}{paid}.",
    ]


def _attention(seen: Evidence, boost: Boost, features: Sequence[_Feature]) -> list[str]:
    found, lost = [], cost(seen)
    if seen.summary.model_equals_pooled_plaintext is False:
        found.append("The same computation on pooled plain rows grew other trees. They must be equal.")
    if lost is not None and lost > _PRICE:
        found.append(f"Protection costs {decimals(lost, 4)} AUC (limit {decimals(_PRICE, 4)}).")
    train = boost.history[min(max(boost.trees, 1), len(boost.history)) - 1].train_auc
    if train - seen.figures.auc > _OVERFIT:
        found.append(
            f"The trees know their training rows too well: AUC {decimals(train, 4)} there, "
            f"{decimals(seen.figures.auc, 4)} on held-out rows (limit of the gap {decimals(_OVERFIT, 4)})."
        )
    if boost.history[0].validation_auc is not None and boost.trees == boost.trees_grown:
        found.append("Early stopping never stopped: the last tree is the best one. More trees may help.")
    if strong := [one for one in features if one.share > _DOMINANT]:
        named = join([f"{one.full} ({percent(one.share)})" for one in strong])
        found.append(f"More than half of the gain is of one feature: {named}. Check that it was known before the loan.")
    return found
