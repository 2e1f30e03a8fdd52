"""Each step that hides an answerer's rows is wired: taken away, an attack succeeds; in place, it fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from fedcredit.crypto.bfv import Ciphertext, PublicContext, SecretContext
from fedcredit.crypto.bfv_shard import BLOCK_ROWS, PLACES, Shard, ShardTask, flood_half_width, output_places
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.seal_format import DEGREE, PRIMES, pack60, packed_size

U64 = NDArray[np.uint64]
ROWS, BINS, PLAIN_BITS = BLOCK_ROWS, 8, 40


@dataclass(frozen=True)
class Scene:
    """One block of rows, one feature of eight bins, one vector of a label holder that attacks."""

    codes: NDArray[np.int32]
    secret: SecretContext
    shard: Shard
    values: U64
    request: bytes

    def concealed(self) -> Ciphertext:
        return self.shard.conceal(self.shard.sums(self.request)[0], np.zeros(BINS, np.uint64))

    def guess(self, codes: NDArray[np.int32]) -> Shard:
        return make_shard(codes, self.secret.public_bytes())


def make_shard(codes: NDArray[np.int32], public: bytes) -> Shard:
    task = ShardTask(
        plain_bits=PLAIN_BITS,
        public=public,
        rows=ROWS,
        first=0,
        outputs=BINS,
        codes=codes.astype("<i4").tobytes(),
        offsets=(0,),
        weights=b"",
        columns=(),
        memory_bytes=1 << 24,
    )
    return Shard(task, SystemEntropy())


def make_scene(values: U64) -> Scene:
    codes = np.random.default_rng(3).integers(0, BINS, ROWS).astype(np.int32)
    secret = SecretContext(PLAIN_BITS)
    shard = make_shard(codes, secret.public_bytes())
    return Scene(codes, secret, shard, values, secret.encrypt_seeded(values))


@pytest.fixture
def spike() -> Scene:
    """A vector that is 1 in its first row: the product is then the answerer's polynomial itself."""
    values = np.zeros(ROWS, np.uint64)
    values[0] = 1
    return make_scene(values)


@pytest.fixture
def noisy() -> Scene:
    return make_scene(np.random.default_rng(4).integers(0, 100, ROWS).astype(np.uint64))


def read_rows(coefficients: U64) -> NDArray[np.int64]:
    """Bin of every row, as the product with a spike shows it."""
    table = coefficients.reshape(PLACES, BLOCK_ROWS)[:, ::-1]
    return np.asarray(np.argmax(table == 1, axis=0))


def without_masks(self: Shard, masks: U64) -> U64:
    values = np.zeros(DEGREE, np.uint64)
    values[output_places(len(masks))] = masks
    return values


def test_rows_are_masked(spike: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spike.secret.decrypt(spike.concealed())
    assert float((read_rows(seen) == spike.codes).mean()) < 0.3
    others = np.delete(seen, output_places())
    counts = np.bincount((others >> np.uint64(PLAIN_BITS - 5)).astype(np.int64), minlength=32)
    expected = len(others) / 32
    assert float(((counts - expected) ** 2 / expected).sum()) < 90  # 31 degrees of freedom: once in 10^7
    again = np.delete(spike.secret.decrypt(spike.concealed()), output_places())
    assert not (others == again).any()
    monkeypatch.setattr(Shard, "blinding", without_masks)
    assert np.array_equal(read_rows(spike.secret.decrypt(spike.concealed())), spike.codes)


def test_rows_do_not_leave(spike: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not masked would still not be in the bytes: a second, independent step."""
    monkeypatch.setattr(Shard, "blinding", without_masks)
    concealed = spike.concealed()
    part = spike.shard.extract(concealed, BINS)
    assert len(part) == packed_size(DEGREE) + 8 * BINS
    first, second = spike.shard.context.residues(concealed)[:, 0]
    values = np.frombuffer(part[-8 * BINS :], "<u8").astype(np.uint64)
    sent = spike.secret.read_extracted(second, output_places(), values)
    kept = spike.secret.read_extracted(second, np.arange(DEGREE), first)
    assert np.array_equal(read_rows(spike.secret.decrypt(kept)), spike.codes)
    assert float((read_rows(spike.secret.decrypt(sent)) == spike.codes).mean()) < 0.3
    assert np.array_equal(spike.secret.decrypt(sent)[output_places()], spike.secret.decrypt(kept)[output_places()])


def recomputed(scene: Scene, codes: NDArray[np.int32]) -> bytes:
    """The second polynomial that a grouping would give, as the label holder can work it out."""
    guess = scene.guess(codes)
    total = guess.sums(scene.request)[0]
    guess.context.switch_down(total)
    return pack60(guess.context.residues(total)[1, 0])


def test_a_guessed_grouping_cannot_be_confirmed(noisy: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = noisy.codes.copy()
    wrong[17] = (wrong[17] + 1) % BINS
    right_guess, wrong_guess = recomputed(noisy, noisy.codes), recomputed(noisy, wrong)
    size = packed_size(DEGREE)
    sent = noisy.shard.extract(noisy.concealed(), BINS)[:size]
    assert sent not in (right_guess, wrong_guess)
    assert sent != noisy.shard.extract(noisy.concealed(), BINS)[:size]
    monkeypatch.setattr(PublicContext, "add_fresh_zero", lambda self, ciphertext: None)
    bare = noisy.shard.extract(noisy.concealed(), BINS)[:size]
    assert bare == right_guess
    assert bare != wrong_guess


def secret_polynomial(secret: SecretContext) -> NDArray[np.int64]:
    """The key as its owner can print it: (0, q_0/t) decrypts to it."""
    scale = np.zeros(DEGREE, np.uint64)
    scale[0] = round(PRIMES[0] / secret.plain_modulus)
    shown = secret.decrypt(secret.read_extracted(scale, np.array([0]), np.array([0], np.uint64))).astype(np.int64)
    return np.where(shown == secret.plain_modulus - 1, -1, shown)


def negacyclic(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    full = np.rint(scipy.signal.fftconvolve(left, right))
    full = np.concatenate([full, np.zeros(2 * DEGREE - len(full))])
    return np.asarray(full[:DEGREE] - full[DEGREE:])


def noise_of(secret: SecretContext, residues: U64, message: U64) -> NDArray[np.int64]:
    """Exact noise: (c0 + c1 s) - q m / t, modulo the first prime, which is larger than twice any noise here."""
    prime, key = PRIMES[0], secret_polynomial(secret).astype(np.float64)
    product = np.zeros(DEGREE, dtype=object)
    for limb in range(4):  # 15 bits at a time, so that each convolution is exact in a float64
        part = (residues[1, 0] >> np.uint64(15 * limb)) & np.uint64(0x7FFF)
        product += negacyclic(part.astype(np.float64), key).astype(np.int64).astype(object) << (15 * limb)
    modulus = PRIMES[0] * PRIMES[1] if residues.shape[1] == 2 else prime
    scaled = (message.astype(object) * modulus + secret.plain_modulus // 2) // secret.plain_modulus
    noise = (residues[0, 0].astype(object) + product - scaled) % prime
    return np.array([int(e) - prime if e > prime // 2 else int(e) for e in noise])


def predicted_noise(scene: Scene) -> NDArray[np.float64]:
    """Noise that the answerer's rows would leave in the product: the asker knows its own errors."""
    context = scene.shard.context
    block = context.read_seeded(scene.request)
    context.leave_ntt(block)
    message = np.zeros(DEGREE, np.uint64)
    message[:ROWS] = scene.values
    errors = noise_of(scene.secret, context.residues(block), message)
    assert 1 < np.abs(errors).max() <= 22  # at most 21 and one half, as the proof of the bound says
    weights = np.zeros((PLACES, BLOCK_ROWS))
    weights[scene.codes, BLOCK_ROWS - 1 - np.arange(ROWS)] = 1
    return negacyclic(errors.astype(np.float64), weights.reshape(-1))


def correlation(scene: Scene) -> float:
    concealed = scene.concealed()
    seen = noise_of(scene.secret, scene.shard.context.residues(concealed), scene.secret.decrypt(concealed))
    return float(np.corrcoef(seen, predicted_noise(scene))[0, 1])


def test_the_noise_says_nothing_of_the_rows(noisy: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(correlation(noisy)) < 0.08  # seven standard deviations at 8192 coefficients
    monkeypatch.setattr(PublicContext, "switch_down", lambda self, ciphertext: None)
    assert correlation(noisy) > 0.5


def output_noise(scene: Scene, rounds: int) -> NDArray[np.int64]:
    found = []
    for _ in range(rounds):
        concealed = scene.concealed()
        second = scene.shard.context.residues(concealed)[1, 0]
        part = scene.shard.extract(concealed, BINS)
        values = np.frombuffer(part[-8 * BINS :], "<u8").astype(np.uint64)
        sent = scene.secret.read_extracted(second, output_places(), values)
        message = scene.secret.decrypt(sent)
        found.append(noise_of(scene.secret, scene.shard.context.residues(sent), message)[output_places()])
    return np.concatenate(found)


def test_outputs_leave_under_a_flood(noisy: Scene) -> None:
    half = flood_half_width(PLAIN_BITS)
    flooded = output_noise(noisy, 2)
    assert half // 8 < np.abs(flooded).max() <= half + DEGREE // 2 + 2
    noisy.shard._flood = 0
    assert np.abs(output_noise(noisy, 2)).max() < 200  # rounding alone: standard deviation 21


@pytest.mark.parametrize("plain_bits", [16, 46])
def test_the_flood_leaves_room_to_decode(plain_bits: int) -> None:
    """The largest flood and the largest rounding together stay on the right side of the next sum."""
    half = flood_half_width(plain_bits)
    assert half > 4000
    assert (half + DEGREE // 2 + 2) * 2 * (1 << plain_bits) < PRIMES[0]
    secret = SecretContext(plain_bits)
    context = PublicContext(plain_bits, secret.public_bytes())
    for sign in (-1, 1):
        ciphertext = context.encrypt(np.full(DEGREE, (1 << plain_bits) - 1, np.uint64))
        context.switch_down(ciphertext)
        first, second = context.residues(ciphertext)[:, 0]
        moved = ((first.astype(np.int64) + sign * half) % PRIMES[0]).astype(np.uint64)
        opened = secret.decrypt(secret.read_extracted(second, np.arange(DEGREE), moved))
        assert (opened == (1 << plain_bits) - 1).all()
