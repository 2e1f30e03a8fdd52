"""A withheld output says nothing: it is uniform, it does not depend on the grouping, and it cannot be decoded.

All randomness that can be fixed is fixed, so nothing here flickers but once in 10^4 where SEAL draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedcredit.crypto.backends import make_answerer, make_asker
from fedcredit.crypto.group_sum import Answerer, Asker, Grouping
from fedcredit.crypto.hint_frames import FRAME_OVERHEAD, Kind
from fedcredit.crypto.hinted import HintedAnswerer, decode
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.profiles import PROFILES, GroupSumParameters, derive
from fedcredit.crypto.residues import unpack_residues
from fedcredit.errors import PeerError

ROWS, FEATURES, BINS = 400, 40, 5
OUTPUTS = FEATURES * BINS
REFERENCE = bytes(range(32))
HIDDEN = np.arange(OUTPUTS) % 4 != 0

every_profile = pytest.mark.parametrize("profile", sorted(PROFILES))


def grouping(seed: int) -> Grouping:
    codes = np.random.default_rng(seed).integers(0, BINS, (ROWS, FEATURES)).astype(np.int32)
    return Grouping(codes, (BINS,) * FEATURES)


def sums(held: Grouping, values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.bincount(column, values, BINS) for column in held.codes.T]).astype(np.int64)


class Talk:
    """One asker and one answerer with fixed secrets."""

    def __init__(self, profile: str, seed: int = 1) -> None:
        self.parameters: GroupSumParameters = derive(profile, ROWS, 1000, 1, 500)
        self.held = grouping(seed)
        entropy = UnsafeSeededEntropy(bytes(32))
        self.asker: Asker = make_asker(self.parameters, REFERENCE, entropy)
        self.answerer: Answerer = make_answerer(
            self.parameters, REFERENCE, self.asker.setup(), self.held, UnsafeSeededEntropy(b"\x05" * 32)
        )
        self.asker.accept_hints("p", self.answerer.hints(), OUTPUTS)

    def seen(self, vectors: int, withheld: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """What the asker finds below its own encryption, as fractions of the modulus, (vectors, outputs)."""
        found = []
        for number in range(vectors):
            request, pending = self.asker.encrypt(values(number), number.to_bytes(32, "little"))
            found.append(fractions(self.parameters, pending, self.answerer.answer(request, None, withheld)))
        return np.array(found)


def values(number: int) -> NDArray[np.int64]:
    return np.random.default_rng(100 + number).integers(-1000, 1001, ROWS)


def fractions(parameters: GroupSumParameters, pending: Any, answer: bytes) -> NDArray[np.float64]:
    """An answer with the secret part taken away, before anything is decoded."""
    if parameters.profile == "rlwe-8192":
        residues = pending._uncovered("p", answer, Kind.ANSWER)
        q = parameters.modulus
        lifts = [q // p * pow(q // p, -1, p) for p in parameters.primes]
        whole = [sum(int(r) * lift for r, lift in zip(row, lifts, strict=True)) % q for row in residues]
        return np.array([one / q for one in whole])
    if parameters.profile == "bfv-8192":
        return np.asarray(pending._read("p", answer, b"ans") / 2.0**parameters.sum_bits)
    return np.asarray(pending._read("p", answer, b"A").astype(np.uint64) / 2.0**64)


def uniform(sample: NDArray[np.float64]) -> float:
    return float(stats.kstest(sample.ravel(), "uniform").pvalue)


@every_profile
def test_withheld_outputs_are_uniform_and_the_others_are_not(profile: str) -> None:
    seen = Talk(profile).seen(4, HIDDEN)
    assert uniform(seen[:, HIDDEN]) > 1e-4
    assert uniform(seen[:, ~HIDDEN]) < 1e-12
    assert len(np.unique(seen[:, HIDDEN])) > 0.99 * seen[:, HIDDEN].size


@every_profile
def test_without_withholding_the_same_outputs_are_the_sums(profile: str) -> None:
    """The test above can fail: what it looks at are the sums where nothing is withheld."""
    talk = Talk(profile)
    request, pending = talk.asker.encrypt(values(0), bytes(32))
    assert np.array_equal(pending.open("p", talk.answerer.answer(request)), sums(talk.held, values(0)))
    assert uniform(Talk(profile).seen(4, None)[:, HIDDEN]) < 1e-12


@every_profile
def test_withheld_outputs_follow_no_sum_of_the_true_grouping(profile: str) -> None:
    """Neither the sum nor its last digits: what is left when a guess is taken away stays uniform, right or wrong."""
    talk = Talk(profile)
    seen = talk.seen(6, HIDDEN)
    if profile == "bfv-8192":
        modulus = 2.0**talk.parameters.sum_bits
    else:
        modulus = float(talk.parameters.modulus // talk.parameters.delta) if talk.parameters.delta else 2.0**64
    for held in (talk.held, grouping(2)):
        guess = np.array([sums(held, values(number)) for number in range(6)]) / modulus
        assert uniform((seen - guess)[:, HIDDEN] % 1.0) > 1e-4
        found = np.corrcoef(seen[:, HIDDEN].ravel(), guess[:, HIDDEN].ravel())[0, 1]
        assert abs(found) * np.sqrt(seen[:, HIDDEN].size) < 4.5
    shown = np.corrcoef(
        ((seen + 0.5) % 1.0)[:, ~HIDDEN].ravel(),
        np.array([sums(talk.held, values(number)) for number in range(6)])[:, ~HIDDEN].ravel(),
    )[0, 1]
    assert shown > 0.9


def raw(profile: str, answer: bytes, parameters: GroupSumParameters) -> NDArray[np.int64]:
    """What travels for each output, where that is one number an output."""
    if profile == "rlwe-8192":
        primes = np.array(parameters.primes, dtype=np.uint32)
        body = memoryview(answer)[FRAME_OVERHEAD:]
        return unpack_residues(body, primes, (OUTPUTS, len(primes), 1), "answer")[..., 0].astype(np.int64)
    return np.frombuffer(answer[-8 * OUTPUTS :], "<i8")[:, None]


@pytest.mark.parametrize("profile", ["rlwe-8192", "unsafe-plaintext"])
def test_the_bytes_of_a_withheld_output_are_the_same_for_every_grouping(profile: str) -> None:
    """With the answerer's secrets fixed, another grouping changes all other outputs and none of the withheld ones."""
    talks = [Talk(profile, seed) for seed in (1, 2)]
    request, _ = talks[0].asker.encrypt(values(0), bytes(32))
    answers = [raw(profile, talk.answerer.answer(request, None, HIDDEN), talk.parameters) for talk in talks]
    same = (answers[0] == answers[1]).all(axis=1)
    assert same[HIDDEN].all()
    assert same[~HIDDEN].mean() < 0.2


@every_profile
def test_noise_is_hidden_with_the_sum(profile: str) -> None:
    talk = Talk(profile)
    noise = np.full(OUTPUTS, 400, np.int64)
    request, pending = talk.asker.encrypt(np.zeros(ROWS, np.int64), bytes(32))
    found = fractions(talk.parameters, pending, talk.answerer.answer(request, noise, HIDDEN))
    assert uniform(found[HIDDEN]) > 1e-4


def test_what_is_withheld_does_not_decode() -> None:
    talk = Talk("rlwe-8192")
    request, pending = talk.asker.encrypt(values(0), bytes(32))
    residues = pending._uncovered("p", talk.answerer.answer(request, None, HIDDEN), Kind.ANSWER)  # type: ignore[attr-defined]
    refused = 0
    for row in residues[HIDDEN]:
        try:
            decode(talk.parameters, row[None])
        except PeerError:
            refused += 1
    # sums take a known share of the modulus: a uniform value passes for a sum no more often than that
    share = 2 * talk.parameters.sum_bound / 2**talk.parameters.sum_bits
    expected = share * HIDDEN.sum()
    assert abs((HIDDEN.sum() - refused) - expected) < 5 * np.sqrt(expected)
    assert np.array_equal(decode(talk.parameters, residues[~HIDDEN]), sums(talk.held, values(0))[~HIDDEN])


@every_profile
def test_two_requests_have_nothing_in_common_at_a_withheld_output(profile: str) -> None:
    """A mask that came twice would show the difference of two sums."""
    seen = Talk(profile).seen(2, HIDDEN)[:, HIDDEN]
    assert uniform((seen[0] - seen[1]) % 1.0) > 1e-4


def test_a_mask_that_does_not_fill_every_prime_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residue by residue; put together, small residues still fill the modulus."""
    original: Callable[..., NDArray[np.int64]] = HintedAnswerer._uniform
    monkeypatch.setattr(HintedAnswerer, "_uniform", lambda self, *a: original(self, *a) % (1 << 24))
    assert uniform(Talk("rlwe-8192").seen(1, HIDDEN)[:, HIDDEN]) > 1e-4
    talk = Talk("rlwe-8192")
    request, _ = talk.asker.encrypt(values(0), bytes(32))
    residues = raw("rlwe-8192", talk.answerer.answer(request, None, HIDDEN), talk.parameters)[HIDDEN]
    shares = residues / np.array(talk.parameters.primes)
    assert uniform(shares) < 1e-12
    monkeypatch.undo()
    talk = Talk("rlwe-8192")
    residues = raw("rlwe-8192", talk.answerer.answer(request, None, HIDDEN), talk.parameters)[HIDDEN]
    assert uniform(residues / np.array(talk.parameters.primes)) > 1e-4
