"""Which binned features are tried in the fit, and the label holder's own columns; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.collinearity import correlation_from_moments
from fedcredit.kernels.selection import Budget, Dropped, FeatureSummary, SelectionRules, choose_candidates
from fedcredit.protocol.bin.features import BinnedFeature, OwnFeature
from fedcredit.protocol.scorecard.plan import FitPlan
from fedcredit.spec.model import ScorecardSection
from fedcredit.types import PartyId

__all__ = ["Candidates", "Offer", "merged_codes", "select_candidates", "within_budgets", "woe_columns"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """Features tried in the fit: the label holder's own first, then holder by holder.

    Args:
        features: In the order of the fit's columns.
        dropped: The others, with reasons.
    """

    features: tuple[BinnedFeature, ...]
    dropped: tuple[Dropped, ...]

    def of(self, owner: PartyId) -> list[BinnedFeature]:
        """Candidates of one party, in order."""
        return [feature for feature in self.features if feature.owner == owner]

    def places(self, owner: PartyId) -> list[int]:
        """Columns of one party's candidates."""
        return [place for place, feature in enumerate(self.features) if feature.owner == owner]


def merged_codes(feature: BinnedFeature, codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32 (n,): the merged bin of each row, from its prebin."""
    return feature.merged.group[codes].astype(np.int32)


def woe_columns(features: Sequence[BinnedFeature], own: Sequence[OwnFeature]) -> Ints:
    """int64 (n, k): WOE units of each row in each feature, where codes and WOE are in one house."""
    codes = {feature.shape.code: feature.codes for feature in own}
    columns = [feature.merged.woe_units[merged_codes(feature, codes[feature.code])] for feature in features]
    rows = len(own[0].codes) if own else 0
    return np.column_stack(columns).astype(np.int64) if columns else np.zeros((rows, 0), np.int64)


@dataclass(frozen=True)
class Offer:
    """What candidates are chosen from.

    Args:
        binned: All features, the label holder's own first and in the order of ``own``.
        own: The label holder's features.
        train: bool (n,), rows to train on.
        budgets: For each feature holder.
        rules: Section ``[scorecard]``.
        plan: What the fit will ask besides products.
    """

    binned: Sequence[BinnedFeature]
    own: Sequence[OwnFeature]
    train: NDArray[np.bool_]
    budgets: Mapping[PartyId, Budget]
    rules: ScorecardSection
    plan: FitPlan

    @property
    def own_columns(self) -> Ints:
        """int64 (training rows, own features): WOE units of the label holder's own features."""
        mine = [feature for feature in self.binned if feature.owner not in self.budgets]
        return woe_columns(mine, self.own)[self.train]


def select_candidates(offer: Offer) -> Candidates:
    """Chooses candidates by IV, stability and what the ledgers allow."""
    columns = offer.own_columns
    correlation = correlation_from_moments(len(columns), columns.sum(axis=0), columns.T @ columns)
    return within_budgets(offer, correlation, offer.budgets)


def within_budgets(offer: Offer, own_correlation: NDArray[np.float64], budgets: Mapping[PartyId, Budget]) -> Candidates:
    """Candidates, given the correlations between the label holder's own features.

    Args:
        offer: What there is.
        own_correlation: float64 (own features, own features).
        budgets: For each feature holder, in place of those of the offer.
    """
    binned, rules = offer.binned, offer.rules
    mine = [feature for feature in binned if feature.owner not in budgets]
    thresholds = SelectionRules(
        min_iv=rules.min_iv,
        max_stability=rules.max_stability,
        max_correlation=rules.max_correlation,
        max_features=rules.max_features,
        fixed_equations=2 * offer.plan.rounds,
    )
    summaries = [FeatureSummary(f.owner, f.code, f.merged.bins, f.merged.iv, f.stability) for f in binned]
    owner = mine[0].owner if mine else ""
    named = {str(party): budget for party, budget in budgets.items()}
    chosen, dropped = choose_candidates(summaries, owner, own_correlation, named, thresholds)
    return Candidates(tuple(binned[place] for place in chosen), tuple(dropped))
