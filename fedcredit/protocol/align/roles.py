"""Alignment in the mode of the spec, role by role."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.protocol.align import feature_holder, label_holder
from fedcredit.protocol.align.blind_coordinator import relay_blind
from fedcredit.protocol.align.blind_feature_holder import align_blind_holder
from fedcredit.protocol.align.blind_inputs import BlindInputs
from fedcredit.protocol.align.blind_label_holder import DecoySource, align_blind_leader
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.registry import registry_holder, registry_leader
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.holding import Holding
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["hold_alignment", "lead_alignment", "relay_alignment"]


async def lead_alignment(
    channel: Channel, holding: Holding, held_out: Callable[[Sequence[str]], NDArray[np.bool_]]
) -> RowIndex:
    """The label holder's role.

    Args:
        channel: To everyone.
        holding: What it brings.
        held_out: Says which of some ids are test rows.

    Raises:
        DataError: no common rows, no row left to train or to test on, or no register where one is needed.
        PeerError: a party broke the protocol.
    """
    spec, own = holding.spec, holding.table.ids.to_list()
    holders = [party.name for party in spec.feature_holders]
    if spec.align.mode == "registry":
        split = (held_out, spec.split.seed)
        return await registry_leader(channel, holders, own, _register(holding), split)
    if spec.align.mode == "blind":
        source = DecoySource(_register(holding), holding.decoy_key) if spec.align.decoys else None
        return await align_blind_leader(channel, _blind(holding), held_out, source)
    return await label_holder.align_plain(
        channel, holders, own, held_out, spec.split.seed, every_row=spec.align.every_row
    )


async def hold_alignment(channel: Channel, holding: Holding) -> RowIndex:
    """A feature holder's role; raises as `lead_alignment`."""
    spec, own = holding.spec, holding.table.ids.to_list()
    leader = spec.label_holder.name
    if spec.align.mode == "registry":
        return await registry_holder(channel, leader, own, _register(holding), spec.split.seed)
    if spec.align.mode == "blind":
        return await align_blind_holder(channel, _blind(holding))
    return await feature_holder.align_plain(channel, leader, own, every_row=spec.align.every_row)


async def relay_alignment(channel: Channel, spec: RunSpec) -> None:
    """The coordinator's role: it has one under ``blind`` only."""
    if spec.align.mode == "blind":
        await relay_blind(channel, _ring(spec), spec.align.min_overlap)


def _register(holding: Holding) -> Sequence[str]:
    if not holding.register:
        raise DataError(
            "align.no-register",
            f"{holding.table.party}: has no register of public ids; name its file as align.registry",
        )
    return holding.register


def _ring(spec: RunSpec) -> tuple[PartyId, ...]:
    """The label holder, then every feature holder."""
    return (spec.label_holder.name, *(party.name for party in spec.feature_holders))


def _blind(holding: Holding) -> BlindInputs:
    spec = holding.spec
    return BlindInputs(
        parties=_ring(spec),
        run_digest=holding.run_digest,
        own_ids=holding.table.ids.to_list(),
        ids=spec.align.ids,
        secret=holding.keep.secret,
        data_version=holding.table.digest,
        decoys=spec.align.decoys,
        min_overlap=spec.align.min_overlap,
    )
