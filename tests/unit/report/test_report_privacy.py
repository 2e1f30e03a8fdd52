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


def written(folder: Path, blocks: object) -> PrivacyPart | None:
    (folder / "summary.json").write_text(json.dumps({"run_id": "aa", "differential_privacy": blocks}))
    return privacy_part(folder)


def page(part: PrivacyPart) -> str:
    return render("privacy.html.j2", {"privacy": part})


def test_the_bank_with_the_largest_epsilon_stands_first_and_nothing_is_rounded_down(tmp_path: Path) -> None:
    blocks = {"east": block(2.0), "west": block(1.0, limit=8.0)}
    part = written(tmp_path, blocks)
    assert part is not None
    assert [row.bank for row in part.rows] == ["west", "east"]
    assert part.whose == "west"
    for row in part.rows:
        exact = blocks[row.bank]["epsilon"]
        assert isinstance(exact, float)
        assert 0 <= float(row.epsilon) - exact < 0.01
    assert (part.rows[0].limit, part.rows[1].limit) == ("8", "none")
    assert part.rows[0].used is not None
    assert 0 < part.rows[0].used < 100
    assert part.rows[1].used is None


def test_the_page_shows_figures_releases_and_what_is_not_covered(tmp_path: Path) -> None:
    part = written(tmp_path, {"east<b>": block(1.5)})
    assert part is not None
    text = page(part)
    assert "east&lt;b&gt;" in text
    assert "3 × 20 steps" in text
    assert "dp-accounting" in text
    assert "one row of one bank" in text
    assert "Numbers of rows" in text
    assert "in at most" in text


def test_a_run_without_noise_says_so(tmp_path: Path) -> None:
    with PrivacyLedger(":memory:") as ledger:
        ledger.reserve(RUN, "v1", Planned("none", 1e-5, math.inf, (Event("update", "none", 0.0, times=3),)))
        ledger.commit(RUN, "update", "round/1", "0" * 64)
        part = written(tmp_path, {"east": ledger.report(RUN).block()})
    assert part is not None
    assert not part.protected
    assert part.rows[0].epsilon == "∞"
    assert "No noise was added" in page(part)


def test_a_summary_without_it_has_no_section_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert written(tmp_path, None) is None
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        written(tmp_path, {"east": {"unit": "record"}})


def test_certainty_is_that_of_the_best_test_between_two_neighbours() -> None:
    assert certainty(0.0, 0.0) == 0.5
    assert certainty(math.log(3), 0.0) == pytest.approx(0.75)
    assert certainty(1e6, 0.0) == 1.0
    assert certainty(0.0, 0.1) == pytest.approx(0.55)
