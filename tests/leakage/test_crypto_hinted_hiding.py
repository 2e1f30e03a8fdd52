"""Each hiding step of the hinted group sum is wired: an attack succeeds without it and fails with it.

A pass says that these attacks fail, not that none succeeds; what is proven is in docs/adr/0002-hinted-group-sum.md. All
randomness is fixed, so nothing here flickers.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedcredit.crypto import ring
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.hint_frames import FRAME_OVERHEAD, Kind
from fedcredit.crypto.hinted import HintedAnswerer, HintedAsker, decode
from fedcredit.crypto.prg import Entropy, UnsafeSeededEntropy, centred_binomial, expand
from fedcredit.crypto.profiles import GroupSumParameters, derive, statistical_leak_log2
from fedcredit.crypto.residues import unpack_residues
from fedcredit.crypto.sampling import reference_string
from fedcredit.errors import PeerError

REFERENCE = bytes(range(32))
NARROW = 1 << 12


class WithoutBlinding(HintedAnswerer):
    """u_k = u'_k = 0."""

    def _draw_blinding(self, entropy: Entropy) -> NDArray[np.int8]:
        return np.zeros_like(super()._draw_blinding(entropy))


def residuals(
    parameters: GroupSumParameters, grouping: Grouping, vectors: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What an asker sees below its sums, (vectors, outputs), and its own errors, (vectors, rows)."""
    answerer = HintedAnswerer(parameters, REFERENCE, grouping, UnsafeSeededEntropy(b"\x09" * 32))
    asker = HintedAsker(parameters, REFERENCE)
    asker.accept_hints("a", answerer.hints(), grouping.outputs)
    q = parameters.modulus
    lifts = [q // p * pow(q // p, -1, p) for p in parameters.primes]
    seen, errors = [], []
    for number in range(vectors):
        seed = number.to_bytes(32, "little")
        request, pending = asker.encrypt(np.zeros(grouping.rows, dtype=np.int64), seed)
        residues = pending._uncovered("a", answerer.answer(request), Kind.ANSWER)
        values = [sum(r * lift for r, lift in zip(row, lifts, strict=True)) % q for row in residues.tolist()]
        seen.append([float(x - q if x > q // 2 else x) for x in values])
        errors.append(centred_binomial(expand(seed, "hinted/error", 8 * grouping.rows)).astype(np.int64))
    return np.array(seen), np.array(errors)


def significance(seen: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Correlation of what is seen with what a guess of the rows predicts, in standard deviations of chance."""
    return float(np.corrcoef(seen.ravel(), predicted.ravel())[0, 1] * np.sqrt(seen.size))


def membership_test(flood_width: int | None) -> tuple[float, float]:
    """Significance of the true rows of a bin, and of rows of a wrong guess, from what lies below the sums."""
    rows, features, vectors = 50_000, 30, 30
    codes = np.random.default_rng(5).integers(0, 2, (rows, features)).astype(np.int32)
    parameters = derive("rlwe-8192", rows, 100)
    if flood_width is not None:
        parameters = dataclasses.replace(parameters, flood_width=flood_width)
    seen, errors = residuals(parameters, Grouping(codes, (2,) * features), vectors)
    # The difference of a feature's two bins: what both have in common, a guess of any rows would predict as well.
    differences = seen[:, 0::2] - seen[:, 1::2]
    sides = 1.0 - 2 * codes
    wrong = np.random.default_rng(6).permutation(sides)
    return significance(differences, errors @ sides), significance(differences, errors @ wrong)


def test_a_narrow_flood_shows_which_rows_are_in_a_bin() -> None:
    right, wrong = membership_test(NARROW)
    assert right > 7
    assert abs(wrong) < 4


def test_the_real_flood_does_not() -> None:
    right, wrong = membership_test(None)
    assert abs(right) < 4
    assert abs(wrong) < 4


def weighted_test(flood_width: int | None) -> float:
    rows, columns = 500, 20
    weights = np.random.default_rng(7).integers(-(1 << 14), (1 << 14) + 1, (rows, columns)).astype(np.int32)
    grouping = Grouping(np.zeros((rows, 0), dtype=np.int32), (), weights, 1 << 14)
    parameters = derive("rlwe-8192", rows, 100, 1 << 14)
    if flood_width is not None:
        parameters = dataclasses.replace(parameters, flood_width=flood_width)
    seen, errors = residuals(parameters, grouping, 3)
    return significance(seen, (errors @ weights).astype(float))


def test_a_narrow_flood_shows_the_weights_and_the_real_one_does_not() -> None:
    assert weighted_test(NARROW) > 7.5  # of at most sqrt(60) = 7.7: the noise is read as it is
    assert abs(weighted_test(None)) < 4


def test_the_flood_is_uniform_over_its_whole_width() -> None:
    rows, features = 50, 200
    parameters = derive("rlwe-8192", rows, 100)
    codes = np.zeros((rows, features), dtype=np.int32)
    seen, _ = residuals(parameters, Grouping(codes, (1,) * features), 2)
    assert stats.kstest((seen / parameters.flood_width).ravel(), "uniform").pvalue > 1e-3
    assert len(np.unique(seen)) == seen.size


def test_the_calculator_of_the_leak_knows_a_narrow_flood() -> None:
    parameters = derive("rlwe-8192", 40_000, 100)
    assert statistical_leak_log2(parameters, 480, 20_000) < -70
    assert statistical_leak_log2(dataclasses.replace(parameters, flood_width=NARROW), 480, 20_000) > 0


def rows_from_hint(kind: type[HintedAnswerer]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """hint_0 / a_1 in one block, natural order, and the codes: without blinding the quotient is the polynomial w."""
    codes = (np.random.default_rng(8).random(8192) < 0.1).astype(np.int32)
    parameters = derive("rlwe-8192", 8192, 100)
    made = kind(parameters, REFERENCE, Grouping(codes[:, None], (2,)), UnsafeSeededEntropy(b"\x0a" * 32))
    constants = ring.ring_for(parameters.primes, 8192)
    body = memoryview(made.hints())[FRAME_OVERHEAD:]
    hint = unpack_residues(body, constants.primes, (2, 5, 8192), "hints")[1, 0]
    p = parameters.primes[0]
    reference = reference_string(parameters, REFERENCE).vector[0, 0].astype(np.int64)
    inverse = np.array([pow(int(value), -1, p) for value in reference], dtype=np.int64)
    quotient = ring.forward(constants, hint.astype(np.int32)).astype(np.int64)
    quotient[0] = quotient[0] * inverse % p
    one = np.ones((5, 8192), dtype=np.uint32)
    return ring.inverse_products(constants, quotient.astype(np.uint32)[None], one)[0, 0], codes


def test_a_hint_without_blinding_prints_the_rows_of_its_bin() -> None:
    quotient, codes = rows_from_hint(WithoutBlinding)
    assert np.array_equal(quotient[::-1], codes)


def test_a_hint_with_blinding_prints_nothing_like_them() -> None:
    quotient, codes = rows_from_hint(HintedAnswerer)
    assert np.count_nonzero(quotient <= 1) < 3
    spread = quotient[::-1][codes == 1] / np.float64(1 << 27), quotient[::-1][codes == 0] / np.float64(1 << 27)
    assert stats.ks_2samp(*spread).pvalue > 1e-3


def test_blinding_is_fresh_for_every_output_and_answerer() -> None:
    parameters = derive("rlwe-8192", 30, 100)
    grouping = Grouping((np.arange(30) % 3).astype(np.int32)[:, None], (3,))
    drawn = [
        HintedAnswerer(parameters, REFERENCE, grouping, UnsafeSeededEntropy(bytes([i]) * 32))._blind for i in range(2)
    ]
    rows = np.concatenate(drawn).reshape(-1, 8192)
    assert len({row.tobytes() for row in rows}) == 2 * 3 * 2
    assert float(rows.astype(float).std()) == pytest.approx(np.sqrt(10.5), rel=0.02)


def test_without_the_mask_an_asker_reads_a_masked_answer_and_with_it_not() -> None:
    parameters = derive("rlwe-8192", 30, 100)
    grouping = Grouping((np.arange(30) % 3).astype(np.int32)[:, None], (3,))
    answerer = HintedAnswerer(parameters, REFERENCE, grouping, UnsafeSeededEntropy(bytes(32)))
    asker = HintedAsker(parameters, REFERENCE)
    for name in ("masked", "bare"):
        asker.accept_hints(name, answerer.hints(), 3)
    request, pending = asker.encrypt(np.ones(30, dtype=np.int64), b"\x01" * 32)
    primes = np.array(parameters.primes, dtype=np.uint32)
    opened = memoryview(pending.open_masked("masked", answerer.answer_masked(request)[0]))[FRAME_OVERHEAD:]
    residues = unpack_residues(opened, primes, (3, 5, 1), "opened")[..., 0].astype(np.int64)
    seen = []
    for row in residues:
        with contextlib.suppress(PeerError):  # a uniform value passes for a sum as often as sums fill the modulus
            seen.append(int(decode(parameters, row[None])[0]))
    assert 10 not in seen
    assert len(seen) < 3
    assert decode(parameters, pending._uncovered("bare", answerer.answer(request), Kind.ANSWER)).tolist() == [
        10,
        10,
        10,
    ]


def test_a_request_says_nothing_to_a_first_look() -> None:
    parameters = derive("rlwe-8192", 3000, 100)
    asker = HintedAsker(parameters, REFERENCE)
    samples = []
    for number, value in enumerate((100, -100)):
        values = np.full(3000, value, dtype=np.int64)
        request, _ = asker.encrypt(values, bytes([number]) * 32)
        body = memoryview(request)[FRAME_OVERHEAD:]
        primes = np.array(parameters.primes, dtype=np.uint32)
        residues = unpack_residues(body, primes, (3000 + 2 * 8192, 5, 1), "request")[..., 0]
        samples.append((residues / primes).ravel())
        assert stats.kstest(samples[-1], "uniform").pvalue > 1e-3
    assert stats.ks_2samp(*samples).pvalue > 1e-3
