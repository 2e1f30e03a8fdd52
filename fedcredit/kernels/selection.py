"""Which features enter the fit: strong enough, stable, not repeated, and affordable.

A holder's ledger prices each product between one of its features and any other column as one equation about that
feature, and each bin whose WOE goes back to its owner as one bin returned. Small samples can afford few: the choice is
greedy in information value until a budget is spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Budget", "Dropped", "FeatureSummary", "SelectionRules", "choose_candidates"]


@dataclass(frozen=True)
class FeatureSummary:
    """What the label holder knows of one binned feature.

    Args:
        owner: Party that holds it.
        code: Its name among the owner's features; a code, where the owner is someone else.
        bins: Number of merged bins.
        iv: Information value on the training rows.
        stability: Population stability between training and test rows.
    """

    owner: str
    code: str
    bins: int
    iv: float
    stability: float


@dataclass(frozen=True)
class Budget:
    """What a feature holder's ledger still allows.

    Args:
        equations: Equations left per feature.
        bins: Bins whose WOE may still be returned, over all its features.
    """

    equations: float
    bins: float


@dataclass(frozen=True)
class SelectionRules:
    """Thresholds of the choice.

    Args:
        min_iv: A feature below is dropped.
        max_stability: A feature above is dropped.
        max_correlation: Of two of the label holder's own features correlated above, the weaker is dropped.
        max_features: Largest number of candidates, or None.
        fixed_equations: Equations each chosen feature costs besides the products.
    """

    min_iv: float
    max_stability: float
    max_correlation: float
    max_features: int | None
    fixed_equations: int


@dataclass(frozen=True)
class Dropped:
    """Why a feature does not enter.

    Args:
        owner: Party that holds it.
        code: Its code.
        reason: ``iv``, ``stability``, ``correlation``, ``vif``, ``equations``, ``bins`` or ``count``.
        value: The figure that was too low or too high.
        limit: The limit it was held against.
        against: The feature it repeats, as ``owner:code``, if any.
    """

    owner: str
    code: str
    reason: str
    value: float
    limit: float
    against: str = ""


def choose_candidates(
    features: Sequence[FeatureSummary],
    own: str,
    own_correlation: NDArray[np.float64],
    budgets: Mapping[str, Budget],
    rules: SelectionRules,
) -> tuple[list[int], list[Dropped]]:
    """Chooses candidates in descending information value; ties go by owner and code.

    Args:
        features: All binned features; those of ``own`` in the order of ``own_correlation``.
        own: The label holder.
        own_correlation: float64 (a, a), correlations between the label holder's own features.
        budgets: For each feature holder.
        rules: Thresholds.

    Returns:
        Indices of the candidates in ascending order, and the dropped features with reasons.
    """
    own_rank = {index: rank for rank, index in enumerate(i for i, f in enumerate(features) if f.owner == own)}
    chosen: list[int] = []
    dropped: list[Dropped] = []
    for index in sorted(range(len(features)), key=lambda i: (-features[i].iv, features[i].owner, features[i].code)):
        feature = features[index]
        refusal = _refusal(feature, [features[i] for i in chosen], budgets, rules)
        if refusal is None and feature.owner == own:
            kept = [i for i in chosen if features[i].owner == own]
            repeats = [(abs(own_correlation[own_rank[index], own_rank[i]]), i) for i in kept]
            worst = max(repeats, default=(0.0, -1))
            if worst[0] > rules.max_correlation:
                other = features[worst[1]]
                refusal = ("correlation", float(worst[0]), rules.max_correlation, f"{other.owner}:{other.code}")
        if refusal is None:
            chosen.append(index)
        else:
            dropped.append(Dropped(feature.owner, feature.code, *refusal))
    return sorted(chosen), dropped


def _refusal(
    feature: FeatureSummary, chosen: Sequence[FeatureSummary], budgets: Mapping[str, Budget], rules: SelectionRules
) -> tuple[str, float, float, str] | None:
    if feature.iv < rules.min_iv or feature.bins < 2:  # one bin tells nothing, whatever the threshold
        return "iv", feature.iv, rules.min_iv, ""
    if feature.stability > rules.max_stability:
        return "stability", feature.stability, rules.max_stability, ""
    if rules.max_features is not None and len(chosen) >= rules.max_features:
        return "count", float(len(chosen) + 1), float(rules.max_features), ""
    touched = {f.owner for f in [*chosen, feature]} & budgets.keys()
    equations = rules.fixed_equations + len(chosen)  # a product with each of the others
    affordable = min((budgets[owner].equations for owner in touched), default=float("inf"))
    if equations > affordable:
        return "equations", float(equations), affordable, ""
    if feature.owner in budgets:
        bins = feature.bins + sum(f.bins for f in chosen if f.owner == feature.owner)
        if bins > budgets[feature.owner].bins:
            return "bins", float(bins), budgets[feature.owner].bins, ""
    return None
