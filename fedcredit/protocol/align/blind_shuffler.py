"""What every party of a blind alignment does with the lists: blind, shuffle, hand on; and put back in order.

The own list is hashed, blinded and shuffled; so is every other list on its way around the ring. The same steps run at
all parties at the same time. What is said of a list's entries comes back through the same hands, each of which undoes
its own shuffle: nobody knows whole permutations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.blind import BlindingKey, domain, hash_to_group
from fedcredit.crypto.blind_group import POINT, Bytes
from fedcredit.crypto.blind_reply import PAIR, refresh
from fedcredit.crypto.blind_shuffle import permutation, undo
from fedcredit.crypto.prg import Entropy
from fedcredit.errors import PeerError
from fedcredit.protocol.align.blind_inputs import BlindInputs, Ring
from fedcredit.protocol.align.blind_pieces import (
    Seen,
    each_slice,
    receive_places,
    receive_replies,
    receive_tokens,
    send_places,
    send_replies,
    send_tokens,
)
from fedcredit.protocol.align.messages import TOKENS_A_PIECE, BlindedList, ListSize, Tokens
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend

__all__ = ["Shuffler"]

Indices = NDArray[np.int64]

_PURPOSE = "align/ids"


@dataclass
class Shuffler:
    """One party's hands in one alignment.

    Args:
        channel: To everyone.
        inputs: What the party brings.
        listed: The ids of its list.
        sizes: Length of every party's list, once announced.
    """

    channel: Channel
    inputs: BlindInputs
    listed: Sequence[str]
    sizes: dict[PartyId, int] = field(default_factory=dict)
    _orders: dict[PartyId, Indices] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ring = Ring(self.inputs.parties)
        self._run = self.inputs.run_digest.encode()
        self._seen = Seen()

    @property
    def me(self) -> PartyId:
        """This party."""
        return self.channel.party

    @property
    def ahead(self) -> PartyId:
        """Who is handed the lists from here."""
        return self._ring.step(self.me, 1)

    @property
    def behind(self) -> PartyId:
        """Who hands the lists to here."""
        return self._ring.step(self.me, -1)

    async def announce(self) -> None:
        """Tells and learns all lengths, and asks the own ledger whether these lists may be answered.

        Raises:
            DisclosureRefused: the ids asked would pass the cap for a counterparty.
        """
        others = [self._ring.step(self.me, hop) for hop in self._ring.hops]
        await self.channel.broadcast([*others, COORDINATOR], ListSize(entries=len(self.listed)))
        told = await self.channel.gather(others, ListSize)
        self.sizes = {self.me: len(self.listed), **{party: told[party].entries for party in others}}
        basis = Basis.own(len(self.inputs.own_ids))
        for party in others:
            declaration = Declaration(self.inputs.data_version, basis, self._costs(party), _PURPOSE)
            self.channel.declare(party, declaration)

    async def pass_lists(self) -> None:
        """Sends the own list on its way and hands on everyone else's.

        Raises:
            PeerError: a list is malformed, of another length, or holds a token twice or of another list.
            DisclosureRefused: the ids asked would pass the cap for a counterparty.
        """
        key = BlindingKey(self.inputs.secret.entropy("align/blinding-key", self._run))
        try:
            await self._send_own(key)
            for hop in self._ring.hops:
                owner = self._ring.step(self.me, -hop)
                to = COORDINATOR if hop == self._ring.hops[-1] else self.ahead
                tokens, content = await self._blinded(key, owner, headed=hop > 1)
                order = self._order(owner, len(tokens), content)
                spend = Spend(hashlib.sha256(content + b"answered").hexdigest(), self._costs(owner), owner)
                await self.channel.send(to, BlindedList(owner=owner, entries=len(tokens)), spend=spend)
                await send_tokens(self.channel, to, owner, tokens[order])
        finally:
            key.destroy()

    async def _send_own(self, key: BlindingKey) -> None:
        """Hashes, blinds and sends the own list, piece by piece, in an order that nobody else knows."""
        digest = hashlib.sha256()
        for one in self.listed:
            encoded = one.encode()
            digest.update(len(encoded).to_bytes(4, "little") + encoded)
        order = self._order(self.me, len(self.listed), digest.digest())
        dst, blinder = domain("align", self.inputs.run_digest), key.start(self.me)
        made = np.empty((len(order), POINT), dtype=np.uint8)
        for first in range(0, len(order), TOKENS_A_PIECE):
            part = order[first : first + TOKENS_A_PIECE]
            points = hash_to_group([self.listed[row].encode() for row in part], dst)
            piece = made[first : first + len(part)]
            await each_slice(blinder.blind, points, piece)
            await self.channel.send(self.ahead, Tokens(owner=self.me, first=first, tokens=piece.tobytes()))
        self._seen.add(self.me, made, self.me)

    async def _blinded(self, key: BlindingKey, owner: PartyId, *, headed: bool) -> tuple[Bytes, bytes]:
        """A list of another party, blinded here as it arrives, and a digest of what came in."""
        entries = self.sizes[owner]
        if headed:
            head = await self.channel.receive(self.behind, BlindedList)
            if (head.owner, head.entries) != (owner, entries):
                raise PeerError(
                    "align.length",
                    f"{self.behind} hands on {head.entries} entries of {head.owner} where the {entries} of {owner} are "
                    "due: a list keeps its length",
                )
        received, tokens = np.empty((2, entries, POINT), dtype=np.uint8)
        digest, blinder = hashlib.sha256(self._run + owner.encode()), key.start(owner)
        async for first, piece in receive_tokens(self.channel, self.behind, owner, entries):
            received[first : first + len(piece)] = piece
            digest.update(piece.data)
            with blaming(self.behind):
                await each_slice(blinder.blind, piece, tokens[first : first + len(piece)])
        self._seen.add(owner, received, self.behind)
        return tokens, digest.digest()

    def _order(self, owner: PartyId, entries: int, content: bytes) -> Indices:
        """This party's secret shuffle of a list, the same for the same content."""
        entropy = self.inputs.secret.entropy("align/shuffle", self._run, owner.encode(), content)
        self._orders[owner] = permutation(entries, entropy)
        return self._orders[owner]

    def _costs(self, owner: PartyId) -> tuple[Cost, ...]:
        return (Cost(CostKind.IDS_ASKED, "", self.sizes[owner]),)

    def own_order(self) -> Indices:
        """Numbers of the own ids in the order in which their tokens were sent, int64 (n,)."""
        return self._orders[self.me]

    def in_listed_order(self, sent: Indices) -> Indices:
        """What is said of the own tokens in the order sent, in the order of `listed`."""
        return sent[undo(self.own_order())]

    async def hand_back_replies(self) -> None:
        """A feature holder's part in telling the label holder which of its entries are common to all.

        Whoever has them from the coordinator makes them fresh; for the others it is enough to put them in order.

        Raises:
            PeerError: the replies are malformed or of another number.
        """
        owner = self._ring.leader
        first_back = self.ahead == owner
        sender = COORDINATOR if first_back else self.ahead
        pairs = np.empty((self.sizes[owner], PAIR), dtype=np.uint8)
        async for first, piece in receive_replies(self.channel, sender, len(pairs)):
            if not first_back:
                pairs[first : first + len(piece)] = piece
                continue
            content = hashlib.sha256(piece.data).digest()
            entropy = self.inputs.secret.entropy("align/replies", self._run, first.to_bytes(8, "little"), content)

            def fresh(part: Bytes, entropy: Entropy = entropy) -> Bytes:
                return refresh(part, entropy)

            with blaming(sender):
                await each_slice(fresh, piece, pairs[first : first + len(piece)])
        await send_replies(self.channel, self.behind, pairs[undo(self._orders[owner])])

    async def hand_on_places(self) -> None:
        """A feature holder's part in telling the coordinator the places of the label holder's entries."""
        owner = self._ring.leader
        places = await receive_places(self.channel, self.behind, owner, self.sizes[owner])
        to = COORDINATOR if self.ahead == owner else self.ahead
        await send_places(self.channel, to, owner, places[self._orders[owner]])

    async def hand_back_places(self) -> None:
        """Every party's part in telling the feature holders the places of their entries."""
        for hop in self._ring.hops:
            owner = self._ring.step(self.me, hop)
            if owner != self._ring.leader:
                sender = COORDINATOR if hop == 1 else self.ahead
                places = await receive_places(self.channel, sender, owner, self.sizes[owner])
                await send_places(self.channel, self.behind, owner, places[undo(self._orders[owner])])
