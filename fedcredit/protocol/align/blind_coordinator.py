"""Alignment in mode ``blind``, the coordinator's side: it compares tokens that all parties have blinded.

It has no key and sees no order that anyone knows. What it learns are numbers: the length of every list, and how many
entries each set of parties has in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.crypto.blind_group import POINT, Bytes, validate
from fedcredit.crypto.blind_reply import PAIR, tell
from fedcredit.crypto.prg import SeedStream
from fedcredit.errors import PeerError
from fedcredit.protocol.align.blind_inputs import Ring, below_floor
from fedcredit.protocol.align.blind_pieces import (
    NOWHERE,
    columns,
    each_slice,
    receive_places,
    receive_tokens,
    send_places,
    send_replies,
)
from fedcredit.protocol.align.messages import BlindedList, ListSize, ReplyKey
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId

__all__ = ["relay_blind"]

Indices = NDArray[np.int64]


async def relay_blind(channel: Channel, parties: Sequence[PartyId], min_overlap: int) -> None:
    """The coordinator's role.

    Args:
        channel: To everyone.
        parties: The label holder, then every feature holder, in the order that all parties have.
        min_overlap: Floor of the common rows; decoys included, they must reach it, or nobody is told anything.

    Raises:
        PolicyDenied: the common rows are below the floor.
        PeerError: a party broke the protocol.
    """
    channel.stage("align")
    ring = Ring(tuple(parties))
    sizes = {party: one.entries for party, one in (await channel.gather(parties, ListSize)).items()}
    key = await channel.receive(ring.leader, ReplyKey)
    with blaming(ring.leader):
        validate(np.frombuffer(key.public, dtype=np.uint8).reshape(1, POINT))
    lists = {}
    for sender in parties:
        owner = ring.step(sender, 1)
        lists[owner] = await _receive(channel, sender, owner, sizes[owner])
    common = _common(lists, ring)
    if len(common) < min_overlap:
        raise below_floor()
    last = ring.step(ring.leader, -1)
    await send_replies(channel, last, await _replies(common[ring.leader].to_numpy(), sizes[ring.leader], key))
    told = await receive_places(channel, last, ring.leader, sizes[ring.leader])
    places = _checked(told, common[ring.leader].to_numpy(), last)
    for sender in parties:
        owner = ring.step(sender, 1)
        if owner != ring.leader:
            of_owner = np.full(sizes[owner], NOWHERE, dtype=np.int64)
            of_owner[common[owner].to_numpy()] = places
            await send_places(channel, sender, owner, of_owner)


async def _receive(channel: Channel, sender: PartyId, owner: PartyId, entries: int) -> pl.DataFrame:
    """A list that all parties have blinded, as columns."""
    head = await channel.receive(sender, BlindedList)
    if (head.owner, head.entries) != (owner, entries):
        raise PeerError(
            "align.length",
            f"{sender} hands on {head.entries} entries of {head.owner} where the {entries} of {owner} are due: a list "
            "keeps its length",
        )
    tokens = np.empty((entries, POINT), dtype=np.uint8)
    async for first, piece in receive_tokens(channel, sender, owner, entries):
        with blaming(sender):
            await each_slice(_valid, piece, tokens[first : first + len(piece)])
    found = columns(tokens)
    if found.n_unique() != len(found):
        raise PeerError("align.duplicate", f"{sender}: the list of {owner} holds a token twice")
    return found


def _valid(tokens: Bytes) -> Bytes:
    validate(tokens)
    return tokens


def _common(lists: Mapping[PartyId, pl.DataFrame], ring: Ring) -> pl.DataFrame:
    """Tokens that are in every list: for each party, a column with their numbers in its list."""
    words = lists[ring.leader].columns
    common = lists[ring.leader].with_row_index(ring.leader)
    for party in ring.parties[1:]:
        common = common.join(lists[party].with_row_index(party), on=words, how="inner")
    return common.select(ring.parties)


async def _replies(common: NDArray[np.uint32], entries: int, key: ReplyKey) -> Bytes:
    """The pairs for all entries of the label holder's list."""
    bits = np.zeros((entries, 1), dtype=np.uint8)
    bits[common] = 1
    # The seed is the label holder's: it can read the bits anyway, and a run that is tried again sends the same bytes.
    entropy = SeedStream(key.seed, "align/replies")
    pairs = np.empty((entries, PAIR), dtype=np.uint8)

    def told(part: Bytes) -> Bytes:
        return tell(part[:, 0].astype(np.bool_), key.public, entropy)

    await each_slice(told, bits, pairs)
    return pairs


def _checked(told: Indices, common: NDArray[np.uint32], sender: PartyId) -> Indices:
    """The place of each common token, `NOWHERE` where it was dropped.

    Raises:
        PeerError: a token that is not common has a place, or the places are not 0, 1, 2, … each once.
    """
    places = told[common]
    others = np.ones(len(told), dtype=np.bool_)
    others[common] = False
    if (told[others] != NOWHERE).any():
        raise PeerError("align.unknown-place", f"{sender}: an entry that is not common to all has a place")
    given = np.sort(places[places != NOWHERE])
    if not np.array_equal(given, np.arange(len(given))):
        repeated = len(np.unique(given)) != len(given)
        code = "align.repeated-place" if repeated else "align.unknown-place"
        raise PeerError(code, f"{sender}: the places of the common order are not each given once")
    return places
