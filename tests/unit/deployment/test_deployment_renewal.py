"""A roster that is pinned while a run is under way: the house's own list counts, and earlier proposals still hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fedcredit.errors import PeerError, SpecError
from fedcredit.runtime.house.roster import RevokedKeys, Roster
from fedcredit.runtime.runs.proposal import check_proposal
from fedcredit.types import COORDINATOR, PartyId


def later(roster: Roster, **changes: Any) -> Roster:
    return replace(
        roster, version=roster.version + 1, history=(*roster.history, roster.digest), digest="f" * 64, **changes
    )


def refused(raw: bytes, roster: Roster) -> str:
    with pytest.raises((SpecError, PeerError)) as told:
        check_proposal(raw, roster, datetime.now(UTC))
    return told.value.code


def test_a_proposal_of_an_earlier_version_holds(trial: Callable[..., Any]) -> None:
    made = trial(rows=200)
    raw, roster = made.proposal(), made.home("bank").roster
    before = check_proposal(raw, roster, datetime.now(UTC))
    after = check_proposal(raw, later(later(roster)), datetime.now(UTC))
    assert after == before


def test_a_proposal_of_a_later_or_another_version_does_not(trial: Callable[..., Any]) -> None:
    made = trial(rows=200)
    raw, roster = made.proposal(), made.home("bank").roster
    assert refused(raw, replace(roster, digest="f" * 64)) == "proposal.roster"
    assert refused(raw, replace(roster, version=2, history=("e" * 64,), digest="f" * 64)) == "proposal.roster"


def test_whoever_was_revoked_meanwhile_is_in_no_run(trial: Callable[..., Any]) -> None:
    made = trial(rows=200)
    raw, roster = made.proposal(), made.home("bank").roster
    members = {name: one for name, one in roster.members.items() if name != "tax_office"}
    gone = RevokedKeys(
        PartyId("tax_office"), "2026-01-01", roster.members[PartyId("tax_office")].public_keys, left=True
    )
    assert refused(raw, later(roster, members=members, revoked=(gone,))) == "roster.revoked"
    without = {**roster.members, COORDINATOR: replace(roster.coordinator, identity=made.home("bank").identity.public)}
    assert refused(raw, later(roster, members=without)) == "wire.signature"
