"""What a sweep found: figures of summaries, the table, and the comparison with the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.errors import SpecError
from fedcredit.kernels.paired_auc import auc_difference
from fedcredit.runtime.sweep.compare import against_best, best_of
from fedcredit.runtime.sweep.plan import SweepPlan, plan_sweep
from fedcredit.runtime.sweep.results import combinations, figures, known_figures, metric, results, unknown_figure
from fedcredit.runtime.sweep.runs import RUNS, Ended
from fedcredit.runtime.sweep.study import Study, write_study

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("auc_test", True),
        ("ks_test", True),
        ("brier_test", False),
        ("metrics.federated.log_loss", False),
        ("seconds.total", False),
        ("bytes_sent.total", False),
        ("differential_privacy.epsilon", False),
        ("auc_test:min", False),
        ("odd:max", True),
    ],
)
def test_which_way_is_better(name: str, higher: bool) -> None:
    found = metric(name)
    assert found.higher is higher
    assert found.name == name.partition(":")[0]


def test_a_way_that_is_none() -> None:
    with pytest.raises(SpecError, match=":min or :max"):
        metric("auc_test:up")


def test_figures_of_a_summary() -> None:
    summary = {
        "auc_test": 0.7,
        "rows_test": 10,
        "same": True,
        "name": "x",
        "nothing": None,
        "not": math.nan,
        "parties": {"bank": "label_holder", "tax": "feature_holder"},
        "metrics": {"alone": {"auc": 0.6, "deep": {"deeper": 1}}},
        "bytes_sent": {"bank": 3, "tax": 4, "coordinator": 1},
        "told": {"tax": 5},
        "versions": {"x": 1},
        "history": [{"tree": 1}],
    }
    assert figures(summary) == {
        "auc_test": 0.7,
        "rows_test": 10,
        "same": True,
        "metrics.alone.auc": 0.6,
        "bytes_sent.total": 8,
    }


def make(folder: Path, plan: SweepPlan, summaries: Sequence[Mapping[str, Any] | None]) -> list[Ended]:
    ended = []
    for point, summary in zip(plan.points, summaries, strict=True):
        place = folder / RUNS / point.name
        if summary is None:
            ended.append(Ended(point, "failed", error="a line"))
            continue
        place.mkdir(parents=True)
        (place / "summary.json").write_text(json.dumps({"run_id": "r", **summary}))
        ended.append(Ended(point, "done", place, seconds=1.5))
    return ended


def with_aucs(plan: SweepPlan, folder: Path, aucs: Sequence[float | None], **more: Any) -> list[Ended]:
    rows = {"rows_test": 300, "rows_train": 700, **more}
    return make(folder, plan, [None if one is None else {"auc_test": one, **rows} for one in aucs])


@pytest.fixture
def config(tmp_path: Path, consortium: Make) -> Path:
    return consortium(tmp_path, rows=200)


def test_one_row_a_run(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4", "scorecard.fit=moments,mle", "scorecard.min_iv=0,0.1"], (1,))
    aucs = [0.7, 0.71, None, 0.73, 0.74, 0.75, 0.76, 0.77]
    frame = results(plan, with_aucs(plan, tmp_path, aucs))
    assert frame.height == 8
    assert frame.columns[:6] == ["run", "status", "bin.max_bins", "scorecard.fit", "scorecard.min_iv", "seed"]
    assert frame["bin.max_bins"].dtype == pl.Int64
    assert frame["scorecard.fit"].to_list()[:3] == ["moments", "moments", "mle"]
    assert frame["scorecard.min_iv"].dtype == pl.Float64
    assert frame["auc_test"].to_list() == aucs
    assert frame["rows_test"].dtype == pl.Int64
    assert frame["error"].to_list() == [None, None, "a line", *[None] * 5]
    assert frame["status"].to_list()[2] == "failed"
    assert frame["spec_digest"].n_unique() == 8


def test_a_figure_called_like_a_key_keeps_its_own_column(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4"])
    ended = make(tmp_path, plan, [{"bin": {"max_bins": 9}}, {"bin": {"max_bins": 9}}])
    frame = results(plan, ended)
    assert frame["bin.max_bins"].to_list() == [3, 4]
    assert frame["summary.bin.max_bins"].to_list() == [9, 9]


def test_an_unknown_figure_gets_a_hint(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4"])
    ended = with_aucs(plan, tmp_path, [0.7, None])
    assert known_figures(ended) == ["auc_test", "rows_test", "rows_train"]
    assert 'did you mean "auc_test"' in str(unknown_figure(metric("auc_tst"), ended))


def test_combinations_mean_over_their_seeds(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4"], (1, 2, 3))
    ended = with_aucs(plan, tmp_path, [0.70, 0.72, 0.74, 0.9, None, 0.9])
    low, high = combinations(ended, metric("auc_test"))
    assert (low.values, low.found, low.problem) == (("3",), (0.70, 0.72, 0.74), "")
    assert low.mean == pytest.approx(0.72)
    assert low.spread == pytest.approx(0.02)
    assert high.problem == "a line"
    assert best_of([low, high], metric("auc_test")) is low  # one with a run missing wins over none that is whole
    assert low.mean_of("rows_test") == 300
    assert math.isnan(low.mean_of("none"))


def test_the_best_in_both_directions(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4,5"])
    ended = with_aucs(plan, tmp_path, [0.70, 0.74, 0.72])
    found = combinations(ended, metric("auc_test"))
    best, worst = best_of(found, metric("auc_test")), best_of(found, metric("auc_test:min"))
    assert best is not None
    assert worst is not None
    assert (best.values, worst.values) == (("4",), ("3",))
    assert best_of([], metric("auc_test")) is None


def predictions(ended: Ended, ids: Sequence[str], bad: np.ndarray, score: np.ndarray) -> None:
    assert ended.folder is not None
    frame = pl.DataFrame({"id": list(ids), "label": bad, "score": score})
    frame.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(ended.folder / "predictions.parquet")


def test_two_runs_are_compared_on_the_same_rows(config: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bad = (rng.random(400) < 0.3).astype(np.int64)
    ids = [f"E{number}" for number in range(400)]
    good, poor = (np.round(600 - 80 * bad + 60 * rng.normal(size=400) * wide).astype(int) for wide in (1.0, 4.0))
    near = good + rng.integers(-3, 4, size=400)
    plan = plan_sweep(config, ["bin.max_bins=3,4,5"])
    ended = with_aucs(plan, tmp_path, [0.8, 0.799, 0.6])
    for one, score in zip(ended, (good, near, poor), strict=True):
        predictions(one, ids, bad, score)
    by = metric("auc_test")
    first, second, third = combinations(ended, by)
    _, error = auc_difference(bad, -near, -good)
    found = against_best(second, first, by)
    assert found.margin == pytest.approx(1.959964 * error, rel=1e-6)
    assert found.difference == pytest.approx(-0.001)
    assert found.tied
    assert not against_best(third, first, by).tied
    assert against_best(first, first, by).margin == 0.0
    ks = metric("ks_test")  # nothing is known of the luck in it
    both = make(tmp_path / "k", plan, [{"ks_test": 0.5}, {"ks_test": 0.4}, {"ks_test": 0.4}])
    ahead, behind, _ = combinations(both, ks)
    assert against_best(behind, ahead, ks).margin is None


@pytest.mark.parametrize("spoil", ["none", "other rows", "repeated", "other columns", "damaged"])
def test_predictions_that_do_not_fit_give_no_margin(config: Path, tmp_path: Path, spoil: str) -> None:
    bad, score = np.array([0, 1] * 20), np.arange(40)
    plan = plan_sweep(config, ["bin.max_bins=3,4"])
    ended = with_aucs(plan, tmp_path, [0.8, 0.7])
    ids = [str(number) for number in range(40)]
    predictions(ended[0], ids, bad, score)
    assert ended[1].folder is not None
    path = ended[1].folder / "predictions.parquet"
    if spoil == "other rows":
        predictions(ended[1], [f"x{one}" for one in ids], bad, score)
    elif spoil == "repeated":
        predictions(ended[1], ["0", *ids[:-1]], bad, score)
    elif spoil == "other columns":
        pl.DataFrame({"bank": ids}).write_parquet(path)
    elif spoil == "damaged":
        path.write_bytes(b"PAR1")
    first, second = combinations(ended, metric("auc_test"))
    assert against_best(second, first, metric("auc_test")).margin is None


def test_seeds_are_compared_one_by_one(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4"], (1, 2, 3, 4))
    ended = with_aucs(plan, tmp_path, [0.80, 0.70, 0.90, 0.75, 0.79, 0.695, 0.885, 0.748])
    by = metric("auc_test")
    first, second = combinations(ended, by)
    found = against_best(second, first, by)
    steps = np.array([-0.01, -0.005, -0.015, -0.002])
    error = np.sqrt(steps.var(ddof=1) * (1 / 4 + 300 / 700))
    assert found.difference == pytest.approx(steps.mean())
    assert found.margin == pytest.approx(3.182446 * error, rel=1e-6)  # t with 3 degrees of freedom, 97.5 %
    assert found.tied
    few = plan_sweep(config, ["bin.max_bins=3,4"], (1, 2))
    pair = combinations(with_aucs(few, tmp_path / "f", [0.8, 0.7, 0.79, 0.69]), by)
    assert against_best(pair[1], pair[0], by).margin is None


def test_the_files_of_a_sweep(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4,5"], ())
    study = Study.of(plan, with_aucs(plan, tmp_path, [0.7, None, 0.72]), [metric("auc_test"), metric("rows_test")])
    write_study(study, tmp_path)
    kept = json.loads((tmp_path / "sweep.json").read_text())
    assert kept["varied"] == {"bin.max_bins": ["3", "4", "5"]}
    assert [one["status"] for one in kept["runs"]] == ["done", "failed", "done"]
    assert kept["runs"][0]["folder"] == "runs/max_bins=3"
    assert kept["metric"] == {"name": "auc_test", "higher": True}
    frame = pl.read_parquet(tmp_path / "results.parquet")
    assert frame.equals(study.rows)
    assert pl.read_csv(tmp_path / "results.csv")["auc_test"].to_list() == [0.7, None, 0.72]
    assert [one.values for one, _ in study.ranked] == [("5",), ("3",), ("4",)]
    assert study.problems == [("failed", "a line", ["max_bins=4"])]
    assert (study.figure("rows_test"), study.figure("auc_test"), study.figure("none")) == (300.0, None, None)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_sweep_without_any_result(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4"])
    study = Study.of(plan, with_aucs(plan, tmp_path, [None, None]), [metric("auc_test")])
    assert study.best is None
    assert study.against == (None, None)
    assert study.tied == 0
