"""Totals of several holders: exact, bounded, and closed to whoever adds them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto import totals
from fedcredit.crypto.bfv import KeylessContext, PublicContext
from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.seal_format import PRIMES, unpack60
from fedcredit.errors import BoundError, FedCreditError, PeerError

BOUND = 3000


@pytest.fixture(scope="module")
def secret() -> totals.TotalsSecret:
    return totals.TotalsSecret(BOUND)


def draw_masks(names: list[str], rows: int, bits: int) -> dict[str, NDArray[np.uint64]]:
    held = {name: MaskKey(SystemEntropy()) for name in names}
    roster = MaskRoster("run", "totals/1", {name: key.public_bytes() for name, key in held.items()})
    return {name: key.mask(roster, name, rows, bits) for name, key in held.items()}


@pytest.mark.parametrize(("rows", "holders"), [(1, 2), (8192, 3), (8193, 2), (20_000, 4)])
def test_totals_are_exact(secret: totals.TotalsSecret, rows: int, holders: int) -> None:
    share = BOUND // holders
    generator = np.random.default_rng(rows)
    values = generator.integers(-share, share + 1, (holders, rows))
    values[:, 0] = share  # the bound itself
    values[:, -1] = -share
    masks = list(draw_masks([f"h{k}" for k in range(holders)], rows, totals.modulus_bits(BOUND)).values())
    public = secret.public_bytes()
    parts = [
        totals.encrypt_partial(public, values[k], masks[k], bound=BOUND, partial_bound=share) for k in range(holders)
    ]
    assert np.array_equal(secret.decrypt(totals.add(parts, public, bound=BOUND), rows), values.sum(axis=0))


@pytest.mark.parametrize("bound", [1, (1 << 45) - 1])
def test_one_holder_needs_no_mask_at_either_end_of_the_bounds(bound: int) -> None:
    own = totals.TotalsSecret(bound)
    values = np.array([bound, -bound, 0, 1, -1])
    part = totals.encrypt_partial(own.public_bytes(), values, None, bound=bound)
    assert np.array_equal(own.decrypt(totals.add([part], own.public_bytes(), bound=bound), 5), values)


@pytest.mark.parametrize("bound", [0, -1, 1 << 45])
def test_unproven_bounds_are_refused(bound: int) -> None:
    with pytest.raises(BoundError, match="are proven"):
        totals.TotalsSecret(bound)


def test_values_beyond_a_bound_are_refused(secret: totals.TotalsSecret) -> None:
    public = secret.public_bytes()
    for value in (BOUND + 1, -BOUND - 1, np.iinfo(np.int64).min):
        with pytest.raises(BoundError, match=f"bound of {BOUND}"):
            totals.encrypt_partial(public, np.array([0, value]), None, bound=BOUND)
    with pytest.raises(BoundError, match="bound of 10"):
        totals.encrypt_partial(public, np.array([11]), None, bound=BOUND, partial_bound=10)
    with pytest.raises(BoundError, match="were declared"):
        totals.encrypt_partial(public, np.array([1]), None, bound=BOUND, partial_bound=BOUND + 1)


@pytest.mark.parametrize(
    "masks",
    [np.zeros(3, np.uint64), np.zeros(2, np.int64), np.array([0, 1 << 16], np.uint64)],
    ids=["length", "type", "range"],
)
def test_other_masks_are_refused(secret: totals.TotalsSecret, masks: NDArray[np.uint64]) -> None:
    with pytest.raises(BoundError, match="masks must be"):
        totals.encrypt_partial(secret.public_bytes(), np.array([1, 2]), masks, bound=BOUND)


def test_no_rows_and_no_partials_are_refused(secret: totals.TotalsSecret) -> None:
    public = secret.public_bytes()
    for values in (np.zeros(0, np.int64), np.zeros((2, 2), np.int64)):
        with pytest.raises(BoundError, match="one value for each row"):
            totals.encrypt_partial(public, values, None, bound=BOUND)
    with pytest.raises(BoundError, match="0 partials"):
        totals.add([], public, bound=BOUND)
    with pytest.raises(BoundError, match="0 rows"):
        secret.decrypt(b"", 0)


def test_a_missing_partial_is_found(secret: totals.TotalsSecret) -> None:
    masks = draw_masks(["a", "b"], 100, 16)
    public = secret.public_bytes()
    part = totals.encrypt_partial(public, np.zeros(100, np.int64), masks["a"], bound=BOUND)
    with pytest.raises(PeerError, match="a mask does not cancel"):
        secret.decrypt(totals.add([part], public, bound=BOUND), 100)


def test_a_masked_partial_is_uniform_even_to_the_reader() -> None:
    bound = (1 << 15) - 1
    own = totals.TotalsSecret(bound)
    source = UnsafeSeededEntropy(b"u" * 32)
    held = {name: MaskKey(source) for name in ("a", "b")}
    roster = MaskRoster("run", "1", {name: key.public_bytes() for name, key in held.items()})
    part = totals.encrypt_partial(
        own.public_bytes(), np.full(8192, 9), held["a"].mask(roster, "a", 8192, 16), bound=bound
    )
    seen = _open(own, part)
    counts = np.bincount(seen.astype(np.int64) >> 10, minlength=64)
    assert 30 < float(((counts - 128.0) ** 2 / 128.0).sum()) < 110  # 63 degrees of freedom; fixed seed


def _open(secret: totals.TotalsSecret, part: bytes) -> NDArray[np.uint64]:
    context = secret._context
    return context.decrypt(context.read_full(context.open(b"part", part)))


def test_the_rows_after_the_last_must_be_zero(secret: totals.TotalsSecret) -> None:
    public = secret.public_bytes()
    part = totals.encrypt_partial(public, np.ones(101, np.int64), None, bound=BOUND)
    total = totals.add([part], public, bound=BOUND)
    with pytest.raises(PeerError, match="outside the bound"):
        secret.decrypt(total, 100)
    with pytest.raises(PeerError, match="bytes"):
        secret.decrypt(total, 8193)


def test_partials_of_different_lengths_are_refused(secret: totals.TotalsSecret) -> None:
    public = secret.public_bytes()
    parts = [totals.encrypt_partial(public, np.ones(n, np.int64), None, bound=BOUND) for n in (5, 8193)]
    with pytest.raises(PeerError, match="equal lengths"):
        totals.add(parts, public, bound=BOUND)


def test_a_key_of_another_run_does_not_open(secret: totals.TotalsSecret) -> None:
    stranger = totals.TotalsSecret(BOUND)
    part = totals.encrypt_partial(secret.public_bytes(), np.ones(50, np.int64), None, bound=BOUND)
    with pytest.raises(PeerError, match="outside the bound"):
        stranger.decrypt(totals.add([part], secret.public_bytes(), bound=BOUND), 50)


def test_whoever_adds_holds_no_key(secret: totals.TotalsSecret) -> None:
    assert not [name for name in dir(KeylessContext) if "crypt" in name]
    assert not [name for name in dir(PublicContext) if "decrypt" in name]
    assert not isinstance(secret._context, PublicContext)


def test_the_public_bytes_hold_no_secret_key(secret: totals.TotalsSecret) -> None:
    # The secret key is the ternary polynomial s. Its owner can print it: q_0/t times s is what (0, q_0/t) decrypts to.
    context = secret._context
    scale = np.zeros(8192, np.uint64)
    scale[0] = round(PRIMES[0] / context.plain_modulus)
    key = context.decrypt(context.read_extracted(scale, np.array([0]), np.array([0], np.uint64)))
    assert set(np.unique(key).tolist()) == {0, 1, context.plain_modulus - 1}
    body = context.open(b"key", secret.public_bytes())
    residues = unpack60(body[:-64], PRIMES, "key")[0]
    for row, prime in enumerate(PRIMES):
        ternary = np.isin(residues[row], np.array([0, 1, prime - 1], np.uint64))
        assert ternary.sum() < 3
    packed = np.packbits(key == 1).tobytes()
    assert packed[:16] not in secret.public_bytes()


@pytest.mark.parametrize("cut", [0, 1, 55, 56, 57, 1000, -1])
def test_truncated_bytes_are_refused(secret: totals.TotalsSecret, cut: int) -> None:
    public = secret.public_bytes()
    part = totals.encrypt_partial(public, np.ones(5, np.int64), None, bound=BOUND)
    total = totals.add([part], public, bound=BOUND)
    calls: list[Callable[[], object]] = [
        lambda: totals.add([part[:cut]], public, bound=BOUND),
        lambda: totals.add([part], public[:cut], bound=BOUND),
        lambda: totals.encrypt_partial(public[:cut], np.ones(5, np.int64), None, bound=BOUND),
        lambda: secret.decrypt(total[:cut], 5),
    ]
    for call in calls:
        with pytest.raises(PeerError):
            call()


def test_other_parameters_are_refused(secret: totals.TotalsSecret) -> None:
    public = secret.public_bytes()
    part = totals.encrypt_partial(public, np.ones(5, np.int64), None, bound=BOUND)
    calls: list[Callable[[], object]] = [
        lambda: totals.encrypt_partial(public, np.ones(5, np.int64), None, bound=1 << 20),
        lambda: totals.add([part], public, bound=1 << 20),
        lambda: totals.TotalsSecret(1 << 20).decrypt(totals.add([part], public, bound=BOUND), 5),
    ]
    for call in calls:
        with pytest.raises(FedCreditError, match="parameters other than this run's"):
            call()
