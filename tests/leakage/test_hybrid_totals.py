"""Every total that banks of a hybrid run decide on is told of in its LEAKAGE.md: a new sum fails until it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedcredit.errors import SpecError
from fedcredit.runtime.hybrid.leakage import hybrid_steps

ROOM = Path(__file__).parents[2] / "fedcredit"
SUMS = re.compile(r'"((?:card|bins)/[a-z-]+)')

TREE_SUMS = re.compile(r'(?:joined|Part|_one)\("([a-z-]+)"')


def told(model: str) -> set[str]:
    return {"/".join(step["field"].split("/")[:2]).removesuffix("/…") for step in hybrid_steps(model)}


def test_every_sum_of_a_scorecard_is_in_the_table() -> None:
    names = set()
    for path in (ROOM / "protocol" / "hybrid").glob("*.py"):
        names |= set(SUMS.findall(path.read_text("utf-8")))
    assert {"card/classes", "card/bins", "card/budgets", "card/start", "card/step", "card/best", "bins/grid"} <= names
    assert names <= told("scorecard")


def test_every_sum_of_trees_is_in_the_table() -> None:
    names = set()
    for path in (*(ROOM / "kernels").glob("*.py"), *(ROOM / "protocol" / "hybrid").glob("*.py")):
        names |= set(TREE_SUMS.findall(path.read_text("utf-8")))
    assert {"rows", "thresholds", "columns", "root", "children", "leaves", "bins", "record"} <= names
    assert names <= {step["field"].rsplit("/", 1)[1] for step in hybrid_steps("boost")}


def test_each_model_has_its_own_table() -> None:
    assert {step["field"] for step in hybrid_steps("boost")} & {"tree/…/root", "tree/…/bins", "tree/…/leaves"}
    assert not {step["field"] for step in hybrid_steps("scorecard")} & {"tree/…/root"}
    for step in (*hybrid_steps("boost"), *hybrid_steps("scorecard")):
        assert step["learns"]
        assert step["bound"]


def test_a_document_without_the_table_is_refused() -> None:
    with pytest.raises(SpecError, match="no table of totals"):
        hybrid_steps("boost", "## Trees\n\nnothing here\n")
    with pytest.raises(SpecError, match="no table of totals"):
        hybrid_steps("fedavg")
