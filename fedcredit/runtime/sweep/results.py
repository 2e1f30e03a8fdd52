"""What a sweep found: one row a run with every figure of its summary, and the combinations in order of one figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import polars as pl

from fedcredit.errors import SpecError
from fedcredit.runtime.sweep.plan import SweepPlan, shown, typed
from fedcredit.runtime.sweep.runs import Ended
from fedcredit.spec.rules import nearest

__all__ = [
    "Combination",
    "Metric",
    "combinations",
    "figures",
    "known_figures",
    "metric",
    "results",
    "unknown_figure",
    "write_results",
]

_PER_PARTY = ("bytes_sent", "cpu_seconds")
_NO_FIGURES = frozenset({"versions", "git", "encryption", "split", "align", "parties", "protocol", "network"})
_DEEPEST = 3
_LOWER = (
    "brier",
    "ece",
    "loss",
    "seconds",
    "bytes",
    "messages",
    "rss",
    "epsilon",
    "error",
    "leak",
    "disclos",
    "equations",
    "bits",
    "returned",
    "thresholds",
    "difference",
)


@dataclass(frozen=True)
class Metric:
    """A figure that runs are compared by.

    Args:
        name: As in the columns of the results, such as ``auc_test``.
        higher: Whether more is better.
    """

    name: str
    higher: bool

    @property
    def direction(self) -> str:
        """In words."""
        return "higher is better" if self.higher else "lower is better"

    def best_first(self, value: float) -> float:
        """Key to sort by; what is not there comes last."""
        return math.inf if math.isnan(value) else -value if self.higher else value


@dataclass(frozen=True)
class Combination:
    """All runs with the same values of the varied keys, one for each seed.

    Args:
        values: The values, as people read them.
        runs: How its runs ended.
        found: The figure of each run that has it.
    """

    values: tuple[str, ...]
    runs: tuple[Ended, ...]
    found: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds; not a number where there is none."""
        return fmean(self.found) if self.found else math.nan

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None below two."""
        return stdev(self.found) if len(self.found) > 1 else None

    @property
    def problem(self) -> str:
        """Why a run is missing; empty where none is."""
        return next((one.error for one in self.runs if one.error), "")

    def mean_of(self, name: str) -> float:
        """Mean of another figure over the seeds; not a number where no run has it."""
        found = [value for one in self.runs if (value := figures(one.summary).get(name)) is not None]
        return fmean(found) if found else math.nan


def metric(text: str) -> Metric:
    """A figure from its name; which way is better follows from it, or from ``:min`` or ``:max`` behind it.

    Raises:
        SpecError: something else stands behind it.
    """
    name, colon, way = text.partition(":")
    if colon and way not in {"min", "max"}:
        raise SpecError("sweep.metric", f"--metric {text}: write :min or :max behind a figure, or nothing")
    lower = way == "min" if colon else any(word in name.lower() for word in _LOWER)
    return Metric(name.strip(), not lower)


def figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every single number and yes or no of a summary, by the keys that lead to it joined by dots.

    What is told party by party is left out, but for the totals of bytes sent and processor seconds.
    """
    found: dict[str, float] = {}
    _flatten(summary, "", _DEEPEST, frozenset(summary.get("parties", ())), found)
    for name in _PER_PARTY:
        each = summary.get(name)
        if isinstance(each, Mapping) and each:
            found[f"{name}.total"] = sum(each.values())
    return found


def _flatten(
    content: Mapping[str, Any], above: str, levels: int, parties: frozenset[str], found: dict[str, float]
) -> None:
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, (bool, int, float)) and math.isfinite(value):
            found[name] = value
        elif isinstance(value, Mapping) and levels > 1 and key not in _NO_FIGURES and not parties & value.keys():
            _flatten(value, f"{name}.", levels - 1, parties, found)


def known_figures(ended: Sequence[Ended]) -> list[str]:
    """Figures that at least one run has, in the order of the summaries."""
    names: dict[str, None] = {}
    for one in ended:
        names.update(dict.fromkeys(figures(one.summary)))
    return list(names)


def unknown_figure(wanted: Metric, ended: Sequence[Ended]) -> SpecError:
    """The error of a figure that no run has."""
    hint = nearest(wanted.name, known_figures(ended))
    return SpecError("sweep.metric", f"--metric {wanted.name}: no run has such a figure; {hint}")


def results(plan: SweepPlan, ended: Sequence[Ended]) -> pl.DataFrame:
    """One row a run: its name, how it ended, its values, its figures, what it is, and its error."""
    columns: dict[str, list[Any]] = {
        "run": [one.point.name for one in ended],
        "status": [one.status for one in ended],
    }
    for place, varied in enumerate(plan.varied):
        columns[varied.key] = _column([one.point.values[place] for one in ended])
    if plan.seeds:
        columns["seed"] = [one.point.seed for one in ended]
    rows = [(figures(one.summary), one) for one in ended]
    for name in known_figures(ended):
        values = [found.get(name) for found, _ in rows]
        whole = all(isinstance(value, int) for value in values if value is not None)
        truth = all(isinstance(value, bool) for value in values if value is not None)
        number = float if not whole else bool if truth else int
        columns[name if name not in columns else f"summary.{name}"] = [
            None if value is None else number(value) for value in values
        ]
    columns["wall_seconds"] = [round(one.seconds, 3) if one.seconds else None for one in ended]
    columns["spec_digest"] = [one.point.digest or None for one in ended]
    columns["run_id"] = [one.summary.get("run_id") for one in ended]
    columns["error"] = [one.error or None for one in ended]
    return pl.DataFrame(columns)


def _column(texts: Sequence[str]) -> list[Any]:
    """Numbers where all are numbers, else texts."""
    values = [typed(text) for text in texts]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        whole = all(isinstance(value, int) for value in values)
        return values if whole else [float(value) for value in values]
    return values if all(isinstance(value, bool) for value in values) else [shown(text) for text in texts]


def write_results(frame: pl.DataFrame, folder: Path) -> None:
    """Writes ``results.csv`` and ``results.parquet``, each whole or not at all."""
    for name, write in (("results.csv", frame.write_csv), ("results.parquet", frame.write_parquet)):
        temporary = folder / f".{name}.new"
        write(temporary)
        temporary.replace(folder / name)


def combinations(ended: Sequence[Ended], by: Metric) -> list[Combination]:
    """The combinations in the order of the plan."""
    groups: dict[tuple[str, ...], list[Ended]] = {}
    for one in ended:
        groups.setdefault(one.point.values, []).append(one)
    return [
        Combination(
            tuple(shown(text) for text in values),
            tuple(runs),
            tuple(value for one in runs if (value := figures(one.summary).get(by.name)) is not None),
        )
        for values, runs in groups.items()
    ]
