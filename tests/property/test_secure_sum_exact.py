"""Whatever is summed and whoever drops out where: the total is that of plain adding over the banks it names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcredit.errors import TransportError

if TYPE_CHECKING:
    from tests.adversarial.secure_sum_town import Town, vectors
else:
    sys.path.append(str(Path(__file__).parents[1] / "adversarial"))
    from secure_sum_town import Town, vectors

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(
    st.integers(3, 9),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from([1, 7, 1 << 20, 1 << 40, 1 << 58]),
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=5),
    st.integers(0, 1000),
)
@QUICK
def test_totals_are_exact(
    count: int, colluding: int, length: int, bound: int, drops: list[tuple[int, bool]], seed: int
) -> None:
    """Banks vanish before they send vectors or shares; the rest get an exact total or a named error."""
    stopped = "secure_sum.floor"
    if count < colluding + 2:
        count = colluding + 2
    town = Town(count, "masked", colluding=colluding, seed=seed).start()
    for step in range(3):
        values = vectors(town.banks, length, bound, seed + step)
        gone = [(town.banks[at % count], early) for at, early in drops[2 * step : 2 * step + 2]]
        late, silent = [bank for bank, early in gone if early], [bank for bank, early in gone if not early]
        try:
            totals = town.sum(values, bound, late, silent)
        except TransportError as error:
            stopped = error.code
            break
        for total in totals.values():
            assert set(total.members).isdisjoint(late)
            assert np.array_equal(total.values, sum(values[bank] for bank in total.members))
        assert {total.members for total in totals.values()} == {next(iter(totals.values())).members}
        assert set(town.relay.members).isdisjoint([*late, *silent])
        town.forget()
    assert stopped == "secure_sum.floor"


@pytest.mark.parametrize(("length", "bound"), [(5, 3), (9000, 1 << 30), (20, 1 << 55)])
def test_totals_are_exact_under_encryption(length: int, bound: int) -> None:
    town = Town(6).start(late_box=["bank_06"])
    for step, (late, silent) in enumerate([((), ()), (("bank_02",), ()), ((), ())]):
        values = vectors(town.banks, length, bound, step)
        for total in town.sum(values, bound, late, silent).values():
            assert np.array_equal(total.values, sum(values[bank] for bank in total.members))
        town.forget()
    assert town.relay.dropped == ["bank_06", "bank_02"]


@pytest.mark.parametrize("profile", ["masked", "masked+he"])
def test_below_the_floor_nothing_is_opened(profile: str) -> None:
    for late, silent in ((["bank_02", "bank_03"], []), ([], ["bank_02", "bank_03"]), (["bank_02"], ["bank_03"])):
        town = Town(4, profile).start()  # type: ignore[arg-type]
        with pytest.raises(TransportError, match=r"secure_sum\.floor"):
            town.sum(vectors(town.banks, 3, 5), 5, late, silent)


def test_too_few_that_join_are_a_named_error() -> None:
    with pytest.raises(TransportError, match=r"2 banks are left.*secure_sum\.floor"):
        Town(4).start(late_join=["bank_01", "bank_04"])
    with pytest.raises(TransportError, match=r"2 of 4 banks are left, 3 are needed.*secure_sum\.floor"):
        Town(4).start(late_box=["bank_01", "bank_04"])
    town = Town(5).start(late_join=["bank_05"], late_box=["bank_04"])
    values = vectors(town.banks, 3, 5)
    assert next(iter(town.sum(values, 5).values())).members == town.banks[:3]


def test_a_bank_that_is_out_hears_so() -> None:
    """One that answered too late to share is told the total it is in, if at all, and cannot bring a vector again."""
    town = Town(5, "masked").start()
    values = vectors(town.banks, 3, 5)
    town.sum(values, 5, silent=["bank_05"])
    assert town.relay.members == town.banks[:4]
    town.relay.take(town.banks[4], town.members[town.banks[4]].join())  # not looked at
    assert town.members[town.banks[0]].members == town.banks[:4]
