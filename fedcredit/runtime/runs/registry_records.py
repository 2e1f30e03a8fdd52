"""What the run registry holds: states of a run and how they follow each other, runs, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import msgspec

from fedcredit.types import PartyId, RunId

__all__ = [
    "ACTIVE",
    "COLUMNS",
    "ENDED",
    "HEADS",
    "INSERT",
    "LAUNCHING",
    "NEXT",
    "TABLES",
    "Event",
    "RunRecord",
    "RunState",
    "named_parties",
    "record_of",
]


class RunState(StrEnum):
    """How far a run is."""

    SUBMITTED = "submitted"
    PROPOSING = "proposing"
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


ACTIVE = frozenset({RunState.PROPOSING, RunState.WAITING, RunState.RUNNING, RunState.STOPPING})
"""States in which a process drives the run."""

ENDED = frozenset({RunState.FINISHED, RunState.FAILED, RunState.STOPPED})
"""States that a run stays in by itself."""

LAUNCHING = "launching"
"""Stands for the id of a Flower run while it is being started."""

_END = {RunState.FAILED, RunState.STOPPING, RunState.STOPPED}
NEXT: Mapping[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.SUBMITTED: frozenset({RunState.PROPOSING, *_END}),
        # a driver that was restarted, or that goes on without a missing party, proposes again
        RunState.PROPOSING: frozenset({RunState.WAITING, RunState.RUNNING, *_END}),
        RunState.WAITING: frozenset({RunState.PROPOSING, RunState.RUNNING, *_END}),
        RunState.RUNNING: frozenset({RunState.PROPOSING, RunState.FINISHED, *_END}),
        RunState.STOPPING: frozenset({RunState.FINISHED, RunState.FAILED, RunState.STOPPED}),
        RunState.FINISHED: frozenset(),
        RunState.FAILED: frozenset(),  # left by `resume` only
        RunState.STOPPED: frozenset(),
    }
)
"""Where a run may go from each state by itself; `Registry.resume` and `Registry.requeue` lead back."""

TABLES = """
CREATE TABLE runs (run TEXT PRIMARY KEY, name TEXT NOT NULL, spec_digest TEXT NOT NULL, model TEXT NOT NULL,
 data TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL,
 parties TEXT NOT NULL, spec_json TEXT NOT NULL, flower_run TEXT NOT NULL, continues TEXT NOT NULL)

CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL REFERENCES runs (run),
 time TEXT NOT NULL, party TEXT NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL)

CREATE INDEX events_run ON events (run, number)

CREATE TRIGGER events_kept BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are kept'); END

CREATE TRIGGER events_fixed BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are fixed'); END

CREATE TABLE outcomes (run TEXT NOT NULL REFERENCES runs (run), party TEXT NOT NULL, time TEXT NOT NULL,
 finished BLOB NOT NULL, PRIMARY KEY (run, party))
"""
COLUMNS = (
    "run, name, spec_digest, model, data, state, detail, created, updated, parties, spec_json, flower_run, continues"
)
INSERT = f"INSERT INTO runs ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 -- a constant
HEADS = COLUMNS.replace("spec_json", "''")
"""The same with an empty spec."""


@dataclass(frozen=True)
class RunRecord:
    """One run as the coordinator knows it.

    Args:
        run: 32 hex digits.
        name: Of the spec.
        spec_digest: Digest of the spec.
        model: ``scorecard``, ``boost``, ….
        data: Name under which every party looks up its own source.
        state: How far it is.
        detail: Public text beside the state, such as whom it waits for.
        created: When it was submitted, or resumed last: UTC, RFC 3339; its proposal bears this time.
        updated: Of the last change of state or detail.
        parties: Names of the parties in the order of the spec.
        spec_json: The spec, without any party's sources.
        flower_run: Id of the Flower run that carries it; "" before it is launched.
        continues: The run that this one continues; "" for most.
    """

    run: RunId
    name: str
    spec_digest: str
    model: str
    data: str
    state: RunState
    detail: str
    created: str
    updated: str
    parties: tuple[PartyId, ...]
    spec_json: str
    flower_run: str
    continues: str


@dataclass(frozen=True)
class Event:
    """Something that happened in a run; never changed or removed.

    Args:
        number: Grows over all runs; `Registry.events` goes on after it.
        time: UTC, RFC 3339 with milliseconds.
        party: Whom it is about; "" for the run as a whole.
        event: Short name, such as ``"state"`` or ``"approved"``.
        text: Public text.
    """

    number: int
    time: str
    party: str
    event: str
    text: str


def record_of(row: tuple[str, ...]) -> RunRecord:
    """A run from its columns in the registry's table."""
    run, name, digest, model, data, state, detail, created, updated, parties, spec_json, flower_run, continues = row
    return RunRecord(
        run=RunId(run),
        name=name,
        spec_digest=digest,
        model=model,
        data=data,
        state=RunState(state),
        detail=detail,
        created=created,
        updated=updated,
        parties=tuple(PartyId(one) for one in parties.split()),
        spec_json=spec_json,
        flower_run=flower_run,
        continues=continues,
    )


class _Party(msgspec.Struct):
    name: str


class _Spec(msgspec.Struct):
    party: list[_Party]


def named_parties(spec_json: str) -> list[str]:
    """Names of the parties of a spec in JSON, in its order.

    Raises:
        msgspec.MsgspecError: it is no such JSON.
    """
    return [one.name for one in msgspec.json.decode(spec_json, type=_Spec).party]
