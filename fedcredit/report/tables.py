"""Reads the tables of a run directory: held-out predictions, and the reasons for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.report.read import damaged, file_bytes

__all__ = ["Predictions", "Reasons", "read_ids", "read_predictions", "read_reasons"]

_NEEDED: Final = ("label", "score", "probability")
_ALONE: Final = "score_alone"
_SAMPLE: Final = "sample_probability"
_PREDICTIONS: Final = "predictions.parquet"
_REASONS: Final = "explanations.parquet"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The held-out rows, without their ids.

    Args:
        bad: int64 (n,), 1 = the enterprise defaulted.
        score: float64 (n,), points of all parties together; higher is safer.
        probability: float64 (n,) of bad, in [0, 1], among rows sampled like these; where the run states a true bad rate
            this is not the probability it shifts to that rate.
        alone: float64 (n,), the label holder's own score, higher is safer; None if the run made none.
    """

    bad: Ints
    score: Floats
    probability: Floats
    alone: Floats | None

    @property
    def risk(self) -> Floats:
        """What rows are ordered by: the probability, because points may be rounded."""
        return self.probability


@dataclass(frozen=True, eq=False)
class Reasons:
    """Why the risk of held-out rows is what it is: the features that raise it most.

    Args:
        row: int64 (m,), place of the row among the predictions.
        feature: int64 (m,), place of the feature in the model.
        rank: int64 (m,), 1 = raises the row's risk most.
        contribution: float64 (m,), log-odds of default.
    """

    row: Ints
    feature: Ints
    rank: Ints
    contribution: Floats


def read_predictions(run: Path) -> Predictions:
    """Held-out rows with label, points, probability and the label holder's own score.

    Raises:
        DataError: The file is missing, damaged, empty, lacks a column, or a column holds what it may not.
    """
    frame = _frame(run, _PREDICTIONS, _NEEDED, (_ALONE, _SAMPLE))
    if frame.height == 0:
        raise damaged(f"{_PREDICTIONS} has no rows; at least one good and one bad are needed")
    bad = _column(frame, "label", _PREDICTIONS)
    if set(np.unique(bad)) != {0.0, 1.0}:
        raise damaged(f"{_PREDICTIONS}: column 'label' must hold both 0 and 1 and nothing else")
    column = _SAMPLE if _SAMPLE in frame.columns else "probability"
    probability = _column(frame, column, _PREDICTIONS)
    if probability.min() < 0 or probability.max() > 1:
        raise damaged(f"{_PREDICTIONS}: column {column!r} leaves the range 0 to 1")
    has_alone = _ALONE in frame.columns and frame[_ALONE].null_count() < frame.height
    return Predictions(
        bad.astype(np.int64),
        _column(frame, "score", _PREDICTIONS),
        probability,
        _column(frame, _ALONE, _PREDICTIONS) if has_alone else None,
    )


def read_ids(run: Path) -> list[str]:
    """Ids of the held-out rows, in the order of the predictions.

    Raises:
        DataError: The file is missing or damaged, or two rows have one id.
    """
    ids = _texts(_frame(run, _PREDICTIONS, ("id",)), "id", _PREDICTIONS)
    if ids.n_unique() != len(ids):
        raise damaged(f"{_PREDICTIONS}: column 'id' names a row twice")
    return ids.to_list()


def read_reasons(run: Path, ids: list[str], features: Mapping[tuple[str, str], int]) -> Reasons:
    """The reasons for the held-out rows.

    Args:
        run: Run directory.
        ids: Ids of the predictions, in their order.
        features: Place of each feature of the model, by owner and code.

    Raises:
        DataError: The file is missing or damaged, or speaks of a row or a feature that is not in the run.
    """
    frame = _frame(run, _REASONS, ("id", "rank", "owner", "feature", "contribution"))
    places = {name: place for place, name in enumerate(ids)}
    owners, codes = (_texts(frame, column, _REASONS).to_list() for column in ("owner", "feature"))
    rows = [places.get(name) for name in _texts(frame, "id", _REASONS).to_list()]
    found = [features.get(pair) for pair in zip(owners, codes, strict=True)]
    if None in rows:
        raise damaged(f"{_REASONS}: column 'id' names a row that {_PREDICTIONS} has not")
    if None in found:
        raise damaged(f"{_REASONS}: columns 'owner' and 'feature' name a feature that the model has not")
    rank = _column(frame, "rank", _REASONS)
    if rank.size and rank.min() < 1:
        raise damaged(f"{_REASONS}: column 'rank' must count from 1")
    return Reasons(
        np.array(rows, dtype=np.int64),
        np.array(found, dtype=np.int64),
        rank.astype(np.int64),
        _column(frame, "contribution", _REASONS),
    )


def _frame(run: Path, name: str, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> pl.DataFrame:
    data = file_bytes(run / name, run)
    try:
        held = set(pl.read_parquet_schema(data))
        frame = pl.read_parquet(data, columns=[column for column in (*needed, *optional) if column in held])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(f"{name} is damaged: it is not a readable Parquet file") from error
    if missing := [column for column in needed if column not in held]:
        raise damaged(f"{name} has no column {missing[0]!r}")
    return frame


def _texts(frame: pl.DataFrame, column: str, name: str) -> pl.Series:
    series = frame[column]
    if series.dtype != pl.String or series.null_count():
        raise damaged(f"{name}: column {column!r} must be text in every row")
    return series


def _column(frame: pl.DataFrame, column: str, name: str) -> Floats:
    series = frame[column]
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise damaged(f"{name}: column {column!r} must be numbers, it is {series.dtype}")
    values = series.cast(pl.Float64).to_numpy()
    if series.null_count() or not np.isfinite(values).all():
        raise damaged(f"{name}: column {column!r} has a missing or infinite entry")
    return np.asarray(values, dtype=np.float64)
