"""Fixed points of what two parties must compute alike: streams, commitments, seeds, the reference string, a request.

The ChaCha20 keystream is that of RFC 8439, appendix A.1. The others are this product's own: a literal reading of the
rule, or a pinned value, so that a change is seen as what it is, a break of the wire.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from fedcredit.crypto.hinted import HintedAsker
from fedcredit.crypto.prg import expand
from fedcredit.crypto.profiles import derive
from fedcredit.crypto.reference import commit, reference_seed
from fedcredit.crypto.sampling import reference_string

SEED = bytes(range(32))


def test_keystream_is_that_of_rfc_8439() -> None:
    # Appendix A.1, test vector 1: zero key, zero nonce, block 0.
    stream = Cipher(algorithms.ChaCha20(bytes(32), bytes(16)), mode=None).encryptor().update(bytes(64))
    assert stream.hex().startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")


def test_expansion_is_hkdf_then_chacha20() -> None:
    # RFC 5869 with an absent salt: a string of HashLen zeros; one block of output.
    extracted = hmac.new(bytes(32), SEED, hashlib.sha256).digest()
    key = hmac.new(extracted, b"fedcredit/prg/v1/label\x01", hashlib.sha256).digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(100))
    assert expand(SEED, "label", 100) == stream


def test_commitment_and_seed_are_framed_hashes() -> None:
    def framed(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()

    assert commit(SEED) == framed(b"fedcredit/reference/commitment/v1", SEED)
    made = reference_seed("ab", ["b", "a"], b"p", {"a": SEED, "b": bytes(32)}, "bin")
    count = (2).to_bytes(8, "little")
    assert made == framed(b"fedcredit/reference/seed/v1", b"ab", b"p", b"bin", count, b"a", SEED, b"b", bytes(32))


def test_reference_string_is_pinned() -> None:
    string = reference_string(derive("rlwe-8192", 9000, 100), SEED)
    name = hashlib.sha256(string.vector.astype("<u4").tobytes() + string.alpha.astype("<u4").tobytes())
    assert name.hexdigest() == "7adf957439bd61959d4b72fc22f3242c9b898fee927c33ee3262fc87597a2647"
    assert string.digest.hex() == "a339f7e74c5bce30e519335d738150497d6a698dc906a1690ebc696c1df11923"


def test_request_is_pinned() -> None:
    asker = HintedAsker(derive("rlwe-8192", 9000, 100), SEED)
    request, _ = asker.encrypt(np.arange(9000, dtype=np.int64) % 201 - 100, SEED)
    assert len(request) == 102 + -(-(9000 + 2 * 8192) * 135 // 8)
    assert hashlib.sha256(request).hexdigest() == "e8a6980f59f73f779d60b6e45c2ec0f7b9e4439b75c4262d6e44f45e20998838"
