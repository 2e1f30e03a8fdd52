"""The public register of enterprises: ids that everyone may know, from a file with one column."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fedcredit.data.columns import to_ids
from fedcredit.data.formats import read_file
from fedcredit.data.places import expand
from fedcredit.errors import DataError
from fedcredit.kernels import uscc
from fedcredit.spec.model import RunSpec

__all__ = ["canonical_ids", "read_register", "register_of"]

_PLACE = "align.registry"


def read_register(path: Path, *, codes: bool) -> tuple[str, ...]:
    """Ids of a register, each once, in the order of the file.

    Args:
        path: CSV or Parquet with a header and one column of ids.
        codes: Whether they are Unified Social Credit Codes.

    Raises:
        DataError: not such a file; empty or repeated ids; codes whose check character does not fit. How many is said,
            never which.
    """
    frame = read_file(path, _PLACE).frame
    if frame.width != 1:
        right = f"{_PLACE}: {path} has {frame.width} columns; a register is one column of ids with a header"
        raise DataError("data.register", right)
    ids = to_ids(frame.to_series(), _PLACE)
    if codes:
        spelt = uscc.normalise(ids)
        if spelt.null_count():
            right = f"{_PLACE}: {spelt.null_count()} of {len(ids)} codes in {path} have a wrong check character"
            raise DataError("data.register", f"{right}; correct or remove them")
        ids = to_ids(spelt.rename(ids.name), _PLACE)
    return tuple(ids.to_list())


def register_of(spec: RunSpec, base: Path) -> tuple[str, ...] | None:
    """The register that a run names, if it does; raises as `read_register`.

    Args:
        spec: The run.
        base: Folder that a relative path is relative to.
    """
    if spec.align.registry is None:
        return None
    return read_register(base / expand(spec.align.registry, _PLACE), codes=spec.align.ids == "uscc")


def canonical_ids(frame: pl.DataFrame, column: str, place: str) -> pl.DataFrame:
    """Rows whose id is a Unified Social Credit Code, in its canonical spelling; the others are left out.

    Raises:
        DataError: no row has one.
    """
    codes = uscc.normalise(frame[column].cast(pl.String)).rename(column)
    kept = frame.with_columns(codes).filter(codes.is_not_null())
    if kept.height == 0 and frame.height:
        raise DataError(
            "data.uscc",
            f"{place}: none of {frame.height} ids in {column!r} is a Unified Social Credit Code; "
            'remove align.ids = "uscc", or name another id column',
        )
    return kept
