"""The common order of rows: the same for all, from ids alone, and no peer can misplace a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.errors import DataError, PeerError
from fedcredit.protocol.align.index import common_order, locate
from fedcredit.types import PartyId

BANK = PartyId("bank")


@given(
    lists=st.lists(st.sets(st.text("abc123é", min_size=1, max_size=3), max_size=12), min_size=1, max_size=4),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=100, deadline=None)
def test_common_order_depends_on_ids_and_seed_only(lists: list[set[str]], seed: int) -> None:
    common = set.intersection(*lists)
    if not common:
        with pytest.raises(DataError, match="no id is held by all parties"):
            common_order([list(one) for one in lists], seed)
        return
    order = common_order([sorted(one) for one in lists], seed)
    assert set(order) == common
    assert len(order) == len(common)
    assert common_order([sorted(one, reverse=True) for one in reversed(lists)], seed) == order


def test_the_seed_changes_the_order_and_the_file_does_not_shine_through() -> None:
    ids = [f"E{number:04d}" for number in range(500)]
    first, second = (common_order([ids], seed) for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert abs(np.corrcoef(range(500), [int(one[1:]) for one in first])[0, 1]) < 0.2


def test_empty_intersection_says_how_many_each_holds() -> None:
    with pytest.raises(DataError, match="they hold 2, 1 ids") as caught:
        common_order([["a", "b"], ["c"]], 0)
    assert caught.value.exit_code == 2


def test_locate_finds_own_rows_and_the_split() -> None:
    index = locate(["c", "x", "a", "b"], ["a", "b", "c"], b"\x40", BANK)
    assert index.rows.tolist() == [2, 3, 0]
    assert index.test.tolist() == [False, True, False]
    assert index.train.tolist() == [True, False, True]
    assert index.ids == ("a", "b", "c")


@pytest.mark.parametrize(
    ("ids", "test_rows"),
    [
        (["a", "stranger"], b"\x00"),
        (["a", "a"], b"\x00"),
        (["a", "b"], b""),
        (["a", "b"], b"\x00\x00"),
        (["a", "b"], b"\x20"),  # a bit set in the padding
        (["a", "b"], b"\x01"),
        ([], b"\x00"),
    ],
)
def test_a_bad_index_is_refused_and_its_sender_named(ids: list[str], test_rows: bytes) -> None:
    with pytest.raises(PeerError, match="bank") as caught:
        locate(["a", "b", "c"], ids, test_rows, BANK)
    assert caught.value.code == "align.index"
    assert "stranger" not in str(caught.value)


@given(test=st.lists(st.booleans(), min_size=1, max_size=40))
def test_every_split_survives_the_packing(test: list[bool]) -> None:
    ids = [str(number) for number in range(len(test))]
    index = locate(ids, ids, np.packbits(np.array(test)).tobytes(), BANK)
    assert index.test.tolist() == test
