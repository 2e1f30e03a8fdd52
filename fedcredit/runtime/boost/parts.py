"""Each party's part of a boosted model, as the readable file it keeps; reasons; the model's digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.governance.canonical import canonical_json
from fedcredit.kernels.prebin import Prebins
from fedcredit.kernels.tree_model import Node, Split, TreeFeature, gain_by_feature, splits_by_feature
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.columns import direction
from fedcredit.protocol.boost.feature_holder import HolderTrees
from fedcredit.protocol.boost.roles import BoostResult
from fedcredit.runtime.boost.files import (
    Derived,
    HeldFeature,
    HeldSplit,
    HolderFile,
    LabelFile,
    Part,
    PartFeature,
    PartNode,
    PartSplit,
    PartTree,
    Reason,
    plain,
)
from fedcredit.spec.model import BoostSection, RunSpec
from fedcredit.types import PartyId

__all__ = ["holder_part", "label_holder_part", "model_digest", "reasons", "split_label"]

Floats = NDArray[np.float64]

_NAMES: Final = 3  # category names written out in a label before "and n more"


def label_holder_part(
    result: BoostResult, spec: RunSpec, party: PartyId, texts: Mapping[str, str] | None = None
) -> Part:
    """The label holder's file: all trees; names and bins of its own columns only.

    Args:
        result: What its role returned.
        spec: The run, for the learning rate.
        party: The label holder.
        texts: Its own sentences for reasons, by column name.

    Raises:
        DataError: a split of another party neither has a number nor follows from those that have one.
    """
    model = result.trees.model
    own = {one.shape.code: one for one in result.own}
    totals = zip(model.features, gain_by_feature(model), splits_by_feature(model), strict=True)
    features = [
        _feature(one, own[one.code] if one.owner == party else None, (float(gain), int(count)), texts or {})
        for one, gain, count in totals
    ]
    disclosed = result.trees.disclosed
    splits = []
    for number, split in enumerate(model.splits):
        feature = model.features[split.feature]
        if feature.owner == party:
            label = split_label(own[feature.code], split.left)
            splits.append(PartSplit(number, party, feature.code, None, None, split.left, label))
        else:
            known = disclosed.get(split)
            derived = _derive(split, feature, disclosed) if known is None else None
            splits.append(PartSplit(number, feature.owner, feature.code, known, derived, None, None))
    trees = tuple(PartTree(tuple(_node(place, node) for place, node in enumerate(tree.nodes))) for tree in model.trees)
    rate = (spec.boost or BoostSection()).learning_rate
    return plain(LabelFile(party, "label_holder", model.base, rate, tuple(features), tuple(splits), trees))


def holder_part(trees: HolderTrees, party: PartyId, texts: Mapping[str, str] | None = None) -> Part:
    """A feature holder's file: its columns and what its splits in the model mean; nothing of trees or labels.

    Args:
        trees: What its role returned.
        party: The feature holder.
        texts: Its own sentences for reasons, by column name.
    """
    features = [
        HeldFeature(one.shape.code, one.name, one.prebins.kind, one.prebins, _reason(one, party, texts or {}))
        for one in trees.own
    ]
    splits = []
    for split in trees.splits:
        own = trees.own[split.feature]
        splits.append(HeldSplit(split.number, own.shape.code, split.left, split_label(own, split.left)))
    return plain(HolderFile(party, "feature_holder", tuple(features), tuple(splits)))


def split_label(own: OwnFeature, left: Sequence[int]) -> str:
    """Which values go left, in words for the column's owner: ``"VAT paid <= 1200 or missing"``."""
    prebins, names = own.prebins, own.prebins.labels()
    if prebins.kind == "categorical":
        return f"{own.name} in: {_categories(prebins, left)}"
    below = [bin_ for bin_ in left if bin_ < prebins.ordered]
    pieces = [names[bin_] for bin_ in below]
    if below == list(range(len(below))) and below:
        pieces = ["any value" if len(below) == prebins.ordered else f"<= {prebins.edges[len(below) - 1]:.6g}"]
    pieces += [names[bin_] for bin_ in left if bin_ >= prebins.ordered]
    if (prebins.bins - 1 if prebins.has_missing else prebins.fallback) in left:  # values too rare for their own bin
        pieces += [f"code {code:g}" for code in prebins.as_missing]
        pieces += ["missing"] if own.rare_missing else []
    return f"{own.name} {_or(pieces)}"


def _categories(prebins: Prebins, left: Sequence[int]) -> str:
    places = [bin_ for bin_ in left if bin_ < len(prebins.categories)]
    names = [name for bin_ in places for name in prebins.categories[bin_]]
    more = len(names) - _NAMES
    pieces = [f"{', '.join(names[:_NAMES])} and {more} more"] if more > 1 else names  # one more is as short by name
    pieces += ["other"] * any(not prebins.categories[bin_] for bin_ in places)
    return _or(pieces + ["missing"] * (prebins.has_missing and prebins.bins - 1 in left))


def _or(pieces: Sequence[str]) -> str:
    return " or ".join([", ".join(pieces[:-1])] * (len(pieces) > 1) + list(pieces[-1:]))


def _reason(own: OwnFeature, party: str, texts: Mapping[str, str]) -> Reason:
    turn = {"increasing": " The risk rises with the value.", "decreasing": " The risk falls as the value rises."}
    default = f"{own.name}: a high contribution is adverse, it raises the estimated risk of default."
    default += turn.get(direction(own), "")
    return Reason(f"{party}/{own.shape.code}", texts.get(own.name, default))


def _feature(
    feature: TreeFeature, mine: OwnFeature | None, totals: tuple[float, int], texts: Mapping[str, str]
) -> PartFeature:
    gain, splits = totals
    return PartFeature(
        owner=feature.owner,
        code=feature.code,
        name=mine.name if mine else None,
        kind="numeric" if feature.ordered else "categorical",
        bins=feature.bins,
        ordered=feature.ordered,
        monotone=feature.monotone,
        thresholds=feature.thresholds,
        gain=gain,
        splits=splits,
        cuts=mine.prebins if mine else None,
        reason=_reason(mine, feature.owner, texts) if mine else None,
    )


def _derive(split: Split, feature: TreeFeature, disclosed: Mapping[Split, int]) -> Derived:
    """How a split follows from disclosed ones of its feature, as few of them as it takes."""

    def sides(of: Sequence[Split]) -> list[str]:
        return ["".join("01"[bin_ in one.left] for one in of) for bin_ in range(feature.bins)]

    def left_of(of: Sequence[Split]) -> set[str]:
        return {side for bin_, side in enumerate(sides(of)) if bin_ in split.left}

    def enough(of: Sequence[Split]) -> bool:
        left = left_of(of)
        return not any(side in left for bin_, side in enumerate(sides(of)) if bin_ not in split.left)

    used = [one for one in disclosed if one.feature == split.feature]
    if not enough(used):
        name = f"{feature.owner}/{feature.code}"
        raise DataError(
            "boost.unknown-split", f"a split of {name} does not follow from the disclosed ones of the model"
        )
    for one in tuple(used):
        rest = [other for other in used if other is not one]
        used = rest if enough(rest) else used
    return Derived(tuple(disclosed[one] for one in used), tuple(sorted(left_of(used))))


def _node(place: int, node: Node) -> PartNode:
    if node.split < 0:
        return PartNode(place, node.rows, node.weight, None, None, None, None, node.value)
    return PartNode(place, node.rows, node.weight, node.gain, node.split, node.left, node.right, None)


def model_digest(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """SHA-256 over all parties' files: hex; the same for the same files whether just made or read back."""
    return hashlib.sha256(
        canonical_json({str(party): dict(part) for party, part in parts.items()}).encode()
    ).hexdigest()


def reasons(ids: Sequence[str], contributions: Floats, features: Sequence[TreeFeature], most: int = 4) -> pl.DataFrame:
    """The features that raise the risk of each row most.

    Args:
        ids: Name of each row, n of them.
        contributions: float64 (n, features), log-odds of default, as `fedcredit.kernels.tree_shap.shapley` gives them.
        features: Features of the model.
        most: Features named for a row; fewer where fewer raise its risk.

    Returns:
        Columns ``id``, ``rank`` (1 = raises the risk most), ``owner``, ``feature`` (its code), ``contribution`` (> 0);
        rows in the order of ``ids``, then by rank. Of equal contributions the earlier feature comes first.

    Raises:
        DataError: the sizes do not fit.
    """
    if contributions.shape != (len(ids), len(features)):
        raise DataError(
            "reasons.shape",
            f"contributions are {contributions.shape}; {len(ids)} rows and {len(features)} features need "
            f"({len(ids)}, {len(features)})",
        )
    order = np.argsort(-contributions, axis=1, kind="stable")[:, :most]
    sorted_ = np.take_along_axis(contributions, order, axis=1)
    rows, ranks = np.nonzero(sorted_ > 0)
    found = order[rows, ranks]

    def texts(values: Sequence[str], places: NDArray[np.int64]) -> pl.Series:
        return pl.Series(list(values), dtype=pl.String).gather(pl.Series(places))

    return pl.DataFrame(
        {
            "id": texts(ids, rows),
            "rank": pl.Series(ranks + 1, dtype=pl.Int64),
            "owner": texts([one.owner for one in features], found),
            "feature": texts([one.code for one in features], found),
            "contribution": sorted_[rows, ranks],
        }
    )
