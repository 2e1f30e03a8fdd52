"""A bank in a series of secure sums, without any input or output: messages in, messages out, state as bytes.

The order is `join`, `prepare`, `begin`, then for every sum `contribute`, `unmask`, `open`. A bank answers each step of
a sum once: what it has bound itself to stands in its escrow before the answer is made, and the same question again gets
the same bytes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.boxes import BoxKey
from fedcredit.crypto.commitment import content_digest
from fedcredit.crypto.secret import RunSecret
from fedcredit.crypto.secure_sum import (
    GroupCipher,
    SumShape,
    mask_vector,
    pair_key,
    read_total,
    read_words,
    write_words,
)
from fedcredit.crypto.shares import FIELD_PRIME
from fedcredit.errors import BoundError, PeerError, TransportError
from fedcredit.protocol.group_sum.session import Escrow
from fedcredit.protocol.pool import check_summand
from fedcredit.protocol.secure_sum.messages import (
    Begin,
    Contribution,
    Fresh,
    Join,
    Opening,
    Prepared,
    Shares,
    Survivors,
    Welcome,
)
from fedcredit.protocol.secure_sum.opening import Masked, read_shares
from fedcredit.protocol.secure_sum.rules import (
    FIRST,
    Identity,
    SumRules,
    about,
    check_floor,
    check_names,
    history_digest,
    join_text,
    list_digest,
    mask_roster,
    roster_digest,
    welcome_digest,
)
from fedcredit.protocol.secure_sum.secrets import SumSecrets, group_key, padded, pads
from fedcredit.protocol.secure_sum.state import MemberState, Peer
from fedcredit.types import PartyId
from fedcredit.wire.message import decode, decode_struct, encode, encode_struct

__all__ = ["SumHouse", "SumMember", "SumTotal"]


@dataclass(frozen=True)
class SumHouse:
    """What a bank brings to its sums.

    Args:
        party: The bank.
        secret: Its secret of the run.
        escrow: Where it binds itself, durably, to what it sums and to whose vectors it answers about.
        identity: How it signs its key and checks those of others.
    """

    party: PartyId
    secret: RunSecret
    escrow: Escrow
    identity: Identity


@dataclass(frozen=True)
class SumTotal:
    """An opened sum.

    Args:
        values: int64 (m,), the exact total.
        members: Banks whose vectors are in it, sorted.
    """

    values: NDArray[np.int64]
    members: tuple[PartyId, ...]


class SumMember:
    """A bank's part in one series of sums.

    Args:
        rules: As all others have them.
        house: The bank.
        state: As `state` gave it in a process before this one; None at the start.

    Raises:
        PeerError: the state is damaged.
        BoundError: the bank is not among those of the rules.
    """

    def __init__(self, rules: SumRules, house: SumHouse, state: bytes | None = None) -> None:
        if house.party not in rules.banks:
            raise BoundError("secure_sum.banks", f"{house.party} is not among the banks of these sums")
        self.rules, self.party = rules, house.party
        self._house = house
        self._state = MemberState() if state is None else decode_struct(MemberState, state, "a kept secure sum")
        secret = house.secret.derive("secure_sum/box", rules.digest, house.party.encode())
        self._box_key = BoxKey(secret, self._state.links)

    def state(self) -> bytes:
        """All it needs to go on in another process; for the bank's own house, mode 0600: it holds secrets."""
        return encode_struct(self._state)

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks of the next sum, sorted; empty before the first roster is known."""
        return tuple(PartyId(name) for name in self._state.roster)

    @property
    def number(self) -> int:
        """Number of the sum under way or to come, from 1."""
        return self._state.number

    def join(self) -> Join:
        """The first message: the key for boxes, signed."""
        if self._state.phase == "new":
            self._move(phase="joined")
        key = self._box_key.public
        return Join(key=key, signature=self._house.identity.sign(join_text(self.rules, self.party, key)))

    def prepare(self, welcome: Welcome) -> Prepared:
        """Takes the keys of all that joined; gives boxes for the first sum.

        Raises:
            PeerError: a stranger, a key that is not its bank's, or a roster without this bank.
            TransportError: code ``secure_sum.floor``.
        """
        self._expect("joined", "prepared")
        names = [one.party for one in welcome.members]
        self._check_list(names, self.rules.banks, "the banks that joined")
        check_floor(self.rules, len(names), len(names))
        for one in welcome.members:
            if one.party != self.party:
                text = join_text(self.rules, PartyId(one.party), one.key)
                self._house.identity.check(PartyId(one.party), text, one.signature)
            elif one.key != self._box_key.public:
                raise PeerError("secure_sum.own", f"{self.party} is listed with a key that is not its own")
        if len({one.key for one in welcome.members}) != len(names):
            raise PeerError("secure_sum.duplicate", "two banks joined with the same key")
        origin = welcome_digest(self.rules, welcome.members)
        keys = {one.party: one.key for one in welcome.members}
        me, boxes = self._secrets(origin, names, FIRST).boxes(self._box_key, keys)
        links = self._box_key.links
        self._move(phase="prepared", keys=keys, links=links, origin=origin, base=names, own=me)
        return Prepared(pair_key=me.pair_key, seed_digest=me.seed_digest, boxes=boxes)

    def begin(self, begin: Begin) -> None:
        """Takes the members of the first sum.

        Raises:
            PeerError: a bank that did not join, a box that is not its sender's, or a roster without this bank.
            TransportError: code ``secure_sum.floor``.
        """
        state = self._expect("prepared")
        names = [one.party for one in begin.fresh]
        self._check_list(names, state.base, "the first sum")
        check_floor(self.rules, len(state.base), len(names))
        secrets = self._secrets(state.origin, state.base, FIRST)
        peers, parts = self._read(secrets, begin.fresh)
        group = group_key(state.origin, parts)
        self._move(phase="ready", number=FIRST, roster=names, peers=peers, own=None, group=group)

    def contribute(self, what: str, values: NDArray[np.int64], bound: int) -> Contribution:
        """One vector for the next sum.

        Args:
            what: Name of the sum.
            values: int64 (m,).
            bound: Largest absolute value of any member.

        Raises:
            BoundError: a value beyond the bound, or totals that are not proven exact.
            IntegrityError: other values were brought to this sum before.
            TransportError: code ``secure_sum.floor``, or ``secure_sum.left`` where the others go on without this bank.
        """
        state = self._expect("ready", "contributed")
        if self.party not in state.roster:
            raise TransportError("secure_sum.left", f"the other banks go on without {self.party}: it answered too late")
        check_floor(self.rules, len(state.base), len(state.roster))
        check_summand(what, values, bound, len(state.roster))
        shape = self.rules.shape(len(values), bound, len(state.roster))
        peers = [peer for peer in state.peers if peer.party in state.roster]
        fresh = [Fresh(party=p.party, pair_key=p.pair_key, seed_digest=p.seed_digest, box=b"") for p in peers]
        roster = roster_digest(self.rules, state.number, state.base, fresh, state.history)
        context = about(roster, what, shape.length, shape.bound)
        content = self._house.secret.derive("secure_sum/vector", context, content_digest(values))
        self._house.escrow.bind("secure_sum.vector", f"{self.rules.name}/{state.number}", content.hex())
        if state.phase == "contributed":
            return decode(Contribution, state.sent)
        secrets = self._secrets(state.origin, state.base, state.number)
        masked = mask_vector(
            values,
            pair_key(secrets.pair),
            secrets.seed,
            mask_roster(self.rules, context, {peer.party: peer.pair_key for peer in peers}),
            self.party,
            shape,
        )
        me, boxes = self._secrets(context, state.roster, state.number + 1).boxes(self._box_key, state.keys)
        body = self._cipher.encrypt(masked, shape) if self.rules.encrypted else write_words(masked, shape.bits)
        message = Contribution(
            number=state.number,
            context=context,
            length=shape.length,
            bound=shape.bound,
            body=body,
            pair_key=me.pair_key,
            seed_digest=me.seed_digest,
            boxes=boxes,
        )
        self._move(
            phase="contributed",
            peers=peers,
            own=me,
            context=context,
            length=shape.length,
            bound=shape.bound,
            sent=encode(message),
        )
        return message

    def unmask(self, survivors: Survivors) -> Shares:
        """For each member one share: of its seed where its vector has arrived, else of its pair secret. Once a sum.

        Raises:
            PeerError: a list that is malformed or without this bank, or a box not made by its sender for this very sum.
            IntegrityError: another list was answered before.
            TransportError: code ``secure_sum.floor``.
        """
        state = self._expect("contributed", "unmasked")
        self._check_number(survivors.number)
        names = [one.party for one in survivors.fresh]
        self._check_list(names, state.roster, "the survivors")
        check_floor(self.rules, len(state.base), len(names))
        listed = list_digest(state.context, names)
        if state.phase == "unmasked" and names == state.survivors:
            return decode(Shares, state.sent)
        later, _ = self._read(self._secrets(state.context, state.roster, state.number + 1), survivors.fresh)
        self._house.escrow.bind("secure_sum.survivors", f"{self.rules.name}/{state.number}", listed.hex())
        there = set(names)
        shares = [peer.seed_share if peer.party in there else peer.pair_share for peer in state.peers]
        hidden = self._pads(listed, len(shares))
        message = Shares(number=state.number, survivors=listed, shares=padded(shares, hidden))
        self._move(phase="unmasked", survivors=names, later=later, sent=encode(message))
        return message

    def open(self, opening: Opening) -> SumTotal:
        """The total, and whose it is.

        Raises:
            PeerError: shares that do not open what they should, a total outside its bound, or a list that is not the
                one this bank has answered about.
        """
        state = self._expect("unmasked")
        self._check_number(opening.number)
        if opening.survivors != state.survivors:
            raise PeerError("secure_sum.roster", "the total is of other banks than those this bank has answered about")
        check_names(opening.members, state.survivors, "the next sum")
        shape = self.rules.shape(state.length, state.bound, len(state.roster))
        summed = self._opened(opening, shape) if self.rules.encrypted else read_words(opening.total, shape)
        total = read_total(summed, len(state.survivors), shape)
        listed = list_digest(state.context, state.survivors)
        self._move(
            phase="ready",
            number=state.number + 1,
            origin=state.context,
            base=state.roster,
            roster=opening.members,
            peers=state.later,
            own=None,
            later=[],
            context=b"",
            survivors=[],
            sent=b"",
            history=history_digest(state.group, state.history, listed, total.astype("<i8").tobytes()),
        )
        return SumTotal(total, tuple(PartyId(name) for name in state.survivors))

    def _opened(self, opening: Opening, shape: SumShape) -> NDArray[np.uint64]:
        """The total modulo 2^k, from ciphertexts and padded secrets."""
        state = self._state
        count = len(state.roster)
        hidden = self._pads(list_digest(state.context, state.survivors), count)
        pairs = zip(read_shares(opening.secrets, count), hidden, strict=True)
        keys = {peer.party: peer.pair_key for peer in state.peers}
        digests = {peer.party: peer.seed_digest for peer in state.peers}
        masked = Masked(mask_roster(self.rules, state.context, keys), digests, state.survivors, shape)
        summed = self._cipher.decrypt(opening.total, shape)
        return masked.taken_off(summed, [(value - pad) % FIELD_PRIME for value, pad in pairs])

    def _pads(self, listed: bytes, count: int) -> list[int]:
        return pads(self._state.group, listed, count) if self.rules.encrypted else [0] * count

    def _secrets(self, origin: bytes, holders: Sequence[str], number: int) -> SumSecrets:
        return SumSecrets(self.rules, self.party, self._house.secret, origin, tuple(holders), number)

    def _read(self, secrets: SumSecrets, fresh: Sequence[Fresh]) -> tuple[list[Peer], dict[str, bytes]]:
        """What the boxes of a list hold; this bank's own entry must be what it sent."""
        me = self._state.own
        peers, parts = [], {}
        for one in fresh:
            if one.party != self.party:
                peer, part = secrets.read(self._box_key, self._state.keys, one)
            elif me is not None and (one.pair_key, one.seed_digest) == (me.pair_key, me.seed_digest):
                peer, part = me, secrets.derive("group")
            else:
                raise PeerError("secure_sum.own", f"{self.party} is listed with keys that are not its own")
            peers.append(peer)
            parts[one.party] = part
        return peers, parts

    @cached_property
    def _cipher(self) -> GroupCipher:
        return GroupCipher(self._state.group)

    def _check_list(self, names: Sequence[str], among: Sequence[str], what: str) -> None:
        check_names(names, among, what)
        if self.party not in names:
            raise PeerError("secure_sum.left", f"{what}: {self.party} is not listed")

    def _check_number(self, number: int) -> None:
        if number != self._state.number:
            raise PeerError("secure_sum.number", f"a message of sum {number}, {self._state.number} is under way")

    def _expect(self, *phases: str) -> MemberState:
        if self._state.phase not in phases:
            raise PeerError(
                "secure_sum.turn",
                f"a message out of turn: {self.party} is {self._state.phase}, not {' or '.join(phases)}",
            )
        return self._state

    def _move(self, **changes: object) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
