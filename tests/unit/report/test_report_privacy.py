"""The report's section on differential privacy."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedcredit.errors import DataError
from fedcredit.governance.privacy_accounting import Event, Planned, epsilon_of
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.governance.privacy_limit import PrivacyLimit
from fedcredit.report.build import render
from fedcredit.report.privacy_part import PrivacyPart, certainty, privacy_part
from fedcredit.types import RunId

RUN = RunId("aa")


def block(multiplier: float, limit: float | None = None) -> dict[str, object]:
    events = (
        Event("columns", "discrete_sum", 10.0, times=2),
        Event("update", "sampled_gaussian", multiplier, 0.05, 20, 3),
    )
    with PrivacyLedger(":memory:", PrivacyLimit(max_epsilon=limit)) as ledger:
        ledger.reserve(RUN, "v1", Planned("record", 1e-5, epsilon_of(events, 1e-5), events))
        for name in ("a", "b", "c"):
            ledger.commit(RUN, "update", name, "0" * 64)
        return ledger.report(RUN).block()


def written(folder: Path, found: object, banks: object = None) -> PrivacyPart | None:
    content = {"run_id": "aa", "differential_privacy": found, "banks": banks or []}
    (folder / "summary.json").write_text(json.dumps(content))
    return privacy_part(folder)


def page(part: PrivacyPart) -> str:
    return render("privacy.html.j2", {"privacy": part})


def test_nothing_is_rounded_down_and_the_largest_stands_first(tmp_path: Path) -> None:
    found = block(1.0, limit=8.0)
    part = written(
        tmp_path, found, [{"name": "east", "epsilon": 1.001}, {"name": "west", "epsilon": 2.3}, {"name": "x"}]
    )
    assert part is not None
    assert part.banks == [("x", "∞"), ("west", "2.30"), ("east", "1.01")]
    for row, key in zip(part.rows, ("epsilon", "planned_epsilon", "total_epsilon"), strict=True):
        exact = found[key]
        assert isinstance(exact, float)
        assert 0 <= float(row.epsilon) - exact < 0.01
    assert part.limit == "8"
    assert part.used is not None
    assert 0 < part.used < 100
    without = written(tmp_path, block(1.0))
    assert without is not None
    assert (without.limit, without.used) == ("", None)


def test_the_page_shows_figures_releases_and_what_is_not_covered(tmp_path: Path) -> None:
    part = written(tmp_path, block(1.5), [{"name": "east<b>", "epsilon": 1.0}, {"name": "west", "epsilon": 2.0}])
    assert part is not None
    text = page(part)
    assert "east&lt;b&gt;" in text
    assert "3 × 20 steps" in text
    assert "dp-accounting" in text
    assert "one row of one bank" in text
    assert "Numbers of rows" in text
    assert "in at most" in text
    alone = written(tmp_path, block(1.5))
    assert alone is not None
    assert "Bank by bank" not in page(alone)


def test_a_run_without_noise_says_so(tmp_path: Path) -> None:
    with PrivacyLedger(":memory:") as ledger:
        ledger.reserve(RUN, "v1", Planned("none", 1e-5, math.inf, (Event("update", "none", 0.0, times=3),)))
        ledger.commit(RUN, "update", "round/1", "0" * 64)
        part = written(tmp_path, ledger.report(RUN).block())
    assert part is not None
    assert not part.protected
    assert part.rows[0].epsilon == "∞"
    assert "No noise was added" in page(part)


def test_a_summary_without_it_has_no_section_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert written(tmp_path, None) is None
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        written(tmp_path, {"unit": "record"})


def test_certainty_is_that_of_the_best_test_between_two_neighbours() -> None:
    assert certainty(0.0, 0.0) == 0.5
    assert certainty(math.log(3), 0.0) == pytest.approx(0.75)
    assert certainty(1e6, 0.0) == 1.0
    assert certainty(0.0, 0.1) == pytest.approx(0.55)
