"""Packing: exact at the proven bounds for every skew, refused beyond them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.crypto.packing import Field, PackPlan, pack, pack_offsets, plan, unpack
from fedcredit.crypto.profiles import capacity, derive, sum_capacity
from fedcredit.errors import BoundError, PeerError

fields = st.lists(
    st.builds(Field, bound=st.integers(1, 1 << 12), slack=st.sampled_from([0, 0, 1, 1000])), min_size=1, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(fields=fields, rows=st.integers(1, 60), bits=st.integers(24, 63), seed=st.integers(0, 2**32), data=st.data())
def test_sums_of_any_rows_come_apart_exactly(
    fields: list[Field], rows: int, bits: int, seed: int, data: st.DataObject
) -> None:
    made = plan(fields, rows, 1, bits)
    generator = np.random.default_rng(seed)
    columns = []
    for field in fields:
        kind = data.draw(st.sampled_from(["top", "bottom", "mixed", "random"]))
        signs = {"top": [1], "bottom": [-1], "mixed": [-1, 1]}.get(kind)
        column = generator.integers(-field.bound, field.bound + 1, rows)
        columns.append(column if signs is None else generator.choice(signs, rows) * field.bound)
    shares = data.draw(st.sampled_from([(1.0, 0.0), (0.9, 0.1), (0.5, 0.5)]))
    member = generator.choice([0, 1], rows, p=shares)
    noise = [generator.integers(-field.slack, field.slack + 1, 2) for field in fields]
    vectors = pack(made, columns)
    offsets = pack_offsets(made, noise)
    sums = [
        np.array([vector[member == k].sum() for k in range(2)]) + offset
        for vector, offset in zip(vectors, offsets, strict=True)
    ]
    for found, column, extra in zip(unpack(made, sums), columns, noise, strict=True):
        assert found.tolist() == [int(column[member == k].sum() + extra[k]) for k in range(2)]
    for vector, packed in zip(made.vectors, sums, strict=True):
        assert sum(place.bits for place in vector) <= bits
        assert int(np.abs(packed).max()) <= 2 ** (bits - 1) - 1
    assert max(int(np.abs(vector).max()) for vector in vectors) <= made.value_bound


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 1 << 20), bound=st.integers(1, 1 << 9), weight=st.sampled_from([1, 1 << 14]))
def test_a_plan_fits_the_parameters_derived_from_it(rows: int, bound: int, weight: int) -> None:
    profile = "rlwe-8192"
    made = plan([Field(bound), Field(bound, slack=7)], rows, weight, sum_capacity(profile, rows, weight).sum_bits)
    parameters = derive(profile, rows, made.value_bound, weight, made.sum_slack)
    widest = max(sum(place.sum_bound << place.shift for place in vector) for vector in made.vectors)
    assert widest <= parameters.sum_bound
    assert made.value_bound <= capacity(profile, rows, weight)


def test_gradient_pair_of_a_million_rows_shares_one_vector() -> None:
    pair = [Field(127), Field(127)]
    assert len(plan(pair, 1_000_000, 1, 56).vectors) == 1
    assert len(plan(pair, 1_000_000, 1, 55).vectors) == 2
    # One bin with nearly all rows: a shift from averages would carry into the neighbour here.
    made = plan([Field(127), Field(32)], 1_000_000, 1, 56)
    assert made.vectors[0][1].shift == (2 * 127_000_000).bit_length()


def test_a_later_small_field_fills_an_earlier_vector() -> None:
    made = plan([Field(1 << 20), Field(1 << 22), Field(1)], 4, 1, 28)
    assert [[place.index for place in vector] for vector in made.vectors] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("fields", "rows", "weight", "bits"),
    [
        ([], 1, 1, 56),
        ([Field(1)], 0, 1, 56),
        ([Field(1)], 1, 0, 56),
        ([Field(1)], 1, 1, 64),
        ([Field(0)], 1, 1, 56),
        ([Field(1, slack=-1)], 1, 1, 56),
        ([Field(1), Field(1 << 36)], 1 << 20, 1, 56),
    ],
)
def test_plans_without_a_proof_are_refused(fields: list[Field], rows: int, weight: int, bits: int) -> None:
    with pytest.raises(BoundError):
        plan(fields, rows, weight, bits)


def small_plan() -> PackPlan:
    return plan([Field(10), Field(5, slack=3)], 4, 1, 56)


def test_values_beyond_their_bound_and_misshapen_columns_are_refused() -> None:
    made = small_plan()
    good = np.array([10, -10, 0, 3])
    fine = np.array([5, -5, 0, 1])
    pack(made, [good, fine])
    lowest = np.array([np.iinfo(np.int64).min, 0, 0, 0])
    for columns in (
        [good + 1, fine],
        [good, -fine - 1],
        [lowest, fine],
        [good],
        [good[:3], fine],
        [good.astype(np.int32), fine],
    ):
        with pytest.raises(BoundError):
            pack(made, columns)
    with pytest.raises(BoundError):
        pack_offsets(made, [np.zeros(2, dtype=np.int64), np.array([4, 0])])


def test_sums_that_no_rows_can_give_are_refused() -> None:
    made = small_plan()
    place = made.vectors[0][1]
    for sums in ([np.array([41])], [np.array([24 << place.shift])], [np.array([1 << 40])], [np.array([-(1 << 62)])]):
        with pytest.raises(PeerError):
            unpack(made, sums)
    with pytest.raises(BoundError):
        unpack(made, [])
