"""A whole boosting run, role by role: agree, align, grow, score. Simulation and nodes run the same three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import DataError
from fedcredit.kernels.prebin import PrebinRules
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.messages import SCHEMA as ALIGN
from fedcredit.protocol.align.roles import hold_alignment, lead_alignment, relay_alignment
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.draws import HolderDraws, LabelDraws
from fedcredit.protocol.boost.feature_holder import HolderInputs, HolderTrees, hold_trees
from fedcredit.protocol.boost.label_holder import LabelInputs, LedTrees, Report, lead_trees
from fedcredit.protocol.boost.messages import SCHEMA as BOOST
from fedcredit.protocol.boost.plan import plan_boost
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.group_sum.messages import SCHEMA as GROUP_SUM
from fedcredit.protocol.group_sum.session import agree
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.own_bins import OwnColumns, pooled_features
from fedcredit.protocol.hybrid.trees_join import SharedTrees, join_trees
from fedcredit.protocol.select.messages import SCHEMA as SELECT
from fedcredit.spec.model import BoostSection, RunSpec

__all__ = ["SCHEMAS", "BoostResult", "bank_features", "coordinate", "hold", "holder_draws", "lead", "own_features"]

SCHEMAS = (ALIGN, GROUP_SUM, SELECT, BOOST)
"""All messages of a boosting run."""

_LEAST_OWN = 3  # rows of a bin of the label holder's own: nobody is told of it, and LightGBM takes as many


@dataclass(frozen=True)
class BoostResult:
    """What the label holder has at the end.

    Args:
        index: Common rows.
        own: Own features.
        bad: bool (n,), labels in the common order.
        trees: The model and the held-out rows' paths.
    """

    index: RowIndex
    own: tuple[OwnFeature, ...]
    bad: NDArray[np.bool_]
    trees: LedTrees


async def lead(
    channel: Channel,
    holding: Holding,
    held_out: Callable[[Sequence[str]], NDArray[np.bool_]],
    checkpoints: Checkpoints,
    report: Report,
    *,
    shared: SharedTrees | None = None,
) -> BoostResult:
    """The label holder's role.

    Args:
        channel: To everyone.
        holding: What it brings.
        held_out: Says which of some ids are test rows.
        checkpoints: Its state after each tree.
        report: Told of each finished tree.
        shared: Trees of other banks that it takes over; the holders know of it.

    Raises:
        DataError: the common rows do not carry a model.
        FedCreditError: a peer failed or the protocol was broken.
    """
    spec, keep = holding.spec, holding.keep
    holders = [party.name for party in spec.feature_holders]
    session = await agree(channel, spec.parties, holding.run_digest, spec.crypto.profile, keep)
    index = await lead_alignment(channel, holding, held_out)
    if holding.table.label is None:
        raise DataError("label.missing", f"{channel.party}: has no label")
    bad = index.bad(holding.table.label)
    if shared is None:
        own, seed = await bank_features(holding, index)
    else:
        own, seed = shared.own_features(holding.table, index), _seed(holding)
    inputs = LabelInputs(
        own=own,
        bad=bad,
        index=index,
        holders=holders,
        plan=plan_boost(spec),
        draws=LabelDraws(seed),
        keep=keep,
        checkpoints=checkpoints,
        report=report,
        pool=holding.pool,
        hybrid=spec.hybrid,
    )
    if shared is None:
        led = await lead_trees(channel, session, inputs)
    else:
        led = await join_trees(channel, session, inputs, shared)
    return BoostResult(index, tuple(own), bad, led)


async def hold(
    channel: Channel, holding: Holding, checkpoints: Checkpoints, *, joins: bool = False
) -> tuple[RowIndex, HolderTrees]:
    """A feature holder's role; returns the common rows and its own part of the model.

    Args:
        channel: To everyone.
        holding: What it brings.
        checkpoints: Where disclosed splits are kept.
        joins: Whether the label holder takes over trees that other banks have grown.
    """
    spec, keep = holding.spec, holding.keep
    leader = spec.label_holder.name
    session = await agree(channel, spec.parties, holding.run_digest, spec.crypto.profile, keep)
    index = await hold_alignment(channel, holding)
    if holding.account is not None:
        channel = holding.account.channel(channel, leader, None if index.hidden else index.ids)
    own, seed = own_features(holding, index)
    inputs = HolderInputs(
        label_holder=leader,
        own=own,
        index=index,
        data_version=holding.table.digest,
        plan=plan_boost(spec),
        draws=holder_draws(holding, seed),
        keep=keep,
        checkpoints=checkpoints,
        common=holding.common is not None,
        joins=joins,
    )
    return index, await hold_trees(channel, session, inputs)


async def coordinate(channel: Channel, spec: RunSpec) -> None:
    """The coordinator's role: nothing is added up between holders, so after the alignment it only relays."""
    await relay_alignment(channel, spec)
    channel.stage("boost")


def own_features(holding: Holding, index: RowIndex) -> tuple[list[OwnFeature], bytes]:
    """A party's columns in bins, and the seed of its draws, which it keeps for its auditor."""
    boost = holding.spec.boost or BoostSection()
    bins, rows = (boost.bins, _LEAST_OWN) if holding.leads else (boost.holder_bins, boost.min_bin_rows)
    rules = PrebinRules(max_prebins=bins, min_rows=rows, max_categories=holding.spec.bin.max_categories)
    own = holding.prebinned(index, rules, index.train)
    return own, _seed(holding)


def holder_draws(holding: Holding, seed: bytes) -> HolderDraws:
    """A feature holder's draws: noise is another for every bank, the features offered are the same for all."""
    if holding.common is None:
        return HolderDraws(seed)
    return HolderDraws(seed, RunSecret(holding.common).entropy("hybrid/columns").take(SEED_BYTES))


async def bank_features(holding: Holding, index: RowIndex) -> tuple[list[OwnFeature], bytes]:
    """A bank's own columns in bins, its own or those of all banks of its pool, and the seed of its draws.

    Every bank of a pool learns totals by these bins, so they hold as many rows as a feature holder's.
    """
    spec, pool = holding.spec, holding.pool
    if pool is None:
        return own_features(holding, index)
    boost = spec.boost or BoostSection()
    rules = PrebinRules(max_prebins=boost.bins, min_rows=boost.min_bin_rows, max_categories=spec.bin.max_categories)
    run = f"{spec.run.name}/{spec.run.seed}"  # what all parts of the run have in common
    columns = OwnColumns(run, holding.table, index, spec.label_holder, rules, index.train)
    return await pooled_features(pool, columns), _seed(holding)


def _seed(holding: Holding) -> bytes:
    seed = holding.keep.replayable.take(SEED_BYTES)
    holding.keep.escrow.record("draws", {"seed": seed.hex()})
    return seed
