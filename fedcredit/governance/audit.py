"""The audit log: one hash chain a party and run, as lines of canonical JSON.

Every line holds the hash of the line before it and its own: SHA-256 over the canonical JSON of all its other fields.
The closing line holds the count. Its hash, the *head*, is published with the run, so that a chain rewritten from any
line on does not verify either.

Durability: an entry is written and flushed before this module returns; with ``durable`` (production) entries of what
leaves and of refusals, and the closing entry, are also forced to the disk before the bytes they speak of leave.

Not covered: a log that was never published anywhere outside its house can be rewritten as a whole by that house.

Source: Schneier and Kelsey, "Secure audit logs to support computer forensics", ACM TISSEC 1999 (hash chain).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedcredit.errors import IntegrityError
from fedcredit.governance.canonical import canonical_json
from fedcredit.types import PartyId, RunId

__all__ = ["HEADS_FILE", "AuditLog", "Verified", "logs_in", "read_entries", "verify", "verify_directory", "write_heads"]

HEADS_FILE = "heads.json"
"""Beside the logs of a run: the head of every party's chain."""

_GENESIS = hashlib.sha256(b"fedcredit/audit/v1").hexdigest()
_CLOSED = "closed"
_FORCED = frozenset({"sent", "refused", _CLOSED})


@dataclass(frozen=True)
class Verified:
    """A chain that holds.

    Args:
        entries: Number of lines, the closing one included.
        head: Hash of the closing line.
    """

    entries: int
    head: str


class AuditLog:
    """One party's log of one run.

    Args:
        path: File to append to, or None to keep the lines in memory. An unfinished log of the same run is continued.
        party: Whose log it is.
        run: The run.
        clock: Gives the time of an entry, with its zone.
        durable: Force what leaves to the disk first.

    Raises:
        IntegrityError: the file holds a broken or closed chain, or one of another party or run.
    """

    def __init__(
        self, path: Path | None, party: PartyId, run: RunId, clock: Callable[[], datetime], *, durable: bool = True
    ) -> None:
        self._party, self._run, self._clock, self._durable = party, run, clock, durable
        self._count, self._head, self._closed, self._broken = 0, _GENESIS, False, False
        self._lines: list[str] = []
        self._file = None
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            self._resume(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _resume(self, path: Path) -> None:
        entries = _chain(path.read_bytes(), path.name)
        last = entries[-1]
        if last["event"] == _CLOSED:
            raise IntegrityError("audit.closed", f"{path.name} line {len(entries)}: the log is closed already")
        if last["party"] != self._party or last["run"] != self._run:
            raise IntegrityError("audit.other", f"{path.name} line {len(entries)}: the log of another party or run")
        self._count, self._head = len(entries), str(last["hash"])

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self._head

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines kept in memory; empty where there is a file."""
        return tuple(self._lines)

    def append(self, event: str, fields: Mapping[str, object]) -> str:
        """Adds one entry and returns its hash.

        Args:
            event: What happened: "sent", "received", "refused", "declared", "stage".
            fields: More of it; no data value.

        Raises:
            IntegrityError: the log is closed, or the disk did not take the line. No other one is taken then either:
                nobody knows how much of it stands in the file until the next process looks.
        """
        if self._closed:
            raise IntegrityError("audit.closed", f"the audit log of {self._party} is closed")
        if self._broken:
            raise IntegrityError("audit.write", "the audit log could not be written before: nothing leaves any more")
        entry: dict[str, object] = {
            **fields,
            "event": event,
            "line": self._count + 1,
            "party": self._party,
            "previous": self._head,
            "run": self._run,
            "time": self._clock().isoformat(timespec="milliseconds"),
        }
        digest = _entry_hash(entry)
        line = canonical_json({**entry, "hash": digest})
        self._write(line, force=event in _FORCED)
        self._count, self._head = self._count + 1, digest
        return digest

    def _write(self, line: str, *, force: bool) -> None:
        if self._file is None:
            self._lines.append(line)
            return
        data = line.encode() + b"\n"
        self._broken = True  # until the whole line is where it has to be
        try:
            written = os.write(self._file, data)
            if self._durable and force:
                os.fsync(self._file)
        except OSError as error:
            raise IntegrityError("audit.write", "the audit log could not be written", type(error).__name__) from None
        if written != len(data):
            raise IntegrityError("audit.write", "the audit log could not be written whole: is the disk full?")
        self._broken = False

    def suspend(self) -> None:
        """Lets the file go without a closing entry: the run goes on in another process or attempt."""
        self._closed = True
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> Verified:
        """Writes the closing entry with the count of entries before it; returns the head."""
        if not self._closed:
            self.append(_CLOSED, {"count": self._count})
            self._closed = True
            if self._file is not None:
                os.close(self._file)
                self._file = None
        return Verified(self._count, self._head)


def verify(path: Path, expected_head: str | None = None) -> Verified:
    """Checks a closed log.

    Args:
        path: The log.
        expected_head: Head published by its party; without it a chain rewritten as a whole would pass.

    Raises:
        IntegrityError: naming the first line that is changed, missing, out of order, repeated, left over or cut off.
    """
    try:
        data = path.read_bytes()
    except OSError:
        raise IntegrityError("audit.missing", f"{path.name}: the log is missing or not readable") from None
    entries = _chain(data, path.name)
    last, where = entries[-1], f"{path.name} line {len(entries)}"
    if last["event"] != _CLOSED:
        raise IntegrityError("audit.truncated", f"{where}: the log ends here without a closing entry")
    if last.get("count") != len(entries) - 1:
        raise IntegrityError("audit.count", f"{where}: the closing entry counts {last.get('count')!s:.20} entries")
    if expected_head is not None and last["hash"] != expected_head:
        raise IntegrityError("audit.head", f"{where}: the log's head is not the published one")
    return Verified(len(entries), str(last["hash"]))


def read_entries(path: Path) -> tuple[dict[str, Any], ...]:
    """Entries of a log whose chain holds, closed or not.

    Raises:
        IntegrityError: as :func:`verify`.
    """
    return tuple(_chain(path.read_bytes(), path.name))


def write_heads(directory: Path, heads: Mapping[PartyId, str]) -> None:
    """Publishes the heads of a run's logs beside them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / HEADS_FILE).write_text(canonical_json(dict(heads)) + "\n", encoding="utf-8")


def verify_directory(directory: Path) -> dict[str, Verified]:
    """Checks every log of a run against its published head, by party.

    Where a run had several networks, each has a folder of its own, and a log goes by ``NETWORK/PARTY``.

    Raises:
        IntegrityError: no heads, a log without head, a head without log, or a log that does not verify.
    """
    try:
        heads = json.loads((directory / HEADS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise IntegrityError("audit.heads", f"{HEADS_FILE}: the published heads are missing or not readable") from None
    if not isinstance(heads, dict) or not heads or not all(isinstance(head, str) for head in heads.values()):
        raise IntegrityError("audit.heads", f"{HEADS_FILE}: a head for every party is needed")
    logs = logs_in(directory)
    for party in sorted(heads.keys() ^ logs.keys()):
        what = "log has no published head" if party in logs else "published head has no log"
        raise IntegrityError("audit.heads", f"{party}: the {what}")
    verified = {}
    for party, path in logs.items():
        verified[party] = verify(path, heads[party])
        if read_entries(path)[0]["party"] != path.stem:
            raise IntegrityError("audit.other", f"{path.name} line 1: the log of another party")
    return verified


def logs_in(directory: Path) -> dict[str, Path]:
    """The logs of a run by party, or by ``NETWORK/PARTY``."""
    found = sorted(directory.rglob("*.jsonl"))
    return {path.relative_to(directory).with_suffix("").as_posix(): path for path in found}


def _entry_hash(entry: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(dict(entry)).encode()).hexdigest()


def _chain(data: bytes, name: str) -> list[dict[str, Any]]:
    """Entries of an unbroken chain, at least one."""
    lines = data.split(b"\n")
    if lines[-1]:
        raise IntegrityError("audit.truncated", f"{name} line {len(lines)}: the last line is cut off")
    entries: list[dict[str, Any]] = []
    previous, first = _GENESIS, None
    for number, line in enumerate(lines[:-1], start=1):
        where = f"{name} line {number}"
        if entries and entries[-1]["event"] == _CLOSED:
            raise IntegrityError("audit.trailing", f"{where}: something follows the closing entry")
        entry = _entry(line, where)
        first = first or (entry["party"], entry["run"])
        if entry["line"] != number or entry["previous"] != previous:
            raise IntegrityError("audit.order", f"{where}: {_misplaced(entry, number, entries)}")
        if (entry["party"], entry["run"]) != first:
            raise IntegrityError("audit.other", f"{where}: an entry of another party or run")
        previous = entry["hash"]
        entries.append(entry)
    if not entries:
        raise IntegrityError("audit.truncated", f"{name} line 1: the log is empty")
    return entries


def _entry(line: bytes, where: str) -> dict[str, Any]:
    """One line whose own hash holds."""
    try:
        entry = json.loads(line)
        canonical = canonical_json(entry).encode() == line
    except (ValueError, RecursionError):
        raise IntegrityError("audit.changed", f"{where}: not a line of canonical JSON") from None
    needed = {"event", "hash", "line", "party", "previous", "run"}
    if not canonical or not isinstance(entry, dict) or not needed <= entry.keys():
        raise IntegrityError("audit.changed", f"{where}: not an audit entry in canonical form")
    if entry["hash"] != _entry_hash({key: value for key, value in entry.items() if key != "hash"}):
        raise IntegrityError("audit.changed", f"{where}: the entry was changed after it was written")
    return entry


def _misplaced(entry: Mapping[str, Any], number: int, before: list[dict[str, Any]]) -> str:
    """Says how an entry whose own hash holds came to the wrong place."""
    if any(entry["hash"] == other["hash"] for other in before):
        return f"entry {entry['line']} is repeated"
    if isinstance(entry["line"], int) and entry["line"] > number:
        return f"entry {number} is missing or out of order, entry {entry['line']} stands here"
    return "an entry does not continue the one before it"
