"""What a run has to know of its model: its messages, its roles, and what to write of its result.

`fedcredit.runtime.simulate` brings tables, network, ledgers, secrets and the run directory of all parties, and calls
these; `fedcredit.runtime.session.node` brings those of one. A new model is one module with one `ModelRun`, and one line
in `fedcredit.runtime.models.MODEL_RUNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.governance.ledger import LedgerLine
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.runtime.accounts import ChosenAnswers
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["HeldOutRows", "ModelRun", "Outcome", "Report", "RunInputs", "Seat", "Written"]

HeldOutRows = Callable[[Sequence[str]], NDArray[np.bool_]]
"""Says which of some ids are test rows."""

Report = Callable[[int, int, str], None]
"""How far a role is in its stage: (steps done, steps in all, a few words such as a figure of quality)."""


@dataclass(frozen=True)
class Seat:
    """What the role of one party of the spec works with.

    Args:
        channel: To the others.
        holding: Spec, records, secrets and escrow.
        checkpoints: Its last state; saved by this process or by one before it that was killed.
        report: Told how far it is. Only the label holder's is shown to anyone.
    """

    channel: Channel
    holding: Holding
    checkpoints: Checkpoints
    report: Report


@dataclass(frozen=True)
class RunInputs:
    """What the roles of a run are made from.

    Args:
        spec: The run.
        seats: Every party of the spec.
        coordinator: The coordinator's channel; it has nothing else.
        held_out: For the label holder.
    """

    spec: RunSpec
    seats: Mapping[PartyId, Seat]
    coordinator: Channel
    held_out: HeldOutRows


@dataclass(frozen=True)
class Outcome:
    """Everything a run produced, as far as it is known where it is written: of all parties in a simulation, of the one
    party in its own house.

    Args:
        spec: The run.
        run: Its name.
        tables: Records by party.
        results: What each role returned.
        keep: Secrets as each party began with them, for the oracle; what it records is not kept.
        ledgers: Ledgers in numbers, by party.
        transcript: Messages, those of processes that were killed included.
    """

    spec: RunSpec
    run: RunId
    tables: Mapping[PartyId, HolderTable]
    results: Mapping[PartyId, Any]
    keep: Mapping[PartyId, KeptSecrets]
    ledgers: Mapping[PartyId, Sequence[LedgerLine]]
    transcript: Sequence[TranscriptEntry]

    @property
    def leader(self) -> PartyId:
        """The label holder."""
        return self.spec.label_holder.name


@dataclass(frozen=True)
class Written:
    """What a model adds to what every run says of itself.

    Args:
        summary: Keys of ``summary.json`` that are the model's own: sizes, metrics, figures of the fit.
        answered: Every conversation with its number of answered sums and a bound of the squared norm of their weights,
            for the leak of the encryption itself and the size of its plaintexts; none at a feature holder.
        chosen: Answers to an encrypted choice of rows, where rows are hidden; None at a feature holder.
    """

    summary: Mapping[str, Any]
    answered: Sequence[tuple[Conversation, int, int]]
    chosen: ChosenAnswers | None = None


@dataclass(frozen=True)
class ModelRun:
    """One kind of model.

    Args:
        schemas: All messages of a run; their order is that of ``protocol`` in the summary.
        seconds: Key under ``seconds`` of the summary for each stage of the label holder, ``start`` included.
        role: The coroutine of one party of the spec.
        coordinate: The coroutine of the coordinator.
        own: Writes one party's own files (``model/PARTY/…``; the label holder's ``predictions.parquet``, …) from what
            that party knows, and says what its summary has to hold.
        write: As `own` for all parties of a simulation; here the run is repeated in the clear to compare.
    """

    schemas: tuple[ProtocolSchema, ...]
    seconds: Mapping[str, str]
    role: Callable[[RunSpec, Seat, HeldOutRows], Coroutine[Any, Any, Any]]
    coordinate: Callable[[Channel, RunSpec], Coroutine[Any, Any, Any]]
    own: Callable[[RunFiles, Outcome, PartyId], Written]
    write: Callable[[RunFiles, Outcome], Written]

    def roles(self, inputs: RunInputs) -> dict[PartyId, Coroutine[Any, Any, Any]]:
        """The coroutine of every party, the coordinator included."""
        roles = {party: self.role(inputs.spec, seat, inputs.held_out) for party, seat in inputs.seats.items()}
        return {**roles, COORDINATOR: self.coordinate(inputs.coordinator, inputs.spec)}
