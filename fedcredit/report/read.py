"""Reads a run directory: only the files a party may see, each one checked before a word of it is shown.

The files are declared as structs. What a struct does not name is not read; a file that does not fit its struct is
refused by name, with the place inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.report.files import Leakage, Scorecard, Sent, Summary

__all__ = [
    "Predictions",
    "party_names",
    "read_heads",
    "read_leakage",
    "read_predictions",
    "read_scorecard",
    "read_summary",
    "read_transcript",
]

_NEEDED: Final = ("label", "score", "probability")
_ALONE: Final = "score_alone"
_SAMPLE: Final = "sample_probability"

T = TypeVar("T")
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
        alone: float64 (n,), the label holder's own scorecard, higher is safer; None if the run made none.
    """

    bad: Ints
    score: Floats
    probability: Floats
    alone: Floats | None


def _bytes(path: Path, run: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        name = path.relative_to(run).as_posix()
        raise DataError(
            "report.missing-file",
            f"run directory {run}: {name} is missing or cannot be read; a finished run has it",
            str(error),
        ) from error


def _decode(data: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # The text of the error names a place and a type; it never repeats a value of the file.
        raise DataError("report.damaged-file", f"{name} is damaged: {error}") from error


def read_summary(run: Path) -> Summary:
    """The run's summary.

    Raises:
        DataError: summary.json is missing or does not fit.
    """
    return _decode(_bytes(run / "summary.json", run), Summary, "summary.json")


def party_names(summary: Summary) -> tuple[str, ...]:
    """Parties of the run, the label holder first, the others in the order of the summary."""
    others = [name for name in summary.parties if name != summary.bank]
    return (summary.bank, *others)


def read_scorecard(run: Path, party: str) -> Scorecard:
    """One party's own part of the model; no other party's file is opened.

    Args:
        run: Run directory.
        party: A party that is known to be in the run.

    Raises:
        DataError: The file is missing, does not fit, or is another party's.
    """
    name = f"model/{party}/scorecard.json"
    card = _decode(_bytes(run / "model" / party / "scorecard.json", run), Scorecard, name)
    if card.party != party:
        raise DataError("report.damaged-file", f"{name} says that it is another party's; it must say {party!r}")
    return card


def read_predictions(run: Path) -> Predictions:
    """Held-out rows with label, points, probability and the label holder's own score.

    Raises:
        DataError: The file is missing, damaged, empty, lacks a column, or a column holds what it may not.
    """
    name = "predictions.parquet"
    data = _bytes(run / name, run)
    try:
        held = set(pl.read_parquet_schema(data))
        wanted: list[str] = [column for column in (*_NEEDED, _ALONE, _SAMPLE) if column in held]
        frame = pl.read_parquet(data, columns=wanted)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError("report.damaged-file", f"{name} is damaged: it is not a readable Parquet file") from error
    if missing := [column for column in _NEEDED if column not in held]:
        raise DataError("report.damaged-file", f"{name} has no column {missing[0]!r}")
    if frame.height == 0:
        raise DataError("report.damaged-file", f"{name} has no rows; at least one good and one bad are needed")
    bad = _column(frame, "label", name)
    if set(np.unique(bad)) != {0.0, 1.0}:
        raise DataError("report.damaged-file", f"{name}: column 'label' must hold both 0 and 1 and nothing else")
    column = _SAMPLE if _SAMPLE in held else "probability"
    probability = _column(frame, column, name)
    if probability.min() < 0 or probability.max() > 1:
        raise DataError("report.damaged-file", f"{name}: column {column!r} leaves the range 0 to 1")
    has_alone = _ALONE in held and frame[_ALONE].null_count() < frame.height
    return Predictions(
        bad.astype(np.int64),
        _column(frame, "score", name),
        probability,
        _column(frame, _ALONE, name) if has_alone else None,
    )


def _column(frame: pl.DataFrame, column: str, name: str) -> Floats:
    series = frame[column]
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise DataError("report.damaged-file", f"{name}: column {column!r} must be numbers, it is {series.dtype}")
    values = series.cast(pl.Float64).to_numpy()
    if series.null_count() or not np.isfinite(values).all():
        raise DataError("report.damaged-file", f"{name}: column {column!r} has a missing or infinite entry")
    return np.asarray(values, dtype=np.float64)


def read_leakage(run: Path) -> Leakage:
    """What each party learned, step by step, and the disclosure ledgers.

    Raises:
        DataError: leakage.json is missing or does not fit.
    """
    return _decode(_bytes(run / "leakage.json", run), Leakage, "leakage.json")


def read_transcript(run: Path) -> tuple[Sent, ...]:
    """Every message of the run in order: who, to whom, of what kind, how large.

    Raises:
        DataError: transcript.jsonl is missing, or a line does not fit (named by its number).
    """
    data = _bytes(run / "transcript.jsonl", run)
    decoder = msgspec.json.Decoder(Sent)
    sent: list[Sent] = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            sent.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError("report.damaged-file", f"transcript.jsonl line {number} is damaged: {error}") from error
    return tuple(sent)


def read_heads(run: Path) -> dict[str, str]:
    """Head of each party's audit chain, in hexadecimal, by party name.

    Raises:
        DataError: audit/heads.json is missing or does not fit.
    """
    name = "audit/heads.json"
    heads = _decode(_bytes(run / "audit" / "heads.json", run), dict[str, str], name)
    return dict(sorted(heads.items()))
