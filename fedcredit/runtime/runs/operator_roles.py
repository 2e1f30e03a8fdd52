"""Whose run it is: an operator stops, resumes and fetches what it submitted; an admin of the roster everybody's."""

from __future__ import annotations

from fedcredit.errors import PolicyDenied
from fedcredit.runtime.house.roster import Member
from fedcredit.runtime.runs.registry import Registry
from fedcredit.types import RunId

__all__ = ["OPERATOR_EVENT", "SUBMITTED_TEXT", "check_own", "owner_of"]

OPERATOR_EVENT, SUBMITTED_TEXT = "operator", "submitted it"
"""Event and text by which the registry knows who submitted a run."""

_FIRST = 20  # events among which the submission is


def owner_of(registry: Registry, run: RunId) -> str:
    """Who submitted a run, or the one that it goes on from; "" = nobody who is known."""
    seen = set[RunId]()
    while run and run not in seen:
        seen.add(run)
        for event in registry.events(run, limit=_FIRST):
            if (event.event, event.text) == (OPERATOR_EVENT, SUBMITTED_TEXT):
                return event.party
        run = RunId(registry.get(run).continues)
    return ""


def check_own(registry: Registry, run: RunId, caller: Member, what: str) -> None:
    """Refuses what is another operator's, and records that it was asked for.

    Args:
        registry: The book of runs.
        run: The run.
        caller: Who asks.
        what: ``stop``, ``resume`` or ``fetch``.

    Raises:
        PolicyDenied: another one submitted it, and the caller is no admin.
    """
    owner = owner_of(registry, run)
    if caller.admin or owner == caller.name:
        return
    by = owner or "nobody who is known"
    registry.event(run, caller.name, "refused", f"{caller.name} may not {what} it: submitted by {by}")
    why = f"run {run[:12]}: submitted by {by}; {caller.name} may {what} its own runs"
    raise PolicyDenied("operator.role", f"{why}; ask {by if owner else 'an admin'}, or whoever is admin in the roster")
