"""The scorecard, the coordinator's side: adds encrypted partial points it cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedcredit.crypto.slots import add as add_selected
from fedcredit.crypto.totals import add
from fedcredit.errors import PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.scorecard.messages import EncryptedPartial, EncryptedTotal, FitStep, TotalsKey
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND
from fedcredit.types import PartyId

__all__ = ["add_totals"]


async def add_totals(
    channel: Channel, label_holder: PartyId, holders: Sequence[PartyId], *, hidden: bool = False
) -> None:
    """Adds the partials of each round, then those of the scoring.

    Args:
        channel: To everyone.
        label_holder: Whose key the partials are encrypted under.
        holders: All feature holders of the spec.
        hidden: Whether the partials are answers to an encrypted choice of rows.

    Raises:
        PeerError: a partial is malformed or of another round.
    """
    channel.stage("scorecard")
    key = await channel.receive(label_holder, TotalsKey)
    number, more = 0, True
    while more:
        more = (await channel.receive(label_holder, FitStep)).more
        rows: Literal["train", "test"] = "train" if more else "test"
        if not more:
            channel.stage("score")
        partials = await channel.gather(holders, EncryptedPartial)
        for party, partial in partials.items():
            if partial.round != number or partial.rows != rows:
                raise PeerError("scorecard.round", f"{party}: partial points of another round")
        with blaming("a feature holder"):
            parts = [partials[party].body for party in holders]
            body = add_selected(parts, key.public) if hidden else add(parts, key.public, bound=TOTAL_BOUND)
        await channel.send(label_holder, EncryptedTotal(round=number, rows=rows, body=body))
        number += 1
