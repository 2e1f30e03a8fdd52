"""Trees of several banks: what the banks settle before the first tree, and how their growth is summed.

Each bank grows every tree by itself, over its own rows and the answers that it alone can open; wherever sums decide
something it asks the pool for the total. Equal totals make equal trees at every bank.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.noise import noise_bound
from fedcredit.crypto.prg import expand
from fedcredit.errors import DataError, PeerError
from fedcredit.kernels.gradients import MAX_ROWS, gradient_bound
from fedcredit.kernels.pooled_rows import Among, bank_margin
from fedcredit.kernels.pooled_sums import Part, Summing, alone
from fedcredit.kernels.tree_model import TreeFeature
from fedcredit.protocol.boost.columns import UNCAPPED
from fedcredit.protocol.boost.draws import LabelDraws
from fedcredit.protocol.boost.plan import BoostPlan
from fedcredit.protocol.pool import Pool
from fedcredit.spec.model import HybridSection
from fedcredit.types import PartyId

__all__ = ["CommonTrees", "Together", "answer_bound", "seed_limbs", "seed_of", "settle_trees"]

Bools = NDArray[np.bool_]
T = TypeVar("T")

_MOST_THRESHOLDS: Final = 64  # more than that of a feature is as good as no limit in steps of one
_SEED_LIMBS: Final = 16
_SEED_LIMB: Final = 1 << 32  # of 4 bytes


@dataclass(frozen=True, eq=False)
class CommonTrees:
    """What all banks go by.

    Args:
        features: Features of the model; a holder discloses as many splits of one as its ledger allows for every bank.
        among: What this bank's rows start from; None in a run of one bank.
        columns: Seed of the columns that label holders sample; None = each its own.
    """

    features: tuple[TreeFeature, ...]
    among: Among | None = None
    columns: bytes | None = None


class Together:
    """Runs computations that are done in step with all banks of a pool.

    Args:
        pool: The banks; None = this one alone, which asks nobody.
        what: Begins the name of every sum.
    """

    def __init__(self, pool: Pool | None, what: str = "trees") -> None:
        self._pool, self._what = pool, what
        self._members = None if pool is None else pool.members

    async def run(self, step: str, steps: Summing[T]) -> T:
        """The result of a computation over totals.

        Args:
            step: Where growth is: part of every sum's name, so that banks at different places find out.
            steps: The computation.

        Raises:
            PeerError: banks are at different places, or one has left: sums of fewer banks do not fit those before.
            BoundError: a part exceeds its bound.
            TransportError: a bank does not answer.
        """
        if self._pool is None:
            return alone(steps)
        try:
            part = next(steps)
            while True:
                part = steps.send(await self._total(self._pool, step, part))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _total(self, pool: Pool, step: str, part: Part) -> NDArray[np.int64]:
        total = await pool.sum(f"{self._what}/{step}/{part.what}", part.values, part.bound)
        if pool.members != self._members:
            gone = ", ".join(sorted(set(self._members or ()) - set(pool.members)))
            right = "trees need every bank from the first sum to the last; begin again without it"
            raise PeerError("hybrid.bank-left", f"{gone} has left while trees were grown: {right}")
        return total


def answer_bound(plan: BoostPlan) -> int:
    """Largest sum that a holder may answer to a bank, noise included."""
    return MAX_ROWS * gradient_bound(plan.privacy.gradient_bits) + noise_bound(plan.noise_units)


async def settle_trees(
    pool: Pool | None,
    run: tuple[BoostPlan, HybridSection],
    features: Sequence[TreeFeature],
    rows: tuple[Bools, Bools],
    me: tuple[PartyId, LabelDraws],
) -> CommonTrees:
    """Before the first tree: one list of features, one cap on splits, and what each bank's rows start from.

    Args:
        pool: The banks; None = one alone.
        run: The plan, and section ``[hybrid]``.
        features: Features of the model as this bank knows them.
        rows: bool (n,) each: rows that go down the trees that are bad; and those to train on.
        me: This bank, and its draws.

    Raises:
        PeerError: the banks were told of other features, or grow trees by other rules.
        DataError: all banks together have rows of one class only, or too many.
    """
    if pool is None:
        return CommonTrees(tuple(features))
    (plan, hybrid), (party, draws) = run, me
    together, members = Together(pool), pool.members
    agreed = hashlib.sha256(_about(plan, hybrid, features, party).encode()).hexdigest()
    bad, train = rows
    own = int((bad & train).sum()), int((~bad & train).sum())
    counted = await together.run(f"begin/{agreed}", _one("rows", np.array(own, np.int64), MAX_ROWS))
    allowed = await together.run("begin", _one("thresholds", _one_hot(features), 1))
    whole_pool = int(counted[0]), int(counted[1])
    if min(whole_pool) < 1 or sum(whole_pool) > MAX_ROWS:
        text = f"all banks together train on {whole_pool[0]} bad and {whole_pool[1]} good rows"
        raise DataError("hybrid.rows", f"{text}; both classes are needed, and at most {MAX_ROWS} rows")
    base = bank_margin(own, whole_pool) if hybrid.own_intercepts else bank_margin(whole_pool, whole_pool)
    number = members.index(party)
    among = Among(base, np.full(len(bad), base), np.full(len(bad), number, np.int64), len(members))
    seed = None
    if plan.boost.column_sampling < 1:  # nobody knows it before all have spoken, and the coordinator never
        drawn = await together.run("begin", _one("columns", seed_limbs(draws.seed), _SEED_LIMB))
        seed = seed_of(drawn)
    return CommonTrees(_least(features, allowed), among, seed)


def seed_limbs(seed: bytes) -> NDArray[np.int64]:
    """What a bank adds to the seed of the columns: int64 (16,)."""
    return np.frombuffer(expand(seed, "hybrid/columns", 4 * _SEED_LIMBS), dtype="<u4").astype(np.int64)


def seed_of(total: NDArray[np.int64]) -> bytes:
    """The seed that follows from all banks' limbs."""
    return hashlib.sha256(b"fedcredit/hybrid/columns" + total.astype("<i8").tobytes()).digest()


def _one(what: str, values: NDArray[np.int64], bound: int) -> Summing[NDArray[np.int64]]:
    """One total."""
    total = yield Part(what, values, bound)
    return total


def _about(plan: BoostPlan, hybrid: HybridSection, features: Sequence[TreeFeature], party: PartyId) -> str:
    """All that has to be the same at every bank: its own features come under one name."""
    shapes = [
        ["" if one.owner == party else one.owner, one.code, one.bins, one.ordered, one.monotone, one.foreign]
        for one in features
    ]
    common = {"own_intercepts": hybrid.own_intercepts}
    return json.dumps([plan.boost.model_dump(mode="json"), plan.privacy.model_dump(mode="json"), common, shapes])


def _one_hot(features: Sequence[TreeFeature]) -> NDArray[np.int64]:
    """For each foreign feature, which number of splits this bank's ledger account allows: int64 (foreign * steps,)."""
    foreign = [one for one in features if one.foreign]
    marks = np.zeros((len(foreign), _MOST_THRESHOLDS + 2), np.int64)
    for place, one in enumerate(foreign):
        limit = UNCAPPED if one.thresholds is None else one.thresholds
        marks[place, _MOST_THRESHOLDS + 1 if limit >= UNCAPPED else min(limit, _MOST_THRESHOLDS)] = 1
    return np.concatenate((marks.reshape(-1), [1])).astype(np.int64)


def _least(features: Sequence[TreeFeature], totals: NDArray[np.int64]) -> tuple[TreeFeature, ...]:
    """The features with the fewest splits that any bank's account allows."""
    marks = iter(totals[:-1].reshape(-1, _MOST_THRESHOLDS + 2))
    found = []
    for one in features:
        if one.foreign:
            least = int(np.flatnonzero(next(marks))[0])
            found.append(replace(one, thresholds=one.thresholds if least > _MOST_THRESHOLDS else least))
        else:
            found.append(one)
    return tuple(found)
