"""Both ends of the sums of an averaging run, as secure sums: a question or an answer is one of their messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import PeerError
from fedcredit.protocol.fedavg.sums import Outgoing
from fedcredit.protocol.secure_sum.member import SumHouse, SumMember, SumTotal
from fedcredit.protocol.secure_sum.messages import Begin, Opening, Survivors, Welcome
from fedcredit.protocol.secure_sum.relay import SumRelay
from fedcredit.protocol.secure_sum.rules import SumRules
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId, RunId
from fedcredit.wire.message import Message, kind_of

__all__ = ["MemberEnd", "RelayEnd", "sum_rules"]


def sum_rules(spec: RunSpec, run: RunId) -> SumRules:
    """The rules of a run's sums.

    Raises:
        BoundError: too few banks, or too many for the profile.
    """
    section, banks = spec.secure_sum, tuple(sorted(bank.name for bank in spec.banks))
    return SumRules(run, banks, section.profile, section.min_banks, section.colluding, "averaging")


class MemberEnd:
    """A bank's end.

    Args:
        spec: The run.
        run: Its name.
        house: The bank.
        state: What `state` gave; None in the first visit.
    """

    def __init__(self, spec: RunSpec, run: RunId, house: SumHouse, state: bytes | None) -> None:
        self._member = SumMember(sum_rules(spec, run), house, state)
        self._joined = state is not None
        self._ready = False
        self._total: SumTotal | None = None

    @property
    def members(self) -> int:
        """See `fedcredit.protocol.fedavg.sums.SumsEnd`."""
        return len(self._member.members)

    def receive(self, messages: Sequence[Message]) -> Sequence[Message]:
        """See `fedcredit.protocol.fedavg.sums.SumsEnd`."""
        if not self._joined:
            if messages:
                raise PeerError("fedavg.visit", "the first visit brings no message")
            self._joined = True
            return [self._member.join()]
        if len(messages) != 1:
            raise PeerError("fedavg.visit", f"a visit with {len(messages)} messages; every later one brings one")
        return self._step(messages[0])

    def _step(self, message: Message) -> Sequence[Message]:
        if isinstance(message, Welcome):
            return [self._member.prepare(message)]
        if isinstance(message, Survivors):
            return [self._member.unmask(message)]
        if isinstance(message, Begin):
            self._member.begin(message)
        elif isinstance(message, Opening):
            self._total = self._member.open(message)
        else:
            raise PeerError("fedavg.visit", f"a visit brought {kind_of(message)}, which banks do not take")
        self._ready = True
        return []

    def opened(self) -> tuple[NDArray[np.int64], tuple[PartyId, ...]] | None:
        """See `fedcredit.protocol.fedavg.sums.SumsEnd`."""
        total, self._total = self._total, None
        return None if total is None else (total.values, total.members)

    @property
    def ready(self) -> bool:
        """See `fedcredit.protocol.fedavg.sums.SumsEnd`."""
        return self._ready

    def contribute(self, what: str, values: NDArray[np.int64], bound: int) -> Sequence[Message]:
        """See `fedcredit.protocol.fedavg.sums.SumsEnd`."""
        self._ready = False
        return [self._member.contribute(what, values, bound)]

    def state(self) -> bytes:
        """See `fedcredit.protocol.fedavg.sums.SumsEnd`."""
        return self._member.state()


class RelayEnd:
    """The coordinator's end.

    Args:
        spec: The run.
        run: Its name.
    """

    def __init__(self, spec: RunSpec, run: RunId) -> None:
        self._relay = SumRelay(sum_rules(spec, run))

    def start(self) -> Outgoing:
        """See `fedcredit.protocol.fedavg.sums.SumsRelay`."""
        return {party: [] for party in self._relay.members}

    def arrived(self, messages: Outgoing) -> Outgoing:
        """See `fedcredit.protocol.fedavg.sums.SumsRelay`."""
        for party, found in messages.items():
            if len(found) != 1:
                raise PeerError("fedavg.visit", f"{party} answered with {len(found)} messages, not one", culprit=party)
            self._relay.take(party, found[0])
        return {party: [message] for party, message in self._relay.advance().items()}

    def missing(self, parties: Sequence[PartyId]) -> None:
        """See `fedcredit.protocol.fedavg.sums.SumsRelay`."""
        self._relay.missing(parties)

    @property
    def members(self) -> tuple[PartyId, ...]:
        """See `fedcredit.protocol.fedavg.sums.SumsRelay`."""
        return self._relay.members
