"""Alignment in the mode of the spec, role by role."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.protocol.align import feature_holder, label_holder
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.registry import registry_holder, registry_leader
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.holding import Holding
from fedcredit.spec.model import RunSpec

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
    return await label_holder.align_plain(
        channel, holders, own, held_out, spec.split.seed, every_row=spec.align.every_row
    )


async def hold_alignment(channel: Channel, holding: Holding) -> RowIndex:
    """A feature holder's role; raises as `lead_alignment`."""
    spec, own = holding.spec, holding.table.ids.to_list()
    leader = spec.label_holder.name
    if spec.align.mode == "registry":
        return await registry_holder(channel, leader, own, _register(holding), spec.split.seed)
    return await feature_holder.align_plain(channel, leader, own, every_row=spec.align.every_row)


async def relay_alignment(channel: Channel, spec: RunSpec) -> None:
    """The coordinator's role: it has one under ``blind`` only."""
    del channel, spec


def _register(holding: Holding) -> Sequence[str]:
    if not holding.register:
        raise DataError(
            "align.no-register",
            f"{holding.table.party}: has no register of public ids; name its file as align.registry",
        )
    return holding.register
