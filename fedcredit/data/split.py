"""Which rows are held out: by a keyed hash of the id, by a list of ids, or by time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fedcredit.data.places import expand
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.spec.model import SplitSection

__all__ = ["held_out_rows", "ids_test_mask", "read_test_ids", "test_mask", "time_test_mask"]

Mask = npt.NDArray[np.bool_]

_PERSON = b"fedcredit.split"  # separates this use of BLAKE2b from every other, at most 16 bytes


def test_mask(ids: Iterable[str], seed: int, fraction: float) -> Mask:
    """Rows held out by a keyed hash of their id: every party derives the same without talking.

    The first 64 bits of BLAKE2b, keyed by the seed, are compared with ``fraction``. It is no secret: whoever knows an
    id and the spec knows its side.

    Args:
        ids: n ids.
        seed: ``split.seed``, 0 to 2**63 - 1.
        fraction: Expected share held out, in (0, 1).

    Returns:
        bool (n,), True = held out.

    Source: RFC 7693 (BLAKE2), keyed mode.
    """
    keyed = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "big"), person=_PERSON)
    limit = round(fraction * 2.0**64)

    def held_out(identity: str) -> bool:
        hasher = keyed.copy()
        hasher.update(identity.encode())
        return int.from_bytes(hasher.digest(), "big") < limit

    return np.fromiter((held_out(identity) for identity in ids), dtype=np.bool_)


def read_test_ids(path: Path) -> frozenset[str]:
    """Read a file of ids, one a line; empty lines are skipped.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError("data.test-ids", f"split.test_ids: no such file: {path}; give a file of ids") from None
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        right = f"split.test_ids: {path} cannot be read ({kind}); give a text file of ids, one a line"
        raise DataError("data.test-ids", right) from None
    ids = frozenset(line.strip() for line in text.splitlines()) - {""}
    if not ids:
        raise DataError("data.test-ids", f"split.test_ids: {path} holds no id; write one id a line")
    return ids


def ids_test_mask(ids: Iterable[str], held_out: frozenset[str]) -> Mask:
    """Rows whose id is in ``held_out``, as bool (n,)."""
    return np.fromiter((identity in held_out for identity in ids), dtype=np.bool_)


def time_test_mask(series: pl.Series, test_from: float | str) -> Mask:
    """Rows at or after ``test_from``: bool (n,). Only the label holder has the column; it tells the others the ids.

    Args:
        series: Float64, or String that sorts by time (ISO dates); no nulls.
        test_from: A number for a numeric column, a text for a text column.

    Raises:
        DataError: number against text, missing values, or all rows on one side.
    """
    name = series.name
    numeric = series.dtype != pl.String
    if numeric == isinstance(test_from, str):
        kinds = ("numbers", "a text") if numeric else ("text", "a number")
        right = f"split.test_from is {kinds[1]} and column {name!r} holds {kinds[0]}; both must be of one kind"
        raise DataError("data.split-time", right)
    if series.null_count():
        right = f"split.time: column {name!r} is missing in {series.null_count()} rows; every row needs a time"
        raise DataError("data.split-time", right)
    mask: Mask = (series >= test_from).to_numpy().astype(np.bool_)
    if mask.all() or not mask.any():
        side = "after" if mask.all() else "before"
        right = f"split.test_from: all {len(mask)} rows are {side} it; choose a value inside the range of {name!r}"
        raise DataError("data.split-time", right)
    return mask


def held_out_rows(table: HolderTable, split: SplitSection, base: Path) -> Mask:
    """Rows of one party's table that are held out, as the spec says: bool (n,).

    Args:
        table: The party's records.
        split: ``[split]``.
        base: Folder that ``split.test_ids`` is relative to.

    Raises:
        DataError: a split by time is asked of a party without the time column (the label holder must tell it the
            ids), or the ids of the file are not in the table.
    """
    if split.time is not None and split.test_from is not None:
        if table.time is None:
            right = f"{table.party}: has no time column {split.time!r}; the label holder decides a split by time"
            raise DataError("data.split-time", right)
        return time_test_mask(table.time, split.test_from)
    if split.test_ids is not None:
        mask = ids_test_mask(table.ids, read_test_ids(base / expand(split.test_ids, "split.test_ids")))
        if mask.all() or not mask.any():
            what = "every row" if mask.all() else "no row"
            right = f"split.test_ids: holds out {what} of {table.party!r}; list ids of some of its rows"
            raise DataError("data.test-ids", right)
        return mask
    return test_mask(table.ids, split.seed, split.test_fraction)
