"""A coordinator that proposes and asks without end: what a house keeps of it is bounded, and says how it began."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedcredit.runtime import refusals
from fedcredit.runtime.house import consent
from fedcredit.types import PartyId, RunId

BANK = PartyId("bank")


@pytest.fixture
def made(trial: Callable[..., Any]) -> Any:
    return trial(rows=200)


def kept(made: Any) -> list[str]:
    return sorted(one.name for one in (made.home(BANK).folder / "state" / "proposals").glob("*.spec.json"))


def proposed(made: Any, number: int) -> Any:
    return made.consider(BANK, made.proposal(run=RunId(f"{number:032x}")))


def age(made: Any, number: int) -> None:
    """As if a proposal had been made 40 days ago."""
    path = made.home(BANK).folder / "state" / "proposals" / f"{number:032x}.json"
    content = json.loads(path.read_bytes())
    content["expires"] = (datetime.now(UTC) - timedelta(days=10)).isoformat(timespec="seconds")
    path.write_text(json.dumps(content))


def test_proposals_are_kept_up_to_a_number(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "MOST_PROPOSALS", 4)
    made.change_policy(BANK, any_run=False)
    for number in range(4):
        assert proposed(made, number).state == "pending"
    refused = proposed(made, 4)
    assert (refused.state, refused.code) == ("denied", "proposal.many")
    assert len(kept(made)) == 4
    assert proposed(made, 3).state == "pending", "what was proposed before is still answered"
    age(made, 1)
    assert proposed(made, 4).state == "pending"
    assert f"{1:032x}.spec.json" not in kept(made)
    assert len(kept(made)) == 4


def test_a_run_that_is_under_way_is_not_forgotten(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "MOST_PROPOSALS", 1)
    assert proposed(made, 0).state == "approved"  # its folder and secrets are there now
    age(made, 0)
    assert proposed(made, 1).code == "proposal.many"
    assert kept(made) == [f"{0:032x}.spec.json"]


def test_refusals_are_kept_from_the_first_on_and_bounded(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_MOST_BYTES", 2000)
    logs = made.home(BANK).logs
    for number in range(40):
        assert made.consider(BANK, b"garbage %d" % number).state == "denied"
    files = {one.name: one.read_text().splitlines() for one in logs.glob("refusals*.jsonl")}
    assert set(files) == {"refusals.jsonl", "refusals.first.jsonl", "refusals.last.jsonl"}
    assert all(sum(map(len, lines)) < 3000 for lines in files.values())
    assert json.loads(files["refusals.first.jsonl"][0])["bytes"] == len(b"garbage 0")
    assert all((logs / name).stat().st_mode & 0o777 == 0o600 for name in files)
