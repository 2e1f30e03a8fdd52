"""Alignment in mode ``plain``, the label holder's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.protocol.align.index import RowIndex, common_order, locate
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
) -> RowIndex:
    """Collects all ids and names the common ones.

    Args:
        channel: To the feature holders.
        feature_holders: All of them.
        own_ids: Ids of the label holder's table.
        held_out: Says which of some ids are test rows.
        seed: Seed of the order.

    Raises:
        DataError: no common id, or no row left to train or to test on.
    """
    channel.stage("align")
    lists = await channel.gather(feature_holders, IdList)
    ids = common_order([own_ids, *(lists[party].ids for party in feature_holders)], seed)
    test = held_out(ids)
    if not test.any() or test.all():
        raise DataError(
            "split.empty", f"{int(test.sum())} of {len(ids)} rows are held out: both parts of the split need rows"
        )
    test_rows = np.packbits(test).tobytes()
    await channel.broadcast(feature_holders, CommonIndex(ids=list(ids), test_rows=test_rows))
    return locate(own_ids, ids, test_rows, channel.party)
