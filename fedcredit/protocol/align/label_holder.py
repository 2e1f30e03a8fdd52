"""Alignment in mode ``plain``, the label holder's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.protocol.align.index import RowIndex, check_split, common_order, in_order, locate
from fedcredit.protocol.align.messages import CommonIndex, IdList
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId

__all__ = ["align_plain"]


async def align_plain(
    channel: Channel,
    feature_holders: Sequence[PartyId],
    own_ids: Sequence[str],
    held_out: Callable[[Sequence[str]], NDArray[np.bool_]],
    seed: int,
    *,
    every_row: bool = False,
) -> RowIndex:
    """Collects all ids and names those of the run.

    Args:
        channel: To the feature holders.
        feature_holders: All of them.
        own_ids: Ids of the label holder's table.
        held_out: Says which of some ids are test rows.
        seed: Seed of the order.
        every_row: Whether all own rows take part, unknown to others or not; else those that everyone has.

    Raises:
        DataError: no common id, or no row left to train or to test on.
    """
    channel.stage("align")
    lists = await channel.gather(feature_holders, IdList)
    if every_row:
        ids = tuple(in_order(own_ids, seed))
    else:
        ids = common_order([own_ids, *(lists[party].ids for party in feature_holders)], seed)
    test = held_out(ids)
    check_split(test, len(ids))
    test_rows = np.packbits(test).tobytes()
    await channel.broadcast(feature_holders, CommonIndex(ids=list(ids), test_rows=test_rows))
    return locate(own_ids, ids, test_rows, channel.party)
