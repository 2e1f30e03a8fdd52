"""What averaging needs of sums that go from visit to visit: a bank's end, and the coordinator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcredit.types import PartyId
from fedcredit.wire.message import Message

__all__ = ["Outgoing", "SumsEnd", "SumsRelay"]

Outgoing = Mapping[PartyId, Sequence[Message]]


class SumsEnd(Protocol):
    """A bank's end of the sums of a run, one after the other."""

    @property
    def members(self) -> int:
        """Banks in the next sum, as far as is known."""
        ...

    def receive(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Takes what the coordinator brought (nothing, in the first visit) and says what goes back at once.

        Raises:
            PeerError: it is not what the protocol allows now.
        """
        ...

    def opened(self) -> tuple[NDArray[np.int64], tuple[PartyId, ...]] | None:
        """The total that `receive` has just opened and whose sum it is; None where there is none. Told once."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the next vector may be brought."""
        ...

    def contribute(self, what: str, values: NDArray[np.int64], bound: int) -> Sequence[Message]:
        """What goes to the coordinator for a vector."""
        ...

    def state(self) -> bytes:
        """Everything it needs to go on in another process."""
        ...


class SumsRelay(Protocol):
    """The coordinator's end; as `fedcredit.protocol.fedavg.relay.FedavgRelay`, of the sums alone."""

    def start(self) -> Outgoing:
        """The first questions."""
        ...

    def arrived(self, messages: Outgoing) -> Outgoing:
        """The next questions, after the answers of all who were asked and are not missing."""
        ...

    def missing(self, parties: Sequence[PartyId]) -> None:
        """Goes on without some banks; raises where too few are left."""
        ...

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks that are still there."""
        ...
