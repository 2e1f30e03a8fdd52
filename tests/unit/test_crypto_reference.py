"""The reference string: agreed, unforeseeable, never from one party; expanded without bias."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedcredit.crypto import sampling
from fedcredit.crypto.profiles import derive
from fedcredit.crypto.reference import check_commitment, commit, reference_seed
from fedcredit.crypto.sampling import reference_string, shake_residues
from fedcredit.errors import BoundError, PeerError

NONCES = {"bank": b"\x01" * 32, "tax": b"\x02" * 32, "grid": b"\x03" * 32}
PARAMETERS = derive("rlwe-8192", 9000, 100)
SEED = bytes(range(32))


def seed(**changes: object) -> bytes:
    given: dict[str, object] = {
        "run_digest": "ab" * 32,
        "roster": ("bank", "grid", "tax"),
        "parameters_digest": PARAMETERS.digest(),
        "nonces": NONCES,
        "purpose": "bin",
    }
    return reference_seed(**(given | changes))  # type: ignore[arg-type]


def test_commitment_opens_with_its_nonce_only() -> None:
    commitment = commit(NONCES["bank"])
    check_commitment(commitment, NONCES["bank"])
    with pytest.raises(PeerError, match="not the one"):
        check_commitment(commitment, NONCES["tax"])
    with pytest.raises(PeerError, match="32 are needed"):
        check_commitment(commitment, b"short")


def test_seed_depends_on_everything_agreed() -> None:
    other = derive("rlwe-8192", 9000, 1000).digest()
    changed = [
        seed(),
        seed(run_digest="ac" * 32),
        seed(parameters_digest=other),
        seed(purpose="boost"),
        seed(roster=("bank", "tax"), nonces={name: NONCES[name] for name in ("bank", "tax")}),
    ]
    changed += [seed(nonces=NONCES | {name: b"\x09" * 32}) for name in NONCES]
    assert len(set(changed)) == len(changed)


def test_seed_does_not_depend_on_the_order_of_the_roster() -> None:
    assert seed(roster=("tax", "bank", "grid")) == seed()


@pytest.mark.parametrize(
    "changes",
    [
        {"roster": ("bank", "bank", "tax", "grid")},
        {"roster": ()},
        {"nonces": {"bank": NONCES["bank"]}},
        {"nonces": NONCES | {"stranger": b"\x07" * 32}},
        {"nonces": NONCES | {"tax": b"\x07" * 31}},
        {"nonces": NONCES | {"tax": NONCES["bank"]}},
    ],
)
def test_seed_refuses_a_roster_that_does_not_match(changes: dict[str, object]) -> None:
    with pytest.raises(PeerError):
        seed(**changes)


def test_residues_are_uniform_and_rejected_not_reduced() -> None:
    modulus = (1 << 27) - (1 << 25)  # a reduction modulo this would double the weight of the lowest third
    drawn = shake_residues(SEED, b"x", modulus, 100_000)
    counts = np.bincount((drawn.astype(np.uint64) * 12 // modulus).astype(np.int64), minlength=12)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_residues_equal_a_literal_reading_of_the_rule() -> None:
    stream = hashlib.shake_128((32).to_bytes(8, "little") + SEED + b"label").digest(4 * 40_000)
    words = [int.from_bytes(stream[i : i + 4], "little") & (1 << 27) - 1 for i in range(0, len(stream), 4)]
    twin = [word for word in words if word < 100_000_000][:20_000]
    assert shake_residues(SEED, b"label", 100_000_000, 20_000).tolist() == twin


def test_string_depends_on_seed_and_parameters_and_has_distinct_parts() -> None:
    string = reference_string(PARAMETERS, SEED)
    assert string.vector.shape == (2, 5, 8192)
    for at, p in enumerate(PARAMETERS.primes):
        assert int(string.vector[:, at].max()) < p
    again, other = reference_string(PARAMETERS, SEED), reference_string(PARAMETERS, bytes(32))
    assert np.array_equal(again.vector, string.vector)
    assert again.digest == string.digest
    assert not np.array_equal(other.vector, string.vector)
    sized = reference_string(derive("rlwe-8192", 9000, 1000), SEED)
    assert len({string.digest, other.digest, sized.digest}) == 3
    parts = [string.vector[0, 0], string.vector[1, 0], string.vector[0, 1], string.alpha[0, 0], string.alpha[1, 0]]
    assert len({part.tobytes() for part in parts}) == len(parts)


def test_alpha_two_is_drawn_again_until_it_is_invertible(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[bytes] = []
    draw = shake_residues

    def stumbling(seed: bytes, label: bytes, modulus: int, count: int) -> NDArray[np.uint32]:
        labels.append(label)
        found = draw(seed, label, modulus, count).copy()
        if b"alpha-2/0/" in label or b"alpha-2/1/" in label:
            found[17] = 0
        return found

    monkeypatch.setattr(sampling, "shake_residues", stumbling)
    string = reference_string(PARAMETERS, SEED)
    assert np.all(string.alpha[1])
    assert any(b"alpha-2/2/" in label for label in labels)
    assert not any(b"alpha-2/3/" in label for label in labels)


def test_a_short_seed_is_refused() -> None:
    with pytest.raises(BoundError):
        reference_string(PARAMETERS, b"short")
