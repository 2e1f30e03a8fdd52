"""What the records of a made-up district are worth, with the shipped catalogues: in wide bands, fast; as said, slow."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fedcredit.data.district import DistrictSettings, build_district
from fedcredit.kernels.metrics import auc

try:
    from benchmarks import district as bench
except ModuleNotFoundError:  # pytest's console script does not put the checkout on the path
    sys.path[:0] = [str(Path(__file__).parents[2])]
    from benchmarks import district as bench

ALL = ("bank", *bench.HOLDERS)
FOUR = ("bank", "tax_office", "electricity", "social_insurance")


# Some features of each holder and the sign of their risk: their mean rank needs no fit, which 60 bads would not bear.
SIGNS = {
    "bank": {
        "receipts_growth": -1,
        "payroll_trend": -1,
        "balance_cover": -1,
        "days_late_worst": 1,
        "payer_concentration": 1,
        "debt_months": 1,
    },
    "tax_office": {"sales_growth": -1, "tax_lateness": 1, "sales_volatility": 1, "tax_burden": -1},
    "electricity": {"load": -1, "bill_lateness": 1, "kwh_growth": -1},
    "social_insurance": {"staff_growth": -1, "payment_lateness": 1, "months_missed": 1},
}


def ranks(rows: bench.Rows, holders: tuple[str, ...]) -> bench.Floats:
    """Sum of the signed ranks of the features above; who is unknown stands in the middle."""
    total = np.zeros(len(rows.label))
    for holder in holders:
        for name, sign in SIGNS[holder].items():
            column = rows.features[holder][name]
            share = (column.rank() / (column.len() - column.null_count())).fill_null(0.5)
            total += sign * share.to_numpy()
    return total


@pytest.mark.slow
def test_other_holders_add_to_what_a_bank_knows(tmp_path: Path) -> None:
    build_district(DistrictSettings(enterprises=6000, seed=1, default_rate=0.05), tmp_path)
    rows = bench.gather(tmp_path, "bank_1", FOUR[1:])
    assert 1000 < len(rows.label) < 1400
    assert 0.03 < rows.label.mean() < 0.07
    alone, together = (auc(rows.label, ranks(rows, holders)) for holders in (("bank",), FOUR))
    assert 0.60 < alone < 0.82  # one standard error is 0.035 with 50 bads
    assert 0.72 < together < 0.90
    assert together > alone + 0.02


def of_scorecard(rows: bench.Rows, holders: tuple[str, ...]) -> float:
    return auc(rows.label, bench.out_of_fold(rows, holders, 3, bench.scorecard))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_district_of_full_size_is_worth_what_its_page_says(tmp_path: Path) -> None:
    build_district(DistrictSettings(), tmp_path)
    rows = bench.gather(tmp_path, "bank_1")
    assert int(rows.label.sum()) >= 1000
    assert 0.02 <= rows.label.mean() <= 0.05
    assert 0.70 <= of_scorecard(rows, ("bank",)) <= 0.75
    assert 0.82 <= of_scorecard(rows, FOUR) <= 0.88
    assert 0.82 <= of_scorecard(rows, ALL) <= 0.88
    for holder in ("tax_office", "electricity", "social_insurance"):
        assert of_scorecard(rows, (holder,)) < 0.79  # no holder alone stands for all
    groups = {name: rows.features["market_regulation"][name] for name in ("industry", "firm_size")}
    few = bench.Rows(rows.label, {"groups": groups}, rows.known)
    assert of_scorecard(few, ("groups",)) <= 0.55
