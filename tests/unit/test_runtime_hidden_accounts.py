"""What a run with hidden rows says it disclosed: the leak of the choice itself, rows at holders, bits of both parts."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcredit.attack.recorder import Recording, recording
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import BY_REGISTER, PLAIN_SAME_ROWS, Sample, write_sample
from fedcredit.crypto import slots_parameters
from fedcredit.errors import DisclosureRefused
from fedcredit.governance.ledger import Ledger
from fedcredit.kernels.woe import WOE_LIMIT_UNITS
from fedcredit.protocol.boost.messages import Bitmaps, ChosenPaths
from fedcredit.protocol.scorecard.messages import EncryptedPartial
from fedcredit.protocol.scorecard.plan import BITS_PER_TOTAL, column_costs, plan_fit
from fedcredit.protocol.select.messages import OpenedSums, ShadedColumns
from fedcredit.runtime import simulate
from fedcredit.runtime.accounts import ChosenAnswers, statistical_leak
from fedcredit.runtime.boost.run import BOOST_RUN
from fedcredit.runtime.model_run import ModelRun, Outcome, Written
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.scorecard import run as scorecard_run
from fedcredit.spec.model import ScorecardSection
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import CostKind

BANK, TAX, UTILITY, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "utility", "customs"))
ROWS, STRANGERS = 700, 250
SECTIONS = """
[crypto]
profile = "{}"
[bin]
prebins = 4
min_prebin_rows = 20
min_goods = 5
min_bads = 5
max_bins = 3
[scorecard]
min_iv = 0.0
[boost]
trees = 3
depth = 2
min_bin_rows = 20
[privacy]
enforce = {}
noise_rows = 0.0
"""


def _sample(profile: str, enforce: str = "false", model: str = "scorecard", align: str = BY_REGISTER) -> Sample:
    columns = {"bank": 1, "tax": 2, "utility": 2, "customs": 1}
    sections = SECTIONS.format(profile, enforce)
    return Sample(ROWS, columns, sections=sections, model=model, align=align, strangers=STRANGERS)


Looked = tuple[dict[str, Any], Written, dict[PartyId, dict[str, Any]], Recording, Path]


def _simulated(folder: Path, sample: Sample) -> Looked:
    """Summary, what the model has written, what each holder would write in its own house, and all messages."""
    seen: dict[str, Any] = {}
    real: ModelRun = BOOST_RUN if sample.model == "boost" else scorecard_run.SCORECARD_RUN

    def spy(files: RunFiles, outcome: Outcome) -> Written:
        seen["written"] = real.write(files, outcome)
        holders = [party.name for party in outcome.spec.feature_holders]
        seen["own"] = {party: dict(real.own(files, outcome, party).summary) for party in holders}
        seen["label"] = real.own(files, outcome, outcome.leader)
        return seen["written"]  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch, recording() as notes:
        patch.setattr(simulate, "MODEL_RUNS", {sample.model: replace(real, write=spy)})
        found = simulate.simulate(write_sample(folder, sample), folder / "out")
    assert seen["label"].chosen == seen["written"].chosen
    return dict(found.summary), seen["written"], seen["own"], notes, found.out


@pytest.fixture(scope="module")
def scorecard(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    return _simulated(tmp_path_factory.mktemp("scorecard"), _sample("rlwe-8192"))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    return _simulated(tmp_path_factory.mktemp("trees"), _sample("rlwe-8192", model="boost"))


def test_all_answers_to_the_choice_are_counted(scorecard: Looked) -> None:
    """As many as there were messages: partials, shaded columns, and sums under the label holder's and others' keys."""
    _, written, _, notes, _ = scorecard
    sent = [message for _, _, message in notes.sent]
    selected = sum(isinstance(one, EncryptedPartial) for one in sent)
    selected += sum(len(one.bodies) for one in sent if isinstance(one, ShadedColumns))
    pairs = sum(len(row) for one in sent if isinstance(one, OpenedSums) for row in one.sums)
    assert pairs == 1 * 2 + 1 * 2 + 2 * 2  # customs with tax, customs with utility, tax with utility
    assert written.chosen == ChosenAnswers(ROWS + STRANGERS, selected, 2 * pairs, WOE_LIMIT_UNITS)


def test_all_bits_of_trees_are_counted(trees: Looked) -> None:
    _, written, _, notes, _ = trees
    bodies = [one.bitmaps for _, _, one in notes.sent if isinstance(one, Bitmaps)]
    bodies += [one.bodies for _, _, one in notes.sent if isinstance(one, ChosenPaths)]
    answers = sum(map(len, bodies))
    assert answers > 2
    assert written.chosen == ChosenAnswers(ROWS + STRANGERS, answers, 0, 0)


@pytest.mark.parametrize("name", ["scorecard", "trees"])
def test_the_leak_of_the_choice_is_part_of_the_runs(name: str, request: pytest.FixtureRequest) -> None:
    summary, written, _, _, out = request.getfixturevalue(name)
    stated = summary["disclosure"]["statistical_leak_log2"]
    alone = statistical_leak(written.answered, "rlwe-8192")
    assert alone is not None
    assert written.chosen is not None
    assert 2.0**stated == pytest.approx(2.0**alone + 2.0**written.chosen.leak)
    assert stated > alone
    assert -60 < stated < -40
    assert json.loads((out / "leakage.json").read_text())["statistical_leak_log2"] == stated


def test_the_leak_is_that_of_the_parameters_and_grows_with_every_answer() -> None:
    one = ChosenAnswers(1000, 7, 8, 100)
    assert one.leak == slots_parameters.statistical_leak_log2(1000, selected=7, sums=8, column_bound=100)
    assert ChosenAnswers(1000, 8, 8, 100).leak > one.leak
    assert ChosenAnswers(1000, 7, 9, 100).leak > one.leak
    assert ChosenAnswers(9000, 7, 8, 100).leak > one.leak
    assert ChosenAnswers(1000, 0, 0, 100).leak == -math.inf


def test_without_encryption_there_is_no_such_figure(tmp_path: Path) -> None:
    """Sums in the open say everything: that the choice is encrypted all the same does not help."""
    summary, written, _, _, _ = _simulated(tmp_path, _sample("unsafe-plaintext"))
    assert written.chosen is not None
    assert summary["disclosure"]["statistical_leak_log2"] is None


def test_where_every_row_counts_nothing_was_chosen(tmp_path: Path) -> None:
    _, written, own, _, _ = _simulated(tmp_path, _sample("unsafe-plaintext", align=PLAIN_SAME_ROWS))
    assert written.chosen is None
    for summary in own.values():
        assert summary["rows_train"] + summary["rows_test"] == ROWS
        assert "rows" not in summary


@pytest.mark.parametrize("name", ["scorecard", "trees"])
def test_a_holders_own_summary_has_the_rows_and_no_split(name: str, request: pytest.FixtureRequest) -> None:
    _, written, own, _, _ = request.getfixturevalue(name)
    for summary in own.values():
        assert summary["rows"] == ROWS + STRANGERS
        assert not {"rows_train", "rows_test", "positives_train", "positives_test"} & summary.keys()
    assert written.summary["rows_train"] + written.summary["rows_test"] == ROWS


# The ledger of a holder that does not know the split.


@pytest.mark.parametrize(("totals", "bits"), [(0, 12.0), (1, 18.0), (2, 24.0), (3, 30.0)])
def test_a_row_is_charged_for_both_parts(totals: int, bits: float) -> None:
    rules = ScorecardSection(fit="one-step", max_totals=totals) if totals else ScorecardSection(fit="moments")
    plan = plan_fit(rules)
    (*_, hidden) = column_costs(plan, ["a"], 1, 1, hidden=True)
    (*_, known) = column_costs(plan, ["a"], 1, 1)
    assert (hidden.kind, hidden.amount) == (CostKind.ROW_BITS, bits)
    assert known.amount == max(BITS_PER_TOTAL, bits - BITS_PER_TOTAL)


def _until_refused(folder: Path, totals: int, align: str) -> tuple[list[float], DisclosureRefused, Recording]:
    """Runs the same data again and again against the same ledgers, of which only the bits of rows are scarce.

    Returns:
        What each run that ended well left spent, how the last one was refused, and what it had sent.
    """
    sample = _sample("unsafe-plaintext", "true", align=align)
    sections = sample.sections.replace("min_iv = 0.0", f"min_iv = 0.0\nmax_totals = {totals}")
    loaded = write_sample(folder, replace(sample, sections=sections, rows=4500))
    spent: list[float] = []
    with ExitStack() as stack:
        ledgers = {p: stack.enter_context(Ledger(folder / f"{p}.sqlite")) for p in (BANK, TAX, UTILITY, CUSTOMS)}
        for number in range(9):
            run = RunId(f"run-{number}")
            with recording() as notes:
                try:
                    Rehearsal(loaded, run=run, ledgers=ledgers).play()
                except DisclosureRefused as refusal:
                    return spent, refusal, notes
            spent.append(max(line.row_bits for p in (TAX, UTILITY, CUSTOMS) for line in ledgers[p].report(run)))
    raise AssertionError("nine runs were all answered")


@pytest.mark.parametrize(("totals", "declared", "runs"), [(1, 18.0, 2), (2, 24.0, 1)])
def test_one_run_too_many_is_refused_before_anything_of_a_row_is_told(
    tmp_path: Path, totals: int, declared: float, runs: int
) -> None:
    """Of 36 bits a row a run declares those of both parts; less than that is left after so many runs."""
    spent, error, notes = _until_refused(tmp_path, totals, BY_REGISTER)
    assert error.code == "ledger.cap"
    assert f"asked {declared:.0f}" in error.public
    assert len(spent) == runs
    assert all(one + declared <= 36 for one in spent[:-1])
    assert spent[-1] + declared > 36
    told = [one for _, _, one in notes.sent if isinstance(one, (EncryptedPartial, ShadedColumns, OpenedSums))]
    assert told == []


@pytest.mark.slow
def test_where_holders_know_the_split_there_are_more_runs(tmp_path: Path) -> None:
    spent, error, _ = _until_refused(tmp_path, 2, PLAIN_SAME_ROWS)
    assert "asked 12" in error.public
    assert len(spent) > 2
    assert spent[-1] + 12 > 36 >= spent[-2] + 12
