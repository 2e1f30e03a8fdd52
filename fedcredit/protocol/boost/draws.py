"""Randomness that an auditor must be able to repeat: noise, rounding, samples. Each draw is a function of a party's
escrowed seed and of what it is for, so that the order of draws does not matter and a resumed run draws the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.noise import bounded_noise
from fedcredit.crypto.prg import expand

__all__ = ["HolderDraws", "LabelDraws", "OfferedDraws", "sampled_columns"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HolderDraws:
    """A feature holder's draws.

    Args:
        seed: 32 bytes, escrowed by the holder.
        common: 32 bytes from which it draws features where it answers several banks; empty = from ``seed``.
    """

    seed: bytes
    common: bytes = b""

    def noise(self, batch: int, slot: int, outputs: int, sd: float) -> tuple[Ints, Ints]:
        """What is added to the sums of g and of h of one asked node; int64 (outputs,) each.

        Args:
            batch: Number of the request.
            slot: Place of the node in the request.
            outputs: Sums of an answer.
            sd: Standard deviation in units of the quantised values; 0 = none.
        """
        if sd == 0:
            return np.zeros(outputs, np.int64), np.zeros(outputs, np.int64)
        first, second = (
            bounded_noise(self.seed, f"boost/noise/{batch}/{slot}/{field}", sd, outputs) for field in ("g", "h")
        )
        return first, second

    def columns(self, tree: int, features: int, share: float) -> Bools:
        """Features offered to a tree; bool (features,)."""
        return sampled_columns(self.common or self.seed, tree, features, share)


@dataclass(frozen=True)
class LabelDraws:
    """The label holder's draws.

    Args:
        seed: 32 bytes, escrowed by the label holder.
        common: 32 bytes from which all banks of a pool draw features; empty = from ``seed``.
    """

    seed: bytes
    common: bytes = b""

    def rounding(self, tree: int, rows: int) -> tuple[Floats, Floats]:
        """For g and h, float64 (rows,) in [0, 1)."""
        return (
            _uniform(self.seed, f"boost/rounding/{tree}/g", rows),
            _uniform(self.seed, f"boost/rounding/{tree}/h", rows),
        )

    def rows(self, tree: int, rows: int) -> Floats:
        """Row sampling of a tree, float64 (rows,) in [0, 1): a row is in where it is below the share."""
        return _uniform(self.seed, f"boost/rows/{tree}", rows)

    def columns(self, tree: int, features: int, share: float) -> Bools:
        """Own features that a tree may use; bool (features,)."""
        return sampled_columns(self.common or self.seed, tree, features, share)

    def validation(self, rows: int, fraction: float) -> Bools:
        """Rows set aside to judge early stopping on; bool (rows,)."""
        return _uniform(self.seed, "boost/validation", rows) < fraction


class OfferedDraws:
    """Chance of one tree as `fedcredit.kernels.trees.TreeDraws`: the label holder's own, and what the holders offered.

    Args:
        draws: The label holder's.
        active: bool (features,), features that may be used.
    """

    def __init__(self, draws: LabelDraws, active: Bools) -> None:
        self.rounding, self.rows, self._active = draws.rounding, draws.rows, active

    def columns(self, tree: int) -> Bools:
        """Features that may be used."""
        del tree
        return self._active


def sampled_columns(seed: bytes, tree: int, features: int, share: float) -> Bools:
    """A random subset of ``share`` of the features, at least one; bool (features,)."""
    if share >= 1 or features == 0:
        return np.ones(features, np.bool_)
    keys = np.frombuffer(expand(seed, f"boost/columns/{tree}", 8 * features), dtype="<u8")
    chosen = np.zeros(features, np.bool_)
    chosen[np.argsort(keys, kind="stable")[: max(1, round(share * features))]] = True
    return chosen


def _uniform(seed: bytes, label: str, count: int) -> Floats:
    words = np.frombuffer(expand(seed, label, 4 * count), dtype="<u4")
    return words.astype(np.float64) / float(1 << 32)  # steps of 2^-32: their bias is far below one unit over all rows
