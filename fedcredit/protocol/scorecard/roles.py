"""A whole scorecard run, role by role: agree, align, bin, fit, score. Simulation and nodes run the same three."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.prebin import PrebinRules
from fedcredit.kernels.selection import Budget, Dropped
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.messages import SCHEMA as ALIGN
from fedcredit.protocol.align.roles import hold_alignment, lead_alignment, relay_alignment
from fedcredit.protocol.bin.feature_holder import AnswerInputs, answer_bins
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.label_holder import BinInputs, BinnedRun, bin_all, check_classes
from fedcredit.protocol.bin.messages import SCHEMA as BIN
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.messages import SCHEMA as GROUP_SUM
from fedcredit.protocol.group_sum.session import agree
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.own_bins import OwnColumns, pooled_features
from fedcredit.protocol.hybrid.scorecard_decisions import PooledDecisions
from fedcredit.protocol.hybrid.warm_start import CommonScorecard, WarmDecisions
from fedcredit.protocol.scorecard.candidates import Candidates, Offer
from fedcredit.protocol.scorecard.coordinator import add_totals
from fedcredit.protocol.scorecard.decisions import Decisions, OneBank
from fedcredit.protocol.scorecard.feature_holder import HolderFeature, HolderInputs, hold_features
from fedcredit.protocol.scorecard.fit import FittedScorecard
from fedcredit.protocol.scorecard.label_holder import LabelInputs, lead_scorecard
from fedcredit.protocol.scorecard.messages import SCHEMA as SCORECARD
from fedcredit.protocol.scorecard.plan import plan_fit
from fedcredit.protocol.select.messages import SCHEMA as SELECT
from fedcredit.spec.model import BinSection, RunSpec
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, CostKind

__all__ = ["SCHEMAS", "LabelResult", "coordinate", "decide", "hold", "lead", "own_features", "prebin_rules"]

SCHEMAS = (ALIGN, GROUP_SUM, BIN, SELECT, SCORECARD)
"""All messages of a scorecard run."""


@dataclass(frozen=True)
class LabelResult:
    """What the label holder has at the end.

    Args:
        index: Common rows.
        own: Own features.
        bad: bool (n,), labels in the common order.
        binned: All features with counts.
        candidates: Features tried, and those dropped before.
        budgets: What the ledgers allowed.
        fitted: The scorecard and the held-out scores.
    """

    index: RowIndex
    own: tuple[OwnFeature, ...]
    bad: NDArray[np.bool_]
    binned: BinnedRun
    candidates: Candidates
    budgets: Mapping[PartyId, Budget]
    fitted: FittedScorecard

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """All features left out, with reasons."""
        return (*self.candidates.dropped, *self.fitted.dropped)


async def lead(
    channel: Channel,
    holding: Holding,
    held_out: Callable[[Sequence[str]], NDArray[np.bool_]],
    start: CommonScorecard | None = None,
) -> LabelResult:
    """The label holder's role.

    Args:
        channel: To everyone.
        holding: What it brings.
        held_out: Says which of some ids are test rows.
        start: What it starts from, where it joins the banks of an earlier hybrid run.

    Raises:
        DataError: the common rows do not carry a scorecard.
        IntegrityError: an earlier attempt at this run sent other bytes, or what it kept is damaged or lost.
        FedCreditError: a peer failed or the protocol was broken.
    """
    spec, keep = holding.spec, holding.keep
    holders = [party.name for party in spec.feature_holders]
    session = await agree(channel, spec.parties, holding.run_digest, spec.crypto.profile, keep)
    index = await lead_alignment(channel, holding, held_out)
    if holding.table.label is None:
        raise DataError("label.missing", f"{channel.party}: has no label")
    bad = index.bad(holding.table.label)
    goods, bads = check_classes(bad, index, spec.bin)
    decisions = decide(holding, start)
    own = await own_features(holding, index, start)
    binned = await bin_all(channel, session, BinInputs(own, bad, index, holders, spec.bin, keep, decisions.merge))
    plan = plan_fit(spec.scorecard)
    basis = Basis(n_eff=goods + bads, n_bad=bads)
    budgets: dict[PartyId, Budget] = {}
    for party in holders:
        (bins,) = channel.headroom(party, holding.table.digest, basis, CostKind.BINS_RETURNED, [""])
        budgets[party] = Budget(min(binned.equations[party].values()), bins)
    data, rules = holding.table.digest, spec.scorecard
    candidates = await decisions.candidates(Offer(binned.features, own, index.train, budgets, rules, plan))
    inputs = LabelInputs(own, bad, index, candidates, holders, data, rules, plan, keep, decisions)
    fitted = await lead_scorecard(channel, session, inputs)
    return LabelResult(index, tuple(own), bad, binned, candidates, budgets, fitted)


async def hold(channel: Channel, holding: Holding) -> tuple[RowIndex, list[HolderFeature]]:
    """A feature holder's role; returns the common rows and its own part of the model."""
    spec, keep = holding.spec, holding.keep
    leader, holders = spec.label_holder.name, [party.name for party in spec.feature_holders]
    session = await agree(channel, spec.parties, holding.run_digest, spec.crypto.profile, keep)
    index = await hold_alignment(channel, holding)
    if holding.account is not None:
        channel = holding.account.channel(channel, leader, None if index.hidden else index.ids)
    own = holding.prebinned(index, prebin_rules(spec.bin))
    # In common bins each has none or enough of the rows of one bank: see `Holding.prebinned`.
    least = spec.bin.min_prebin_rows if holding.common is None else 0
    answers = AnswerInputs(leader, own, least, holding.table.digest, keep)
    basis = await answer_bins(channel, session, answers)
    data, plan = holding.table.digest, plan_fit(spec.scorecard)
    inputs = HolderInputs(leader, holders, own, index, basis, data, plan, keep, min(least, 1))
    return index, await hold_features(channel, session, inputs)


async def coordinate(channel: Channel, spec: RunSpec) -> None:
    """The coordinator's role."""
    await relay_alignment(channel, spec)
    holders = [party.name for party in spec.feature_holders]
    await add_totals(channel, spec.label_holder.name, holders, hidden=spec.align.hidden)


def prebin_rules(rules: BinSection) -> PrebinRules:
    """How every party of a scorecard cuts its columns."""
    return PrebinRules(max_prebins=rules.prebins, min_rows=rules.min_prebin_rows, max_categories=rules.max_categories)


def decide(holding: Holding, start: CommonScorecard | None = None) -> Decisions:
    """Who decides in a label holder's run: it alone, the banks of its pool, or those of an earlier run."""
    if start is not None:
        return WarmDecisions(start, holding.table.party, holding.spec.hybrid)
    if holding.pool is None:
        return OneBank()
    return PooledDecisions(holding.pool, holding.table.party, holding.spec.hybrid)


async def own_features(holding: Holding, index: RowIndex, start: CommonScorecard | None = None) -> list[OwnFeature]:
    """A label holder's own columns in bins: its own, those of all banks of its pool, or those of an earlier run."""
    if start is not None:
        return start.own_features(holding.table, index)
    rules = prebin_rules(holding.spec.bin)
    if holding.pool is None:
        return holding.prebinned(index, rules)
    party = holding.spec.label_holder
    run = f"{holding.spec.run.name}/{holding.spec.run.seed}"  # what all parts of the run have in common
    return await pooled_features(holding.pool, OwnColumns(run, holding.table, index, party, rules))
