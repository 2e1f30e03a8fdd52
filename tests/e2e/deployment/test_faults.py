"""Whoever is killed at whatever stage comes back, and the model is the one of an undisturbed run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fedcredit.types import COORDINATOR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STAGES = ("reference", "align", "bin", "scorecard", "score", "end")
BOOST = {
    "run": {"model": "boost"},
    "boost": {"trees": 3, "depth": 2, "min_child_rows": 20},
    "privacy": {"noise_rows": 4.0},
}
IN_THE_TREE = {
    "bank": ("bank", "kind=group_sum.request:7"),  # the second round of the second tree of three
    "tax_office": ("tax_office", "kind=group_sum.answer:4"),
    COORDINATOR: ("bank", "kind=group_sum.request:7"),
}


def struck(bench: Any, victim: str, holder: str, at: str) -> tuple[str, float]:
    """Kills a party's process when another one, or itself, is at a place, and starts it again."""
    before = bench.totals()
    run, order = bench.begin()
    held = bench.houses.hold(holder, run, order, at)
    bench.houses.start_all(run, order, but=[holder])
    held.wait()
    bench.houses.kill(victim, run)
    started = time.monotonic()
    held.go()
    ended = bench.through(run, order)
    seconds = time.monotonic() - started
    attempts = {one.attempts for one in ended.values()}
    assert attempts == {1 if at.startswith("closing") else 2}, (victim, at)  # everyone's second, nobody's third
    return bench.check(run, before), seconds


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("victim", ["bank", "tax_office", COORDINATOR])
def test_a_killed_party_comes_back(benches: Callable[..., Any], row: Any, victim: str, stage: str) -> None:
    bench = benches("scorecard")
    waits = victim == COORDINATOR and stage in {"reference", "align", "bin"}  # it has nothing to do there yet
    identical, seconds = struck(bench, victim, "bank" if waits else victim, f"{stage}:1")
    row(f"kill -9 of {victim}, restart", stage, "all went on in a second attempt; charged once", seconds, identical)


@pytest.mark.parametrize("victim", list(IN_THE_TREE))
def test_a_party_killed_in_a_tree_comes_back(benches: Callable[..., Any], row: Any, victim: str) -> None:
    identical, seconds = struck(benches("boost", sections=BOOST), victim, *IN_THE_TREE[victim])
    row(f"kill -9 of {victim}, restart", "boost, tree 2", "all went on in the tree; charged once", seconds, identical)


@pytest.mark.parametrize("victim", ["bank", "tax_office", COORDINATOR])
def test_a_party_killed_while_it_closes_its_folder(benches: Callable[..., Any], row: Any, victim: str) -> None:
    identical, seconds = struck(benches("scorecard"), victim, victim, "closing:1")
    row(f"kill -9 of {victim}, restart", "closing", "told how it had ended; nobody else noticed", seconds, identical)
