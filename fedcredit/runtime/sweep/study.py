"""A finished sweep as tables and pages show it, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fedcredit.runtime.provenance import commit, versions
from fedcredit.runtime.sweep.compare import Against, against_best, best_of
from fedcredit.runtime.sweep.plan import SweepPlan
from fedcredit.runtime.sweep.results import Combination, Metric, combinations, results, write_results
from fedcredit.runtime.sweep.runs import RUNS, Ended

__all__ = ["Study", "write_study"]


@dataclass(frozen=True)
class Study:
    """A sweep and what came of it.

    Args:
        plan: What was asked.
        ended: How each run ended, in the order of the plan.
        metric: The figure that combinations are compared by.
        others: Figures that are shown beside it.
        combinations: In the order of the plan.
        best: The best of them; None where no run has the figure.
        against: Each of them against the best, in the same order; None where it lacks the figure.
        rows: One row a run.
    """

    plan: SweepPlan
    ended: tuple[Ended, ...]
    metric: Metric
    others: tuple[Metric, ...]
    combinations: tuple[Combination, ...]
    best: Combination | None
    against: tuple[Against | None, ...]
    rows: pl.DataFrame

    @classmethod
    def of(cls, plan: SweepPlan, ended: Sequence[Ended], metrics: Sequence[Metric]) -> Study:
        """From the runs; the first figure is the one to compare by."""
        by = metrics[0]
        found = combinations(ended, by)
        best = best_of(found, by)
        against = tuple(None if best is None or not one.found else against_best(one, best, by) for one in found)
        rows = results(plan, ended)
        return cls(plan, tuple(ended), by, tuple(metrics[1:]), tuple(found), best, against, rows)

    @property
    def ranked(self) -> list[tuple[Combination, Against | None]]:
        """The best first; those without the figure last."""
        pairs = list(zip(self.combinations, self.against, strict=True))
        return sorted(pairs, key=lambda pair: self.metric.best_first(pair[0].mean))

    @property
    def done(self) -> list[Ended]:
        """Runs that have a run directory."""
        return [one for one in self.ended if one.folder is not None]

    @property
    def missing(self) -> list[Ended]:
        """Runs that have none."""
        return [one for one in self.ended if one.folder is None]

    @property
    def problems(self) -> list[tuple[str, str, list[str]]]:
        """How runs without a run directory ended, why, and the names of those that did for the same reason."""
        groups: dict[tuple[str, str], list[str]] = {}
        for one in self.missing:
            groups.setdefault((one.status, one.error), []).append(one.point.name)
        return [(status, error, names) for (status, error), names in groups.items()]

    @property
    def tied(self) -> int:
        """Combinations besides the best that cannot be told from it."""
        pairs = zip(self.combinations, self.against, strict=True)
        return sum(one is not self.best and against is not None and against.tied for one, against in pairs)

    def figure(self, name: str) -> float | None:
        """A figure that is the same in all runs; None where it is not."""
        if name not in self.rows.columns or not self.rows[name].dtype.is_numeric():
            return None
        values = self.rows[name].drop_nulls()
        return float(values[0]) if len(values) == len(self.done) > 0 and values.n_unique() == 1 else None


def write_study(study: Study, folder: Path) -> None:
    """Writes ``results.csv``, ``results.parquet``, and ``sweep.json``: what was asked and how each run ended."""
    write_results(study.rows, folder)
    plan = study.plan
    content = {
        "config": str(plan.config.resolve()),
        "fixed": list(plan.fixed),
        "varied": {one.key: list(one.values) for one in plan.varied},
        "seeds": list(plan.seeds),
        "seeded": list(plan.seeded),
        "metric": {"name": study.metric.name, "higher": study.metric.higher},
        "runs": [
            {
                "name": one.point.name,
                "folder": None if one.folder is None else f"{RUNS}/{one.folder.name}",
                "set": list(one.point.overrides),
                "spec_digest": one.point.digest or None,
                "status": one.status,
                "error": one.error or None,
            }
            for one in study.ended
        ],
        "versions": versions(),
        "git": commit(),
    }
    temporary = folder / ".sweep.json.new"
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / "sweep.json")
