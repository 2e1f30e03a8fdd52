"""Numbers and reasons in words."""

from __future__ import annotations

from typing import Any

import pytest

from fedcredit.report import words
from fedcredit.report.files import Dropped


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (words.decimals(0.7674999), "0.767"),
        (words.decimals(-0.0001), "0.000"),
        (words.decimals(-1234.5, 1), "−1,234.5"),
        (words.decimals(None), "–"),
        (words.decimals(float("nan")), "–"),
        (words.figures(0.0314159), "0.03142"),
        (words.figures(12.3456), "12.35"),
        (words.figures(-999.96), "−1,000"),
        (words.figures(20948.2), "20,948"),
        (words.figures(9.9996), "10.00"),
        (words.figures(0.0), "0"),
        (words.figures(None), "–"),
        (words.at_most("vat <= 12 or missing", "vat"), "vat ≤ 12 or missing"),
        (words.at_most("<= 12"), "≤ 12"),
        (words.at_most("a <= b in: x <= y", "z"), "a <= b in: x <= y"),
        (words.model_name("boost"), "Boosted trees"),
        (words.model_name("moons"), "moons"),
        (words.signed(0.0761), "+0.076"),
        (words.signed(-0.0761), "−0.076"),
        (words.signed(0.0001), "±0.000"),
        (words.count(9000), "9,000"),
        (words.amount(9.84), "9.8"),
        (words.amount(420.0), "420"),
        (words.percent(0.2435), "24.3 %"),
        (words.size(999), "999 B"),
        (words.size(26_000), "26.0 kB"),
        (words.size(999_700), "1.0 MB"),
        (words.size(58_300_000), "58.3 MB"),
        (words.size(4_210_000_000_000), "4,210 GB"),
        (words.duration(46.13), "46.1 s"),
        (words.duration(125), "2 min 05 s"),
        (words.duration(7380), "2 h 03 min"),
        (words.p_value(0.00012), "< 0.001"),
        (words.p_value(0.2224), "0.222"),
        (words.power_of_two(-43.2), "2⁻⁴³"),
        (words.join(["a", "b", "c"]), "a, b and c"),
        (words.join(["a"]), "a"),
        (words.join([]), ""),
        (words.iv_strength(0.019), "very weak"),
        (words.iv_strength(0.3), "strong"),
        (words.iv_strength(0.5), "very strong"),
        (words.stability_level(0.0999), "stable"),
        (words.stability_level(0.1), "watch"),
        (words.stability_level(0.25), "shifted"),
        (words.role_name("label_holder"), "Label holder"),
        (words.role_name("utility"), "utility"),
    ],
)
def test_numbers(printed: str, expected: str) -> None:
    assert printed == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"reason": "iv", "value": 0.011, "limit": 0.02}, "Information value 0.011 is below the minimum 0.020."),
        ({"reason": "correlation", "value": -0.934, "limit": 0.9, "against": ["tax_office F2"]}, "with tax_office F2"),
        ({"reason": "vif", "value": 14.2, "limit": 10}, "variance inflation 14.2, limit 10.0"),
        ({"reason": "equations", "value": 82, "limit": 60}, "82 equations would be needed, 60 are allowed"),
        ({"reason": "stability", "value": 0.312, "limit": 0.25}, "population stability 0.312, limit 0.25"),
        ({"reason": "bins", "value": 12, "limit": 9}, "12 would be needed, 9 are allowed"),
        ({"reason": "count", "limit": 10}, "at most 10 features"),
        ({"reason": "moonphase"}, "Reason given by the run: moonphase."),
    ],
)
def test_reasons(given: dict[str, Any], expected: str) -> None:
    assert expected in words.dropped_reason(Dropped(owner="bank", code="F1", **given))
