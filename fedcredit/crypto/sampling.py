"""The common reference string: uniform polynomials that both sides expand from one public seed.

Every residue is a 27-bit word of a SHAKE-128 stream, kept when it is below its prime: unbiased, and the same on every
machine. A uniform polynomial is uniform in the transformed order too, so it is drawn there and never transformed.

Source: FIPS 202 (SHAKE-128); the rejection rule is that of FIPS 203 section 4.2.2 (SampleNTT).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.crypto.profiles import GroupSumParameters
from fedcredit.crypto.ring import U32
from fedcredit.errors import BoundError

__all__ = ["ReferenceString", "reference_string", "shake_residues"]

_LABEL = b"fedcredit/reference/string/v1"
_SPARE = 64  # words: at least 0.7 % of them are rejected, and asking again costs a whole new stream


@dataclass(frozen=True)
class ReferenceString:
    """The string, in transformed order, reduced.

    Args:
        vector: uint32 (J, L, N): a_1..a_J.
        alpha: uint32 (2, L, N): alpha_1, and alpha_2, which is invertible.
        digest: 32 bytes that name it; every message of the group sum carries them.
    """

    vector: U32
    alpha: U32
    digest: bytes


def shake_residues(seed: bytes, label: bytes, modulus: int, count: int) -> U32:
    """``count`` independent values uniform in [0, modulus) from SHAKE-128 of seed and label; uint32 (count,)."""
    shake = hashlib.shake_128(len(seed).to_bytes(8, "little") + seed + label)
    mask = np.uint32((1 << (modulus - 1).bit_length()) - 1)
    words = count + count // 64 + _SPARE
    while True:
        # A longer digest begins with the shorter one: asking again changes nothing that was drawn before.
        drawn = np.frombuffer(shake.digest(4 * words), dtype="<u4") & mask
        kept = drawn[drawn < modulus]
        if len(kept) >= count:
            return np.asarray(kept[:count], dtype=np.uint32)
        words *= 2


def reference_string(parameters: GroupSumParameters, seed: bytes) -> ReferenceString:
    """Expands the reference string of a run from its agreed seed.

    Args:
        parameters: With ring and primes.
        seed: 32 bytes from `reference.reference_seed`; never bytes that one peer chose.

    Raises:
        BoundError: the seed has not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise BoundError("reference.seed", f"a reference seed of {len(seed)} bytes was given, {SEED_BYTES} are needed")
    bound = seed + parameters.digest()
    shape = (len(parameters.primes), parameters.degree)
    vector = np.empty((parameters.blocks, *shape), dtype=np.uint32)
    for block in range(parameters.blocks):
        vector[block] = _polynomial(bound, parameters, f"a/{block}")
    alpha = np.empty((2, *shape), dtype=np.uint32)
    alpha[0] = _polynomial(bound, parameters, "alpha-1")
    attempt = 0
    while True:
        # Only an invertible alpha_2 makes the blinding of a hint a ring-LWE sample; all but one in 2^11 draws are.
        alpha[1] = _polynomial(bound, parameters, f"alpha-2/{attempt}")
        if np.all(alpha[1]):
            break
        attempt += 1
    digest = hashlib.sha256(_LABEL + b"/digest" + bound).digest()
    return ReferenceString(vector, alpha, digest)


def _polynomial(bound: bytes, parameters: GroupSumParameters, name: str) -> U32:
    rows = [shake_residues(bound, _LABEL + f"/{name}/{p}".encode(), p, parameters.degree) for p in parameters.primes]
    return np.stack(rows)
