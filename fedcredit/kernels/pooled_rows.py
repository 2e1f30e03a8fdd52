"""A bank's rows among those of several banks: where they start from, and how a model of all is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.gradients import MAX_ROWS, base_margin
from fedcredit.kernels.metrics import auc

__all__ = ["POOLED_BITS", "Among", "AucSums", "auc_sums", "bank_margin"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POOLED_BITS: Final = 16
"""Binary digits after the point of derivatives in the leaf sums that several banks add up.

Enough for leaf values to four digits; more would only tell which margins the others' rows have.
"""

_UNITS: Final = 1 << 20  # an AUC is summed in millionths


@dataclass(frozen=True, eq=False)
class Among:
    """Rows of a model that has more than these, or that had trees before.

    Args:
        base: What the model says of a row before its first tree.
        start: float64 (n,), log-odds of default that each row starts from.
        bank: int64 (n,), number of each row's bank: all alike at a bank, of several in an oracle over all banks;
            None = the rows are judged by themselves.
        members: Number of banks in every total: the noise in their sums adds up.
    """

    base: float
    start: Floats
    bank: Ints | None = None
    members: int = 1

    @property
    def noise_factor(self) -> float:
        """Standard deviation of the noise in a total over that in one bank's sum."""
        return float(np.sqrt(float(self.members)))

    def checked(self, rows: int) -> Floats:
        """The start of each row.

        Raises:
            DataError: There are not as many as rows, or as banks of rows.
        """
        if self.start.shape != (rows,) or (self.bank is not None and self.bank.shape != (rows,)):
            raise DataError("kernels.tree-start", f"starts {self.start.shape} and banks must be one for each of {rows}")
        return self.start


@dataclass(frozen=True, eq=False)
class AucSums:
    """A bank's part of a mean AUC over banks, by rows.

    Args:
        values: int64 (2,), rows times AUC in units of 2^-20, and rows; zeros where a class is missing.
    """

    values: Ints

    @property
    def bound(self) -> int:
        """Largest value of any bank."""
        return MAX_ROWS * _UNITS

    @staticmethod
    def mean(total: Ints) -> float | None:
        """The mean that a total tells; None = no bank had rows of both classes."""
        return int(total[0]) / (int(total[1]) * _UNITS) if total[1] else None


def auc_sums(bad: Bools, margins: Floats, bank: Ints) -> AucSums:
    """AUC within each bank's rows, times their number.

    Args:
        bad: bool (n,).
        margins: float64 (n,).
        bank: int64 (n,), number of each row's bank.
    """
    values = np.zeros(2, dtype=np.int64)
    for one in np.unique(bank):
        here = bank == one
        rows, bads = int(here.sum()), int(bad[here].sum())
        if 0 < bads < rows:
            values += np.array([rows * round(auc(bad[here], margins[here]) * _UNITS), rows])
    return AucSums(values)


def bank_margin(own: tuple[int, int], pool: tuple[int, int], weight: int = 0) -> float:
    """Log-odds that a bank's rows start from: its own, drawn towards the pool's as if it had more rows of the pool.

    Args:
        own: The bank's bads and goods.
        pool: Bads and goods of all banks.
        weight: Rows of the pool that it gets; 0 = its own log-odds.

    Raises:
        DataError: A class is missing that the weight does not bring either.
    """
    rows = sum(pool)
    bads, goods = (mine * max(1, rows) + weight * theirs for mine, theirs in zip(own, pool, strict=True))
    return base_margin(bads, goods)
