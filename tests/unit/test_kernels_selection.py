"""Choice of candidates: each reason, ties, and the holders' budgets."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.kernels.selection import Budget, Dropped, FeatureSummary, SelectionRules, choose_candidates

WIDE = {"tax": Budget(1e9, 1e9)}


def rules(  # every threshold out of the way unless a test sets it
    *, min_iv: float = 0.0, max_stability: float = 9.0, max_correlation: float = 1.0, most: int | None = None
) -> SelectionRules:
    return SelectionRules(min_iv, max_stability, max_correlation, most, fixed_equations=4)


def feature(owner: str, code: str, iv: float, bins: int = 3, stability: float = 0.01) -> FeatureSummary:
    return FeatureSummary(owner, code, bins, iv, stability)


def test_all_that_pass_are_chosen_in_order_of_place() -> None:
    features = [feature("bank", "F1", 0.1), feature("bank", "F2", 0.3), feature("tax", "F1", 0.2)]
    assert choose_candidates(features, "bank", np.eye(2), WIDE, rules()) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("weak", "limits", "reason"),
    [
        (feature("tax", "F1", 0.019), rules(min_iv=0.02), ("iv", 0.019, 0.02)),
        (feature("tax", "F1", 0.2, stability=0.3), rules(max_stability=0.25), ("stability", 0.3, 0.25)),
        (feature("tax", "F1", 0.2), rules(most=1), ("count", 2.0, 1.0)),
    ],
)
def test_reasons(weak: FeatureSummary, limits: SelectionRules, reason: tuple[str, float, float]) -> None:
    features = [feature("bank", "F1", 0.5), weak]
    chosen, dropped = choose_candidates(features, "bank", np.eye(1), WIDE, limits)
    assert chosen == [0]
    assert dropped == [Dropped("tax", "F1", *reason)]


def test_thresholds_themselves_pass() -> None:
    features = [feature("bank", "F1", 0.02, stability=0.25)]
    assert choose_candidates(features, "bank", np.eye(1), {}, rules(min_iv=0.02, max_stability=0.25)) == ([0], [])


def test_of_two_correlated_own_features_the_weaker_goes() -> None:
    features = [feature("bank", "F1", 0.1), feature("tax", "F1", 0.2), feature("bank", "F2", 0.3)]
    correlation = np.array([[1.0, -0.95], [-0.95, 1.0]])
    chosen, dropped = choose_candidates(features, "bank", correlation, WIDE, rules(max_correlation=0.9))
    assert chosen == [1, 2]
    assert dropped == [Dropped("bank", "F1", "correlation", 0.95, 0.9, "bank:F2")]


def test_products_are_paid_by_every_holder_that_is_touched() -> None:
    features = [feature("tax", "F1", 0.4), feature("bank", "F1", 0.3), feature("bank", "F2", 0.2)]
    chosen, dropped = choose_candidates(features, "bank", np.eye(2), {"tax": Budget(5, 99)}, rules())
    assert chosen == [0, 1]  # four equations of the fit, one product; a second product is one too many for tax:F1
    assert dropped == [Dropped("bank", "F2", "equations", 6.0, 5)]


def test_own_features_cost_nothing_where_no_holder_takes_part() -> None:
    features = [feature("bank", "F1", 0.4), feature("bank", "F2", 0.3), feature("tax", "F1", 0.2)]
    chosen, dropped = choose_candidates(features, "bank", np.eye(2), {"tax": Budget(3, 99)}, rules())
    assert chosen == [0, 1]
    assert dropped[0].reason == "equations"


def test_bins_are_counted_for_each_holder_by_itself() -> None:
    features = [feature("a", "F1", 0.4), feature("b", "F1", 0.3), feature("a", "F2", 0.2), feature("b", "F2", 0.1, 2)]
    budgets = {"a": Budget(99, 5), "b": Budget(99, 5)}
    chosen, dropped = choose_candidates(features, "bank", np.eye(0), budgets, rules())
    assert chosen == [0, 1, 3]
    assert dropped == [Dropped("a", "F2", "bins", 6.0, 5)]


def test_ties_go_by_owner_and_code() -> None:
    features = [feature("tax", "F1", 0.2), feature("bank", "F2", 0.2), feature("bank", "F1", 0.2)]
    chosen, dropped = choose_candidates(features, "bank", np.eye(2), WIDE, rules(most=1))
    assert chosen == [2]
    assert [(one.owner, one.code) for one in dropped] == [("bank", "F2"), ("tax", "F1")]


def test_nothing_to_choose_from() -> None:
    assert choose_candidates([], "bank", np.eye(0), {}, rules()) == ([], [])
