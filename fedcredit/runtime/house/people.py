"""Who decides for a house: the person at the keyboard, as the system knows them, and the record of what they said.

The kernel keeps the user that a session was logged in as (``loginuid``), through ``su`` and ``sudo``; where it keeps
none (containers, services) the user who called ``sudo`` counts, else the user of the process. A name that is given
beside it is noted and proves nothing.

Not covered: whoever can write the home's files can write a decision too; so can root. Where everybody works as the same
system user, there is one person here, and a policy that asks for two starts nothing.

Source: audit(7) and pam_loginuid(8) for ``/proc/self/loginuid``.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fedcredit.errors import SpecError

__all__ = ["DECISIONS_FILE", "Person", "note_decision", "this_person"]

DECISIONS_FILE = "decisions.jsonl"
"""In the home's ``logs``: one line for every approval and denial, never changed."""

_LOGIN = Path("/proc/self/loginuid")
_NOBODY = 2**32 - 1  # nobody logged in
_MOST_NAME = 80


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who decided.

    Attributes:
        user: Name of the system user.
        known_by: ``login``, ``sudo`` or ``process``: where that name is from.
        name: What they said they are called; "" = nothing.
        when: RFC 3339.
    """

    user: str
    known_by: str
    name: str
    when: str


def this_person(name: str = "") -> Person:
    """Whoever runs this command.

    Args:
        name: What they are called, for the record.

    Raises:
        SpecError: the name is too long or has control characters.
    """
    shown = " ".join(name.split())
    if len(shown) > _MOST_NAME or not shown.isprintable():
        raise SpecError("consent.name", f"--name: {len(shown)} characters; use at most {_MOST_NAME} printable ones")
    number, known_by = _user()
    return Person(
        user=_named(number), known_by=known_by, name=shown, when=datetime.now(UTC).isoformat(timespec="seconds")
    )


def _user() -> tuple[int, str]:
    try:
        login = int(_LOGIN.read_text("ascii"))
    except (OSError, ValueError):
        login = _NOBODY
    if login != _NOBODY:
        return login, "login"
    sudo = os.environ.get("SUDO_UID", "")
    if sudo.isdecimal():
        return int(sudo), "sudo"
    return os.getuid(), "process"


def _named(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


class _Decision(msgspec.Struct, frozen=True, kw_only=True):
    time: str
    decision: str
    run: str
    spec_digest: str
    data: str
    user: str
    known_by: str
    name: str


def note_decision(logs: Path, person: Person, decision: str, about: Mapping[str, str]) -> None:
    """Adds a line to the record of decisions, on the disk when this returns.

    Args:
        logs: The home's folder of logs.
        person: Who decided.
        decision: ``approved`` or ``denied``.
        about: ``run`` it was said about, ``spec_digest``, and name of this house's records, ``data``.
    """
    line = _Decision(
        time=person.when,
        decision=decision,
        run=about["run"],
        spec_digest=about["spec_digest"],
        data=about["data"],
        user=person.user,
        known_by=person.known_by,
        name=person.name,
    )
    file = os.open(logs / DECISIONS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "ab") as stream:
        stream.write(msgspec.json.encode(line) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
