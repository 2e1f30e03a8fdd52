"""Selection of rows under encryption: exact at every size and bound, and nothing else is taken for an answer."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto import slots
from fedcredit.crypto.bfv import KeylessContext, PublicContext
from fedcredit.crypto.bfv_header import HEADER_BYTES
from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.slots_arithmetic import uniform_residues
from fedcredit.crypto.slots_parameters import COLUMN_BOUND, FLOOD_BITS, MAX_PARTS, MODULUS, PARAMETERS, VALUE_BOUND
from fedcredit.crypto.ternary import TERNARY_BYTES
from fedcredit.errors import BoundError, IntegrityError, PeerError

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
PUBLIC_AT = HEADER_BYTES + 32 + TERNARY_BYTES


@pytest.fixture(scope="module")
def secret() -> slots.SlotsSecret:
    return slots.SlotsSecret()


@pytest.fixture(scope="module")
def request_(secret: slots.SlotsSecret) -> bytes:
    return secret.encrypt(np.array([1, 0, 1]))


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


@settings(max_examples=10, deadline=None)
@given(
    rows=st.one_of(
        st.integers(1, 40), st.integers(DEGREE - 3, DEGREE + 3), st.integers(2 * DEGREE - 2, 2 * DEGREE + 2)
    ),
    seed=st.integers(0, 1 << 30),
    bound=st.sampled_from([1, 100, 1 << 18]),
)
def test_products_of_any_rows_are_exact(secret: slots.SlotsSecret, rows: int, seed: int, bound: int) -> None:
    generator = np.random.default_rng(seed)
    left, right = generator.integers(-bound, bound + 1, (2, rows))
    request = secret.encrypt(left)
    answer = slots.select(secret.public_bytes(), request, right, None)
    assert np.array_equal(secret.open(request, answer, bound * bound), left * right)


def test_the_largest_products_are_exact(secret: slots.SlotsSecret) -> None:
    """One factor at its bound or the other at its own, of both signs, for as many holders as may be added."""
    chosen = np.tile(np.array([1, -1, VALUE_BOUND, -VALUE_BOUND, 0]), 1700)
    values = np.where(np.abs(chosen) > 1, 1, VALUE_BOUND // MAX_PARTS)
    values[::3] *= -1
    request, public = secret.encrypt(chosen), secret.public_bytes()
    answer = slots.select(public, request, values, None)
    assert np.array_equal(secret.open(request, answer, VALUE_BOUND), chosen * values)
    opened = secret.open_total(request, slots.add([answer] * MAX_PARTS, public), VALUE_BOUND)
    small = np.abs(chosen) <= 1
    assert np.array_equal(opened[small], (MAX_PARTS * chosen * values)[small])


@pytest.mark.parametrize("flood", [-(1 << FLOOD_BITS), (1 << FLOOD_BITS) - 1])
def test_the_largest_flood_of_all_parts_is_decoded(
    secret: slots.SlotsSecret, monkeypatch: pytest.MonkeyPatch, flood: int
) -> None:
    constant = np.array([[flood % prime] * DEGREE for prime in PARAMETERS.data], dtype=np.uint64)
    monkeypatch.setattr(slots, "uniform_flood", lambda entropy: constant)
    generator = np.random.default_rng(5)
    chosen, values = generator.integers(-1, 2, 9000), generator.integers(-VALUE_BOUND, VALUE_BOUND + 1, 9000)
    request, public = secret.encrypt(chosen), secret.public_bytes()
    answer = slots.select(public, request, values, None)
    assert np.array_equal(secret.open(request, answer, VALUE_BOUND), chosen * values)
    values //= MAX_PARTS
    answer = slots.select(public, request, values, None)
    total = slots.add([answer] * MAX_PARTS, public)
    assert np.array_equal(secret.open_total(request, total, VALUE_BOUND), MAX_PARTS * chosen * values)


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


def test_sums_in_several_turns_are_the_same(secret: slots.SlotsSecret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_AT_ONCE", 4)
    generator = np.random.default_rng(1)
    vectors = generator.integers(0, MODULUS, (2, 500)).astype(np.uint64)
    columns, offsets = generator.integers(-9, 10, (500, 5)), generator.integers(0, 99, (2, 5)).astype(np.uint64)
    encrypted = [secret.encrypt_vector(vector) for vector in vectors]
    answer = slots.weighted_sums(secret.public_bytes(), encrypted, columns, offsets)
    expected = (vectors.astype(object) @ columns.astype(object) + offsets.astype(object)) % MODULUS
    assert (secret.open_sums(encrypted, answer, 5).astype(object) == expected).all()


def test_zeros_have_the_form_of_everything_else(secret: slots.SlotsSecret) -> None:
    """The library refuses products with zero; what is sent instead is as long, as random, and opens to the masks."""
    rows = DEGREE + 5
    request, public = secret.encrypt(np.ones(rows, np.int64)), secret.public_bytes()
    half = np.zeros(rows, np.int64)
    half[-1] = 7  # the first block is zero, the second is not
    masks = uniform_residues(SystemEntropy(), rows)
    answers = [slots.select(public, request, values, masks) for values in (half, 0 * half, half + 1)]
    assert len({len(answer) for answer in answers}) == 1
    assert np.array_equal(secret.open_masked(request, answers[1]), masks)
    vector = secret.encrypt_vector(np.ones(rows, np.uint64))
    sums = slots.weighted_sums(public, [vector], np.stack([half, 0 * half], axis=1), np.array([[0, 9]], np.uint64))
    assert secret.open_sums([vector], sums, 2).tolist() == [[7, 9]]
    for part in (sums[-61_448:], sums[-2 * 61_448 : -61_448]):
        counts = np.bincount(np.frombuffer(part, np.uint8), minlength=256)
        assert float(((counts - len(part) / 256) ** 2 / (len(part) / 256)).sum()) < 400  # 255 degrees of freedom


def test_one_holder_without_a_mask_gives_its_bits(secret: slots.SlotsSecret) -> None:
    chosen, bits = np.array([1, 0, 1, 1, 0]), np.array([1, 1, 0, 1, 0])
    request = secret.encrypt(chosen)
    answer = slots.select(secret.public_bytes(), request, bits, None)
    assert secret.open(request, answer, 1).tolist() == [1, 0, 0, 1, 0]


def test_a_masked_answer_opens_to_its_mask_where_no_row_was_chosen(secret: slots.SlotsSecret) -> None:
    masks = uniform_residues(SystemEntropy(), 3)
    request = secret.encrypt(np.array([1, 0, -2]))
    opened = secret.open_masked(request, slots.select(secret.public_bytes(), request, np.array([5, 6, 7]), masks))
    expected = [(int(mask) + value) % MODULUS for mask, value in zip(masks, (5, 0, -14), strict=True)]
    assert opened.tolist() == expected


def test_a_missing_answer_is_found(secret: slots.SlotsSecret) -> None:
    request, public = secret.encrypt(np.ones(50, np.int64)), secret.public_bytes()
    first, _ = draw_masks(2, 50)
    part = slots.select(public, request, np.zeros(50, np.int64), first)
    with pytest.raises(PeerError, match="a mask does not cancel"):
        secret.open_total(request, slots.add([part], public), 1 << 30)


def test_values_and_masks_out_of_range_are_refused(secret: slots.SlotsSecret, request_: bytes) -> None:
    public, three = secret.public_bytes(), np.zeros(3, np.int64)
    for values in (three + VALUE_BOUND + 1, three - VALUE_BOUND - 1, three + np.iinfo(np.int64).min):
        with pytest.raises(BoundError, match="exceeds the bound"):
            secret.encrypt(values)
        with pytest.raises(BoundError, match="exceeds the bound"):
            slots.select(public, request_, values, None)
    for values in (three[:2], three[None], np.zeros(0, np.int64)):
        with pytest.raises(BoundError, match="one for each row"):
            slots.select(public, request_, values, None)
    masks = np.full(3, MODULUS, np.uint64)
    for wrong in (masks, masks[:2] - np.uint64(9), three, masks[None]):
        with pytest.raises(BoundError, match="residue"):
            slots.select(public, request_, three, wrong)  # type: ignore[arg-type]
    with pytest.raises(BoundError, match="not below"):
        secret.encrypt_vector(masks)
    for nothing in (secret.encrypt, secret.encrypt_vector):
        with pytest.raises(BoundError, match="0 rows"):
            nothing(np.zeros(0, np.int64).astype(np.uint64 if nothing == secret.encrypt_vector else np.int64))


def test_columns_and_offsets_out_of_range_are_refused(secret: slots.SlotsSecret) -> None:
    vector, public = secret.encrypt_vector(np.ones(3, np.uint64)), secret.public_bytes()
    columns, offsets = np.ones((3, 2), np.int64), np.zeros((1, 2), np.uint64)
    cases = [
        (columns * (COLUMN_BOUND + 1), offsets, "exceeds the bound"),
        (-columns * (COLUMN_BOUND + 1), offsets, "exceeds the bound"),
        (columns, offsets + np.uint64(MODULUS), "not below"),
        (columns, offsets[:, :1], "do not fit"),
        (columns[:, 0], offsets, "do not fit"),
        (columns[:, :0], offsets[:, :0], "do not fit"),
    ]
    for wrong, other, text in cases:
        with pytest.raises(BoundError, match=text):
            slots.weighted_sums(public, [vector], wrong, other)
    with pytest.raises(BoundError, match="do not fit"):
        slots.weighted_sums(public, [], columns, offsets[:0])
    with pytest.raises(PeerError, match="other lengths than the 2 rows"):
        slots.weighted_sums(public, [vector], columns[:2], offsets)
    longer = secret.encrypt_vector(np.ones(4, np.uint64))
    with pytest.raises(PeerError, match="other lengths"):
        slots.weighted_sums(public, [vector, longer], columns, np.zeros((2, 2), np.uint64))


@pytest.mark.parametrize("count", [0, MAX_PARTS + 1])
def test_other_numbers_of_answers_are_refused(secret: slots.SlotsSecret, request_: bytes, count: int) -> None:
    part = slots.select(secret.public_bytes(), request_, np.arange(3), None)
    with pytest.raises(BoundError, match="can be added"):
        slots.add([part] * count, secret.public_bytes())


@pytest.mark.parametrize("bound", [-1, VALUE_BOUND + 1])
def test_bounds_that_are_not_proven_are_refused(secret: slots.SlotsSecret, request_: bytes, bound: int) -> None:
    part = slots.select(secret.public_bytes(), request_, np.arange(3), None)
    with pytest.raises(BoundError, match="are proven"):
        secret.open(request_, part, bound)


def test_a_request_has_a_name_that_nothing_else_has(secret: slots.SlotsSecret, request_: bytes) -> None:
    public = secret.public_bytes()
    selection = slots.Selection(public, request_)
    assert selection.rows == 3
    assert selection.digest == slots.Selection(public, request_).digest
    again = secret.encrypt(np.array([1, 0, 1]))  # the same rows, other bytes
    assert selection.digest != slots.Selection(public, again).digest


def test_types_keep_apart_who_may_do_what(secret: slots.SlotsSecret) -> None:
    assert not [name for name in dir(KeylessContext) if "crypt" in name]
    assert not isinstance(secret._context, PublicContext)
    assert repr(secret) == "SlotsSecret()"
    for store in (pickle.dumps, copy.deepcopy):
        with pytest.raises(BoundError, match="cannot be copied"):
            store(secret)


def test_a_kept_key_goes_on(secret: slots.SlotsSecret) -> None:
    values = np.arange(-4000, 5000)
    request, vector = secret.encrypt(np.ones(len(values), np.int64)), secret.encrypt_vector(np.ones(5, np.uint64))
    again = slots.SlotsSecret.restore(secret.kept("run"), "run")
    assert again.public_bytes() == secret.public_bytes()
    assert again.kept("run") == secret.kept("run")
    answer = slots.select(again.public_bytes(), request, values, None)
    assert np.array_equal(again.open(request, answer, 5000), values)
    sums = slots.weighted_sums(secret.public_bytes(), [vector], np.full((5, 1), -3), np.zeros((1, 1), np.uint64))
    assert again.open_sums([vector], sums, 1).tolist() == [[MODULUS - 15]]
    later = again.encrypt(np.array([2]))
    assert secret.open(later, slots.select(secret.public_bytes(), later, np.array([3]), None), 6).tolist() == [6]


def test_what_is_kept_serves_one_run_and_no_damage(secret: slots.SlotsSecret) -> None:
    kept = secret.kept("run")
    with pytest.raises(IntegrityError, match="another run") as caught:
        slots.SlotsSecret.restore(kept, "other")
    assert caught.value.code == "slots.kept-run"
    for at in (0, 5, 40, 60, 90, 3000, len(kept) - 1):
        damaged = bytearray(kept)
        damaged[at] ^= 1
        with pytest.raises(IntegrityError, match="damaged"):
            slots.SlotsSecret.restore(bytes(damaged), "run")
    for cut in (b"", kept[:56], kept[:-1], kept + b"\x00"):
        with pytest.raises(IntegrityError, match="damaged"):
            slots.SlotsSecret.restore(cut, "run")
    other = slots.SlotsSecret().kept("run")
    swapped = secret._context.seal(b"skpt", kept[56:PUBLIC_AT] + other[PUBLIC_AT:])
    with pytest.raises(IntegrityError, match="not that of the secret key"):
        slots.SlotsSecret.restore(swapped, "run")
    shorter = secret._context.seal(b"skpt", kept[56:-1])
    with pytest.raises(IntegrityError, match="expected"):
        slots.SlotsSecret.restore(shorter, "run")
