"""Alignment in mode ``plain``, a feature holder's side."""

from __future__ import annotations

from collections.abc import Sequence

from fedcredit.protocol.align.index import RowIndex, locate
from fedcredit.protocol.align.messages import CommonIndex, IdList
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId

__all__ = ["align_plain"]


async def align_plain(
    channel: Channel, label_holder: PartyId, own_ids: Sequence[str], *, every_row: bool = False
) -> RowIndex:
    """Shows all own ids to the label holder and takes the common order from it.

    Raises:
        PeerError: the common order names ids that are not this party's, and ``every_row`` does not allow them.
    """
    channel.stage("align")
    await channel.send(label_holder, IdList(ids=list(own_ids)))
    index = await channel.receive(label_holder, CommonIndex)
    return locate(own_ids, index.ids, index.test_rows, label_holder, every_row=every_row)
