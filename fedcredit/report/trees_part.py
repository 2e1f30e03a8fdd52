"""Boosted trees in the label holder's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedcredit.report import bars
from fedcredit.report.compare import Rival, difference, reference, rivals
from fedcredit.report.files import Boost, Settings, Summary
from fedcredit.report.read import check_owners, damaged, read_trees
from fedcredit.report.sections import Evidence, LabelPart, Tile
from fedcredit.report.tables import Floats, read_ids, read_reasons
from fedcredit.report.tree_charts import learning
from fedcredit.report.tree_names import TreeNames
from fedcredit.report.tree_picture import LEVELS, Shown, picture
from fedcredit.report.tree_reasons import Told, examples, frequent, shares
from fedcredit.report.words import amount, count, decimals, join, percent, signed
from fedcredit.runtime.boost_files import LabelFile

__all__ = ["label_trees"]

_PICTURES: Final = 2
_BARS: Final = 20  # features in the chart of gain; the table has all
_PRICE: Final = 0.01  # a hundredth of AUC is felt in a portfolio
_OVERFIT: Final = 0.05
_DOMINANT: Final = 0.5  # a feature with more than half of the gain may know the answer

_TERMS: Final = (
    ("Gain", "How much a split lowers the loss, summed over all nodes that use it. Share: of the gain of all splits."),
    ("Weight", "Sum of p (1 − p) over the training rows in a node, p being their probability at that moment."),
    ("Threshold", "A split of a feature holder's column that was disclosed: one bit for each row."),
    (
        "Contribution",
        "Path-dependent Shapley value of a feature for one row, in log-odds of default. All contributions and the base "
        "add up to the row's score.",
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
    features = _features(file, names, shares(told, len(ids)))
    holders = _holders(seen, file, boost)
    riskiest, often = frequent(told, seen.held_out)
    shown = Shown(file, names, seen.colours)
    compared = _rivals(seen, boost)
    return LabelPart(
        template="trees.html.j2",
        contents=(("curve", "Learning"), ("features", "Features"), ("trees", "Trees"), ("reasons", "Reasons")),
        values={
            "boost": boost,
            "early": boost.history[0].validation_auc is not None,
            "features": features,
            "unused": [one.full for one in features if not one.uses],
            "owners": _by_owner(features, seen.colours),
            "holders": holders,
            "noise_rows": seen.settings.privacy.noise_rows,
            "riskiest": riskiest,
            "frequent": often,
            "examples": examples(told, seen.held_out, ids),
            "pictures": [picture(number, shown) for number in range(min(_PICTURES, len(file.trees)))],
            "levels": LEVELS,
            "deeper": boost.depth > LEVELS,
            "base": file.base,
            "charts": {"learning": learning(boost, seen.figures.auc), "gain": _gain_chart(features, seen.colours)},
        },
        about=f"{count(len(file.trees))} trees of depth {boost.depth}",
        tile=Tile("Features", count(sum(one.uses > 0 for one in features)), f"in use, of {len(features)} offered"),
        lift_title=f"Lift over {summary.bank} alone, and the price of protection",
        rivals=compared,
        statements=(
            *_price(seen),
            reference(summary, seen.figures.auc, f"XGBoost, each column in {boost.bins} bins,"),
        ),
        sentences=_sentences(seen, boost, holders),
        attention=_attention(seen, boost, features),
        calm="The price of protection, the gap to the training rows, the weight of single features, calibration and "
        "disclosure are inside the limits that this report checks.",
        terms=_TERMS,
        disclosed="trees_disclosed.html.j2",
        cost=f"{_mb(boost.bytes_per_tree)} for each tree, setup apart." if boost.bytes_per_tree else "",
    )


def _mb(size: int) -> str:
    return f"{decimals(size / 1e6, 2)} MB"


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
    cap = seen.settings.boost.holder_thresholds if seen.settings.boost else 0
    found = []
    for party in seen.colours:
        if party != file.party:
            offered = sum(one.owner == party for one in file.features)
            kept = sum(one.owner == party and one.split is not None for one in file.splits)
            disclosed = boost.thresholds_disclosed.get(party)
            found.append(_Holder(party, offered, disclosed, cap * offered if cap else None, kept))
    return found


def _protected(settings: Settings) -> str:
    noise = settings.privacy.noise_rows
    cap = settings.boost.holder_thresholds if settings.boost else 0
    words = f"noise of {amount(noise)} rows on every sum" if noise else "no noise on sums"
    return f"{words}, {f'at most {cap} thresholds a feature' if cap else 'no cap on thresholds'}"


def _rivals(seen: Evidence, boost: Boost) -> list[Rival]:
    summary, metrics = seen.summary, seen.summary.metrics
    bins = f"{boost.bins} bins a column"
    return rivals(
        [
            (
                "alone",
                f"{summary.bank} alone",
                f"The same kind of trees from the columns of {summary.bank} only. Nothing is disclosed.",
                metrics.alone,
                seen.figures.alone,
            ),
            (
                "together",
                "Together, protected",
                f"This run: {_protected(seen.settings)}, {boost.holder_bins} bins a column of a feature holder.",
                metrics.federated,
                seen.figures.auc,
            ),
            (
                "bare",
                "Together, unprotected",
                f"The same trees on pooled plain rows: no noise, no cap, {bins} at every party. What protection costs "
                "is the distance to it.",
                metrics.unprotected,
                summary.auc_pooled_unprotected,
            ),
            (
                "reference",
                "XGBoost, pooled rows",
                f"The field's library with the same settings on pooled plain rows: {bins}, no noise, no cap, gradients "
                "not rounded.",
                metrics.reference,
                summary.auc_pooled_reference,
            ),
        ]
    )


def _cost(seen: Evidence) -> float | None:
    """AUC that protection costs."""
    bare = seen.summary.auc_pooled_unprotected
    return None if bare is None else difference(bare, seen.figures.auc)


def _price(seen: Evidence) -> list[tuple[str, str]]:
    cost = _cost(seen)
    if cost is None:
        return []
    bare = decimals(seen.summary.auc_pooled_unprotected, 4)
    return [
        (
            f"Price of protection: {signed(-cost, 4)} AUC.",
            f"The same trees without noise and caps, on pooled rows, reach {bare}.",
        )
    ]


def _sentences(seen: Evidence, boost: Boost, holders: Sequence[_Holder]) -> list[str]:
    """The run in three sentences."""
    summary, noise = seen.summary, seen.settings.privacy.noise_rows
    others, many = join([one.party for one in holders]), len(holders) > 1
    rows = f" on {count(summary.rows_train)} rows" if summary.rows_train is not None else ""
    kept = f" and kept {count(boost.trees)} of them" if boost.trees < boost.trees_grown else ""
    disclosed, columns = sum(one.disclosed or 0 for one in holders), sum(one.features for one in holders)
    caps = [one.cap for one in holders if one.cap is not None]
    most = f" of at most {count(sum(caps))}" if caps else ""
    cover = "encrypted sums" if summary.encryption.enabled else "sums in the clear"
    under = f"each under noise as large as {amount(noise)} rows" if noise else "without noise"
    alone, cost = seen.figures.alone, _cost(seen)
    lift = "" if alone is None else f", {signed(difference(seen.figures.auc, alone), 4)} over {summary.bank} alone"
    price = "" if cost is None else f", {signed(-cost, 4)} against the same trees without noise and caps"
    return [
        f"Together with {others}, {summary.bank}, which knows who defaulted, grew {count(boost.trees_grown)} trees "
        f"of at most {2**boost.depth} leaves{rows}{kept}.",
        f"The {count(columns)} columns of {others} stayed where they are: {'they' if many else 'it'} answered {cover} "
        f"of gradients, {under}, and disclosed {count(disclosed)}{most} thresholds.",
        f"On {count(seen.held_out.bad.size)} held-out rows the trees reach AUC {decimals(seen.figures.auc, 4)}{lift}"
        f"{price}.",
    ]


def _attention(seen: Evidence, boost: Boost, features: Sequence[_Feature]) -> list[str]:
    found, cost = [], _cost(seen)
    if seen.summary.model_equals_pooled_plaintext is False:
        found.append("The same computation on pooled plain rows grew other trees. They must be equal.")
    if cost is not None and cost > _PRICE:
        found.append(f"Protection costs {decimals(cost, 4)} AUC (limit {decimals(_PRICE, 4)}).")
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


def _gain_chart(features: Sequence[_Feature], colours: Mapping[str, str]) -> str | None:
    used = [(one.full, one.owner, one.share) for one in features if one.uses][:_BARS]
    return bars.gain_shares(used, colours) if used else None
