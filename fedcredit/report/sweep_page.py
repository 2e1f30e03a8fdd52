"""Makes ``sweep.html`` from a sweep: one file with charts and tables, nothing fetched, no script."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

import fedcredit
from fedcredit.errors import FedCreditError
from fedcredit.report.attention import alarms
from fedcredit.report.build import render, write_page
from fedcredit.report.read import read_settings
from fedcredit.report.sweep_charts import MOST_LINES, Grid, along
from fedcredit.report.sweep_maps import over, price
from fedcredit.report.words import count, decimals, duration, figures, join, model_name, signed, size
from fedcredit.runtime.sweep.compare import Against
from fedcredit.runtime.sweep.plan import shown
from fedcredit.runtime.sweep.results import Combination, Metric
from fedcredit.runtime.sweep.runs import RUNS, Ended
from fedcredit.runtime.sweep.study import Study

__all__ = ["build_sweep_page"]

_FILE: Final = "sweep.html"
_MOST_MAPS: Final = 6
_SENT: Final = "bytes_sent.total"
_MUCH_LESS: Final = 0.8
_PRICED: Final = 1.05  # costs that differ by less are the same
_WORDS: Final = {
    "auc_test": "AUC on held-out rows",
    "ks_test": "KS on held-out rows",
    "brier_test": "Brier score on held-out rows",
    "ece_test": "Calibration error on held-out rows",
    "seconds.total": "Seconds",
    _SENT: "Bytes sent by all parties",
}
_RIVALS: Final = (
    ("alone", ("auc_label_holder_alone", "metrics.alone.auc")),
    ("pooled", ("auc_pooled_reference", "metrics.pooled_plaintext.auc")),
)
_EQUAL: Final = ("scores_equal_pooled_plaintext", "model_equals_pooled_plaintext", "model_equals_plain_sums")
_ROW_COSTS: Final = (
    ("seconds", "seconds.total"),
    ("sent", "bytes_sent.total"),
    ("equations a feature", "disclosure.equations_per_feature"),
    ("bits a row", "disclosure.bits_per_row"),
)


@dataclass(frozen=True)
class _Line:
    """A row of the table of combinations, as printed."""

    values: Sequence[str]
    figure: str
    bar: float
    spread: str
    against: str
    tied: bool
    behind: bool
    best: bool
    others: Sequence[str]
    costs: Sequence[str]
    links: Sequence[tuple[str, str]]
    problem: str


def build_sweep_page(study: Study, folder: Path) -> Path:
    """Write ``sweep.html``; an older one is replaced whole.

    Args:
        study: The sweep.
        folder: Where its run directories are.

    Returns:
        The file written.

    Raises:
        DataError: it cannot be written.
    """
    view = {
        "title": f"{study.plan.title}: {len(study.ended)} runs",
        "study": study,
        "model": join(sorted({model_name(str(one.summary.get("model"))) for one in study.done})),
        "keys": [(one.key, ", ".join(shown(value) for value in one.values)) for one in study.plan.varied],
        "fixed": [one.partition("=")[::2] for one in study.plan.fixed],
        "verdict": _verdict(study),
        "sentences": _sentences(study),
        "tiles": _tiles(study),
        "unencrypted": sum(not one.summary.get("encryption", {}).get("enabled", True) for one in study.done),
        "unprotected": _unprotected(study.done),
        "unequal": sum(any(one.summary.get(key) is False for key in _EQUAL) for one in study.done),
        "charts": _charts(study),
        "words": figure_words,
        "numeric": [study.rows[one.key].dtype.is_numeric() for one in study.plan.varied],
        "lines": _lines(study),
        "costs": [name for name, _ in _costs(study)],
        "margins": any(one is not None and one.margin is not None for one in _others(study)),
        "command": _command(study, folder),
        "product": fedcredit.__version__,
    }
    return write_page(folder / _FILE, render("sweep.html.j2", view))


def figure_words(name: str) -> str:
    """A figure in words, or by its name where there are none."""
    return _WORDS.get(name, name)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return decimals(value, 4) if abs(value) < 10 else figures(value, 4)


def _setting(study: Study, one: Combination) -> str:
    pairs = zip(study.plan.varied, one.values, strict=True)
    return ", ".join(f"{varied.label} = {value}" for varied, value in pairs) or "the configuration as it is"


def _verdict(study: Study) -> str:
    if study.best is None:
        return "No run has a result."
    return f"Best {study.metric.name}: {_number(study.best.mean)}, with {_setting(study, study.best)}."


def _sentences(study: Study) -> list[str]:
    """How far to trust the order."""
    told = []
    compared = [one for one in study.combinations if one.found]
    if len(compared) < 2 or study.best is None:
        return []
    others = len(compared) - 1
    if study.tied:
        most = {1: "The other one", 2: "Both others"}.get(others, f"All {others} others")
        many = most if study.tied == others else f"{study.tied} of {others} others"
        told.append(f"{many} may well be as good: the 95 % interval of the difference includes zero.")
        told += _cheaper(study)
    elif all(one is None or one.margin is not None for one in study.against):
        told.append("It can be told from every other combination: no 95 % interval of a difference includes zero.")
    told.append(
        f"The best of {len(compared)} was chosen on the held-out rows themselves, so its figure flatters it: confirm "
        "it on rows that no run has seen before you quote it."
    )
    return told


def _cheaper(study: Study) -> list[str]:
    """The combination that sends least among those that may be as good as the best, if that is much less."""
    pairs = zip(study.combinations, study.against, strict=True)
    good = [one for one, against in pairs if against is not None and (one is study.best or against.tied)]
    if study.best is None or any(math.isnan(one.mean_of(_SENT)) for one in good):
        return []
    least, usual = min(good, key=lambda one: one.mean_of(_SENT)), study.best.mean_of(_SENT)
    sent = least.mean_of(_SENT)
    if sent > _MUCH_LESS * usual:
        return []
    return [f"Of these, {_setting(study, least)} sends least: {size(sent)} a run, the best {size(usual)}."]


def _tiles(study: Study) -> list[tuple[str, str, str]]:
    """Title, figure and note."""
    tiles = [("Runs", count(len(study.done)), f"of {count(len(study.ended))}; {count(len(study.missing))} missing")]
    means = [one.mean for one in study.combinations if one.found]
    if study.best is not None:
        ends = (max(means), min(means)) if study.metric.higher else (min(means), max(means))
        tiles.append((f"Best {study.metric.name}", _number(ends[0]), study.metric.direction))
        tiles.append(("Worst", _number(ends[1]), f"{signed(ends[1] - ends[0], 4)} from the best"))
    if study.plan.seeds:
        tiles.append(("Seeds", count(len(study.plan.seeds)), f"of {join([*study.plan.seeded])}"))
    rows, bads = study.figure("rows_test"), study.figure("positives_test")
    if rows is not None:
        tiles.append(
            ("Held-out rows", count(rows), f"{count(bads)} bad; the same in all runs" if bads else "in all runs")
        )
    for name, key in (("label holder alone", "auc_label_holder_alone"), ("pooled reference", "auc_pooled_reference")):
        found = study.figure(key)
        if study.metric.name == "auc_test" and found is not None:
            tiles.append((f"AUC, {name}", decimals(found, 4), "the same in all runs"))
    spent = [value for one in study.done if (value := one.summary.get("seconds", {}).get("total")) is not None]
    tiles.append(("Computing", duration(sum(spent)), f"{duration(max(spent))} the longest run" if spent else ""))
    return tiles


def _unprotected(done: Sequence[Ended]) -> list[tuple[str, str, int]]:
    """What specifications switch off: heading, sentence, and in how many runs."""
    found: dict[tuple[str, str], int] = {}
    for one in done:
        if one.folder is None:
            continue
        try:
            off = alarms(read_settings(one.folder), str(one.summary.get("bank", "the label holder")))
        except FedCreditError:
            continue
        for alarm in off:
            found[alarm] = found.get(alarm, 0) + 1
    return [(heading, sentence, runs) for (heading, sentence), runs in found.items()]


def _grid(study: Study, by: Metric) -> Grid | None:
    found = [one for one in study.combinations if one.found]
    values = [one.mean if by is study.metric else one.mean_of(by.name) for one in found]
    kept = [(one, value) for one, value in zip(found, values, strict=True) if not math.isnan(value)]
    if len(kept) < 2:
        return None
    best = min(range(len(kept)), key=lambda place: by.best_first(kept[place][1]))
    return Grid(
        labels=[one.label for one in study.plan.varied],
        points=[(one.values, value) for one, value in kept],
        spreads=[one.spread if by is study.metric else None for one, _ in kept],
        orders=_orders(study, [one for one, _ in kept]),
        metric=figure_words(by.name),
        higher=by.higher,
        best=best,
        rivals=_rivals([one for one, _ in kept]) if by.name == "auc_test" else (),
    )


def _rivals(found: Sequence[Combination]) -> list[tuple[str, list[float]]]:
    """AUC of other models in each combination, where every run has it."""
    rivals = []
    for name, keys in _RIVALS:
        each = ([one.mean_of(key) for one in found] for key in keys)
        values = next((values for values in each if not any(math.isnan(value) for value in values)), None)
        if values is not None:
            rivals.append((name, values))
    return rivals


def _orders(study: Study, found: Sequence[Combination]) -> list[list[str]]:
    """Values of each key that some combination has, numbers by size."""
    orders = []
    for place, varied in enumerate(study.plan.varied):
        there = {one.values[place] for one in found}
        order = [text for value in varied.values if (text := shown(value)) in there]
        with contextlib.suppress(ValueError):
            order.sort(key=float)
        orders.append(order)
    return orders


def _charts(study: Study) -> list[tuple[Metric, list[tuple[Markup, str]]]]:
    """For each figure its charts with captions."""
    all_charts = []
    for place, by in enumerate((study.metric, *study.others)):
        grid = _grid(study, by)
        if grid is None:
            continue
        varied = [key for key, order in enumerate(grid.orders) if len(order) > 1]
        charts = [(along(f"along-{place}-{key}", grid, key), _caption(grid, key)) for key in varied]
        beyond = ", the best over the other keys in each cell" if len(grid.labels) > 2 else ""
        charts += [
            (
                over(f"over-{place}-{across}-{down}", grid, across, down),
                f"Darker is better{beyond}. The best is framed.",
            )
            for down, across in list(itertools.combinations(varied, 2))[:_MOST_MAPS]
        ]
        charts += _price(study, grid, f"price-{place}")
        if charts:
            all_charts.append((by, charts))
    return all_charts


def _price(study: Study, grid: Grid, name: str) -> list[tuple[Markup, str]]:
    """What combinations reach for what they send; nothing where it is the same for all, or the figure itself is it."""
    by_values = {one.values: one.mean_of(_SENT) for one in study.combinations}
    costs = [by_values[values] for values, _ in grid.points]
    if any(math.isnan(one) for one in costs) or max(costs) < _PRICED * min(costs) or grid.metric == _WORDS[_SENT]:
        return []
    chart, frontier = price(name, grid, costs, "Sent by all parties", size)
    told = "The ring marks the best." if len(frontier) == 1 else "Blue: reached by nothing that sends less."
    return [(chart, f"Every dot a combination. {told}")]


def _caption(grid: Grid, key: int) -> str:
    others = [place for place in range(len(grid.labels)) if place != key]
    parts = []
    if len(others) == 1 and len(grid.orders[others[0]]) <= MOST_LINES:
        pass
    elif others:
        parts.append("Every dot a combination, the line through their means.")
    if any(grid.spreads):
        parts.append("Bars: standard deviation over the seeds.")
    parts.append("The ring marks the best.")
    return " ".join(parts)


def _costs(study: Study) -> list[tuple[str, str]]:
    """What runs cost, in words and as a figure; what is nothing in every run is left out."""
    there = [(name, key) for name, key in _ROW_COSTS if key in study.rows.columns]
    return [(name, key) for name, key in there if (study.rows[key].drop_nulls() != 0).any()]


def _others(study: Study) -> list[Against | None]:
    """Every combination but the best, against the best."""
    pairs = zip(study.combinations, study.against, strict=True)
    return [against for one, against in pairs if one is not study.best]


def _lines(study: Study) -> list[_Line]:
    means = [one.mean for one in study.combinations if one.found]
    costs = [key for _, key in _costs(study)]
    return [_line(study, one, against, means, costs) for one, against in study.ranked if one.found]


def _line(
    study: Study, one: Combination, against: Against | None, means: Sequence[float], costs: Sequence[str]
) -> _Line:
    low, high = min(means), max(means)
    share = 1.0 if high == low else (one.mean - low) / (high - low)
    share = share if study.metric.higher else 1.0 - share
    margin = "" if against is None or against.margin is None else f" ± {decimals(against.margin, 4)}"
    best = one is study.best
    return _Line(
        values=one.values,
        figure=_number(one.mean),
        bar=round(max(1.0, 100 * share), 1),
        spread=_number(one.spread),
        against="best" if best else "–" if against is None else f"{signed(against.difference, 4)}{margin}",
        tied=not best and against is not None and against.tied,
        behind=against is not None and against.margin is not None and not against.tied,
        best=best,
        others=[_number(one.mean_of(other.name)) for other in study.others],
        costs=[_cost(key, one.mean_of(key)) for key in costs],
        links=[_link(run) for run in one.runs if run.folder is not None],
        problem=one.problem,
    )


def _cost(key: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    if key == "bytes_sent.total":
        return size(value)
    return decimals(value, 1) if key == "seconds.total" else figures(value, 3)


def _link(run: Ended) -> tuple[str, str]:
    name = "" if run.folder is None else run.folder.name
    return ("report" if run.point.seed is None else str(run.point.seed), f"{RUNS}/{quote(name)}/report.html")


def _command(study: Study, folder: Path) -> str:
    """The command line that makes this sweep again."""
    plan = study.plan
    words = ["fedcredit", "sweep", str(plan.config)]
    for text in (*plan.fixed, *(f"{one.key}={','.join(one.values)}" for one in plan.varied)):
        words += ["--set", f"'{text}'" if set(text) & set(' "[]{}$;&|<>*?()') else text]
    if plan.seeds:
        words += ["--seeds", ",".join(map(str, plan.seeds))]
    for one in (study.metric, *study.others):
        words += ["--metric", one.name]
    return " ".join([*words, "--out", str(folder)])
