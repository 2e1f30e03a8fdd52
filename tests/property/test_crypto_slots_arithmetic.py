"""Slots multiply slot by slot, as the library's own do; residues and floods are those of the integers drawn."""

from __future__ import annotations

import numpy as np
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.crypto.prg import SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.slots_arithmetic import (
    centred,
    from_slots,
    residues_of,
    to_slots,
    uniform_flood,
    uniform_residues,
)
from fedcredit.crypto.slots_parameters import FLOOD_BITS, MODULUS, PARAMETERS, VALUE_BOUND

U64 = NDArray[np.uint64]


def drawn(seed: int, blocks: int) -> U64:
    values = np.random.default_rng(seed).integers(0, MODULUS, (blocks, DEGREE)).astype(np.uint64)
    values[0, :3] = [0, MODULUS - 1, 1]
    return values


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), blocks=st.integers(1, 3))
def test_there_and_back(seed: int, blocks: int) -> None:
    values = drawn(seed, blocks)
    coefficients = from_slots(values)
    assert int(coefficients.max()) < MODULUS
    assert np.array_equal(to_slots(coefficients), values)
    assert np.array_equal(from_slots(to_slots(values)), values)
    extreme = np.full((1, DEGREE), MODULUS - 1, np.uint64)
    assert np.array_equal(to_slots(from_slots(extreme)), extreme)


def test_each_slot_is_the_value_at_a_root_of_its_own() -> None:
    """The slots are the values at the N roots of X^N + 1, so that products modulo X^N + 1 are products of slots."""
    variable = np.zeros((1, DEGREE), np.uint64)
    variable[0, 1] = 1
    roots = to_slots(variable)[0]
    assert len(np.unique(roots)) == DEGREE
    assert all(pow(int(root), DEGREE, MODULUS) == MODULUS - 1 for root in roots[:50])
    values = drawn(3, 1)
    coefficients = from_slots(values)[0].tolist()
    for place in (0, 1, 4095, DEGREE - 1):
        root, value = int(roots[place]), 0
        for coefficient in reversed(coefficients):
            value = (value * root + coefficient) % MODULUS
        assert value == values[0, place]


def test_the_slots_are_those_of_the_library() -> None:
    """In another order, which is a matter of its own: the polynomials of its slots have the same set of values."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, [p.bit_length() for p in PARAMETERS.primes]))
    parameters.set_plain_modulus(seal.Modulus(MODULUS))
    encoder = seal.BatchEncoder(seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128))
    values = np.unique(drawn(4, 1)).astype(np.uint64)
    values = np.concatenate([values, np.zeros(DEGREE - len(values), np.uint64)])
    plain = seal.Plaintext()
    encoder.encode(values.tolist(), plain)
    coefficients = np.array([[plain[k] for k in range(int(plain.coeff_count()))]], dtype=np.uint64)
    assert np.array_equal(np.sort(to_slots(coefficients)[0]), np.sort(values))


@given(value=st.integers(-(1 << 62), 1 << 62))
def test_residues_of_integers(value: int) -> None:
    assert int(residues_of(np.array([value]))[0]) == value % MODULUS


@given(value=st.integers(-VALUE_BOUND, VALUE_BOUND))
def test_integers_of_residues(value: int) -> None:
    assert centred(residues_of(np.array([value]))).tolist() == [value]


def test_a_flood_is_one_integer_modulo_every_prime() -> None:
    flood = uniform_flood(UnsafeSeededEntropy(b"f" * 32), 2000)
    words = np.frombuffer(UnsafeSeededEntropy(b"f" * 32).take(32_000), "<u8").reshape(-1, 2).tolist()
    integers = [(high % (1 << (FLOOD_BITS + 1 - 64)) << 64) + low - (1 << FLOOD_BITS) for low, high in words]
    for row, prime in zip(flood, PARAMETERS.data, strict=True):
        assert row.tolist() == [integer % prime for integer in integers]
    assert max(integers) > 0.99 * (1 << FLOOD_BITS)
    assert min(integers) < -0.99 * (1 << FLOOD_BITS)


def test_extreme_words_of_a_flood() -> None:
    class Fixed:
        def __init__(self, byte: int) -> None:
            self._byte = byte

        def take(self, size: int) -> bytes:
            return bytes([self._byte]) * size

    for byte, integer in ((0, -(1 << FLOOD_BITS)), (255, (1 << FLOOD_BITS) - 1)):
        assert uniform_flood(Fixed(byte), 1)[:, 0].tolist() == [integer % prime for prime in PARAMETERS.data]


def test_uniform_residues_are_uniform_and_rejected_when_too_large() -> None:
    seen = uniform_residues(UnsafeSeededEntropy(b"u" * 32), 64_000)
    counts = np.bincount((seen * np.uint64(64) // np.uint64(MODULUS)).astype(np.int64), minlength=64)
    assert 30 < float(((counts - 1000.0) ** 2 / 1000.0).sum()) < 110  # 63 degrees of freedom; fixed seed
    assert int(seen.max()) < MODULUS

    class Large:
        def __init__(self) -> None:
            self.calls = 0

        def take(self, size: int) -> bytes:
            self.calls += 1
            return (MODULUS if self.calls == 1 else 5).to_bytes(8, "little") * (size // 8)

    assert uniform_residues(Large(), 3).tolist() == [5, 5, 5]
    assert len(np.unique(uniform_residues(SystemEntropy(), 1000))) > 990
