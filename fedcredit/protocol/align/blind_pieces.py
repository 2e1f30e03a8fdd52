"""Lists in pieces: sent in order, received in order, of exactly the length announced; and what must not be in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.crypto.blind_group import POINT, Bytes
from fedcredit.crypto.blind_reply import PAIR
from fedcredit.errors import PeerError
from fedcredit.protocol.align.messages import (
    PLACES_A_PIECE,
    REPLIES_A_PIECE,
    TOKENS_A_PIECE,
    Places,
    Replies,
    Tokens,
)
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId

__all__ = [
    "NOWHERE",
    "Seen",
    "columns",
    "each_slice",
    "receive_places",
    "receive_replies",
    "receive_tokens",
    "send_places",
    "send_replies",
    "send_tokens",
]

Indices = NDArray[np.int64]

NOWHERE = -1
"""Place of an entry that is not in the common order."""

_SLICE = 1 << 13
_PLACE = np.dtype("<i4")


async def each_slice(function: Callable[[Bytes], Bytes], items: Bytes, out: Bytes) -> None:
    """Applies a function to rows of an array, a slice at a time, so that others get their turn in between."""
    for start in range(0, len(items), _SLICE):
        out[start : start + _SLICE] = function(items[start : start + _SLICE])
        await asyncio.sleep(0)


async def send_tokens(channel: Channel, to: PartyId, owner: PartyId, tokens: Bytes) -> None:
    """Sends a list, uint8 (n, 32)."""
    for first in range(0, len(tokens), TOKENS_A_PIECE):
        piece = tokens[first : first + TOKENS_A_PIECE].tobytes()
        await channel.send(to, Tokens(owner=owner, first=first, tokens=piece))


async def receive_tokens(
    channel: Channel, sender: PartyId, owner: PartyId, entries: int
) -> AsyncIterator[tuple[int, Bytes]]:
    """Pieces of a list with the number of their first entry, uint8 (n, 32); nothing in them is checked yet.

    Raises:
        PeerError: a piece of another list, out of order, or not as long as announced.
    """
    first = 0
    while first < entries:
        piece = await channel.receive(sender, Tokens)
        found = _piece(sender, (piece.owner, owner), piece.first - first, piece.tokens, (entries - first, POINT))
        yield first, found
        first += len(found)


async def send_replies(channel: Channel, to: PartyId, pairs: Bytes) -> None:
    """Sends replies, uint8 (n, 64)."""
    for first in range(0, len(pairs), REPLIES_A_PIECE):
        await channel.send(to, Replies(first=first, pairs=pairs[first : first + REPLIES_A_PIECE].tobytes()))


async def receive_replies(channel: Channel, sender: PartyId, entries: int) -> AsyncIterator[tuple[int, Bytes]]:
    """Pieces of replies, uint8 (n, 64); raises as `receive_tokens`."""
    first = 0
    while first < entries:
        piece = await channel.receive(sender, Replies)
        found = _piece(sender, ("", ""), piece.first - first, piece.pairs, (entries - first, PAIR))
        yield first, found
        first += len(found)


async def send_places(channel: Channel, to: PartyId, owner: PartyId, places: Indices) -> None:
    """Sends the places of a list's entries, int64 (n,)."""
    for first in range(0, len(places), PLACES_A_PIECE):
        piece = places[first : first + PLACES_A_PIECE].astype(_PLACE).tobytes()
        await channel.send(to, Places(owner=owner, first=first, places=piece))


async def receive_places(channel: Channel, sender: PartyId, owner: PartyId, entries: int) -> Indices:
    """The places of all entries of a list, int64 (n,); whether they make an order is for their reader to check.

    Raises:
        PeerError: as `receive_tokens`.
    """
    places = np.empty(entries, dtype=np.int64)
    first = 0
    while first < entries:
        piece = await channel.receive(sender, Places)
        found = _piece(sender, (piece.owner, owner), piece.first - first, piece.places, (entries - first, 4))
        places[first : first + len(found)] = np.ascontiguousarray(found).view(_PLACE)[:, 0]
        first += len(found)
    return places


_ENTRIES = {POINT: TOKENS_A_PIECE, PAIR: REPLIES_A_PIECE, 4: PLACES_A_PIECE}


def _piece(sender: PartyId, owners: tuple[str, str], ahead: int, data: bytes, due: tuple[int, int]) -> Bytes:
    """The rows of a piece that is the next of the list that is due.

    Args:
        sender: For the error text.
        owners: Whose list it is, and whose is due.
        ahead: Difference of the piece's first entry and the one that is due.
        data: The piece.
        due: Entries that are still to come, and the size of one in bytes.
    """
    left, size = due
    if owners[0] != owners[1]:
        raise PeerError("align.owner", f"{sender} sent a piece of another list than that of {owners[1]}, which is due")
    if ahead:
        raise PeerError("align.order", f"{sender} sent a piece that was sent before, or leaves entries out")
    entries, rest = divmod(len(data), size)
    if rest or entries != min(left, _ENTRIES[size]):
        what = f"{len(data)} bytes where {min(left, _ENTRIES[size])} entries of {size} bytes are due"
        raise PeerError("align.length", f"{sender} sent a piece of {what}: a list keeps its length")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, size)


def columns(tokens: Bytes, words: int = 4) -> pl.DataFrame:
    """Tokens as unsigned 64-bit columns ``0``, ``1``, …, for exact comparisons.

    Args:
        tokens: uint8 (n, 32).
        words: How many columns, of four.
    """
    values = np.ascontiguousarray(tokens).view("<u8")
    return pl.DataFrame({str(word): values[:, word].copy() for word in range(words)})


class Seen:
    """The tokens that one party has received or made so far, by their first 16 bytes."""

    def __init__(self) -> None:
        self._lists: dict[PartyId, pl.DataFrame] = {}

    def add(self, owner: PartyId, tokens: Bytes, sender: PartyId) -> None:
        """Takes a list that must hold no token twice, and none of a list seen before.

        Two parties that follow the protocol never have a token in common: each has a key of its own.

        Args:
            owner: Whose list it is.
            tokens: uint8 (n, 32).
            sender: Who sent it, for the error text.

        Raises:
            PeerError: ``align.duplicate`` or ``align.replayed``.
        """
        found = columns(tokens, 2)
        if found.n_unique() != len(found):
            raise PeerError("align.duplicate", f"{sender}: the list of {owner} holds a token twice")
        for other, earlier in self._lists.items():
            if len(found.join(earlier, on=found.columns, how="semi")):
                raise PeerError("align.replayed", f"{sender}: the list of {owner} holds tokens of the list of {other}")
        self._lists[owner] = found
