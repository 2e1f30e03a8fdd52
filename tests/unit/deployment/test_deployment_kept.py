"""Houses in production are killed at every stage: they finish, with the model of a run that was left alone."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.governance.audit import read_entries, verify
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.party_end import PartyEnd
from fedcredit.runtime.session.files import kept_secret, unfinished_files
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import kind_of

RUN, OTHER = RunId("ab" * 16), RunId("cd" * 16)
BANK, TAX, CUSTOMS = PartyId("bank"), PartyId("tax_office"), PartyId("customs")
HOLDERS = ("tax_office", "customs")
Kill = tuple[PartyId | None, str, int]  # who (None: whoever does), before which message, by kind and number in one life

TREES = {
    "run": {"mode": "production", "model": "boost"},
    "boost": {
        "trees": 2,
        "depth": 2,
        "bins": 8,
        "holder_bins": 4,
        "min_bin_rows": 40,
        "min_child_rows": 20,
        "first_trees_local": 0,
    },
    "privacy": {"noise_rows": 4.0},
}

SCORECARD: Sequence[Kill] = [
    (BANK, "select.rows", 2),
    (CUSTOMS, "select.shades", 1),
    (BANK, "select.shared", 1),
    (CUSTOMS, "select.columns", 1),
    (TAX, "select.shade_sums", 1),
    (CUSTOMS, "select.opened_sums", 1),
    (BANK, "scorecard.totals_key", 1),
    (TAX, "scorecard.partial", 1),
    (COORDINATOR, "scorecard.total", 1),
    (BANK, "scorecard.step", 3),
    (CUSTOMS, "scorecard.partial", 2),
    (COORDINATOR, "scorecard.total", 3),
]
BOOST: Sequence[Kill] = [
    (BANK, "select.rows", 2),
    (TAX, "group_sum.hints", 1),
    (CUSTOMS, "group_sum.answer", 1),
    (BANK, "boost.splits", 3),
    (None, "boost.bitmaps", 1),
    (BANK, "boost.tree", 3),
    (BANK, "boost.kept", 2),
    (TAX, "boost.chosen_paths", 1),
]
BFV: Sequence[Kill] = [
    (BANK, "group_sum.setup", 1),
    (BANK, "group_sum.request", 1),
    (TAX, "group_sum.answer", 1),
    (CUSTOMS, "group_sum.answer", 2),
    (BANK, "select.shared", 1),
    (TAX, "scorecard.partial", 1),
]


class Killer:
    """Stops houses where they stand: a message has passed the gate, is charged and logged, and is not on its way."""

    def __init__(self, made: Any, patch: pytest.MonkeyPatch, kills: Sequence[Kill]) -> None:
        self.left = list(kills)
        self.bodies: dict[str, set[tuple[str, str, str]]] = {}
        counted: dict[tuple[PartyEnd, str], int] = {}  # an end is one life of one party
        release = PartyEnd.release

        def watched(end: PartyEnd, to: PartyId, message: Any, spend: Any = None) -> Any:
            kind, found = kind_of(type(message)), release(end, to, message, spend)
            self.bodies.setdefault(kind, set()).add((end.party, to, found.body_sha256))
            with made.hub.lock:
                number = counted[end, kind] = counted.get((end, kind), 0) + 1
                if self.left and self.left[0] in {(end.party, kind, number), (None, kind, number)}:
                    self.left.pop(0)
                    made.hub.kill_at[end.party] = made.hub.sent.get(end.party, 0) + 1
            return found

        patch.setattr(PartyEnd, "release", watched)


def charged(made: Any, party: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(made.home(party).state / "ledger.sqlite")
    found = connection.execute("SELECT counterparty, kind, feature, amount FROM totals ORDER BY 1, 2, 3").fetchall()
    connection.close()
    return found


def outcome(made: Any) -> dict[str, Any]:
    """Every party's part of the model as bytes, what its ledger was charged, and the bank's predictions."""
    found: dict[str, Any] = {}
    for party in made.spec.parties:
        folder = made.homes[party].runs / RUN
        (file,) = (folder / "model" / party).glob("*.json")
        found[party] = (file.read_bytes(), charged(made, party))
        names = {one.name for one in folder.iterdir()}
        assert not names & {"kept", "secrets", "checkpoints", "headroom"}
        verify(folder / "audit" / f"{party}.jsonl")
    found["rows"] = pl.read_parquet(made.homes[BANK].runs / RUN / "predictions.parquet").sort("id").to_dicts()
    return found


def twice(made: Any, tmp_path: Path) -> tuple[bytes, dict[str, Any], Callable[[], None]]:
    """The order of a run whose secrets are made, what comes of it undisturbed, and how to begin it once more."""
    order = made.order(made.approve_all())
    for party in made.spec.parties:
        kept_secret(unfinished_files(made.homes[party], RUN), "run")
    shutil.copytree(tmp_path / "homes", tmp_path / "before")

    def back() -> None:
        shutil.rmtree(tmp_path / "homes")
        shutil.copytree(tmp_path / "before", tmp_path / "homes")
        for party in made.homes:
            made.homes[party] = open_home(tmp_path / "homes" / party)
        for known in (made.hub.links, made.hub.held, made.hub.sent, made.hub.kill_at):
            known.clear()

    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert {one.attempts for one in ended.values()} == {1}
    found = outcome(made)
    back()
    return order, found, back


def killed_and_the_same(
    made: Any, tmp_path: Path, patch: pytest.MonkeyPatch, kills: Sequence[Kill]
) -> tuple[Killer, Killer]:
    with patch.context() as watching:
        alone = Killer(made, watching, [])
        order, whole, _ = twice(made, tmp_path)
    killer = Killer(made, patch, kills)
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert killer.left == []
    assert max(one.attempts for one in ended.values()) >= len(kills) / 2  # two may fall into one attempt
    assert outcome(made) == whole
    return alone, killer


CASES: dict[str, tuple[dict[str, Any], Sequence[Kill]]] = {
    "scorecard": ({}, SCORECARD),
    "trees": (TREES, BOOST),
    "bfv": ({"crypto": {"profile": "bfv-8192"}}, BFV),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_stage_it_finishes_with_the_same_model(
    production: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    sections, kills = CASES[case]
    made = production(
        rows=6000 if case == "trees" else 1200, holders=HOLDERS, sections={**sections, "network": {"timeout_s": 60.0}}
    )
    alone, killer = killed_and_the_same(made, tmp_path, monkeypatch, kills)
    for kind, sent in alone.bodies.items():  # nobody was ever sent a second version of anything
        if not kind.startswith("run."):
            assert len(killer.bodies[kind]) == len(sent), kind


def full(made: Any, patch: pytest.MonkeyPatch, party: str, kind: str) -> list[str]:
    """A disk without room for what a party keeps, once; which files could not be written."""
    refused: list[str] = []
    write = replace_file

    def writes(path: Path, *parts: bytes, durable: bool = True) -> None:
        label = b"".join(parts)[:400]
        if (
            f"/kept/{path.name}" in str(path)
            and f"/{party}".encode() in label
            and kind.encode() in label
            and not refused
        ):
            refused.append(path.name)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *parts, durable=durable)

    patch.setattr("fedcredit.runtime.kept.replace_file", writes)
    return refused


@pytest.mark.slow
@pytest.mark.parametrize(("party", "kind"), [(BANK, "select/rows/test"), (CUSTOMS, "select/columns")])
def test_a_disk_that_is_full_stops_the_house_before_anything_leaves(
    production: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, party: PartyId, kind: str
) -> None:
    made = production(rows=1200, holders=HOLDERS, sections={"network": {"timeout_s": 20.0}})
    order = made.order(made.approve_all())
    with monkeypatch.context() as patch:
        refused = full(made, patch, party, kind)
        ended = made.play_all(order)
    assert len(refused) == 1
    assert (ended[party].ok, ended[party].code) == (False, "run.storage")
    assert not any(one.ok for one in ended.values())
    left = made.homes[party].state / "runs" / RUN
    message = {"select/rows/test": "select.rows", "select/columns": "select.columns"}[kind]
    log = read_entries(left / "audit" / f"{party}.jsonl")
    assert message not in {entry.get("kind") for entry in log if entry["event"] == "sent"}
    assert refused[0] not in {one.name for one in (left / "kept").iterdir()}
    ended = made.play_all(order)  # there is room again
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}


@pytest.mark.slow
def test_what_is_kept_is_held_against_its_run_before_anything_is_sent(
    production: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = production(rows=1200, holders=HOLDERS, sections={"network": {"timeout_s": 20.0}})
    order = made.order(made.approve_all())
    with monkeypatch.context() as patch:
        refused = full(made, patch, BANK, "select/shared")
        made.play_all(order)
    assert refused
    folder = made.homes[BANK].state / "runs" / RUN / "kept"
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    (first, whole), *_ = files.items()
    cases = {
        "kept.damaged": whole[:-1] + bytes([whole[-1] ^ 1]),
        "kept.run": next((made.homes[CUSTOMS].state / "runs" / RUN / "kept").iterdir()).read_bytes(),
    }
    for code, content in cases.items():
        first.write_bytes(content)
        sent = len([one for one in read_entries(folder.parent / "audit" / "bank.jsonl") if one["event"] == "sent"])
        ended = made.play_all(order)
        assert (ended[BANK].ok, ended[BANK].code) == (False, code)
        assert {one.culprit for party, one in ended.items() if party != BANK} == {"bank"}
        log = [one for one in read_entries(folder.parent / "audit" / "bank.jsonl") if one["event"] == "sent"]
        assert {one["kind"] for one in log[sent:]} <= {"run.begin", "run.error"}
    first.write_bytes(whole)
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}


def test_a_hidden_run_that_is_killed_after_its_choice_finishes(
    production: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = production(rows=400)
    killed_and_the_same(made, tmp_path, monkeypatch, [(TAX, "scorecard.partial", 1)])
