"""``fedcredit doctor``: everything a member needs before a run, each checked by itself, with what to do about it.

A check never shows a value of a record, a key or a URL, and never changes anything but probe files of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from fedcredit.errors import FedCreditError
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.roster import MemberKind

__all__ = ["Finding", "Status", "failed", "findings_of", "opened", "worst"]


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One check.

    Args:
        check: Its name, such as ``"certificate"``.
        status: How it ended.
        found: What was found, in one line.
        remedy: What to do; "" where nothing is to be done.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""


def findings_of(check: str, work: Callable[[], Finding | Iterable[Finding]]) -> list[Finding]:
    """What a check found; an error of this product is a failure with its text."""
    try:
        found = work()
        return [found] if isinstance(found, Finding) else list(found)
    except FedCreditError as error:
        return [failed(check, error)]
    except OSError as error:
        why = f"{error.filename or 'a file'} cannot be used ({error.strerror})"
        return [Finding(check, Status.FAIL, why, "run as the user that owns the home")]


def failed(check: str, error: FedCreditError) -> Finding:
    """An error as a finding: what was found before its last semicolon, the remedy after it."""
    found, _, remedy = error.public.rpartition("; ")
    return Finding(check, Status.FAIL, found or error.public, remedy if found else "")


def opened(folder: Path) -> tuple[Home | None, Finding]:
    """A home if it opens, and what is to be said about that."""
    try:
        home = open_home(folder, now=datetime.now(UTC))
    except FedCreditError as error:
        return None, failed("home", error)
    except OSError as error:
        why = f"{folder}: cannot be read ({error.strerror})"
        return None, Finding("home", Status.FAIL, why, "run as the user that owns it")
    roster = home.roster
    kind = "" if home.kind is MemberKind.COORDINATOR else f" ({home.kind})"
    found = f"{home.party}{kind} of {roster.consortium}, roster {roster.version} with {len(roster.members)} members"
    if roster.trial:
        return home, Finding("home", Status.WARN, f"{found}; a TRIAL", "never use it with real records")
    return home, Finding("home", Status.OK, found)


def worst(findings: Iterable[Finding]) -> Status:
    """The worst of all; what was not checked counts as no failure."""
    found = {one.status for one in findings}
    return next((status for status in (Status.FAIL, Status.WARN) if status in found), Status.OK)
