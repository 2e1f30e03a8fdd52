"""The wrapper around SEAL: exact round trips, separate types, nothing left behind."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fedcredit.crypto.bfv import MAX_PLAIN_BITS, KeylessContext, PublicContext, SecretContext
from fedcredit.crypto.seal_format import DEGREE, PRIMES
from fedcredit.errors import BoundError, IntegrityError, PeerError


@pytest.fixture(scope="module")
def secret() -> SecretContext:
    return SecretContext(MAX_PLAIN_BITS)


@pytest.fixture(scope="module")
def public(secret: SecretContext) -> PublicContext:
    return PublicContext(MAX_PLAIN_BITS, secret.public_bytes())


def test_encryption_round_trips(secret: SecretContext, public: PublicContext) -> None:
    values = np.random.default_rng(1).integers(0, secret.plain_modulus, DEGREE).astype(np.uint64)
    values[:2] = [0, secret.plain_modulus - 1]
    by_key = public.encrypt(values)
    assert np.array_equal(secret.decrypt(by_key), values)
    seeded = public.read_seeded(secret.encrypt_seeded(values))
    public.leave_ntt(seeded)
    assert np.array_equal(secret.decrypt(seeded), values)
    places = np.array([0, 1, 4000, DEGREE - 1])
    assert np.array_equal(secret.decrypt_at(by_key, places), values[places])
    assert secret.decrypt_at(public.encrypt(values[:2]), places).tolist() == [*values[:2].tolist(), 0, 0]
    again = public.read_full(public.write_full(by_key))
    assert np.array_equal(secret.decrypt(again), values)
    public.switch_down(again)
    smaller = public.write_full(again)
    assert len(smaller) == public.full_size(switched=True) == public.full_size() // 2
    assert np.array_equal(secret.decrypt(public.read_full(smaller, switched=True)), values)


def test_a_product_is_the_negacyclic_one(secret: SecretContext, public: PublicContext) -> None:
    left = np.zeros(DEGREE, np.uint64)
    left[[0, 5]] = [7, 3]
    right = np.zeros(DEGREE, np.int64)
    right[[1, DEGREE - 1]] = [-2, 1]
    block = public.read_seeded(secret.encrypt_seeded(left))
    total = public.multiply_add(None, block, public.weights(right))
    total = public.multiply_add(total, block, public.weights(right))
    public.leave_ntt(total)
    expected = np.zeros(DEGREE, np.int64)
    expected[[1, 6, DEGREE - 1, 4]] = [-28, -12, 14, -6]  # x^8196 = -x^4
    assert np.array_equal(secret.decrypt(total), expected.astype(np.uint64) & np.uint64(secret.plain_modulus - 1))


def test_the_concealing_steps_keep_the_message(secret: SecretContext, public: PublicContext) -> None:
    ciphertext = public.encrypt(np.arange(DEGREE, dtype=np.uint64))
    before, budget = public.residues(ciphertext), secret.noise_budget(ciphertext)
    public.add_fresh_zero(ciphertext)
    assert not (public.residues(ciphertext) == before).any(axis=(0, 1)).any()
    public.add_values(ciphertext, np.full(DEGREE, 9, np.uint64))
    public.switch_down(ciphertext)
    assert np.array_equal(secret.decrypt(ciphertext), np.arange(DEGREE, dtype=np.uint64) + 9)
    assert budget > 60 > secret.noise_budget(ciphertext) >= 1


def test_encryptions_are_fresh(secret: SecretContext, public: PublicContext) -> None:
    values = np.zeros(DEGREE, np.uint64)
    assert secret.encrypt_seeded(values) != secret.encrypt_seeded(values)
    assert public.write_full(public.encrypt(values)) != public.write_full(public.encrypt(values))
    assert secret.public_bytes() != SecretContext(MAX_PLAIN_BITS).public_bytes()


def test_another_key_opens_nothing(public: PublicContext) -> None:
    opened = SecretContext(MAX_PLAIN_BITS).decrypt(public.encrypt(np.zeros(DEGREE, np.uint64)))
    assert np.count_nonzero(opened) > DEGREE - 10


@pytest.mark.parametrize("bits", [-1, 0, 1, 47, 60])
def test_plain_moduli_that_are_not_proven_are_refused(bits: int) -> None:
    with pytest.raises(BoundError, match=r"2\.\.46 are proven"):
        KeylessContext(bits)


def test_the_bound_of_the_plain_modulus_is_tight() -> None:
    rounding = DEGREE // 2 + 1
    assert rounding << (MAX_PLAIN_BITS + 1) < PRIMES[0] < rounding << (MAX_PLAIN_BITS + 2)


def test_values_beyond_the_modulus_are_refused(public: PublicContext) -> None:
    with pytest.raises(PeerError, match="SEAL refused a plaintext"):
        public.encrypt(np.array([public.plain_modulus], np.uint64))


def test_a_secret_context_is_not_stored(secret: SecretContext) -> None:
    assert repr(secret) == "SecretContext(plain_bits=46)"
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(BoundError, match="cannot be copied"):
            store(secret)


def test_only_the_secret_context_decrypts() -> None:
    for kind in (KeylessContext, PublicContext):
        assert not [name for name in dir(kind) if "decrypt" in name]
    assert not issubclass(SecretContext, PublicContext)


def test_a_refused_plaintext_leaves_the_context_usable(secret: SecretContext, public: PublicContext) -> None:
    with pytest.raises(PeerError):
        public.encrypt(np.array([public.plain_modulus], np.uint64))
    assert secret.decrypt(public.encrypt(np.array([5], np.uint64)))[0] == 5


def test_a_library_with_other_primes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedcredit.crypto import seal_format

    monkeypatch.setattr(seal_format, "PRIMES", (PRIMES[1], PRIMES[0], PRIMES[2]))
    with pytest.raises(IntegrityError, match="other than the documented"):
        KeylessContext(20)
