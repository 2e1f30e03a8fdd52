"""Selection of rows under encryption: exact at every size and bound, and nothing else is taken for an answer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto import slots
from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.slots_parameters import COLUMN_BOUND, MAX_PARTS, MODULUS, VALUE_BOUND

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@pytest.fixture(scope="module")
def secret() -> slots.SlotsSecret:
    return slots.SlotsSecret()


def draw_masks(count: int, rows: int) -> list[U64]:
    held = {f"h{k}": MaskKey(SystemEntropy()) for k in range(count)}
    roster = MaskRoster("run", "1", {name: key.public_bytes() for name, key in held.items()})
    return [key.mask_below(roster, name, rows, MODULUS) for name, key in held.items()]


@pytest.mark.parametrize(("rows", "holders"), [(1, 2), (8191, 2), (8192, 3), (8193, 2), (20_000, 4)])
def test_totals_of_selected_rows_are_exact(secret: slots.SlotsSecret, rows: int, holders: int) -> None:
    generator = np.random.default_rng(rows)
    chosen = generator.integers(0, 2, rows)
    share = (1 << 30) // holders
    values = generator.integers(-share, share + 1, (holders, rows))
    values[:, 0], values[:, -1] = share, -share
    request, public = secret.encrypt(chosen), secret.public_bytes()
    masks = draw_masks(holders, rows)
    parts = [slots.select(public, request, *pair) for pair in zip(values, masks, strict=True)]
    total = secret.open_total(request, slots.add(parts, public), 1 << 30)
    assert np.array_equal(total, chosen * values.sum(axis=0))


def test_the_largest_products_are_exact(secret: slots.SlotsSecret) -> None:
    """One factor at its bound and the other at its own, of both signs, for as many holders as may be added."""
    chosen = np.tile(np.array([1, -1, VALUE_BOUND, -VALUE_BOUND, 0]), 1700)
    values = np.where(np.abs(chosen) > 1, 1, VALUE_BOUND // MAX_PARTS)
    values[::3] *= -1
    request, public = secret.encrypt(chosen), secret.public_bytes()
    answer = slots.select(public, request, values, None)
    assert np.array_equal(secret.open(request, answer, VALUE_BOUND), chosen * values)
    large = np.abs(chosen) <= 1
    total = slots.add([answer] * MAX_PARTS, public)
    opened = secret.open_total(request, total, VALUE_BOUND)
    assert np.array_equal(opened[large], (MAX_PARTS * chosen * values)[large])


@pytest.mark.parametrize("rows", [1, 8191, 8192, 8193, 17_000])
def test_weighted_sums_are_exact(secret: slots.SlotsSecret, rows: int) -> None:
    generator = np.random.default_rng(rows)
    vectors = generator.integers(0, MODULUS, (2, rows)).astype(np.uint64)
    vectors[0, -1], vectors[1] = MODULUS - 1, MODULUS - 1
    columns = generator.integers(-COLUMN_BOUND, COLUMN_BOUND + 1, (rows, 3))
    columns[:, 1], columns[0, 2] = 0, COLUMN_BOUND
    offsets = generator.integers(0, MODULUS, (2, 3)).astype(np.uint64)
    encrypted = [secret.encrypt_vector(vector) for vector in vectors]
    answer = slots.weighted_sums(secret.public_bytes(), encrypted, columns, offsets)
    expected = (vectors.astype(object) @ columns.astype(object) + offsets.astype(object)) % MODULUS
    assert (secret.open_sums(encrypted, answer, 3).astype(object) == expected).all()


def test_a_kept_key_goes_on(secret: slots.SlotsSecret) -> None:
    request = secret.encrypt(np.ones(5, np.int64))
    again = slots.SlotsSecret.restore(secret.kept("run"), "run")
    assert again.public_bytes() == secret.public_bytes()
    answer = slots.select(again.public_bytes(), request, np.arange(5), None)
    assert again.open(request, answer, 4).tolist() == [0, 1, 2, 3, 4]
