"""Each step that hides an answerer's values is wired: taken away, an attack succeeds; in place, it fails."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from fedcredit.crypto import slots
from fedcredit.crypto.bfv import Ciphertext, PublicContext
from fedcredit.crypto.bfv_header import HEADER_BYTES
from fedcredit.crypto.prg import Entropy, SystemEntropy
from fedcredit.crypto.seal_format import DEGREE, rows_size
from fedcredit.crypto.slots_arithmetic import centred, from_slots, residues_of, uniform_flood, uniform_residues
from fedcredit.crypto.slots_parameters import FLOOD_BITS, MODULUS, PARAMETERS
from fedcredit.crypto.ternary import TERNARY_BYTES, unpack_ternary

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Floats = NDArray[np.float64]

HEAD = 20
DIVISOR = math.prod(PARAMETERS.data[1:])


@dataclass(frozen=True)
class Scene:
    """One block of rows, one column of a holder, and an owner that attacks."""

    secret: slots.SlotsSecret
    context: PublicContext
    column: I64
    chosen: I64
    request: bytes
    key: Floats

    def answer(self) -> Ciphertext:
        """What `select` sends, read again."""
        sent = slots.select(self.secret.public_bytes(), self.request, self.column, None)
        size = 2 * rows_size(PARAMETERS.data[:1])
        return self.context.read_full(sent[HEADER_BYTES + HEAD :][:size], switched=True)

    def block(self) -> Ciphertext:
        return self.context.read_seeded(self.request[HEADER_BYTES + HEAD :])

    def product(self, column: I64) -> Ciphertext:
        """As the answerer makes it, before anything is concealed."""
        return self.context.multiply_add(None, self.block(), self.context.weights(coefficients(column)))

    def concealed(self) -> Ciphertext:
        return slots.conceal(self.context, self.product(self.column), None)


def coefficients(column: I64) -> I64:
    """The polynomial of one block of values, one a slot."""
    return np.asarray(from_slots(residues_of(column)[None])[0], dtype=np.int64)


@pytest.fixture(scope="module")
def scene() -> Scene:
    generator = np.random.default_rng(3)
    secret = slots.SlotsSecret()
    chosen = generator.integers(0, 2, DEGREE)
    context = PublicContext(PARAMETERS, secret.public_bytes())
    column, key = generator.integers(-100, 101, DEGREE), unpack_ternary(secret._context.kept()[:TERNARY_BYTES])
    return Scene(secret, context, column, chosen, secret.encrypt(chosen), key.astype(np.float64))


def chi_square(residues: U64, parts: int = 64) -> float:
    counts = np.bincount((residues.astype(object) * parts // MODULUS).astype(np.int64), minlength=parts)
    expected = len(residues) / parts
    return float(((counts - expected) ** 2 / expected).sum())


def negacyclic(left: Floats, right: Floats) -> Floats:
    full = scipy.signal.fftconvolve(left, right)
    full = np.concatenate([full, np.zeros(2 * DEGREE - len(full))])
    return np.asarray(full[:DEGREE] - full[DEGREE:])


def noise_of(scene: Scene, ciphertext: Ciphertext, message: U64) -> NDArray[np.object_]:
    """Exact noise: c0 + c1 s - q m / t, rounded, by the remainders modulo every prime left."""
    residues = scene.context.residues(ciphertext)
    primes = PARAMETERS.data[: residues.shape[1]]
    modulus, phase = math.prod(primes), np.zeros(DEGREE, dtype=object)
    for row, prime in enumerate(primes):
        product = np.zeros(DEGREE, dtype=object)
        for limb in range(4):  # 15 bits at a time, so that each convolution is exact in a float64
            part = (residues[1, row] >> np.uint64(15 * limb)) & np.uint64(0x7FFF)
            product += np.rint(negacyclic(part.astype(np.float64), scene.key)).astype(np.int64).astype(object) << (
                15 * limb
            )
        others = modulus // prime
        phase += (residues[0, row].astype(object) + product) % prime * (others * pow(others, -1, prime))
    scaled = (message.astype(object) * modulus + MODULUS // 2) // MODULUS
    noise = (phase - scaled) % modulus
    return np.array([value - modulus if value > modulus // 2 else value for value in noise], dtype=object)


def correlation(scene: Scene, ciphertext: Ciphertext) -> float:
    """Of the noise of an answer with what a right guess of the column predicts from the owner's own errors."""
    block = scene.block()
    scene.context.leave_ntt(block)
    message = from_slots(residues_of(scene.chosen)[None])[0]
    errors = noise_of(scene, block, message).astype(np.float64)
    assert 1 < np.abs(errors).max() <= 22  # at most 21 and one half, as the proof of the bound says
    guess = centred(residues_of(coefficients(scene.column))).astype(np.float64)
    result = from_slots(residues_of(scene.chosen * scene.column)[None])[0]
    seen = noise_of(scene, ciphertext, result).astype(np.float64)
    return float(np.corrcoef(seen, negacyclic(errors, guess))[0, 1])


def small_flood(bits: int) -> U64:
    drawn = np.random.default_rng(1).integers(-(1 << bits), 1 << bits, DEGREE)
    return np.stack([(drawn % prime).astype(np.uint64) for prime in PARAMETERS.data])


def test_a_guessed_column_cannot_be_confirmed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = scene.column.copy()
    wrong[17] += 1
    guesses = []
    for column in (scene.column, wrong):
        product = scene.product(column)
        scene.context.leave_ntt(product)
        scene.context.switch_down(product)
        guesses.append(scene.context.residues(product)[1, 0])
    sent = scene.context.residues(scene.answer())[1, 0]
    for other in (*guesses, scene.context.residues(scene.answer())[1, 0]):
        assert (sent == other).sum() < 3
    monkeypatch.setattr(PublicContext, "add_fresh_zero", lambda self, ciphertext: None)
    bare = scene.context.residues(scene.answer())[1, 0]
    assert np.array_equal(bare, guesses[0])
    assert (bare == guesses[1]).sum() < 3


def test_the_noise_says_nothing_of_the_column(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the switch, where the noise would be plain; a flood that is too narrow is found as well as none."""
    monkeypatch.setattr(PublicContext, "switch_down", lambda self, ciphertext: None)
    assert abs(correlation(scene, scene.concealed())) < 0.08  # seven standard deviations at 8192 coefficients
    for flood, least in ((small_flood(44), 0.9), (small_flood(20), 0.99)):
        monkeypatch.setattr(slots, "uniform_flood", lambda entropy, flood=flood: flood)
        assert correlation(scene, scene.concealed()) > least
    monkeypatch.setattr(PublicContext, "add_noise", lambda self, ciphertext, residues: None)
    assert correlation(scene, scene.concealed()) > 0.99


def test_an_answer_leaves_under_the_whole_flood(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    message = from_slots(residues_of(scene.chosen * scene.column)[None])[0]
    widest = (1 << FLOOD_BITS) // DIVISOR
    seen = noise_of(scene, scene.answer(), message).astype(np.float64) / widest
    assert 0.98 < np.abs(seen).max() < 1.02
    counts = np.bincount(np.clip((seen + 1) * 16, 0, 31).astype(int), minlength=32)
    assert float(((counts - DEGREE / 32) ** 2 / (DEGREE / 32)).sum()) < 90  # 31 degrees of freedom: once in 10^7
    monkeypatch.setattr(PublicContext, "add_noise", lambda self, ciphertext, residues: None)
    bare = noise_of(scene, scene.answer(), message).astype(np.float64)
    assert np.abs(bare).max() < 300  # rounding alone


def test_an_answer_is_switched(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = slots.select(scene.secret.public_bytes(), scene.request, scene.column, None)
    assert len(sent) == HEADER_BYTES + HEAD + 2 * rows_size(PARAMETERS.data[:1])
    monkeypatch.setattr(PublicContext, "switch_down", lambda self, ciphertext: None)
    sent = slots.select(scene.secret.public_bytes(), scene.request, scene.column, None)
    assert len(sent) == HEADER_BYTES + HEAD + 2 * rows_size(PARAMETERS.data)


def test_a_masked_product_is_uniform_to_the_owner(scene: Scene) -> None:
    """The worst case, a constant: values, chosen rows and bits of the result are unrelated."""
    constant = np.full(DEGREE, 7)
    masks = uniform_residues(SystemEntropy(), DEGREE)
    selection = slots.Selection(scene.secret.public_bytes(), scene.request)
    opened = scene.secret.open_masked(scene.request, selection.select(constant, masks))
    for part in (opened, opened[scene.chosen == 1], opened[scene.chosen == 0]):
        assert chi_square(part) < 140  # 63 degrees of freedom: once in 10^7
    bare = scene.secret.open_masked(scene.request, selection.select(constant, None))
    assert np.array_equal(bare, np.where(scene.chosen == 1, 7, 0))


@dataclass(frozen=True)
class Caught:
    """Ciphertexts of sums before they are cut to what leaves."""

    made: list[Ciphertext]

    def conceal(self, context: PublicContext, product: Ciphertext | None, masks: U64 | None) -> Ciphertext:
        self.made.append(CONCEAL(context, product, masks))
        return self.made[-1]


CONCEAL = slots.conceal


def catch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> tuple[U64, bytes]:
    """All coefficients of the sum of a vector that is 1 in its first row with a column, and what leaves."""
    vector = scene.secret.encrypt_vector((np.arange(DEGREE) == 0).astype(np.uint64))
    caught = Caught([])
    monkeypatch.setattr(slots, "conceal", caught.conceal)
    offsets = np.full((1, 1), 5, np.uint64)
    sent = slots.weighted_sums(scene.secret.public_bytes(), [vector], scene.column[:, None], offsets)
    assert int(scene.secret.open_sums([vector], sent, 1)[0, 0]) == (int(scene.column[0]) + 5) % MODULUS
    return scene.secret._context.decrypt(caught.made[0]), sent


def test_mixtures_of_rows_are_masked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    column = centred(residues_of(scene.column[::-1]))
    seen, _ = catch(scene, monkeypatch)
    assert (centred(seen)[:-1] == column[:-1]).sum() < 3
    assert chi_square(seen[:-1]) < 140
    again, _ = catch(scene, monkeypatch)
    assert (seen == again)[:-1].sum() < 3
    monkeypatch.setattr(slots, "uniform_residues", lambda entropy, count: np.zeros(count, np.uint64))
    bare, _ = catch(scene, monkeypatch)
    assert np.array_equal(centred(bare)[:-1], column[:-1])


def test_mixtures_of_rows_do_not_leave(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, independent step: without the masks what leaves still holds one residue a sum."""
    monkeypatch.setattr(slots, "uniform_residues", lambda entropy, count: np.zeros(count, np.uint64))
    _, sent = catch(scene, monkeypatch)
    assert len(sent) == HEADER_BYTES + HEAD + rows_size(PARAMETERS.data[:1]) + 8


def test_a_sum_leaves_under_the_whole_flood(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = scene.secret.encrypt_vector(np.ones(DEGREE, np.uint64))
    widest = (1 << FLOOD_BITS) // DIVISOR

    def noises() -> Floats:
        caught = Caught([])
        monkeypatch.setattr(slots, "conceal", caught.conceal)
        offsets = np.zeros((1, 12), np.uint64)
        columns = np.tile(scene.column[:, None], 12)
        slots.weighted_sums(scene.secret.public_bytes(), [vector], columns, offsets)
        opened = [scene.secret._context.decrypt(made) for made in caught.made]
        return np.array([float(noise_of(scene, m, o)[-1]) for m, o in zip(caught.made, opened, strict=True)])

    assert np.abs(noises()).max() > widest / 4  # missed once in 10^7
    monkeypatch.setattr(PublicContext, "add_noise", lambda self, ciphertext, residues: None)
    assert np.abs(noises()).max() < 300


def test_floods_and_masks_are_the_operating_systems(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[Entropy] = []

    def recorded(entropy: Entropy) -> U64:
        sources.append(entropy)
        return uniform_flood(entropy)

    monkeypatch.setattr(slots, "uniform_flood", recorded)
    scene.concealed()
    catch(scene, monkeypatch)
    assert len(sources) == 2
    assert all(isinstance(source, SystemEntropy) for source in sources)
