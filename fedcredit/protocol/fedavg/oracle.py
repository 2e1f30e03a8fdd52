"""Averaging in the clear, and training on pooled rows: what the protocol has to equal, and what it is compared with.

Unsafe: whoever runs this sees every bank's rows. For simulations and tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedcredit.errors import PeerError
from fedcredit.protocol.fedavg.columns import BankRows, Examples
from fedcredit.protocol.fedavg.learner import Learned, Learner
from fedcredit.protocol.fedavg.plan import LearnPlan
from fedcredit.types import PartyId

__all__ = ["average_in_the_clear", "pool_rows", "train_on_pooled"]

_POOLED = PartyId("pooled")


def average_in_the_clear(learners: Mapping[PartyId, Learner]) -> dict[PartyId, Learned]:
    """Drives banks' learners to their end with plain sums.

    Args:
        learners: One for each bank, all at the same place.

    Returns:
        What each bank has, the same to the bit as under any secure sum with the same members.

    Raises:
        PeerError: the banks ask for different sums.
    """
    members = tuple(sorted(learners))
    while not all(one.finished for one in learners.values()):
        asked = {party: one.ask(len(members)) for party, one in learners.items()}
        about = {(one.what, one.values.shape, one.bound) for one in asked.values()}
        if len(about) > 1:
            raise PeerError("pool.about", f"{len(about)} different sums are asked for where all banks must ask for one")
        total = np.stack([one.values for one in asked.values()]).sum(axis=0, dtype=np.int64)
        for one in learners.values():
            one.take(total, members)
    return {party: one.result() for party, one in learners.items()}


def pool_rows(banks: Sequence[BankRows]) -> BankRows:
    """All banks' rows as those of one.

    Raises:
        PeerError: the banks have different columns.
    """
    first = banks[0]
    if any(one.columns != first.columns for one in banks):
        raise PeerError("pool.columns", "the banks have different columns; their rows cannot be pooled")
    train, test = ([getattr(one, part) for one in banks] for part in ("train", "test"))
    same = all(one is test[0] for one in test)  # a table that all of them hold out counts once
    return BankRows(
        first.columns,
        _together(train),
        np.concatenate([one.judges for one in banks]),
        test[0] if same else _together(test),
        first.reference,
    )


def _together(parts: Sequence[Examples]) -> Examples:
    return Examples(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("numbers", "buckets", "bad")))


def train_on_pooled(banks: Sequence[BankRows], plan: LearnPlan) -> Learned:
    """The same network, rules and number of passes over all rows in one place, without noise.

    Whatever the algorithm of the run, steps follow each other without averages: this is what averaging approximates.
    """
    rules = replace(plan.local, proximal=0.0)
    plain = replace(plan, local=rules, server=replace(plan.server, algorithm="mean", rate=1.0), scaffold=False)
    plain = replace(plain, unit="none", fine_tune=0, clip=1e4)
    return average_in_the_clear({_POOLED: Learner(_POOLED, pool_rows(banks), plain)})[_POOLED]
