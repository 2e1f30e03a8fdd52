"""The privacy ledger: every noisy release of a house, append-only, and the epsilon that follows from all of them.

A run first reserves all that it plans to release, or is refused; then each release is booked before it leaves, under
the digest of what leaves. A release that is asked for again and is the same costs nothing again. Entries are never
changed: each holds the hash of the one before it, and the file itself refuses updates. What a run planned and did not
release counts until the run is closed.

What has been spent on a version of the data is not a stored number: it is computed from the entries, by the accountant.
A run at unit ``bank`` also says something of single rows: at most what a sum of twice the sensitivity does, since a
row can change all of what a bank adds. A run at unit ``record`` has no finite figure for a whole bank and is left out
of that account; ``require_unit`` keeps such runs out of the house.

Not covered: a house that replaces its own file by an older copy; rows that two versions of the data have in common; the
same enterprise at several banks (each counts its own row).

Source: docs/adr/0015-privacy-accounting.md; the hash chain is that of `fedcredit.governance.audit`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedcredit.errors import DisclosureRefused, IntegrityError
from fedcredit.governance.privacy_accounting import (
    ACCOUNTANT,
    Event,
    Planned,
    Unit,
    epsilon_of,
    fitting,
    read_event,
    rounds_words,
    shown,
)
from fedcredit.governance.privacy_books import Entry, PrivacyBooks
from fedcredit.governance.privacy_limit import PrivacyLimit
from fedcredit.types import RunId

__all__ = ["PrivacyLedger", "PrivacySpent"]

_HALF: Final = 0.5
_RESERVED, _RELEASED, _CLOSED = "reserved", "released", "closed"


@dataclass(frozen=True)
class PrivacySpent:
    """What one run has cost, in numbers.

    Args:
        unit: What was protected.
        delta: Of the run's figures.
        epsilon: Of what was released.
        planned: Of all that was planned.
        events: What was released.
        data_version: Of which table.
        total: Epsilon of all runs on that table together, at the policy's delta.
        total_delta: That delta.
        max_epsilon: The policy's limit; None = none.
    """

    unit: Unit
    delta: float
    epsilon: float
    planned: float
    events: tuple[Event, ...]
    data_version: str
    total: float
    total_delta: float
    max_epsilon: float | None

    def block(self) -> dict[str, object]:
        """For ``summary.json``; an infinite epsilon is None there."""
        updates = [event.noise_multiplier for event in self.events if event.release == "update"]
        return {
            "unit": self.unit,
            "epsilon": _finite(self.epsilon),
            "delta": self.delta,
            "noise_multiplier": updates[0] if updates and updates[0] else None,
            "events": [event.record() for event in self.events],
            "accountant": ACCOUNTANT,
            "planned_epsilon": _finite(self.planned),
            "total_epsilon": _finite(self.total),
            "total_delta": self.total_delta,
            "max_epsilon": self.max_epsilon,
        }


class PrivacyLedger:
    """One house's ledger of noisy releases.

    Args:
        path: Its file, created for its owner only if absent; ``":memory:"`` forgets.
        limit: The house's policy.

    Raises:
        IntegrityError: the file is not a privacy ledger of this version.
    """

    def __init__(self, path: Path | str, limit: PrivacyLimit | None = None) -> None:
        self._limit = limit or PrivacyLimit()
        self._books = PrivacyBooks(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._books.close()

    @property
    def head(self) -> str:
        """Hash of the last entry; who has it can tell later whether entries were changed or cut off."""
        with self._books.transaction():
            return self._books.head()

    def reserve(self, run: RunId, data_version: str, planned: Planned) -> None:
        """Admits all that a run plans to release about a version of the data, or nothing of it.

        Raises:
            PolicyDenied: the house asks for another unit.
            DisclosureRefused: all runs together would pass the limit (the text says how many rounds would fit), the
                run was reserved with other content, or it has ended.
        """
        self._limit.check_unit(planned.unit)
        content = {
            "data_version": data_version,
            "delta": planned.delta,
            "events": [event.record() for event in planned.events],
            "unit": planned.unit,
        }
        with self._books.transaction():
            known = self._state(run)
            if known is not None:
                if known.closed:
                    raise DisclosureRefused("dp.closed", "this run has ended, its privacy account is closed")
                if known.content != content:
                    raise DisclosureRefused("dp.replanned", "this run was planned with other releases or other data")
                return
            self._admit(data_version, planned)
            self._books.append(run, _RESERVED, content)

    def _admit(self, data_version: str, planned: Planned) -> None:
        limit = self._limit
        if limit.max_epsilon is None or not limit.enforce:
            return
        spent = self._events(planned.unit, data_version)
        total = epsilon_of((*spent, *planned.events), limit.delta)
        if total <= limit.max_epsilon:
            return
        if planned.unit == "none":
            raise DisclosureRefused(
                "dp.budget",
                f'differential_privacy.unit = "none" has no finite epsilon, this house\'s policy allows '
                f"{limit.max_epsilon:g} at delta {limit.delta:g}",
            )
        rounds = fitting(planned.events, spent, limit.max_epsilon, limit.delta)
        raise DisclosureRefused(
            "dp.budget",
            f"epsilon for unit {planned.unit!r} would come to {shown(total)} at delta {limit.delta:g}, spent or "
            f"reserved {shown(epsilon_of(spent, limit.delta))}, this house's policy allows {limit.max_epsilon:g}: "
            f"{rounds_words(rounds)}",
        )

    def commit(self, run: RunId, release: str, request: str, digest: str) -> None:
        """Books one release before it leaves; on disk when this returns.

        Args:
            run: The run.
            release: Its kind, as planned.
            request: What it answers, one name for each release; the same one again is free.
            digest: SHA-256 of what leaves.

        Raises:
            DisclosureRefused: not planned, more than planned, the run has ended, or the request was answered before
                with something else.
        """
        with self._books.transaction():
            known = self._state(run)
            if known is None:
                raise DisclosureRefused("dp.unplanned", f"a release {release!r} of a run that reserved nothing")
            if known.closed:
                raise DisclosureRefused("dp.closed", "this run has ended, its privacy account is closed")
            before = known.requests.get(request)
            if before is not None:
                if before != (release, digest):
                    raise DisclosureRefused("dp.answer-differs", f"{request!r} was already answered with other content")
                return
            allowed = sum(event.times for event in known.planned if event.release == release)
            if known.count(release) >= allowed:
                raise DisclosureRefused("dp.beyond-plan", f"release {release!r}: {allowed} are planned and were made")
            self._books.append(run, _RELEASED, {"digest": digest, "release": release, "request": request})

    def close_run(self, run: RunId) -> None:
        """Ends a run: what it planned and did not release no longer counts."""
        with self._books.transaction():
            known = self._state(run)
            if known is not None and not known.closed:
                self._books.append(run, _CLOSED, {})

    def epsilon(self, unit: Unit, data_version: str, delta: float | None = None) -> float:
        """Epsilon of all that was released, or is reserved by runs not yet closed, about a version of the data."""
        with self._books.transaction():
            return epsilon_of(self._events(unit, data_version), self._limit.delta if delta is None else delta)

    def report(self, run: RunId) -> PrivacySpent:
        """What a run has cost.

        Raises:
            DisclosureRefused: the run reserved nothing.
        """
        with self._books.transaction():
            known = self._state(run)
            if known is None:
                raise DisclosureRefused("dp.unplanned", "this run reserved nothing")
            released, everything = known.released(), self._events(known.unit, known.data_version)
            epsilon = epsilon_of(released, known.delta)
            planned = epsilon if released == known.planned else epsilon_of(known.planned, known.delta)
            alone = everything == known.planned and self._limit.delta == known.delta
            return PrivacySpent(
                unit=known.unit,
                delta=known.delta,
                epsilon=epsilon,
                planned=planned,
                events=released,
                data_version=known.data_version,
                total=planned if alone else epsilon_of(everything, self._limit.delta),
                total_delta=self._limit.delta,
                max_epsilon=self._limit.max_epsilon,
            )

    def verify(self, head: str | None = None) -> int:
        """Checks the whole chain.

        Args:
            head: Hash of the last entry as it was noted elsewhere; an entry of that hash must still be there.

        Returns:
            Number of entries.

        Raises:
            IntegrityError: naming the first entry that is changed, missing or out of order, or that the head is gone.
        """
        with self._books.transaction():
            return self._books.verify(head)

    def _state(self, run: RunId) -> _Run | None:
        found = list(_runs(self._books.entries(run)))
        return found[0] if found else None

    def _events(self, unit: Unit, data_version: str) -> tuple[Event, ...]:
        """Events of all runs on a version of the data, as they count for a unit."""
        runs = (one for one in _runs(self._books.entries()) if one.data_version == data_version)
        return tuple(event for run in runs for event in _counted(run, unit))


@dataclass
class _Run:
    """A run as its entries tell it."""

    content: Mapping[str, Any]
    planned: tuple[Event, ...]
    requests: dict[str, tuple[str, str]]
    closed: bool = False

    @property
    def unit(self) -> Unit:
        unit: Unit = self.content["unit"]
        return unit

    @property
    def delta(self) -> float:
        return float(self.content["delta"])

    @property
    def data_version(self) -> str:
        return str(self.content["data_version"])

    def count(self, release: str) -> int:
        """How often a kind was released."""
        return sum(one == release for one, _ in self.requests.values())

    def released(self) -> tuple[Event, ...]:
        """What has left."""
        counted = ((event, self.count(event.release)) for event in self.planned)
        return tuple(replace(event, times=times) for event, times in counted if times)

    def counting(self) -> tuple[Event, ...]:
        """What counts against a limit."""
        return self.released() if self.closed else self.planned


def _runs(entries: Iterable[Entry]) -> Iterator[_Run]:
    """Runs in the order in which they were reserved."""
    runs: dict[str, _Run] = {}
    for entry in entries:
        content = json.loads(entry.content)
        if entry.kind == _RESERVED:
            runs[entry.run] = _Run(content, tuple(read_event(one) for one in content["events"]), {})
        elif entry.run not in runs:
            raise IntegrityError("dp.order", f"entry {entry.line} of the privacy ledger is of a run that is not there")
        elif entry.kind == _RELEASED:
            runs[entry.run].requests[content["request"]] = (content["release"], content["digest"])
        else:
            runs[entry.run].closed = True
    yield from runs.values()


def _counted(run: _Run, unit: Unit) -> tuple[Event, ...]:
    """What a run costs a unit."""
    if run.unit in {unit, "none"}:
        return run.counting()
    if (run.unit, unit) == ("bank", "record"):
        return tuple(replace(event, noise_multiplier=event.noise_multiplier * _HALF) for event in run.counting())
    return ()


def _finite(epsilon: float) -> float | None:
    return None if math.isinf(epsilon) else epsilon
