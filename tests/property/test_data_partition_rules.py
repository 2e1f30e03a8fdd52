"""Whatever the table and the rule: every row goes to one bank, and sizes are as asked."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.data.partition import partition_rows
from fedcredit.spec.horizontal import PartitionSection


@st.composite
def cases(draw: st.DrawFn) -> tuple[PartitionSection, pl.Series, np.ndarray]:
    rows = draw(st.integers(3, 80))
    banks = draw(st.integers(3, min(rows, 12)))
    section = PartitionSection(
        party="bank",
        by=draw(st.sampled_from(["dirichlet", "size", "iid"])),
        banks=banks,
        alpha=draw(st.floats(1e-3, 1e4)),
        min_rows=draw(st.integers(1, rows // banks)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )
    bad = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    bad[:2] = [0, 1]
    ids = pl.Series("id", draw(st.permutations([f"E{number}" for number in range(rows)])))
    return section, ids, np.array(bad, dtype=np.int8)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_row_goes_to_one_bank_of_the_size_asked_for(case: tuple[PartitionSection, pl.Series, np.ndarray]) -> None:
    section, ids, label = case
    parts = partition_rows(section, ids, label, None, "party bank")
    assert len(parts) == section.banks
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(ids)))
    sizes = [len(part) for part in parts]
    assert min(sizes) >= section.min_rows
    if section.by == "size":
        assert sizes == sorted(sizes, reverse=True) or max(sizes) - min(sizes) <= 1
    else:
        assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_decides_nothing(case: tuple[PartitionSection, pl.Series, np.ndarray], luck: object) -> None:
    section, ids, label = case
    order = list(range(len(ids)))
    luck.shuffle(order)  # type: ignore[attr-defined]
    names = ids.to_list()
    first = partition_rows(section, ids, label, None, "party bank")
    second = partition_rows(section, ids.gather(order), label[order], None, "party bank")
    assert [{names[row] for row in part} for part in first] == [{names[order[row]] for row in part} for part in second]
