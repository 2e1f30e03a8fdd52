"""What one bank computes of its own rows for each sum. Nothing here is remembered; see `learner`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.discrete_gaussian import bounded_integers
from fedcredit.kernels.nn import NetworkShape, Rows, logits, row_losses
from fedcredit.kernels.nn_columns import (
    MAX_ROWS,
    MOMENT_UNIT,
    Encoding,
    bucket_counts,
    exponent_counts,
    moment_sums,
)
from fedcredit.kernels.nn_train import Pull, steps_of, train_local
from fedcredit.protocol.fedavg.columns import BankRows, Examples
from fedcredit.protocol.fedavg.held_out import SCORE_BOUND, score_sums
from fedcredit.protocol.fedavg.memory import Asked, Standing
from fedcredit.protocol.fedavg.plan import FULL, FULL_BITS, LOSS_CAP, LearnPlan
from fedcredit.protocol.fedavg.protect import Protection

__all__ = ["WORSE", "Agreed", "OwnPart", "unshared"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WORSE = 0.1
"""Share by which the public rows' loss may grow in a round; honest rounds of a public set stay below a third of it."""

_SHARE = 1 << 20  # a share of a bank's rows, where whole banks are protected, is rounded to 2^-20
_FAR = 4.0  # deviations of the noise below which a count is taken for none: 4096 empty cells pass it once in 8 runs


@dataclass(frozen=True)
class Agreed:
    """What banks agreed on before the first round.

    Args:
        rows: Training rows of all of them.
        encoding: Of the columns.
        shape: Of the network.
    """

    rows: int
    encoding: Encoding
    shape: NetworkShape


def unshared(total: Ints, rows: int, members: int, unit: int = 1) -> Ints:
    """Counts of all banks' rows from a total of shares, where every bank counts the same.

    Args:
        total: int64 (k,), shares of a bank's rows, added up.
        rows: Of all banks.
        members: Banks in the sum.
        unit: What one row counts.
    """
    counts: Ints = np.rint(total * (rows * unit / (members * _SHARE))).astype(np.int64)
    return counts


class OwnPart:
    """A bank's rows under a plan.

    Args:
        party: Name of the bank; part of the seed of the order of its rows.
        rows: Its rows.
        plan: The run's.
        protection: Its noise.
    """

    def __init__(self, party: str, rows: BankRows, plan: LearnPlan, protection: Protection | None) -> None:
        self._party, self._rows, self._plan, self._protection = party, rows, plan, protection

    @cached_property
    def _train(self) -> Examples:
        return self._rows.train.take(~self._rows.judges) if self._plan.patience else self._rows.train

    @cached_property
    def _judge(self) -> Examples:
        return self._rows.train.take(self._rows.judges & (self._plan.patience > 0))

    # ------------------------------------------------------------------ columns

    @property
    def columns_sensitivity(self) -> int:
        """By how much the first sum changes, in its units, with the protected unit."""
        columns = len(self._rows.columns.numbers) + len(self._rows.columns.categories)
        unit = 1 if self._plan.weighted else _SHARE
        return math.ceil(math.sqrt(columns) * unit)

    def least_count(self, members: int) -> float:
        """Count, in the units of a first sum of so many members, below which noise may have made it."""
        if self._protection is None or not self._protection.summed("columns"):
            return 0.0
        return _FAR * self._protection.deviation("columns", max(1, self.columns_sensitivity), members)

    def exponents(self, what: str, members: int) -> Asked:
        """Rows, values by exponent, rows by bucket: int64 (1 + 129 p + 4097 c,)."""
        train = self._train
        counts = np.concatenate([exponent_counts(train.numbers).ravel(), bucket_counts(train.buckets).ravel()])
        if not self._plan.weighted:
            counts = np.floor(counts * (_SHARE / len(train))).astype(np.int64)
        counts, room = self._noised("columns", what, counts, self.columns_sensitivity, members)
        return Asked(what, np.concatenate([np.array([len(train)], dtype=np.int64), counts]), MAX_ROWS + room)

    @property
    def moments_sensitivity(self) -> int:
        """The same of the second sum: for each column a count, a value and a square of at most one scale."""
        unit = MOMENT_UNIT + 1 if self._plan.weighted else _SHARE
        return math.ceil(math.sqrt(3 * len(self._rows.columns.numbers)) * unit)

    def hidden_rows(self, rows: int, members: int) -> float:
        """Rows of all banks that noise in the second sum can hide."""
        if self._protection is None or not self._protection.summed("columns"):
            return 0.0
        noise = _FAR * self._protection.deviation("columns", max(1, self.moments_sensitivity), members)
        return noise / MOMENT_UNIT if self._plan.weighted else noise / _SHARE / members * rows

    def moments(self, what: str, scales: Ints, members: int) -> Asked:
        """Counts, sums and squares of each numeric column: int64 (3 p,)."""
        train = self._train
        sums = moment_sums(train.numbers, scales)
        if not self._plan.weighted:
            sums = np.trunc(sums / (MOMENT_UNIT * len(train)) * _SHARE).astype(np.int64)
        values, room = self._noised("columns", what, sums.ravel(), self.moments_sensitivity, members)
        return Asked(what, values, MAX_ROWS * MOMENT_UNIT + room)

    def _noised(self, release: str, what: str, values: Ints, most: int, members: int) -> tuple[Ints, int]:
        if self._protection is None or not self._protection.summed(release):
            return values, 0
        return self._protection.noised(release, what, values, max(1, most), members)

    # ------------------------------------------------------------------ rounds

    def round(
        self, what: str, agreed: Agreed, standing: Standing, before: Standing | None, at: tuple[int, int]
    ) -> Asked:
        """One round: weighted update, weighted change of control variates, weight, judgement.

        Args:
            what: Name of the sum.
            agreed: Columns and network.
            standing: Where the round begins.
            before: Where the round before began; None = there is nothing to compare with.
            at: Number of the round, from 1, and banks in the sum.

        Raises:
            BoundError: training ran away.
        """
        plan, (number, members) = self._plan, at
        parameters = standing.server.parameters
        trained = self._trained(agreed, standing, number)
        update = trained - parameters
        units, most = bounded_integers(update, plan.clip, FULL_BITS)
        weight = max(1, round(FULL * min(1.0, len(self._train) / agreed.rows))) if plan.weighted else FULL
        parts = [units if weight == FULL else np.rint(units * (weight / FULL)).astype(np.int64)]
        parts[0], room = self._noised("update", what, parts[0], most, members)
        if standing.controls is not None:
            change, _ = bounded_integers(self._control_change(standing, update), plan.clip, FULL_BITS)
            parts.append(np.rint(change * (weight / FULL)).astype(np.int64))
        parts.append(np.array([weight], dtype=np.int64))
        if plan.judged:
            parts.append(self._judgement(agreed, standing, before, number))
        return Asked(what, np.concatenate(parts), plan.bound + room)

    def judge(self, what: str, agreed: Agreed, standing: Standing, before: Standing | None) -> Asked:
        """What this bank says of the last parameters; arguments as `round`."""
        return Asked(what, self._judgement(agreed, standing, before, self._plan.rounds + 1), self._plan.bound)

    def _trained(self, agreed: Agreed, standing: Standing, number: int) -> Floats:
        plan, parameters = self._plan, standing.server.parameters
        controls = standing.controls
        pull = None if controls is None else Pull(controls.shared - controls.own)
        steps = None if self._protection is None else self._protection.steps(number, parameters)
        seed = plan.seed_of(f"round/{number}/{self._party}")
        rows = self._inputs(agreed)[0]
        return train_local(agreed.shape, parameters, rows, replace(plan.local, seed=seed), pull, steps)

    def _control_change(self, standing: Standing, update: Floats) -> Floats:
        """Option II of SCAFFOLD: the mean gradient of the steps takes the place of the own control variate."""
        plan = self._plan
        if standing.controls is None:
            return np.zeros_like(update)
        steps = steps_of(len(self._train), plan.local)
        return -standing.controls.shared - update / (steps * plan.local.learning_rate)

    def _judgement(self, agreed: Agreed, standing: Standing, before: Standing | None, number: int) -> Ints:
        """Losses of its judging rows, and its vote on the public rows; nothing is said of the first parameters."""
        plan = self._plan
        _, judge, reference = self._inputs(agreed)
        parts = []
        if plan.patience and number > 1:
            losses = np.minimum(self._losses(agreed, standing, judge), LOSS_CAP)
            parts += [round(FULL * float(losses.sum()) / agreed.rows), round(FULL * len(judge) / agreed.rows)]
        elif plan.patience:
            parts += [0, 0]
        if plan.reference and reference is not None:
            now, then = (
                0.0 if one is None else float(self._losses(agreed, one, reference).mean()) for one in (standing, before)
            )
            parts.append(int(before is not None and now > (1.0 + WORSE) * then))
        return np.array(parts, dtype=np.int64)

    def _losses(self, agreed: Agreed, standing: Standing, rows: Rows) -> Floats:
        return row_losses(logits(agreed.shape, standing.server.parameters, rows), rows.bad)

    # ------------------------------------------------------------------ the end

    def personal(self, agreed: Agreed, parameters: Floats) -> Floats:
        """The model trained further on own rows, without pulls and noise: it stays in the house."""
        plan = self._plan
        seed = plan.seed_of(f"fine-tune/{self._party}")
        rules = replace(plan.local, epochs=plan.fine_tune, proximal=0.0, seed=seed)
        return train_local(agreed.shape, parameters, self._inputs(agreed)[0], rules)

    def score(self, what: str, agreed: Agreed, parameters: Floats, personal: Floats | None) -> Asked:
        """Scores of the held-out rows: int64 (7,)."""
        test = self._rows.test
        inputs = agreed.encoding.rows(test.numbers, test.buckets, test.bad)
        margins = logits(agreed.shape, parameters, inputs)
        finer = None if personal is None else logits(agreed.shape, personal, inputs)
        return Asked(what, score_sums(test.bad, margins, finer), SCORE_BOUND)

    def _inputs(self, agreed: Agreed) -> tuple[Rows, Rows, Rows | None]:
        """Rows that train, that judge, and public ones, as the network takes them."""
        if self._encoded is None or self._encoded[0] != agreed.encoding:
            train, judge = (
                agreed.encoding.rows(one.numbers, one.buckets, one.bad) for one in (self._train, self._judge)
            )
            public = self._rows.reference
            other = None if public is None else agreed.encoding.rows(public.numbers, public.buckets, public.bad)
            self._encoded = (agreed.encoding, (train, judge, other))
        return self._encoded[1]

    _encoded: tuple[Encoding, tuple[Rows, Rows, Rows | None]] | None = None
