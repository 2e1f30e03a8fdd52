"""The coordinator's part in a series of secure sums, without any input or output.

It takes what banks send (`take`), is told who will not answer (`missing`), and says what goes to whom (`advance`). It
has no key, sees boxes, masked vectors and shares, and under profile masked+he learns nothing but who took part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fedcredit.crypto.secure_sum import CipherAdder, SumShape, add_words, read_words, write_words
from fedcredit.crypto.shares import write_share
from fedcredit.errors import BoundError, PeerError
from fedcredit.protocol.secure_sum.messages import (
    Begin,
    Contribution,
    Fresh,
    Join,
    Joined,
    Opening,
    Prepared,
    Shares,
    Survivors,
    Welcome,
)
from fedcredit.protocol.secure_sum.opening import Masked, combined, read_shares
from fedcredit.protocol.secure_sum.rules import FIRST, SumRules, check_floor, list_digest, mask_roster
from fedcredit.protocol.secure_sum.secrets import box_size
from fedcredit.types import PartyId
from fedcredit.wire.message import Message

__all__ = ["SumRelay"]

M = TypeVar("M", bound=Message)


@dataclass
class _Sum:
    """One sum as the relay sees it."""

    number: int
    base: list[PartyId]
    roster: list[PartyId]
    fresh: Mapping[PartyId, Prepared | Contribution]
    survivors: list[PartyId] = field(default_factory=list)
    vectors: dict[PartyId, Contribution] = field(default_factory=dict)
    shape: SumShape | None = None
    context: bytes = b""
    total: bytes = b""


class SumRelay:
    """Carries the sums of one series.

    Args:
        rules: As all banks have them.
    """

    def __init__(self, rules: SumRules) -> None:
        self.rules = rules
        self.dropped: list[PartyId] = []
        """Banks that are out for good, in the order they went."""
        self._adder = CipherAdder() if rules.encrypted else None
        self._step: type[Message] = Join
        self._waiting = set(rules.banks)
        self._came: dict[PartyId, Message] = {}
        self._base: list[PartyId] = sorted(rules.banks)
        self._joined: list[Joined] = []
        self._sum = _Sum(FIRST, [], [], {})

    @property
    def expects(self) -> type[Message]:
        """Kind of the message the relay waits for."""
        return self._step

    @property
    def waiting(self) -> frozenset[PartyId]:
        """Banks whose message of this step is still to come."""
        return frozenset(self._waiting)

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks that are still in, sorted."""
        return tuple(sorted(self._waiting | self._came.keys()))

    @property
    def number(self) -> int:
        """Number of the sum under way or to come, from 1."""
        return self._sum.number

    def take(self, party: PartyId, message: Message) -> None:
        """Takes what a bank sent. What a bank sends that is out already is not looked at.

        Raises:
            PeerError: not what this step waits for from this bank, or malformed; names the bank.
        """
        if party in self.dropped:
            return
        if not isinstance(message, self._step) or party not in self._waiting:
            raise PeerError("secure_sum.turn", f"{party}: a message out of turn", culprit=party)
        try:
            self._check(message)
        except (PeerError, BoundError) as error:
            raise PeerError(error.code, f"{party}: {error.public}", error.detail, culprit=party) from None
        self._came[party] = message
        self._waiting.discard(party)

    def missing(self, parties: Iterable[PartyId]) -> None:
        """Goes on without some banks, for good.

        Raises:
            TransportError: code ``secure_sum.floor``: too few are left, and nothing will be opened.
        """
        for party in sorted(set(parties) & {*self._waiting, *self._came}):
            self._waiting.discard(party)
            self._came.pop(party, None)
            self.dropped.append(party)
        self._check_floor()

    def advance(self) -> dict[PartyId, Message]:
        """What goes to whom, once nobody is waited for.

        Raises:
            PeerError: banks are still waited for, disagree about a sum, or their shares do not open it.
            TransportError: code ``secure_sum.floor``.
        """
        if self._waiting:
            raise PeerError("secure_sum.turn", f"{min(self._waiting)} has not answered yet")
        self._check_floor()
        steps: dict[type[Message], Callable[[], dict[PartyId, Message]]] = {
            Join: self._welcome,
            Prepared: self._begin,
            Contribution: self._survivors,
            Shares: self._open,
        }
        return steps[self._step]()

    def _check_floor(self) -> None:
        joining = self._step is Join
        check_floor(self.rules, len(self.members) if joining else len(self._base), len(self.members))

    def _check(self, message: Message) -> None:
        """Refuses what could not be passed on or added."""
        current = self._sum
        if isinstance(message, Prepared):
            _check_boxes(message.boxes, len(self._base), FIRST)
        elif isinstance(message, Contribution):
            if message.number != current.number:
                raise PeerError("secure_sum.number", f"a vector of sum {message.number}, not {current.number}")
            _check_boxes(message.boxes, len(current.roster), current.number + 1)
            shape = self.rules.shape(message.length, message.bound, len(current.roster))
            if self._adder is not None:
                self._adder.check(message.body, shape)
            else:
                read_words(message.body, shape)
        elif isinstance(message, Shares):
            listed = list_digest(current.context, current.survivors)
            if (message.number, message.survivors) != (current.number, listed):
                raise PeerError("secure_sum.number", "shares about another sum or list")
            read_shares(message.shares, len(current.roster))

    def _collected(self, kind: type[M]) -> dict[PartyId, M]:
        return {party: one for party, one in sorted(self._came.items()) if isinstance(one, kind)}

    def _next(self, step: type[Message], waiting: Iterable[PartyId]) -> None:
        self._step, self._waiting, self._came = step, set(waiting), {}

    def _welcome(self) -> dict[PartyId, Message]:
        came = self._collected(Join)
        self._base = list(came)
        members = [Joined(party=party, key=one.key, signature=one.signature) for party, one in came.items()]
        self._next(Prepared, self._base)
        return dict.fromkeys(self._base, Welcome(members=members))

    def _begin(self) -> dict[PartyId, Message]:
        came = self._collected(Prepared)
        members = list(came)
        self._sum = _Sum(FIRST, self._base, members, came)
        self._next(Contribution, members)
        return {party: Begin(fresh=_fresh(came, self._base, party)) for party in members}

    def _survivors(self) -> dict[PartyId, Message]:
        came, current = self._collected(Contribution), self._sum
        _check_agreement(came)
        first = next(iter(came.values()))
        current.shape = self.rules.shape(first.length, first.bound, len(current.roster))
        current.context, current.vectors, current.survivors = first.context, came, list(came)
        bodies = [one.body for one in came.values()]
        if self._adder is not None:
            current.total = self._adder.add(bodies, current.shape)
        else:
            current.total = write_words(add_words(bodies, current.shape), current.shape.bits)
        self._next(Shares, current.survivors)
        number = current.number
        return {
            party: Survivors(number=number, fresh=_fresh(came, current.roster, party)) for party in current.survivors
        }

    def _open(self) -> dict[PartyId, Message]:
        came, current = self._collected(Shares), self._sum
        holders = list(came)[: check_floor(self.rules, len(current.base), len(came))]
        places = [current.base.index(party) + 1 for party in holders]
        count = len(current.roster)
        values = combined(places, [read_shares(came[party].shares, count) for party in holders])
        secrets, total = b"".join(write_share(value) for value in values), current.total
        if not self.rules.encrypted:
            secrets, total = b"", self._unmasked(values)
        opening = Opening(
            number=current.number,
            survivors=list(current.survivors),
            secrets=secrets,
            total=total,
            members=list(came),
        )
        self._base = current.roster
        self._sum = _Sum(current.number + 1, current.roster, list(came), current.vectors)
        self._next(Contribution, came)
        return dict.fromkeys(came, opening)

    def _unmasked(self, values: list[int]) -> bytes:
        """Profile masked: the total, which the relay opens itself."""
        current = self._sum
        if current.shape is None:
            raise PeerError("secure_sum.turn", "no vector has come")
        fresh = {party: current.fresh[party] for party in current.roster}
        keys = {str(party): one.pair_key for party, one in fresh.items()}
        digests = {str(party): one.seed_digest for party, one in fresh.items()}
        roster = mask_roster(self.rules, current.context, keys)
        masked = Masked(roster, digests, current.survivors, current.shape)
        total = masked.taken_off(add_words([current.total], current.shape), values)
        return write_words(total, current.shape.bits)


def _fresh(came: Mapping[PartyId, Prepared | Contribution], holders: list[PartyId], reader: PartyId) -> list[Fresh]:
    """What one reader gets of everybody's keys and boxes."""
    place = holders.index(reader)
    return [
        Fresh(party=party, pair_key=one.pair_key, seed_digest=one.seed_digest, box=one.boxes[place])
        for party, one in came.items()
    ]


def _check_boxes(boxes: list[bytes], holders: int, number: int) -> None:
    sizes = sorted(len(box) for box in boxes)
    if sizes != [0] + [box_size(number)] * (holders - 1):
        raise PeerError("secure_sum.box", f"{len(boxes)} boxes; one of {box_size(number)} bytes for each other bank")


def _check_agreement(came: Mapping[PartyId, Contribution]) -> None:
    """Vectors of one sum are about the same: roster, name, length and bound."""
    said = Counter((one.context, one.length, one.bound) for one in came.values())
    common = said.most_common(1)[0][0]
    for party, one in came.items():
        if (one.context, one.length, one.bound) != common:
            raise PeerError(
                "secure_sum.about", f"{party}: its vector is for another sum than that of most banks", culprit=party
            )
