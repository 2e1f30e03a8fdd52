"""The page of a sweep: what it says, shows and leaves out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedcredit.report.sweep_charts import Grid, along, number
from fedcredit.report.sweep_maps import over, price
from fedcredit.report.sweep_page import build_sweep_page
from fedcredit.report.words import size
from fedcredit.runtime.sweep.plan import Point, SweepPlan, plan_sweep
from fedcredit.runtime.sweep.results import metric
from fedcredit.runtime.sweep.runs import RUNS, Ended
from fedcredit.runtime.sweep.study import Study
from fedcredit.spec.write import spec_toml

Make = Callable[..., Path]
Found = Callable[[Point], Mapping[str, Any] | None]


@pytest.fixture
def config(tmp_path: Path, consortium: Make) -> Path:
    return consortium(tmp_path, rows=200)


def summary(point: Point, auc: float, **more: Any) -> dict[str, Any]:
    return {
        "run_id": "ab" * 16,
        "model": "scorecard",
        "bank": "bank",
        "auc_test": auc,
        "brier_test": 1 - auc,
        "auc_label_holder_alone": 0.69,
        "rows_test": 300,
        "rows_train": 700,
        "positives_test": 90,
        "encryption": {"enabled": True},
        "seconds": {"total": 2.0},
        "bytes_sent": {"bank": round(1e6 * auc), "tax_office": 5},
        **more,
    }


def by_bins(point: Point) -> Mapping[str, Any] | None:
    assert point.loaded is not None
    spec = point.loaded.spec
    extra = 0.005 if spec.scorecard.fit == "mle" else 0.0
    auc = 0.7 + 0.01 * spec.bin.max_bins + extra + 0.001 * spec.run.seed
    sent = {"bank": 1_000_000 * spec.bin.max_bins}
    return None if spec.bin.max_bins == 7 else summary(point, auc, bytes_sent=sent)


def study(plan: SweepPlan, folder: Path, found: Found = by_bins, metrics: Sequence[str] = ("auc_test",)) -> Study:
    ended = []
    for point in plan.points:
        if point.loaded is None:
            ended.append(Ended(point, "refused", error=point.refusal))
            continue
        content = found(point)
        if content is None:
            ended.append(Ended(point, "failed", error="the <peer> is gone"))
            continue
        place = folder / RUNS / point.name
        place.mkdir(parents=True)
        (place / "summary.json").write_text(json.dumps(content))
        (place / "spec.toml").write_text(spec_toml(point.loaded.spec, base=point.loaded.base))
        ended.append(Ended(point, "done", place, seconds=2.5))
    return Study.of(plan, ended, [metric(one) for one in metrics])


def page(of: Study, folder: Path) -> str:
    path = build_sweep_page(of, folder)
    assert path == folder / "sweep.html"
    return path.read_text("utf-8")


TWO = ("bin.max_bins=3,4,6", "scorecard.fit=moments,mle")


def test_two_keys(config: Path, tmp_path: Path) -> None:
    text = page(study(plan_sweep(config, TWO), tmp_path, metrics=("auc_test", "brier_test")), tmp_path)
    assert "Best auc_test: 0.7680, with max_bins = 6, fit = mle." in text  # 0.7 + 0.06 + 0.005 + 0.003
    assert "The best of 6 was chosen on the held-out rows themselves" in text
    # for each of two figures: two lines, a map, and what is sent
    assert text.count("<svg") == 8
    assert text.count("AUC on held-out rows</h2>") == 1
    assert "Brier score on held-out rows" in text
    assert text.count('href="runs/max_bins%3D3%2Cfit%3Dmoments/report.html"') == 1
    assert "--set bin.max_bins=3,4,6 --set scorecard.fit=moments,mle --metric auc_test --metric brier_test" in text


def test_it_is_one_file_that_fetches_nothing(config: Path, tmp_path: Path) -> None:
    text = page(study(plan_sweep(config, TWO), tmp_path), tmp_path)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert "<script" not in text
    assert re.findall(r"""(?:src|href)=["'](?!#|runs/)[^"']*""", text) == []
    identifiers = re.findall(r' id="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers)) > 0
    assert {one.removeprefix("#") for one in re.findall(r'href="(#[^"]+)"', text)} <= set(identifiers)


def test_the_same_sweep_gives_the_same_bytes(config: Path, tmp_path: Path) -> None:
    of = study(plan_sweep(config, TWO), tmp_path)
    assert page(of, tmp_path) == page(of, tmp_path)


def test_missing_runs_and_odd_texts_are_escaped(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,7,30", "run.name=a,b"])
    text = page(study(plan, tmp_path), tmp_path)
    assert "Runs without a result" in text
    assert "the &lt;peer&gt; is gone" in text
    assert "<peer>" not in text
    assert "above bin.prebins" in text
    assert "of 6; 4 missing" in text


def test_no_run_has_a_result(config: Path, tmp_path: Path) -> None:
    text = page(study(plan_sweep(config, TWO), tmp_path, lambda _: None), tmp_path)
    assert "No run has a result." in text
    assert "<svg" not in text
    assert "Every combination" not in text


def test_one_run_needs_no_chart(config: Path, tmp_path: Path) -> None:
    text = page(study(plan_sweep(config, []), tmp_path), tmp_path)
    assert "with the configuration as it is" in text
    assert "<svg" not in text
    assert "flatters" not in text


def test_protection_that_is_off_is_shouted(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4", "privacy.enforce=true"])
    assert 'role="alert"' not in page(study(plan, tmp_path), tmp_path)
    off = plan_sweep(config, ["bin.max_bins=3,4", "privacy.enforce=true,false"])
    text = page(study(off, tmp_path / "b"), tmp_path / "b")
    assert "RESULTS UNPROTECTED" in text
    assert "No ledger was enforced." in text
    assert "In 2 of 4 runs." in text

    def plain(point: Point) -> Mapping[str, Any]:
        return summary(point, 0.7, encryption={"enabled": point.values[0] != "3"}, scores_equal_pooled_plaintext=False)

    text = page(study(plan, tmp_path / "c", plain), tmp_path / "c")
    assert "UNENCRYPTED" in text
    assert "In 1 of 2 runs every value crossed in the clear." in text
    assert "In 2 runs the federated result differs from the same computation in the clear." in text


def test_seeds_have_their_spread(config: Path, tmp_path: Path) -> None:
    text = page(study(plan_sweep(config, TWO, (0, 1, 2)), tmp_path), tmp_path)
    assert "means over 3 seeds" in text
    assert "Bars: standard deviation over the seeds." in text
    assert "Nadeau and Bengio" in text
    assert '<a href="runs/max_bins%3D3%2Cfit%3Dmoments%2Cseed%3D2/report.html">2</a>' in text


def test_three_keys_show_dots_and_a_map_of_each_pair(config: Path, tmp_path: Path) -> None:
    plan = plan_sweep(config, [*TWO, "bin.min_goods=11,12"])
    text = page(study(plan, tmp_path), tmp_path)
    assert text.count("Every dot a combination, the line through their means.") == 3
    assert text.count("the best over the other keys in each cell") == 3


def test_the_cheapest_of_equals_is_named(config: Path, tmp_path: Path) -> None:
    aucs = {"3": (0.70, 0.72, 0.71), "4": (0.71, 0.71, 0.72)}

    def found(point: Point) -> Mapping[str, Any]:
        bins = point.values[0]
        sent = {"bank": 1_000_000 if bins == "3" else 9_000_000}
        return summary(point, aucs[bins][(point.seed or 1) - 1], bytes_sent=sent)

    of = study(plan_sweep(config, ["bin.max_bins=3,4"], (1, 2, 3)), tmp_path, found)
    assert of.tied == 1
    text = page(of, tmp_path)
    assert "The other one may well be as good" in text
    assert "Of these, max_bins = 3 sends least: 1.0 MB a run, the best 9.0 MB." in text


GRID = Grid(
    labels=["rate", "kind"],
    points=[(("0.01", "a"), 0.70), (("0.1", "a"), 0.72), (("1", "a"), 0.71), (("0.01", "b"), 0.69), (("1", "b"), 0.75)],
    spreads=[None] * 5,
    orders=[["0.01", "0.1", "1"], ["a", "b"]],
    metric="AUC",
    higher=True,
    best=4,
    rivals=[("alone", [0.685] * 5), ("far", [0.2] * 5), ("pooled", [0.7, 0.71, 0.72, 0.7, 0.76])],
)


def texts(drawing: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing)


def test_a_line_for_each_value_of_the_other_key() -> None:
    drawing = str(along("one", GRID, 0))
    assert {"kind a", "kind b", "rate", "AUC", "0.01", "0.1", "1", "alone"} <= set(texts(drawing))
    assert not {"far", "pooled"} & set(texts(drawing))  # out of reach; not one height, and several lines
    assert "kind a: 0.01 0.7000, 0.1 0.7200, 1 0.7100; kind b: 0.01 0.6900, 1 0.7500" in drawing


def test_with_one_key_other_models_are_lines_along_it() -> None:
    grid = Grid(
        labels=["alpha"],
        points=[(("1",), 0.70), (("10",), 0.72), (("100",), 0.73)],
        spreads=[None] * 3,
        orders=[["1", "10", "100"]],
        metric="AUC",
        higher=True,
        best=2,
        rivals=[("alone", [0.71, 0.712, 0.714]), ("pooled", [0.73, 0.73, 0.74])],
    )
    assert {"alone", "pooled", "federated"} <= set(texts(str(along("five", grid, 0))))


def test_a_map_says_each_cell_and_what_is_missing() -> None:
    drawing = str(over("two", GRID, 0, 1))
    assert {"0.7000", "0.7200", "0.7100", "0.6900", "0.7500", "–"} <= set(texts(drawing)) | {
        f"{float(one):.4f}" for one in texts(drawing) if re.fullmatch(r"0\.\d{3}", one)
    }
    assert drawing.count("#e69f00") == 1


def test_what_nothing_cheaper_reaches() -> None:
    drawing, frontier = price("three", GRID, [5e6, 7e6, 6e6, 4e6, 9e6], "Sent", size)
    assert frontier == [3, 0, 2, 1, 4]
    assert "0.01, b: 0.6900 for 4.0 MB" in str(drawing)
    lower = Grid(**{**{name: getattr(GRID, name) for name in GRID.__dataclass_fields__}, "higher": False, "best": 3})
    assert price("four", lower, [5e6, 7e6, 6e6, 4e6, 9e6], "Sent", size)[1] == [3]


@pytest.mark.parametrize(
    ("value", "span", "text"),
    [
        (0.70123, 0.02, "0.701"),
        (0.70123, 0.0004, "0.70123"),
        (0.7, 0.5, "0.70"),
        (1234.5, 800.0, "1,234"),
        (12.0, 11.0, "12.00"),
    ],
)
def test_digits_follow_the_span(value: float, span: float, text: str) -> None:
    assert number(value, span) == text
