"""Each party's part of a finished scorecard, as the readable file it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import ndtr

from fedcredit.kernels.selection import Dropped
from fedcredit.kernels.woe import WOE_UNIT
from fedcredit.protocol.bin.features import BinnedFeature, OwnFeature
from fedcredit.protocol.scorecard.feature_holder import HolderFeature
from fedcredit.protocol.scorecard.roles import LabelResult
from fedcredit.spec.model import ScorecardSection
from fedcredit.types import PartyId, Role

__all__ = ["bin_labels", "holder_part", "label_holder_part"]

Part = dict[str, Any]


def bin_labels(own: OwnFeature, group: Sequence[int] | np.ndarray[Any, Any], bins: int) -> list[str]:
    """A name for each merged bin, from the names of its prebins; runs of numeric prebins become one interval."""
    labels, edges = own.prebins.labels(), own.prebins.edges
    names = []
    for merged in range(bins):
        members = [prebin for prebin in range(len(labels)) if int(group[prebin]) == merged]
        ordered = [prebin for prebin in members if prebin < own.prebins.ordered]
        rest = [labels[prebin] for prebin in members if prebin >= own.prebins.ordered]
        if ordered and ordered == list(range(ordered[0], ordered[-1] + 1)):
            rest.insert(0, _interval(edges, ordered[0], ordered[-1], own.prebins.ordered))
        else:
            rest = [labels[prebin] for prebin in ordered] + rest
        names.append(", ".join(rest))
    stray = _rare(own)
    if stray:
        home = own.prebins.bins - 1 if own.prebins.has_missing else own.prebins.fallback
        names[int(group[home])] += f", rare: {stray}"
    return names


def _rare(own: OwnFeature) -> str:
    """Values too rare for a bin of their own, by name; they sit in the bin for missing values or a middle one."""
    if own.prebins.kind != "numeric" or own.prebins.bins == 1:
        return ""
    codes = [f"code {code:g}" for code in own.prebins.as_missing]
    return ", ".join([*codes, "missing"] if own.rare_missing else codes)


def _cuts(own: OwnFeature, group: Sequence[int] | np.ndarray[Any, Any]) -> Part:
    """All that is needed to find the bin of a new value, exactly: prebins, and the bin that each was merged into."""
    return {**asdict(own.prebins), "group": [int(bin_) for bin_ in group]}


def _interval(edges: Sequence[float], first: int, last: int, ordered: int) -> str:
    if first == 0 and last == ordered - 1:
        return "any value"
    if first == 0:
        return f"<= {edges[last]:.6g}"
    if last == ordered - 1:
        return f"> {edges[first - 1]:.6g}"
    return f"({edges[first - 1]:.6g}, {edges[last]:.6g}]"


def label_holder_part(result: LabelResult, rules: ScorecardSection, party: PartyId) -> Part:
    """The label holder's file: every feature, names and labels of its own only."""
    fitted = result.fitted
    errors = np.sqrt(np.diag(fitted.covariance))
    own = {feature.shape.code: feature for feature in result.own}
    features = []
    for column, (feature, table) in enumerate(zip(fitted.features, fitted.tables, strict=True), start=1):
        mine = own[feature.code] if feature.owner == party else None
        coefficient = float(fitted.coefficients[column])
        merged = feature.merged
        labels = bin_labels(mine, merged.group, merged.bins) if mine else [None] * merged.bins
        features.append(
            {
                **_head(feature, mine),
                "cuts": _cuts(mine, merged.group) if mine else None,
                "coefficient": coefficient,
                "standard_error": float(errors[column]),
                "p_value": float(2 * ndtr(-abs(coefficient) / errors[column])),
                "sign_ok": coefficient > 0,
                "bins": [
                    {
                        "label": label,
                        "goods": int(goods),
                        "bads": int(bads),
                        "woe": round(float(woe), 2),
                        "points": int(points),
                    }
                    for label, goods, bads, woe, points in zip(
                        labels, merged.goods, merged.bads, merged.woe, table, strict=True
                    )
                ],
            }
        )
    return {
        "party": party,
        "role": Role.LABEL_HOLDER.value,
        "scale": _scale(rules),
        "base_points": fitted.base_points,
        "intercept": float(fitted.coefficients[0]),
        "features": features,
        "dropped": [_dropped(one, result.binned.features, own, party) for one in result.dropped],
    }


def holder_part(features: Sequence[HolderFeature], rules: ScorecardSection, party: PartyId) -> Part:
    """A feature holder's file: its own features, with names, labels, WOE and points; no counts."""
    return {
        "party": party,
        "role": Role.FEATURE_HOLDER.value,
        "scale": _scale(rules),
        "features": [
            {
                "owner": party,
                "code": feature.own.shape.code,
                "name": feature.own.name,
                "kind": feature.own.prebins.kind,
                "cuts": _cuts(feature.own, feature.group),
                "bins": [
                    {"label": label, "woe": round(float(woe * WOE_UNIT), 2), "points": int(points)}
                    for label, woe, points in zip(
                        bin_labels(feature.own, feature.group, len(feature.points)),
                        feature.woe_units,
                        feature.points,
                        strict=True,
                    )
                ],
            }
            for feature in features
        ],
        "dropped": [],
    }


def _head(feature: BinnedFeature, mine: OwnFeature | None) -> Part:
    return {
        "owner": feature.owner,
        "code": feature.code,
        "name": mine.name if mine else None,
        "kind": mine.prebins.kind if mine else ("numeric" if feature.shape.ordered else "categorical"),
        "iv": feature.merged.iv,
        "stability": feature.stability,
    }


def _dropped(one: Dropped, features: Sequence[BinnedFeature], own: Mapping[str, OwnFeature], party: PartyId) -> Part:
    found = next(f for f in features if f.owner == one.owner and f.code == one.code)
    return {
        "owner": one.owner,
        "code": one.code,
        "name": own[one.code].name if one.owner == party else None,
        "iv": found.merged.iv,
        "stability": found.stability,
        "reason": one.reason,
        "value": one.value if np.isfinite(one.value) else None,
        "limit": one.limit,
        "against": one.against,
    }


def _scale(rules: ScorecardSection) -> Part:
    return {"base_score": rules.base_score, "base_odds": rules.base_odds, "pdo": rules.pdo}
