"""Whether a combination of a sweep can be told from the best one, or differs from it by luck alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import NormalDist, fmean, variance

import numpy as np
import polars as pl
from scipy.special import stdtrit

from fedcredit.errors import DataError
from fedcredit.kernels.paired_auc import auc_difference
from fedcredit.runtime.sweep.results import Combination, Metric, figures
from fedcredit.runtime.sweep.runs import Ended

__all__ = ["CONFIDENCE", "Against", "against_best", "best_of"]

CONFIDENCE = 0.95
_LEAST_SEEDS = 3
_SCORED = "auc_test"
"""The figure that the predictions of a run give again, row by row."""


@dataclass(frozen=True)
class Against:
    """A combination against the best one.

    Args:
        difference: Its figure less that of the best.
        margin: Half of the interval at `CONFIDENCE` around it; None where that is not known.
    """

    difference: float
    margin: float | None

    @property
    def tied(self) -> bool:
        """Whether it may well be as good."""
        return self.margin is not None and abs(self.difference) <= self.margin


def best_of(found: Sequence[Combination], by: Metric) -> Combination | None:
    """The combination with the best mean among those that lack no run; of equal ones the first."""
    whole = [one for one in found if one.found and not one.problem] or [one for one in found if one.found]
    return min(whole, key=lambda one: by.best_first(one.mean), default=None)


def against_best(one: Combination, best: Combination, by: Metric) -> Against:
    """How far a combination is from the best, with the luck of the held-out rows or of the seeds as margin.

    One run each: of the AUC, from the predictions of both on the same rows (DeLong). Three seeds or more: from the
    differences seed by seed, whose held-out rows overlap (Nadeau and Bengio's correction). Else none.
    """
    twins = _twins(one, best)
    differences = [figures(own.summary)[by.name] - figures(other.summary)[by.name] for own, other in twins]
    if not differences:
        return Against(one.mean - best.mean, None)
    if one is best or len(twins) < len(best.found):
        return Against(one.mean - best.mean, 0.0 if one is best else None)
    if len(differences) == 1:
        margin = _by_rows(*twins[0]) if by.name == _SCORED else None
        return Against(differences[0], margin)
    return Against(fmean(differences), _by_seeds(differences, [own for own, _ in twins]))


def _twins(one: Combination, best: Combination) -> list[tuple[Ended, Ended]]:
    """Runs of both with the same seed."""
    others = {run.point.seed: run for run in best.runs if run.folder is not None}
    return [(run, others[run.point.seed]) for run in one.runs if run.folder is not None and run.point.seed in others]


def _by_rows(own: Ended, other: Ended) -> float | None:
    """Margin from the predictions; None where there are none, or of other rows."""
    rows = [_predictions(one.folder) for one in (own, other)]
    if rows[0] is None or rows[1] is None or rows[0].height != rows[1].height:
        return None
    both = rows[0].join(rows[1], on=["id", "label"], suffix="_other", how="inner")
    if both.height != rows[0].height:
        return None
    risk, rival = (-both[name].to_numpy().astype(np.float64) for name in ("score", "score_other"))
    try:
        _, error = auc_difference(both["label"].to_numpy(), risk, rival)
    except DataError:
        return None
    return NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * error


def _predictions(folder: Path | None) -> pl.DataFrame | None:
    path = None if folder is None else folder / "predictions.parquet"
    if path is None or not path.is_file():
        return None
    try:
        frame = pl.read_parquet(path, columns=["id", "label", "score"])
    except (pl.exceptions.PolarsError, OSError):
        return None
    return frame if frame["id"].n_unique() == frame.height else None


def _by_seeds(differences: Sequence[float], runs: Sequence[Ended]) -> float | None:
    """Margin of a mean over seeds; repeated splits of one set overlap, so it shrinks less than by 1/n.

    Source: Nadeau & Bengio, "Inference for the Generalization Error" (2003), corrected resampled t-test.
    """
    if len(differences) < _LEAST_SEEDS:
        return None
    rows = [(found.get("rows_test", 0.0), found.get("rows_train", 0.0)) for found in (figures(r.summary) for r in runs)]
    if not all(train for _, train in rows):
        return None
    overlap = fmean(test / train for test, train in rows)
    error = sqrt(variance(differences) * (1 / len(differences) + overlap))
    return float(stdtrit(len(differences) - 1, 0.5 + CONFIDENCE / 2)) * error
