"""What a boosting run asks and costs, and how many trees a ledger allows."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main

from fedcredit.errors import DisclosureRefused
from fedcredit.protocol.boost.columns import UNCAPPED
from fedcredit.protocol.boost.draws import HolderDraws
from fedcredit.protocol.boost.plan import SHAPE_EQUATIONS, BoostPlan, check_trees
from fedcredit.protocol.group_sum.session import Session
from fedcredit.spec.model import BoostSection, PrivacySection
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import CostKind

Make = Callable[..., Path]
DRAWS = HolderDraws(bytes(32))
BANK = PartyId("bank")


def planned(noise_rows: float = 4.0, **keys: Any) -> BoostPlan:
    return BoostPlan(BoostSection(**keys), PrivacySection(noise_rows=noise_rows))


def each_tree(plan: BoostPlan) -> int:
    """Two equations a feature for every node that may be asked of a tree, counted by hand."""
    if plan.boost.growth == "leaf":
        return 2 * (plan.boost.leaves - 1)
    return 2 * (1 + sum(1 << (level - 1) for level in range(1, plan.boost.depth)))


@pytest.mark.parametrize("depth", range(1, 11))
def test_slots_of_a_tree(depth: int) -> None:
    plan = planned(depth=depth)
    assert len(plan.slots) == depth
    assert 2 * sum(plan.slots) == each_tree(plan) == max(2, 2**depth)
    assert sum(plan.wanted(number) for number in range(depth)) == plan.boost.leaves - 1


def test_slots_of_a_tree_that_grows_by_leaf() -> None:
    plan = planned(growth="leaf", depth=4, max_leaves=6)
    assert plan.slots == (1, 1, 1, 1, 1)
    assert [plan.wanted(number) for number in range(5)] == [1] * 5


@pytest.mark.parametrize(
    ("keys", "batches"),
    [({"trees": 5}, 15), ({"trees": 5, "first_trees_local": 2}, 9), ({"trees": 5, "first_trees_local": 5}, 3)],
)
def test_one_batch_a_round_of_each_tree_that_is_asked(keys: dict[str, int], batches: int) -> None:
    plan = planned(**keys)
    conversation = plan.conversation(Session("", "rlwe-8192", {}), 1000)
    assert len(conversation.batches) == batches
    assert [len(one) for one in conversation.batches[:3]] == [2, 2, 4]
    local = plan.boost.first_trees_local
    numbers = [plan.batch(tree, number) for tree in range(local, 5) for number in range(3)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) == batches - (3 if local == 5 else 0)


def test_a_field_has_room_for_gradients_and_noise() -> None:
    plan = BoostPlan(BoostSection(), PrivacySection(gradient_bits=8, noise_rows=4.0))
    field = plan.conversation(Session("", "rlwe-8192", {}), 1000).batches[0][0]
    assert plan.noise_units == 4 * 127
    assert plan.noise_units <= field.deviation < plan.noise_units + 3
    assert field.slack > 5.9 * field.deviation
    bare = planned(noise_rows=0).conversation(Session("", "rlwe-8192", {}), 1000).batches[0][0]
    assert (bare.slack, bare.deviation) == (0, 0)


def test_costs_of_a_run() -> None:
    plan = planned(trees=10, first_trees_local=2, depth=3)
    costs = plan.costs(["a", "b", "c"], plan.trees_offered(DRAWS, 3, 10), [3, 1, 0])
    found = {(one.kind, one.feature): one.amount for one in costs}
    assert found == {
        (CostKind.EQUATIONS, "a"): SHAPE_EQUATIONS + 8 * 8,
        (CostKind.EQUATIONS, "b"): SHAPE_EQUATIONS + 8 * 8,
        (CostKind.EQUATIONS, "c"): SHAPE_EQUATIONS,  # never asked, but how many bins it has is told
        (CostKind.ROW_BITS, "a"): 3,
        (CostKind.ROW_BITS, "b"): 1,
    }


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({}, 1),
        ({"row_sampling": 0.5}, 4),
        ({"gradient_bits": 2}, 2),
        ({"gradient_bits": 3}, 1),
        ({"holder_bins": 32}, 2),
        ({"holder_bins": 17, "row_sampling": 0.9, "gradient_bits": 2}, 16),
    ],
)
def test_a_sum_counts_more_where_it_says_more(keys: dict[str, Any], weight: int) -> None:
    privacy = {key: keys.pop(key) for key in ("row_sampling", "gradient_bits") if key in keys}
    plan = BoostPlan(BoostSection(trees=3, depth=1, **keys), PrivacySection(**privacy))
    (cost,) = plan.costs(["a"], [3], [0])
    assert (plan.weight, cost.amount) == (weight, SHAPE_EQUATIONS)
    assert plan.costs(["a"], [3], [1])[0].amount == SHAPE_EQUATIONS + 3 * 2 * weight


def test_bits_are_bounded_by_the_trees_where_nothing_caps_them() -> None:
    plan = planned(trees=2, depth=2, holder_thresholds=0)
    assert (plan.cap, plan.capped) == (UNCAPPED, False)
    costs = plan.costs(["a"], [2], [UNCAPPED])
    assert costs[-1].amount == 2 * 3


@pytest.mark.parametrize(
    ("keys", "thresholds", "slots"),
    [
        ({"trees": 20}, [3, 3, 0], 6),
        ({"trees": 1, "depth": 1}, [3, 3, 0], 1),
        ({"trees": 3, "depth": 2}, [UNCAPPED], 9),
        ({"trees": 3, "first_trees_local": 3}, [3], 1),
        ({"trees": 3}, [0, 0], 1),
        ({"trees": 3, "growth": "leaf", "max_leaves": 3}, [UNCAPPED], 6),
    ],
)
def test_room_for_kept_splits(keys: dict[str, Any], thresholds: list[int], slots: int) -> None:
    assert planned(**keys).kept_slots(thresholds) == slots


def test_sampled_columns_cost_the_trees_they_are_offered_to() -> None:
    plan = planned(trees=200, column_sampling=0.25, first_trees_local=20)
    offered = plan.trees_offered(DRAWS, 8, 200)
    assert sum(offered) == 2 * 180
    assert 20 < min(offered) < max(offered) < 80
    by_hand = [DRAWS.columns(tree, 8, 0.25) for tree in range(20, 200)]
    assert offered == [sum(bool(one[feature]) for one in by_hand) for feature in range(8)]


def refusal(plan: BoostPlan, left: list[float]) -> str:
    with pytest.raises(DisclosureRefused) as caught:
        check_trees(plan, DRAWS, left, BANK)
    assert caught.value.exit_code == 3
    return caught.value.public


def test_the_text_of_a_refusal() -> None:
    assert refusal(planned(trees=100), [100.0, 203.0]) == (
        "boost.trees = 100: 801 equations a feature for bank, the ledger leaves 100: "
        "the largest number of trees of depth 3 is 12"
    )
    assert refusal(planned(0.0, trees=100), [14.0]).endswith("is 1; privacy.noise_rows = 4 would raise the cap")


@pytest.mark.parametrize(
    ("left", "largest"), [(0.0, 0), (1.0, 0), (8.0, 0), (9.0, 1), (16.0, 1), (17.0, 2), (100.0, 12), (800.0, 99)]
)
def test_the_largest_number_of_trees(left: float, largest: int) -> None:
    assert refusal(planned(trees=100), [math.inf, left]).endswith(
        f"the largest number of trees of depth 3 is {largest}"
    )
    if largest:
        check_trees(planned(trees=largest), DRAWS, [left], BANK)


def test_local_trees_are_free() -> None:
    assert "depth 3 is 9" in refusal(planned(trees=10, first_trees_local=8), [9.0])
    assert "depth 3 is 8" in refusal(planned(trees=10, first_trees_local=8), [8.0])
    assert "depth 3 is 0" in refusal(planned(trees=10, first_trees_local=8), [0.0])
    check_trees(planned(trees=10, first_trees_local=10), DRAWS, [1.0], BANK)


@given(
    left=st.integers(0, 500),
    trees=st.integers(1, 60),
    share=st.sampled_from([0.2, 0.5, 1.0]),
    depth=st.integers(1, 5),
    local=st.integers(0, 5),
)
def test_what_is_said_fits_and_one_more_does_not(left: int, trees: int, share: float, depth: int, local: int) -> None:
    keys: dict[str, Any] = {"depth": depth, "column_sampling": share, "first_trees_local": local}

    def refused(count: int) -> str | None:
        try:
            check_trees(planned(trees=count, **keys), DRAWS, [float(left)] * 3, BANK)
        except DisclosureRefused as error:
            return error.public
        return None

    local = min(local, trees)
    keys["first_trees_local"] = local
    text = refused(trees)
    if text is None:
        return
    largest = int(text.split(" is ")[1].split(";")[0])
    assert largest < trees
    assert refused(largest + 1) is not None or largest < local
    assert largest == 0 or largest < local or refused(largest) is None


def test_a_thousand_rows_do_not_carry_a_hundred_trees(tmp_path: Path, consortium: Make) -> None:
    """Through the command: one line, exit code 3, and nothing but the announcement has been sent."""
    sections = {
        "run": {"model": "boost"},
        "boost": {"trees": 100, "min_bin_rows": 40},
        "privacy": {"enforce": True},
        "crypto": {"profile": "unsafe-plaintext"},
    }
    config = consortium(tmp_path, rows=1000, sections=sections)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["simulate", str(config), "--out", str(tmp_path / "o")])
    (line,) = err.getvalue().strip().splitlines()
    assert code == 3
    assert line.startswith("error: boost.trees = 100: 801 equations a feature for bank, the ledger leaves ")
    left = int(line.split("leaves ")[1].split(":")[0])
    assert 80 <= left <= 100  # a seventh of the rows to train on
    assert f"the largest number of trees of depth 3 is {(left - 1) // 8}" in line
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_the_number_that_is_said_is_right(tmp_path: Path, consortium: Make) -> None:
    """Each holder draws its own columns, so another one's number may be lower still; the last one that is said runs."""
    sections = {
        "run": {"model": "boost"},
        "boost": {"trees": 100, "min_bin_rows": 40, "column_sampling": 0.5},
        "privacy": {"enforce": True},
        "crypto": {"profile": "unsafe-plaintext"},
    }
    config = consortium(tmp_path, rows=1000, sections=sections)

    def run(trees: int) -> tuple[int, str]:
        err = io.StringIO()
        out = tmp_path / str(trees)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = main(["simulate", str(config), "--out", str(out), "--set", f"boost.trees={trees}"])
        return code, err.getvalue()

    trees, (code, err) = 100, run(100)
    while code:
        assert code == 3
        said = int(err.split("depth 3 is ")[1].split()[0])
        assert 0 < said < trees
        trees, (code, err) = said, run(said)
    assert trees > 9
    assert run(trees + 1)[0] == 3
