"""The hinted group sum's own rules: one seed a vector, one opening an answer, repeated requests, declared noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.hinted import HintedAnswerer, HintedAsker, decode, unmask
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.profiles import GroupSumParameters, derive
from fedcredit.errors import BoundError, PeerError

REFERENCE = bytes(range(32))
ROWS = 60
PARAMETERS = derive("rlwe-8192", ROWS, 1000, weight_bound=8, sum_slack=5000)
VALUES = np.arange(ROWS, dtype=np.int64) * 30 - 900


def grouping(rows: int = ROWS) -> Grouping:
    codes = np.stack([np.arange(rows) % 3, np.arange(rows) // 50], axis=1).astype(np.int32)
    return Grouping(codes, (3, 2), np.full((rows, 1), -8, dtype=np.int32), 8)


def sums(values: NDArray[np.int64] = VALUES) -> list[int]:
    codes = grouping().codes
    out = [int(values[codes[:, f] == k].sum()) for f, bins in enumerate((3, 2)) for k in range(bins)]
    return [*out, int(-8 * values.sum())]


def answerer(parameters: GroupSumParameters = PARAMETERS, seed: int = 1) -> HintedAnswerer:
    return HintedAnswerer(parameters, REFERENCE, grouping(), UnsafeSeededEntropy(bytes([seed]) * 32))


def introduced(*peers: tuple[str, HintedAnswerer]) -> HintedAsker:
    asker = HintedAsker(PARAMETERS, REFERENCE)
    for name, peer in peers:
        asker.accept_hints(name, peer.hints(), 6)
    return asker


def test_two_answerers_and_several_vectors_are_independent() -> None:
    left, right = answerer(seed=1), answerer(seed=2)
    asker = introduced(("left", left), ("right", right))
    first, one = asker.encrypt(VALUES, b"\x01" * 32)
    second, two = asker.encrypt(-VALUES, b"\x02" * 32)
    assert two.open("right", right.answer(second)).tolist() == sums(-VALUES)
    assert one.open("left", left.answer(first)).tolist() == sums()
    assert one.open("right", right.answer(first)).tolist() == sums()


def test_setup_is_empty_and_hints_are_the_same_every_time() -> None:
    peer = answerer()
    assert HintedAsker(PARAMETERS, REFERENCE).setup() == b""
    assert peer.hints() == peer.hints()
    assert peer.hints() != answerer(seed=2).hints()


def test_same_seed_and_vector_give_the_same_request() -> None:
    requests = [HintedAsker(PARAMETERS, REFERENCE).encrypt(VALUES, b"\x07" * 32)[0] for _ in range(2)]
    assert requests[0] == requests[1]
    assert HintedAsker(PARAMETERS, REFERENCE).encrypt(VALUES, b"\x08" * 32)[0] != requests[0]


def test_a_seed_encrypts_one_vector() -> None:
    asker = HintedAsker(PARAMETERS, REFERENCE)
    asker.encrypt(VALUES, b"\x01" * 32)
    with pytest.raises(BoundError, match="has encrypted a vector before"):
        asker.encrypt(-VALUES, b"\x01" * 32)
    with pytest.raises(BoundError, match="32 are needed"):
        asker.encrypt(VALUES, b"\x01" * 31)
    asker.encrypt(VALUES, b"\x02" * 32)


def test_a_refused_vector_does_not_spend_its_seed() -> None:
    asker = HintedAsker(PARAMETERS, REFERENCE)
    with pytest.raises(BoundError):
        asker.encrypt(VALUES * 100, b"\x01" * 32)
    asker.encrypt(VALUES, b"\x01" * 32)


@pytest.mark.parametrize(
    "values",
    [
        np.full(ROWS, 1001, dtype=np.int64),
        np.full(ROWS, -1001, dtype=np.int64),
        np.full(ROWS, np.iinfo(np.int64).min, dtype=np.int64),
        np.zeros(ROWS + 1, dtype=np.int64),
        np.zeros((ROWS, 1), dtype=np.int64),
        np.zeros(ROWS, dtype=np.int32),
        np.zeros(ROWS, dtype=np.float64),
    ],
)
def test_vectors_outside_the_declared_bound_are_refused(values: NDArray[np.int64]) -> None:
    with pytest.raises(BoundError):
        HintedAsker(PARAMETERS, REFERENCE).encrypt(values, b"\x01" * 32)


def test_an_answer_is_opened_once_whether_masked_or_not() -> None:
    peer = answerer()
    asker = introduced(("a", peer), ("b", peer))
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    answer, (masked, _) = peer.answer(request), peer.answer_masked(request)
    pending.open("a", answer)
    pending.open_masked("b", masked)
    for name in ("a", "b"):
        with pytest.raises(BoundError, match="opened before"):
            pending.open(name, answer)
        with pytest.raises(BoundError, match="opened before"):
            pending.open_masked(name, masked)


def test_an_answer_without_hints_is_refused() -> None:
    peer = answerer()
    request, pending = HintedAsker(PARAMETERS, REFERENCE).encrypt(VALUES, b"\x01" * 32)
    with pytest.raises(BoundError, match="before its hints"):
        pending.open("a", peer.answer(request))


def test_a_second_set_of_hints_is_refused() -> None:
    peer = answerer()
    asker = introduced(("a", peer))
    with pytest.raises(PeerError, match="second set"):
        asker.accept_hints("a", peer.hints(), 6)


def test_a_repeated_request_gets_the_same_bytes_and_another_request_fresh_ones() -> None:
    peer = answerer()
    asker = introduced(("a", peer))
    request, _ = asker.encrypt(VALUES, b"\x01" * 32)
    other, _ = asker.encrypt(VALUES, b"\x02" * 32)
    assert peer.answer(request) == peer.answer(request)
    assert peer.answer_masked(request) == peer.answer_masked(request)
    assert peer.answer_masked(request)[1][102:] != peer.answer_masked(other)[1][102:]


def test_noise_within_the_slack_is_added_and_changes_the_flood() -> None:
    peer = answerer()
    asker = introduced(("a", peer), ("b", peer))
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    noise = np.array([5000, -5000, 0, 1, -1, 77], dtype=np.int64)
    noisy = [total + extra for total, extra in zip(sums(), noise.tolist(), strict=True)]
    assert pending.open("a", peer.answer(request, noise)).tolist() == noisy
    masked, mask = peer.answer_masked(request, noise)
    assert unmask(PARAMETERS, pending.open_masked("b", masked), mask).tolist() == noisy
    misfits: list[Any] = [noise + 1, noise[:5], noise.astype(np.int32)]
    for bad in misfits:
        with pytest.raises(BoundError):
            peer.answer(request, bad)


def test_noise_of_zero_has_a_flood_of_its_own() -> None:
    peer = answerer()
    request, _ = introduced(("a", peer)).encrypt(VALUES, b"\x01" * 32)
    assert peer.answer(request, np.zeros(6, dtype=np.int64)) != peer.answer(request)


def test_groupings_that_do_not_fit_are_refused_before_anything_is_drawn() -> None:
    codes, weights = grouping().codes, grouping().weights
    bad = [
        Grouping(codes, (4, 2), weights, 8),  # an empty bin
        Grouping(codes, (3, 2), weights, 8, min_rows=11),  # an undersized one: the last has 10
        Grouping(codes, (3, 2), weights, 8, min_rows=-1),
        Grouping(codes, (2, 2), weights, 8),
        Grouping(codes[:-1], (3, 2)),
        Grouping(codes, (3, 2), weights, 9),
        Grouping(codes, (3, 2), weights, 7),
        Grouping(codes[:, :0], ()),
        Grouping(codes, (3, 1 << 17)),
    ]
    for made in bad:
        entropy = UnsafeSeededEntropy(REFERENCE)
        with pytest.raises(BoundError):
            HintedAnswerer(PARAMETERS, REFERENCE, made, entropy)
        assert entropy.take(32) == UnsafeSeededEntropy(REFERENCE).take(32)


def test_parameters_of_another_profile_are_refused() -> None:
    other = derive("bfv-8192", ROWS, 1000)
    with pytest.raises(BoundError, match="rlwe-8192 is right"):
        HintedAsker(other, REFERENCE)
    with pytest.raises(BoundError, match="rlwe-8192 is right"):
        answerer(other)


@pytest.mark.parametrize("total", [0, 1, -1, PARAMETERS.sum_bound, -PARAMETERS.sum_bound])
def test_decoding_is_exact_at_both_ends_of_noise_and_flood(total: int) -> None:
    p = PARAMETERS
    lowest = p.delta * total - p.noise_bound
    highest = p.delta * total + p.noise_bound + p.flood_width - 1
    for x in (lowest, highest):
        residues = np.array([[x % prime for prime in p.primes]], dtype=np.int64)
        assert decode(p, residues).tolist() == [total]
    for x, other in ((lowest - 1, total - 1), (highest + 1, total + 1)):
        residues = np.array([[x % prime for prime in p.primes]], dtype=np.int64)
        if abs(other) > p.sum_bound:
            with pytest.raises(PeerError, match="beyond the bound"):
                decode(p, residues)
        else:
            assert decode(p, residues).tolist() == [other]
