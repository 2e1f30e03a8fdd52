"""The coordinator's role in averaging: it carries sums it cannot read, and hears from each bank what model it has.

No model, no records and no network library are needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcredit.errors import PeerError
from fedcredit.protocol.fedavg.messages import ModelReady
from fedcredit.protocol.fedavg.secure_ends import RelayEnd
from fedcredit.protocol.fedavg.sums import Outgoing, SumsRelay
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId, RunId
from fedcredit.wire.message import Message

__all__ = ["Averaged", "FedavgRelay"]


@dataclass(frozen=True)
class Averaged:
    """What the coordinator has at the end.

    Args:
        model: Digest of the model that all banks have.
        rounds: Rounds they took.
        banks: They.
        lost: Banks without which the run went on.
    """

    model: str
    rounds: int
    banks: tuple[PartyId, ...]
    lost: tuple[PartyId, ...]


class FedavgRelay:
    """The coordinator's role, one step of all banks at a time.

    Args:
        spec: The run.
        run: Name of the run.
        sums: Makes the coordinator's end of the sums; secure sums unless a test says otherwise.
    """

    def __init__(self, spec: RunSpec, run: RunId, *, sums: Callable[[RunSpec, RunId], SumsRelay] | None = None) -> None:
        self._banks = tuple(sorted(bank.name for bank in spec.banks))
        self._sums: SumsRelay = (sums or RelayEnd)(spec, run)
        self._ready: dict[PartyId, ModelReady] = {}

    def start(self) -> Outgoing:
        """The first questions: to every bank."""
        return self._sums.start()

    def arrived(self, messages: Outgoing) -> Outgoing:
        """The next questions, after the answers of all who were asked and are not missing; empty when it is over.

        Raises:
            PeerError: an answer that the protocol does not allow, or banks that ended with different models.
        """
        rest: dict[PartyId, list[Message]] = {}
        for party, found in messages.items():
            rest[party] = []
            for one in found:
                if isinstance(one, ModelReady):
                    self._take_ready(party, one)
                else:
                    rest[party].append(one)
        if not self._ready:
            return self._sums.arrived(rest)
        for party, found in rest.items():
            if found or party not in self._ready:
                raise PeerError("fedavg.ready", f"{party} goes on where other banks have their model", culprit=party)
        return {}

    def _take_ready(self, party: PartyId, ready: ModelReady) -> None:
        if party in self._ready:
            raise PeerError("fedavg.ready", f"{party} has named its model twice", culprit=party)
        for other, before in self._ready.items():
            if before != ready:
                raise PeerError("fedavg.models", f"{other} and {party} ended with different models")
        self._ready[party] = ready

    def missing(self, parties: Sequence[PartyId]) -> None:
        """Goes on without some banks.

        Raises:
            TransportError: too few are left.
        """
        self._sums.missing(parties)

    @property
    def members(self) -> tuple[PartyId, ...]:
        """Banks that are still there, sorted."""
        return self._sums.members

    @property
    def finished(self) -> bool:
        """Whether every bank that is still there has named its model."""
        return bool(self._ready) and set(self._ready) >= set(self._sums.members)

    def result(self) -> Averaged:
        """What the coordinator has at the end.

        Raises:
            PeerError: it is not over.
        """
        if not self.finished:
            raise PeerError("fedavg.unfinished", "not every bank has named its model")
        ready = next(iter(self._ready.values()))
        lost = tuple(bank for bank in self._banks if bank not in self._ready)
        return Averaged(ready.model, ready.rounds, tuple(sorted(self._ready)), lost)
