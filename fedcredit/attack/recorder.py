"""What each party of a run in this process really received, and what the label holder opened of it.

The product has no hook for this: for the time of a ``with`` block what the parties' ends release and receive, and the
functions that open ciphertexts at the label holder, are wrapped. Never used outside rehearsals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.totals import TotalsSecret
from fedcredit.protocol.group_sum.asker import GroupSumAsker
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.select.label_holder import ChosenRows, Part
from fedcredit.runtime.party_end import PartyEnd
from fedcredit.types import PartyId
from fedcredit.wire.message import Message
from fedcredit.wire.notice import ErrorNotice

__all__ = ["Batch", "Recording", "recording"]

Ints = NDArray[np.int64]

_PLACES: tuple[tuple[Any, str], ...] = (
    (PartyEnd, "receive"),
    (PartyEnd, "release"),
    (GroupSumAsker, "ask"),
    (TotalsSecret, "decrypt"),
    (ChosenRows, "total"),
    (ChosenRows, "bits"),
)


@dataclass(frozen=True)
class Batch:
    """One batch of group sums, opened.

    Args:
        purpose: Name of the conversation.
        features: For each answerer, code and number of bins of each feature.
        columns: The vectors, int64 (n,) each.
        sums: For each answerer, for each vector int64 (outputs,).
        withheld: For each answerer, bool (outputs,): sums that it did not tell, 0 above.
    """

    purpose: str
    features: Mapping[PartyId, tuple[tuple[str, int], ...]]
    columns: tuple[Ints, ...]
    sums: Mapping[PartyId, tuple[Ints, ...]]
    withheld: Mapping[PartyId, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass
class Recording:
    """Everything received in one run.

    Args:
        received: (recipient, sender, message) in order.
        sent: (sender, recipient, message) in order.
        batches: Group sums as the label holder opened them.
        totals: Sums of the holders' partial points, as it opened them, round by round; of the rows that count.
        keys: Where rows are hidden, the label holder's choice of rows with the key that opens the answers to it.
    """

    received: list[tuple[PartyId, PartyId, Message]] = field(default_factory=list)
    sent: list[tuple[PartyId, PartyId, Message]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    totals: list[Ints] = field(default_factory=list)
    keys: list[ChosenRows] = field(default_factory=list)


@contextmanager
def recording() -> Iterator[Recording]:
    """Records what the runs inside the block receive."""
    notes = Recording()
    originals = tuple(getattr(owner, name) for owner, name in _PLACES)
    receive, release, ask, decrypt, total_of, bits_of = originals

    async def receiving(self: PartyEnd, sender: PartyId, kind: Any, wires: Any, patience: Any) -> Any:
        message = await receive(self, sender, kind, wires, patience)
        notes.received.append((self.party, sender, message))
        return message

    def releasing(self: PartyEnd, to: PartyId, message: Message, spend: Any = None) -> Any:
        released = release(self, to, message, spend)
        if not isinstance(message, ErrorNotice):
            notes.sent.append((self.party, to, message))
        return released

    async def asking(
        self: GroupSumAsker, columns: Sequence[Ints], keep: KeptSecrets, **options: Any
    ) -> dict[PartyId, list[Ints]]:
        sums: dict[PartyId, list[Ints]] = await ask(self, columns, keep, **options)
        # The wrapped object's own state: there is no other place where the vectors and their shapes meet.
        purpose, shapes = self._conversation.purpose, self._shapes
        features = {party: shape.features for party, shape in shapes.items()}
        opened = {party: tuple(one) for party, one in sums.items()}
        notes.batches.append(Batch(purpose, features, tuple(columns), opened, dict(options.get("withheld") or {})))
        return sums

    def decrypting(self: TotalsSecret, total: bytes, rows: int) -> Ints:
        values: Ints = decrypt(self, total, rows)
        notes.totals.append(values)
        return values

    def opening(self: ChosenRows, part: Part, body: bytes, bound: int) -> Ints:
        notes.keys[:] = [self]
        values: Ints = total_of(self, part, body, bound)
        notes.totals.append(values)
        return values

    def opening_bits(self: ChosenRows, part: Part, body: bytes, party: PartyId) -> NDArray[np.bool_]:
        notes.keys[:] = [self]
        values: NDArray[np.bool_] = bits_of(self, part, body, party)
        return values

    _put((receiving, releasing, asking, decrypting, opening, opening_bits))
    try:
        yield notes
    finally:
        _put(originals)


def _put(functions: tuple[Any, ...]) -> None:
    for (owner, name), function in zip(_PLACES, functions, strict=True):
        setattr(owner, name, function)
