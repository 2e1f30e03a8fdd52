"""The coordinator's book of runs: what was asked for, how far it is, what happened, what each party said at its end.

One SQLite file in WAL mode, opened by two processes at once: the daemon, and the process that drives a run. Every call
is one transaction that is on the disk when it ends (``synchronous = FULL``), so a kill at any moment leaves the state
before or after it. The file holds names, digests, states and public texts; no record and no value of one.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fedcredit.errors import BoundError, FedCreditError, IntegrityError, SpecError, TransportError
from fedcredit.plain_text import plain
from fedcredit.runtime.runs.registry_locks import DriverLocks
from fedcredit.runtime.runs.registry_records import (
    ACTIVE,
    COLUMNS,
    ENDED,
    HEADS,
    INSERT,
    LAUNCHING,
    NEXT,
    TABLES,
    Event,
    RunRecord,
    RunState,
    named_parties,
    record_of,
)
from fedcredit.types import PartyId, RunId

__all__ = ["ACTIVE", "CUT", "ENDED", "LAUNCHING", "Event", "Registry", "RunRecord", "RunState"]

CUT = "cut"
"""Event of a run that the exchange is to end."""

_VERSION = 1
_BUSY_SECONDS = 30.0
_MAX_SPEC = 1 << 20  # bytes; as for configuration files
_MAX_OUTCOME = 1 << 24  # bytes; a party's shared figures, never a model
_MAX_TEXT = 1024  # characters of an event or detail, as for texts on the wire


class Registry:
    """The open book.

    Args:
        path: The file, created for its owner only if absent, as is its folder.
        now: Clock.

    Raises:
        IntegrityError: the file is no registry of this version.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now, self._name, self._lock = now, path.name, threading.RLock()
        self._drivers = DriverLocks(path.parent / "drivers")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL").fetchone()
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as error:
            raise IntegrityError("registry.unreadable", f"{self._name} is no run registry", str(error)) from None
        with self._transaction():
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            tables = int(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
            if version == _VERSION:
                return
            if version or tables:
                raise IntegrityError("registry.version", f"{self._name} is no run registry of version {_VERSION}")
            for statement in TABLES.split("\n\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[None]:
        """Commits as a whole or not at all; one that only reads waits for no writer and holds up none."""
        with self._lock:
            try:
                self._db.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise _failed(self._name, error) from None

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._drivers.close()
            self._db.close()

    def submit(
        self, spec_json: str, name: str, spec_digest: str, model: str, data: str, *, continues: str = ""
    ) -> RunId:
        """Enters a run.

        Args:
            spec_json: The spec as JSON, without any party's sources.
            name: Its name.
            spec_digest: Its digest.
            model: Its model.
            data: Name under which the parties look up their sources.
            continues: The run it continues.

        Returns:
            Its fresh name, 32 hex digits.

        Raises:
            BoundError: the spec is larger than 1 MiB.
            SpecError: it is no JSON that names parties.
        """
        if len(spec_json.encode()) > _MAX_SPEC:
            raise BoundError("registry.oversize", f"spec: {len(spec_json.encode())} bytes, at most {_MAX_SPEC}")
        try:
            parties = named_parties(spec_json)
        except msgspec.MsgspecError as error:
            raise SpecError("registry.spec", "spec: not JSON that names its parties", str(error)) from None
        run, now = RunId(secrets.token_hex(16)), self._time()
        row = (run, name, spec_digest, model, data, RunState.SUBMITTED, "", now, now, " ".join(parties), spec_json, "")
        with self._transaction():
            if continues:
                self._get(RunId(continues))
            self._db.execute(INSERT, (*row, continues))
            self._event(run, "", "state", str(RunState.SUBMITTED))
        return run

    def runs(self, *states: RunState) -> list[RunRecord]:
        """All runs, or those in some states; the oldest first."""
        where = f" WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        query = f"SELECT {COLUMNS} FROM runs{where} ORDER BY rowid"  # noqa: S608 -- constants
        with self._transaction(reads=True):
            return [record_of(row) for row in self._db.execute(query, states)]

    def latest(self, limit: int) -> list[RunRecord]:
        """The last runs, the oldest first, without their specs: those of many are more than a process should hold."""
        query = f"SELECT {HEADS} FROM runs ORDER BY rowid DESC LIMIT ?"  # noqa: S608 -- a constant
        with self._transaction(reads=True):
            return [record_of(row) for row in self._db.execute(query, (limit,))][::-1]

    def counts(self) -> dict[str, int]:
        """Number of runs by state, states without one left out."""
        with self._transaction(reads=True):
            return dict(self._db.execute("SELECT state, count(*) FROM runs GROUP BY state"))

    def get(self, run: RunId) -> RunRecord:
        """One run.

        Raises:
            SpecError: there is no such run.
        """
        with self._transaction(reads=True):
            return self._get(run)

    def find(self, text: str) -> RunId:
        """The run that a person means by the beginning of its name in hex, or by all of it.

        Raises:
            SpecError: there is none, or there are several.
        """
        if not text or set(text) - set("0123456789abcdef"):
            raise _unknown(text)
        with self._transaction(reads=True):
            found = [row[0] for row in self._db.execute("SELECT run FROM runs WHERE run GLOB ?", (f"{text}*",))]
        if not found:
            raise _unknown(text)
        if len(found) > 1:
            raise SpecError("registry.ambiguous", f"run {text}: {len(found)} runs begin so; give more of the name")
        return RunId(found[0])

    def set_state(self, run: RunId, state: RunState | str, detail: str = "") -> None:
        """Moves a run on, or replaces the detail of the state it is in.

        The process that makes a run ``proposing`` drives it until its end; see `driven`.

        Raises:
            SpecError: there is no such run or state, the run cannot go there from where it is, or another process
                drives it.
        """
        try:
            to = RunState(state)
        except ValueError:
            raise SpecError("registry.state", f"run {run}: no state {state!r}") from None
        with self._transaction():
            at = self._get(run)
            if to is at.state and detail == at.detail:
                return
            if to is not at.state and to not in NEXT[at.state]:
                raise SpecError("registry.state", f"run {run}: {at.state}, cannot become {to}")
            if to is RunState.PROPOSING:
                self._drivers.take(run)
            self._move(run, to, detail)
        if to in ENDED:
            self._drivers.release(run)

    def driven(self, run: RunId) -> bool | None:
        """Whether a process drives a run now; None where none has begun to since it was submitted."""
        return self._drivers.driven(run)

    def stop(self, run: RunId, reason: str = "") -> RunState:
        """Asks a run to stop: one that nothing carries yet is stopped at once, another becomes ``stopping``.

        Returns:
            The state it is in now; asking again, or for a run that has ended, changes nothing.

        Raises:
            SpecError: there is no such run.
        """
        with self._transaction():
            at = self._get(run)
            if at.state in ENDED or at.state is RunState.STOPPING:
                return at.state
            idle = at.state is RunState.SUBMITTED and not at.flower_run
            to = RunState.STOPPED if idle else RunState.STOPPING
            self._move(run, to, reason)
            return to

    def resume(self, run: RunId) -> None:
        """Puts a failed or stopped run back to ``submitted``, under its own name and with a new time of creation.

        The time makes its proposal and orders others than before, so that its parties play again what had failed.

        Raises:
            SpecError: there is no such run, or it is neither failed nor stopped.
        """
        with self._transaction():
            at = self._get(run)
            if at.state not in (RunState.FAILED, RunState.STOPPED):
                text = f"run {run}: {at.state}; only a failed or stopped run can be resumed"
                raise SpecError("registry.resume", text)
            self._db.execute("UPDATE runs SET created = ? WHERE run = ?", (self._time(), run))
            self._submit_again(run, "resumed")

    def requeue(self, run: RunId, reason: str) -> None:
        """Puts a run whose driving process is gone back to ``submitted``; one that was stopping is stopped.

        Raises:
            SpecError: there is no such run, or it has ended.
        """
        with self._transaction():
            at = self._get(run)
            if at.state in ENDED:
                raise SpecError("registry.state", f"run {run}: {at.state}, nothing is left to drive")
            if at.state is RunState.STOPPING:
                self._move(run, RunState.STOPPED, at.detail)
            else:
                self._submit_again(run, reason)

    def launched(self, run: RunId, flower_run: str) -> None:
        """Notes the Flower run that carries a run; `LAUNCHING` while it is being started, "" takes it away.

        Raises:
            SpecError: there is no such run.
        """
        with self._transaction():
            self._get(run)
            self._db.execute("UPDATE runs SET flower_run = ? WHERE run = ?", (flower_run, run))
            if flower_run not in ("", LAUNCHING):
                self._event(run, "", "launched", f"carried by Flower run {flower_run}")

    def event(self, run: RunId, party: str, event: str, text: str) -> None:
        """Adds an event; its text is cut to 1,024 characters.

        Raises:
            SpecError: there is no such run.
        """
        with self._transaction():
            self._get(run)
            self._event(run, party, event, text)

    def events(self, run: RunId, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events of a run in order, those numbered above ``after``, at most ``limit``."""
        query = (
            "SELECT number, time, party, event, text FROM events WHERE run = ? AND number > ? ORDER BY number LIMIT ?"
        )
        with self._transaction(reads=True):
            return [Event(*row) for row in self._db.execute(query, (run, after, limit))]

    def news(self, after: int = 0, limit: int = 1000) -> list[tuple[RunId, Event]]:
        """Events of all runs in order, those numbered above ``after``, at most ``limit``."""
        query = "SELECT run, number, time, party, event, text FROM events WHERE number > ? ORDER BY number LIMIT ?"
        with self._transaction(reads=True):
            return [(RunId(run), Event(*row)) for run, *row in self._db.execute(query, (after, limit))]

    def last_event(self) -> int:
        """Number of the last event of all; 0 where there is none."""
        with self._transaction(reads=True):
            return int(self._db.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()[0])

    def cut(self, run: RunId, reason: str) -> None:
        """Asks the daemon to end a run in the exchange: whoever still waits there is told why.

        The driver of a run calls this; it has no other way to the exchange, which lives in the daemon's process.

        Raises:
            SpecError: there is no such run.
        """
        self.event(run, "", CUT, reason)

    def was_cut(self, run: RunId) -> str | None:
        """Why a run was cut since it was submitted or resumed last; None if it was not."""
        query = "SELECT event, text FROM events WHERE run = ? AND event IN (?, 'state') ORDER BY number DESC"
        with self._transaction(reads=True):
            for event, text in self._db.execute(query, (run, CUT)):
                if event == CUT:
                    return str(text)
                if text.startswith(RunState.SUBMITTED):
                    break
        return None

    def outcome(self, run: RunId, party: PartyId, finished: bytes) -> None:
        """Keeps what a party said at its end, byte for byte; the last word counts.

        Raises:
            BoundError: it is larger than 16 MiB.
            SpecError: there is no such run.
        """
        if len(finished) > _MAX_OUTCOME:
            text = f"outcome of {party}: {len(finished)} bytes, at most {_MAX_OUTCOME}"
            raise BoundError("registry.oversize", text)
        with self._transaction():
            self._get(run)
            row = (run, party, self._time(), finished)
            self._db.execute("INSERT OR REPLACE INTO outcomes (run, party, time, finished) VALUES (?, ?, ?, ?)", row)

    def outcomes(self, run: RunId) -> dict[PartyId, bytes]:
        """What each party said at its end."""
        query = "SELECT party, finished FROM outcomes WHERE run = ? ORDER BY party"
        with self._transaction(reads=True):
            return {PartyId(party): bytes(finished) for party, finished in self._db.execute(query, (run,))}

    def _get(self, run: RunId) -> RunRecord:
        query = f"SELECT {COLUMNS} FROM runs WHERE run = ?"  # noqa: S608 -- a constant
        row = self._db.execute(query, (run,)).fetchone()
        if row is None:
            raise _unknown(run)
        return record_of(row)

    def _move(self, run: RunId, state: RunState, detail: str) -> None:
        values = (state, plain(detail)[:_MAX_TEXT], self._time(), run)
        self._db.execute("UPDATE runs SET state = ?, detail = ?, updated = ? WHERE run = ?", values)
        self._event(run, "", "state", f"{state}: {detail}" if detail else str(state))

    def _submit_again(self, run: RunId, reason: str) -> None:
        self._db.execute("UPDATE runs SET flower_run = '' WHERE run = ?", (run,))
        self._move(run, RunState.SUBMITTED, reason)
        self._drivers.forget(run)

    def _event(self, run: RunId, party: str, event: str, text: str) -> None:
        row = (run, self._time(), party, event, plain(text)[:_MAX_TEXT])
        self._db.execute("INSERT INTO events (run, time, party, event, text) VALUES (?, ?, ?, ?, ?)", row)

    def _time(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unknown(run: str) -> SpecError:
    return SpecError("registry.no-run", f"run {run[:32]!r}: no such run; `fedcredit run list` shows them")


def _failed(name: str, error: sqlite3.Error) -> FedCreditError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return TransportError("registry.busy", f"{name}: another process keeps the run registry busy", str(error))
    return IntegrityError("registry.unreadable", f"{name}: the run registry cannot be read or written", str(error))
