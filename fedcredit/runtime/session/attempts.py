"""What a party's folder says of its attempts at a run: how many began, whether it has all it needs, whether it is over.

A number is on the disk before anything is sealed under it, and the mark of completeness after all it speaks of.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedcredit.errors import IntegrityError
from fedcredit.governance.audit import AuditLog, read_entries
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.leftovers import continue_audit, mend_lines

if TYPE_CHECKING:
    from fedcredit.runtime.session.session import Part

__all__ = [
    "ATTEMPT_FILE",
    "COMPLETE_FILE",
    "MOST_ATTEMPTS",
    "attempts_begun",
    "begin_attempt",
    "books_closed",
    "is_complete",
    "next_attempt",
    "set_complete",
]

ATTEMPT_FILE, COMPLETE_FILE = "attempt", "complete"
MOST_ATTEMPTS = 1 << 32
_ATTEMPT = "attempt"


def books_closed(part: Part) -> bool:
    """Whether the party's audit log of the run has its closing entry.

    Raises:
        IntegrityError: the log is damaged.
    """
    return mend_lines(part.audit_file) and read_entries(part.audit_file)[-1]["event"] == "closed"


def is_complete(part: Part) -> bool:
    """Whether the party has written down what it needs.

    Raises:
        IntegrityError: the mark that says so is damaged.
    """
    try:
        mark = (part.files.folder / COMPLETE_FILE).read_bytes()
    except FileNotFoundError:
        return False
    if mark != _mark(part):
        raise IntegrityError("run.complete", f"{COMPLETE_FILE} of this run is damaged; the run cannot go on")
    return True


def _mark(part: Part) -> bytes:
    return part.checked.run_digest.encode()


def set_complete(part: Part) -> None:
    """Says so, after all that was written is on the disk."""
    folder = part.files.folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() or path.is_file():
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
    replace_file(folder / COMPLETE_FILE, _mark(part))


def attempts_begun(folder: Path) -> int:
    """How many attempts have begun.

    Raises:
        IntegrityError: the file that says so is damaged.
    """
    try:
        found = int((folder / ATTEMPT_FILE).read_text("ascii"))
    except FileNotFoundError:
        return 0
    except ValueError:
        found = -1
    if not 0 < found <= MOST_ATTEMPTS:
        raise IntegrityError("run.attempt", f"{ATTEMPT_FILE} of this run is damaged; the run cannot go on")
    return found


def next_attempt(part: Part, least: int) -> int:
    """The number of the next attempt, on the disk before anything is sealed under it.

    Raises:
        IntegrityError: the file says less than the audit log: a number might be used twice, and with it a key.
    """
    folder = part.files.folder
    before = attempts_begun(folder)
    logged = 0
    if mend_lines(part.audit_file):
        logged = max((int(e[_ATTEMPT]) for e in read_entries(part.audit_file) if e["event"] == _ATTEMPT), default=0)
    if before < logged:
        text = f"{ATTEMPT_FILE} of this run says {before}, its audit log {logged}; the run cannot go on"
        raise IntegrityError("run.attempt", text)
    attempt = max(before + 1, least)
    replace_file(folder / ATTEMPT_FILE, str(attempt).encode())
    return attempt


def begin_attempt(part: Part, attempt: int) -> AuditLog:
    """The party's audit log of the run, with the attempt in it."""
    audit = continue_audit(part.audit_file, part.party, part.checked.run, lambda: datetime.now(UTC), durable=True)
    try:
        audit.append(_ATTEMPT, {_ATTEMPT: attempt})
    except BaseException:
        audit.suspend()
        raise
    return audit
