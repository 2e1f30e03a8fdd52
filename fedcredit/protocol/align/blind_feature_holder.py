"""Alignment in mode ``blind``, a feature holder's side: it learns which of its own rows are in the common order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import PeerError
from fedcredit.protocol.align.blind_inputs import BlindInputs, Ring, decoys_of, spelt
from fedcredit.protocol.align.blind_pieces import NOWHERE, receive_places
from fedcredit.protocol.align.blind_shuffler import Shuffler
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.messages import CommonRows
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId

__all__ = ["align_blind_holder"]


async def align_blind_holder(channel: Channel, inputs: BlindInputs) -> RowIndex:
    """A feature holder's role.

    Args:
        channel: To everyone.
        inputs: What it brings.

    Returns:
        The common order, with the row of each in the own table. With decoys it is hidden, and no row is held out.

    Raises:
        PeerError: a party broke the protocol, or the common order is not one.
        DataError: own ids are not usable.
        DisclosureRefused: the own ledger does not answer as many ids as a party asks.
    """
    channel.stage("align")
    own, own_rows = spelt(inputs.own_ids, inputs.ids, channel.party)
    hands = Shuffler(channel, inputs, own)
    await hands.announce()
    await hands.pass_lists()
    await hands.hand_back_replies()
    await hands.hand_on_places()
    leader = Ring(inputs.parties).leader
    told = await channel.receive(leader, CommonRows)
    test = _checked(told, inputs, leader)
    await hands.hand_back_places()
    sent = await receive_places(channel, hands.ahead, channel.party, len(own))
    entries = _entries(hands.in_listed_order(sent), told.rows, hands.ahead)
    return RowIndex(tuple(own[entry] for entry in entries), own_rows[entries], test, hidden=inputs.decoys > 0)


def _checked(told: CommonRows, inputs: BlindInputs, leader: PartyId) -> NDArray[np.bool_]:
    """The rows held out, if the label holder's numbers are what the run's configuration allows.

    Raises:
        PeerError: below the floor, another number of decoys, or test rows that do not fit.
    """
    hidden = inputs.decoys > 0
    if told.counted < inputs.min_overlap or told.rows != told.counted + decoys_of(told.counted, inputs.decoys):
        raise PeerError("align.rows", f"{leader}: the common order is below the floor, or has other decoys than agreed")
    if len(told.test_rows) != (0 if hidden else -(-told.rows // 8)):
        raise PeerError("align.test-rows", f"{leader}: {len(told.test_rows)} bytes of test rows do not fit this run")
    if hidden:
        return np.zeros(told.rows, dtype=np.bool_)
    bits = np.unpackbits(np.frombuffer(told.test_rows, dtype=np.uint8))
    if bits[told.rows :].any():
        raise PeerError("align.test-rows", f"{leader}: the padding of the test rows is not zero")
    return bits[: told.rows].astype(np.bool_)


def _entries(places: NDArray[np.int64], rows: int, sender: PartyId) -> NDArray[np.int64]:
    """The own entry at each place.

    Raises:
        PeerError: a place is unknown, taken twice or by nobody.
    """
    (placed,) = (places != NOWHERE).nonzero()
    at = places[placed]
    if len(at) and not 0 <= int(at.min()) <= int(at.max()) < rows:
        raise PeerError("align.unknown-place", f"{sender}: a place outside the {rows} rows of the common order")
    if len(np.unique(at)) != len(at):
        raise PeerError("align.repeated-place", f"{sender}: one place of the common order is given to two rows")
    if len(at) != rows:
        raise PeerError("align.missing-place", f"{sender}: {len(at)} of {rows} rows of the common order have a place")
    entries = np.empty(rows, dtype=np.int64)
    entries[at] = placed
    return entries
