"""Operators and proposers that ask too much, or write what a terminal would obey."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcredit.cli.console import write_error, write_line, write_notice, write_table
from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.plain_text import is_plain, plain
from fedcredit.runtime.house.facts import house_facts
from fedcredit.runtime.runs.operator_limits import MOST_LIVE, Allowances, check_room
from fedcredit.runtime.runs.registry import Registry, RunState
from fedcredit.spec.load import parse_spec
from fedcredit.spec.model import RunSpec
from fedcredit.spec.travel import read_travelling, travelling_json

EVIL = [
    "a\x1b[2K\x1b[1Aenforced",
    "a\rb",
    "a\nparties  bank",
    "a\x9b31m",
    "a\u202egnp",
    "a\u2066b",
    "a\x00",
    "a\u2028b",
    "a\x07",
]


def spec_with(column: str) -> str:
    spec = {
        "run": {"name": "first", "mode": "simulation"},
        "align": {"mode": "plain"},
        "party": [
            {"name": "bank", "role": "label_holder", "source": "data:loans", "label": "bad", "columns": ["a"]},
            {"name": "tax_office", "role": "feature_holder", "source": "data:loans", "columns": [column]},
        ],
    }
    return json.dumps(spec)


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_names_that_a_terminal_obeys_do_not_travel(name: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_travelling(spec_with(name))
    assert refused.value.code == "spec.characters"
    assert is_plain(refused.value.public)


def test_parties_without_end_are_not_read() -> None:
    """Eight thousand parties took 14 s of the coordinator's processor, and of every house's, for each submission."""
    content = json.loads(spec_with("b"))
    content["party"] += [{**content["party"][1], "name": f"p{number}"} for number in range(8000)]
    with pytest.raises(SpecError) as refused:
        read_travelling(json.dumps(content))
    assert refused.value.code == "spec.parties"


@pytest.mark.parametrize("name", ["收入", "Einkünfte (netto)", "دخل", "x y", "naïve e\u0301"])
def test_names_of_all_languages_do(name: str) -> None:
    spec, _ = read_travelling(spec_with(name))
    assert spec.party[1].columns == (name,)


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_what_others_wrote_is_shown_and_not_obeyed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for write in (write_line, write_error, write_notice, lambda one: write_table(("A",), [(one,)])):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", out)
        write(text)
        shown = out.getvalue()
        monkeypatch.undo()
        assert all(map(is_plain, shown.rstrip("\n").split("\n")))
        if write in (write_line, write_error, write_notice):
            assert shown.count("\n") == 1, "one line stays one line"


@given(st.text())
def test_plain_text_holds_no_control_and_is_its_own_plain_text(text: str) -> None:
    shown = plain(text)
    assert is_plain(shown)
    assert plain(shown) == shown
    assert shown == text or not is_plain(text)


def test_reasons_and_errors_are_plain_in_the_book_of_runs(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    run = registry.submit(spec_with("b"), "first", "d" * 64, "scorecard", "loans")
    registry.event(run, "bank", "failed", "\x1b]0;x\x07 \u202e")
    registry.stop(run, "stopped by ops: \x1b[2J\r\n")
    told = [one.text for one in registry.events(run)] + [registry.get(run).detail]
    assert all(map(is_plain, told))
    assert registry.get(run).state is RunState.STOPPED
    registry.close()


def test_a_list_of_runs_holds_no_specs(tmp_path: Path) -> None:
    """Two hundred specs of a mebibyte would be read into memory at every look."""
    registry = Registry(tmp_path / "registry.sqlite")
    runs = [registry.submit(spec_with("b" * 1000), str(number), "d" * 64, "scorecard", "x") for number in range(5)]
    latest = registry.latest(3)
    assert [one.run for one in latest] == runs[2:]
    assert all(one.spec_json == "" for one in latest)
    assert registry.get(runs[0]).spec_json
    registry.close()


def taken(allowances: Allowances, caller: str, method: str) -> int:
    """Requests that are heard before one is refused by name; of ten thousand at most."""
    for count in range(10_000):
        try:
            allowances.take(caller, method)
        except PolicyDenied:
            return count
    return 10_000


def test_an_operator_that_submits_without_end_is_slowed_and_the_others_are_not() -> None:
    now = [0.0]
    allowances = Allowances(lambda: now[0])
    assert taken(allowances, "ops", "Submit") == 60
    assert taken(allowances, "ops", "Stop") == 0, "stopping and submitting in turns is the same"
    assert taken(allowances, "other", "Submit") == 60
    allowances.take("ops", "Events")  # it still sees what happens
    now[0] += 3600
    assert taken(allowances, "ops", "Resume") == 60, "an hour of rest gives no more than at first"


def test_looks_and_fetches_are_bounded_too() -> None:
    allowances = Allowances(lambda: 0.0)
    assert taken(allowances, "ops", "List") == 400
    assert taken(allowances, "ops", "Fetch") == 400


def test_runs_that_wait_are_bounded() -> None:
    check_room({"submitted": MOST_LIVE - 1, "finished": 10_000, "failed": 5, "stopped": 1})
    with pytest.raises(SpecError) as refused:
        check_room({"submitted": MOST_LIVE - 1, "running": 1})
    assert refused.value.code == "submit.full"


def banks(more: str) -> RunSpec:
    sections = json.loads(more)
    raw = {
        "run": {"name": "avg", "model": "fedavg", "mode": "production"},
        "fedavg": {"rounds": 2},
        "party": [
            {"name": name, "role": "label_holder", "source": "data:loans", "label": "bad"} for name in ("a", "b", "c")
        ],
        **sections,
    }
    return parse_spec(raw)


def test_who_approves_an_average_sees_what_protects_it() -> None:
    home = type("Home", (), {"party": "stranger", "node": type("Node", (), {"data": {}})()})()
    for more, loud, words in (
        ("{}", {"noise"}, "masked+he: the coordinator learns no total"),
        ('{"secure_sum": {"profile": "masked"}}', {"sums", "noise"}, "THE COORDINATOR LEARNS EVERY TOTAL"),
        ('{"fedavg": {"rounds": 3}}', {"noise"}, "3; a total holds 3 or more; safe where up to 1 of them work with"),
        ('{"differential_privacy": {"unit": "record"}}', set(), "protects one record"),
    ):
        spec = banks(more)
        facts = house_facts(home, spec, "loans")
        assert {one.name for one in facts if one.loud} == loud
        assert any(words in one.text for one in facts)
    assert travelling_json(spec, "loans")
