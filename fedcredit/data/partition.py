"""One table taken apart into those of several banks, for simulations; see ``[partition]``.

Which row goes where follows from the ids, the seed and the rule alone: not from the order of the rows, the machine, or
the version of a generator of random numbers. Draws are keyed hashes, as for the held-out rows; none of it is secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit, gammaincinv

from fedcredit.errors import DataError
from fedcredit.spec.horizontal import PartitionSection

__all__ = ["partition_rows"]

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PERSON = b"fedcredit.parts"  # separates this use of BLAKE2b from every other, at most 16 bytes
_HALVINGS = 200  # of an interval of doubles: more than enough for all of their digits


def partition_rows(
    section: PartitionSection,
    ids: pl.Series,
    label: npt.NDArray[np.int8],
    column: pl.Series | None,
    place: str,
) -> tuple[Rows, ...]:
    """Rows of each bank.

    Args:
        section: The rule.
        ids: String (n,), unique.
        label: int8 (n,), 1 = defaulted.
        column: (n,), the column that names the bank, under ``by = "column"``.
        place: Named in errors.

    Returns:
        For each of ``section.banks`` banks its row numbers, rising; no row is in two. Under ``column`` rows of other
        values, and those without one, are in none; else every row is in one.

    Raises:
        DataError: there are not so many banks of ``min_rows`` rows.
    """
    if section.by == "column":
        return _by_value(section, column, place)
    if section.banks * section.min_rows > len(ids):
        most = len(ids) // section.banks
        found = f"{len(ids)} rows are too few for {section.banks} banks of at least {section.min_rows}"
        raise DataError("data.partition", f"{place}: partition.min_rows: {found}; use {most} or less, or fewer banks")
    order = _shuffled(ids, section.seed)
    if section.by == "dirichlet":
        return _by_label(section, order, label)
    shares = np.arange(1, section.banks + 1) ** (-section.alpha if section.by == "size" else 0.0)
    spare = len(ids) - section.banks * section.min_rows
    return _cut(order, section.min_rows + _whole(spare * shares / shares.sum(), spare))


def _by_value(section: PartitionSection, column: pl.Series | None, place: str) -> tuple[Rows, ...]:
    """One bank for each of the most frequent values, by falling rows; of equally frequent ones by the value as text."""
    if column is None:  # the rules of a specification do not let this through
        raise DataError("data.partition", f"{place}: partition.column: missing; name the column of the banks")
    text = column.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None).alias("value")
    counted = text.drop_nulls().to_frame().group_by("value").len().sort(["len", "value"], descending=[True, False])
    large = counted.filter(pl.col("len") >= section.min_rows)
    if large.height < section.banks:
        found = f"column {section.column!r} has {large.height} values with at least {section.min_rows} rows"
        right = f"{section.banks} banks were asked for; use fewer, or a lower partition.min_rows"
        raise DataError("data.partition", f"{place}: partition.banks: {found}, {right}")
    groups = text.to_frame().with_row_index("row").drop_nulls().group_by("value").agg(pl.col("row").sort())
    rows = dict(zip(groups["value"].to_list(), groups["row"].to_list(), strict=True))
    return tuple(np.array(rows[value], dtype=np.int64) for value in large["value"].head(section.banks).to_list())


def _by_label(section: PartitionSection, order: Rows, label: npt.NDArray[np.int8]) -> tuple[Rows, ...]:
    """Banks of one size whose shares of bads are draws of a Dirichlet distribution around the share of all rows.

    Each bank draws its shares of goods and bads from Dir(alpha p), p those of all rows; then the log-odds of all banks
    are moved by one amount, so that their bads add up to those there are.

    Source: Hsu, Qi & Brown, "Measuring the Effects of Non-Identical Data Distribution" (2019), section 3, with the
    common move in the place of drawing rows until a class is exhausted, which would favour the first banks.
    """
    bad = label[order] == 1
    bads = int(bad.sum())
    rate = bads / len(order)
    equal = np.full(section.banks, len(order) / section.banks)
    sizes = _whole(equal, len(order))
    odds = _log_gamma(section, "bad", section.alpha * rate) - _log_gamma(section, "good", section.alpha * (1 - rate))
    low, high = -np.abs(odds).max() - 100.0, np.abs(odds).max() + 100.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if (sizes * expit(odds + middle)).sum() < bads else (low, middle)
    shares = sizes * expit(odds + high)
    chosen = _whole(np.minimum(shares * (bads / shares.sum()), sizes), bads)
    parts = zip(_cut(order[bad], chosen), _cut(order[~bad], sizes - chosen), strict=True)
    return tuple(np.sort(np.concatenate(pair)) for pair in parts)


def _log_gamma(section: PartitionSection, purpose: str, shape: float) -> Floats:
    """Logarithm of a gamma variate of each bank; as G(a) = G(a + 1) U^(1/a), so that small shapes do not end at 0."""
    first, second = (
        _uniform(section.seed, (f"{purpose}/{step}/{bank}" for bank in range(1, section.banks + 1))) for step in (1, 2)
    )
    values: Floats = np.log(gammaincinv(shape + 1, first)) + np.log(second) / shape
    return values


def _shuffled(ids: pl.Series, seed: int) -> Rows:
    """Row numbers in an order that is random but the same wherever the rows stand in the table."""
    by_id = ids.arg_sort().to_numpy().astype(np.int64)
    keys = _uniform(seed, (f"row/{one}" for one in ids.gather(by_id).to_list()))
    shuffled: Rows = by_id[np.argsort(keys, kind="stable")]
    return shuffled


def _uniform(seed: int, names: Iterable[str]) -> Floats:
    """A number in (0, 1) of each name.

    Source: RFC 7693 (BLAKE2), keyed mode; 53 bits, the middle of their interval.
    """
    keyed = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "big"), person=_PERSON)

    def number(name: str) -> float:
        hasher = keyed.copy()
        hasher.update(name.encode())
        return ((int.from_bytes(hasher.digest(), "big") >> 11) + 0.5) / 2.0**53

    return np.fromiter((number(name) for name in names), dtype=np.float64)


def _whole(shares: Floats, total: int) -> Rows:
    """Whole numbers near the shares that add up to the total: the largest remainders are rounded up."""
    floors = np.floor(shares).astype(np.int64)
    left = total - int(floors.sum())
    floors[np.argsort(floors - shares, kind="stable")[:left]] += 1
    return floors


def _cut(order: Rows, sizes: Sequence[int] | Rows) -> tuple[Rows, ...]:
    """Consecutive runs of these sizes, each in the order of the table."""
    ends = np.cumsum(sizes)
    return tuple(np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))
