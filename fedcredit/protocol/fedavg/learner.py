"""One bank's part in averaging as a machine of sums: it says what it brings to the next one and takes its total.

It knows no network, no keys and no other bank. Visits, channels and the oracle drive the same machine; how vectors are
added up without anybody seeing one is theirs. Totals are integers and every decision is taken on totals alone, so all
banks decide the same and hold the same parameters to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError
from fedcredit.kernels.nn import NetworkShape, first_parameters
from fedcredit.kernels.nn_columns import BUCKETS, MAX_ROWS, MOMENT_UNIT, Encoding, common_scales
from fedcredit.kernels.nn_server import ServerState, norm
from fedcredit.protocol.fedavg.columns import BankRows
from fedcredit.protocol.fedavg.held_out import Scores, read_scores, score_sums
from fedcredit.protocol.fedavg.memory import Asked, Controls, Memory, Standing
from fedcredit.protocol.fedavg.model import AveragedModel
from fedcredit.protocol.fedavg.own import Agreed, OwnPart, unshared
from fedcredit.protocol.fedavg.plan import LearnPlan
from fedcredit.protocol.fedavg.protect import Protection
from fedcredit.protocol.fedavg.rounds import Judged, Opened, RoundRecord, open_round, read_judged, unusual
from fedcredit.types import PartyId

__all__ = ["Learned", "Learner"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Learned:
    """What a bank has at the end.

    Args:
        model: The banks' common model; of the best round, where rounds were judged.
        personal: The same, trained further on own rows; None where ``fine_tune_epochs`` is 0.
        history: Rounds, those after the best one too.
        best_round: Rounds that made the model.
        members: Banks whose rows the last total held.
        rows: Training rows of all banks.
        pooled: Held-out rows of all banks, from sums; None where differential privacy is on.
        own: Held-out rows of this bank.
        margins: float64 (n,), log-odds of its held-out rows.
        personal_margins: float64 (n,), the same of the personal model, or None.
    """

    model: AveragedModel
    personal: AveragedModel | None
    history: tuple[RoundRecord, ...]
    best_round: int
    members: tuple[PartyId, ...]
    rows: int
    pooled: Scores | None
    own: Scores
    margins: Floats
    personal_margins: Floats | None


class Learner:
    """A bank's part.

    Args:
        party: The bank.
        rows: Its rows.
        plan: The run's.
        protection: Its noise, where ``plan.unit`` is not ``none``.
        state: What `state` gave, to go on there.

    Raises:
        BoundError: noise is asked for and not given, there are no public rows though the plan judges by them, or the
            bank has too many rows.
        IntegrityError: the state is damaged, or of another plan or other columns.
    """

    def __init__(
        self,
        party: PartyId,
        rows: BankRows,
        plan: LearnPlan,
        protection: Protection | None = None,
        state: bytes | None = None,
    ) -> None:
        if (plan.unit != "none") != (protection is not None):
            raise BoundError(
                "fedavg.noise", f"{party}: noise must be given exactly where it is on; unit is {plan.unit}"
            )
        if plan.reference and rows.reference is None:
            raise BoundError("fedavg.reference", f"{party}: rounds are judged on public rows, and none are given")
        if max(len(rows.train), len(rows.test)) > MAX_ROWS:
            raise BoundError("fedavg.rows", f"{party}: more than {MAX_ROWS} rows; a bank brings at most as many")
        self._party, self._rows, self._plan = party, rows, plan
        self._own = OwnPart(party, rows, plan, protection)
        self._about = f"{plan.digest()[:16]}.{rows.columns.digest()[:16]}"
        self._memory = Memory(stage="exponents") if state is None else Memory.from_bytes(state, self._about)

    @property
    def finished(self) -> bool:
        """Whether there is no further sum."""
        return self._memory.stage == "finished"

    @property
    def stage(self) -> str:
        """``exponents``, ``moments``, ``round/R``, ``judge``, ``score`` or ``finished``."""
        memory = self._memory
        return f"round/{memory.round + 1}" if memory.stage == "round" else memory.stage

    @property
    def sums(self) -> int:
        """Number of totals taken."""
        return self._memory.taken

    def state(self) -> bytes:
        """Everything it needs to go on in another process that has the same rows."""
        return self._memory.to_bytes(self._about)

    def ask(self, members: int) -> Asked:
        """What this bank brings to the next sum; asked again it is the same.

        Args:
            members: Banks in that sum as far as is known before it.

        Raises:
            BoundError: it is finished, or training ran away.
        """
        if self._memory.asked is None:
            self._memory.asked = self._asked(f"fedavg.{self.stage}.{self._about}", members)
        return self._memory.asked

    def _asked(self, what: str, members: int) -> Asked:
        memory, own = self._memory, self._own
        at = (memory.round + 1, members)
        if memory.stage == "exponents":
            return own.exponents(what, members)
        if memory.stage == "moments":
            return own.moments(what, memory.scales, members)
        if memory.stage == "round":
            return own.round(what, self._agreed, self._standing, memory.before, at)
        if memory.stage == "judge":
            return own.judge(what, self._agreed, self._standing, memory.before)
        if memory.stage == "score" and memory.chosen is not None:
            return own.score(what, self._agreed, memory.chosen, memory.personal)
        raise BoundError("fedavg.finished", f"{self._party}: has its model; there is nothing more to add up")

    def take(self, total: Ints, members: tuple[PartyId, ...]) -> None:
        """Takes the total of the sum last asked for.

        Args:
            total: int64, as long as what was brought.
            members: Banks it is the sum of.

        Raises:
            BoundError: nothing was asked, or the total has another length.
            PeerError: the total is none that honest banks can make.
        """
        memory, asked = self._memory, self._memory.asked
        if asked is None or total.shape != asked.values.shape:
            raise BoundError("fedavg.total", f"{self._party}: a total of {total.shape} that was not asked for")
        if memory.stage == "exponents":
            self._take_exponents(total, len(members))
        elif memory.stage == "moments":
            self._take_moments(total, len(members))
        elif memory.stage == "round":
            self._take_round(total, asked.values, len(members))
        elif memory.stage == "judge":
            judged = read_judged(total, self._plan, len(members))
            if not self._discard(judged, len(members)):
                self._weigh(judged)
            self._choose()
        else:
            memory.pooled = read_scores(total)
            memory.stage = "finished"
        memory.asked, memory.members, memory.taken = None, members, memory.taken + 1

    def result(self) -> Learned:
        """What the bank has at the end.

        Raises:
            BoundError: it is not finished.
        """
        memory = self._memory
        if not self.finished or memory.chosen is None:
            raise BoundError("fedavg.unfinished", f"{self._party}: has no model yet")
        agreed, test = self._agreed, self._rows.test
        model = AveragedModel(self._rows.columns, agreed.encoding, agreed.shape, memory.chosen, self._plan.seed)
        personal = None if memory.personal is None else model.with_parameters(memory.personal)
        margins = model.margins(test)
        finer = None if personal is None else personal.margins(test)
        return Learned(
            model=model,
            personal=personal,
            history=tuple(memory.history),
            best_round=memory.best_round,
            members=memory.members,
            rows=memory.rows,
            pooled=memory.pooled,
            own=read_scores(score_sums(test.bad, margins, finer)),
            margins=margins,
            personal_margins=finer,
        )

    def _take_exponents(self, total: Ints, members: int) -> None:
        memory, columns = self._memory, self._rows.columns
        numbers, categories = len(columns.numbers), len(columns.categories)
        memory.rows = max(int(total[0]), 1)
        counts, least = total[1:], self._own.least_count(members)
        if not self._plan.weighted:
            least = float(unshared(np.array([math.ceil(least)]), memory.rows, members)[0])
            counts = unshared(counts, memory.rows, members)
        split = len(counts) - categories * (BUCKETS + 1)
        memory.scales = common_scales(counts[:split].reshape(numbers, split // max(1, numbers)), least)
        memory.buckets = np.where(counts[split:] > least, counts[split:], 0).reshape(categories, BUCKETS + 1)
        memory.stage = "moments"
        if not numbers:  # there is nothing to add up: the next sum is a round's
            self._take_moments(np.zeros(0, dtype=np.int64), members)

    def _take_moments(self, total: Ints, members: int) -> None:
        memory, plan = self._memory, self._plan
        moments = total.reshape(-1, 3)
        if not plan.weighted:
            moments = unshared(moments, memory.rows, members, MOMENT_UNIT)
        least = (plan.least_category, self._own.hidden_rows(memory.rows, members))
        memory.encoding = Encoding.of_sums(memory.rows, memory.scales, moments, memory.buckets, *least)
        memory.buckets = np.zeros((0, 0), dtype=np.int64)
        first = first_parameters(self._agreed.shape, plan.seed_of("parameters"))
        zeros = np.zeros_like(first)
        controls = Controls(zeros, zeros) if plan.scaffold else None
        memory.standing = Standing(ServerState.start(first, plan.server), controls, 0)
        memory.stage = "round"

    def _take_round(self, total: Ints, own: Ints, members: int) -> None:
        memory, plan = self._memory, self._plan
        size = len(self._standing.server.parameters)
        opened = open_round(total, own, plan, size, members)
        discarded = self._discard(opened.judged, members)
        worn_out = not discarded and self._weigh(opened.judged)
        memory.round += 1
        memory.history.append(self._record(opened, members, discarded=discarded))
        if worn_out:
            self._choose()
            return
        if not discarded:
            self._step(opened)
        if memory.round == plan.rounds:
            if plan.judged:
                memory.stage = "judge"
            else:
                self._choose()

    def _record(self, opened: Opened, members: int, *, discarded: bool) -> RoundRecord:
        memory, length = self._memory, norm(opened.update)
        return RoundRecord(
            number=memory.round,
            members=members,
            norm=length,
            own_norm=norm(opened.own),
            agreement=opened.agreement,
            validation_loss=opened.judged.loss,
            votes=opened.judged.votes,
            discarded=discarded,
            unusual=unusual(length, [one.norm for one in memory.history]),
        )

    def _step(self, opened: Opened) -> None:
        """The shared parameters, and the control variates, after one round."""
        memory, standing = self._memory, self._standing
        controls = standing.controls
        if controls is not None and opened.control is not None and opened.own_control is not None:
            controls = Controls(controls.shared + opened.control, controls.own + opened.own_control)
        memory.before = standing
        server = standing.server.step(opened.update, self._plan.server)
        memory.standing = Standing(server, controls, standing.rounds + 1)

    def _discard(self, judged: Judged, members: int) -> bool:
        """Goes back where most banks found the public rows worse off."""
        memory = self._memory
        if memory.before is None or 2 * judged.votes <= members:
            return False
        memory.standing, memory.before = memory.before, None
        return True

    def _weigh(self, judged: Judged) -> bool:
        """Remembers the best parameters; True when patience is at its end."""
        memory, standing = self._memory, self._standing
        if judged.loss is None:
            return False
        if memory.best_loss is None or judged.loss < memory.best_loss:
            memory.best_loss, memory.best, memory.stale = judged.loss, standing.server.parameters, 0
            memory.best_round = standing.rounds
            return False
        memory.stale += 1
        return memory.stale >= self._plan.patience

    def _choose(self) -> None:
        """The model is the best of those judged, or the last."""
        memory, plan, standing = self._memory, self._plan, self._standing
        if memory.best is None:
            memory.best, memory.best_round = standing.server.parameters, standing.rounds
        memory.chosen = memory.best
        if plan.fine_tune:
            memory.personal = self._own.personal(self._agreed, memory.chosen)
        memory.stage = "score" if plan.unit == "none" else "finished"

    @property
    def _agreed(self) -> Agreed:
        encoding, plan, columns = self._memory.encoding, self._plan, self._rows.columns
        if encoding is None:
            raise BoundError("fedavg.stage", f"{self._party}: the columns are not agreed on yet")
        directions = encoding.directions(columns.directions) if plan.network == "monotone" else ()
        sizes = (plan.hidden, plan.embedding)
        shape = NetworkShape(plan.network, encoding.inputs, encoding.codes, *sizes, directions)
        return Agreed(self._memory.rows, encoding, shape)

    @property
    def _standing(self) -> Standing:
        if self._memory.standing is None:
            raise BoundError("fedavg.stage", f"{self._party}: no round has begun yet")
        return self._memory.standing
