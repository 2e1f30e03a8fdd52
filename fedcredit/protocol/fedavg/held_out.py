"""Measures on held-out rows that banks can add up: means weighted by rows, and nothing of a single row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import PeerError
from fedcredit.kernels.metrics import auc_fraction
from fedcredit.kernels.nn import row_losses
from fedcredit.kernels.nn_columns import MAX_ROWS
from fedcredit.protocol.fedavg.plan import LOSS_CAP

__all__ = ["SCORE_BOUND", "Scores", "read_scores", "score_sums"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_UNIT = 1 << 16  # an AUC weighted by rows is rounded to 2^-16 of a row

SCORE_BOUND = MAX_ROWS * _UNIT * round(LOSS_CAP)
"""Largest number a bank brings."""


@dataclass(frozen=True)
class Scores:
    """Held-out rows of one bank, or of all.

    Args:
        rows: Number of rows.
        auc: Mean of the banks' AUC weighted by their rows; None where no bank has goods and bads.
        loss: Mean loss of a row in nats, each at most 16; None without rows.
        personal_auc: AUC of the personal models; None without them.
        personal_loss: Loss of the personal models; None without them.
    """

    rows: int
    auc: float | None
    loss: float | None
    personal_auc: float | None
    personal_loss: float | None


def score_sums(bad: NDArray[np.bool_], margins: Floats, personal: Floats | None) -> Ints:
    """What a bank brings to the sum of scores.

    Args:
        bad: bool (n,).
        margins: float64 (n,), log-odds by the common model.
        personal: float64 (n,), by the bank's own; None = it has none.

    Returns:
        int64 (7,): rows; rows of banks with goods and bads; for each model AUC times rows and summed loss; rows of
        banks with a personal model.
    """
    rows, both = len(bad), bool(bad.any() and not bad.all())
    found = [rows, rows if both else 0]
    for one in (margins, personal):
        if one is None:
            found += [0, 0]
            continue
        numerator, denominator = auc_fraction(bad, one) if both else (0, 1)
        losses = np.minimum(row_losses(one, bad.astype(np.float32)), LOSS_CAP)
        found += [(2 * rows * _UNIT * numerator + denominator) // (2 * denominator), round(float(losses.sum()) * _UNIT)]
    return np.array([*found, 0 if personal is None else rows], dtype=np.int64)


def read_scores(total: Ints) -> Scores:
    """Means from a total of `score_sums`.

    Raises:
        PeerError: numbers that no rows can have.
    """
    rows, both, auc, loss, personal_auc, personal_loss, finer = (int(one) for one in total)
    least, most = min(total.tolist()), max(auc - both * _UNIT, personal_auc - both * _UNIT)
    if least < 0 or both > rows or finer > rows or most > 0 or max(loss, personal_loss) > SCORE_BOUND * rows:
        raise PeerError("fedavg.scores", "the banks' scores add up to what no rows can have; a bank cheats")
    return Scores(
        rows,
        auc / both / _UNIT if both else None,
        loss / rows / _UNIT if rows else None,
        personal_auc / both / _UNIT if both and finer == rows else None,
        personal_loss / rows / _UNIT if rows and finer == rows else None,
    )
