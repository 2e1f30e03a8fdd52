"""The label holder's key of the totals goes to its own disk and back: the same pair, or a named error."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.crypto import totals
from fedcredit.crypto.bfv import PublicContext, SecretContext
from fedcredit.crypto.bfv_header import HEADER_BYTES
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.crypto.ternary import TERNARY_BYTES, unpack_ternary
from fedcredit.errors import BoundError, IntegrityError

BOUND = 1 << 30
RUN = "5e" * 32
OWNER_BYTES = 32
SECRET_AT = HEADER_BYTES + OWNER_BYTES
PUBLIC_AT = SECRET_AT + TERNARY_BYTES


@pytest.fixture(scope="module")
def secret() -> totals.TotalsSecret:
    return totals.TotalsSecret(BOUND)


@pytest.fixture(scope="module")
def kept(secret: totals.TotalsSecret) -> bytes:
    return secret.kept(RUN)


def sealed(secret: totals.TotalsSecret, body: bytes) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    return secret._context.seal(b"kept", body)


def test_the_same_pair_comes_back(secret: totals.TotalsSecret, kept: bytes) -> None:
    again = totals.TotalsSecret.restore(kept, BOUND, RUN)
    assert again.public_bytes() == secret.public_bytes()
    assert again.kept(RUN) == kept
    values = np.arange(-9000, 100, dtype=np.int64)
    before = totals.encrypt_partial(secret.public_bytes(), values, None, bound=BOUND)
    total = totals.add([before], secret.public_bytes(), bound=BOUND)
    assert np.array_equal(again.decrypt(total, len(values)), values)
    after = totals.encrypt_partial(again.public_bytes(), values, None, bound=BOUND)
    assert np.array_equal(secret.decrypt(totals.add([after], again.public_bytes(), bound=BOUND), len(values)), values)


def test_what_is_kept_is_the_secret_key(secret: totals.TotalsSecret, kept: bytes) -> None:
    """Its owner can print the key by other means: (0, q_0/t) decrypts to it."""
    context = secret._context
    scale = np.zeros(DEGREE, np.uint64)
    scale[0] = round(1152921504606683137 / context.plain_modulus)
    shown = context.decrypt(context.read_extracted(scale, np.array([0]), np.array([0], np.uint64))).astype(np.int64)
    key = np.where(shown == context.plain_modulus - 1, -1, shown)
    assert np.array_equal(unpack_ternary(kept[SECRET_AT:PUBLIC_AT]), key)
    assert kept[PUBLIC_AT:] == secret.public_bytes()


@pytest.mark.parametrize("bits", [2, 20, 46])
def test_pairs_of_every_modulus(bits: int) -> None:
    fresh = SecretContext(bits)
    again = SecretContext(bits, fresh.kept())
    assert again.public_bytes() == fresh.public_bytes()
    assert again.decrypt(PublicContext(bits, fresh.public_bytes()).encrypt(np.array([3, 1], np.uint64)))[
        :2
    ].tolist() == [
        3,
        1,
    ]


def test_it_serves_no_other_run(kept: bytes) -> None:
    for bound, run in ((BOUND, RUN[:-1]), (BOUND, ""), (BOUND + 1, RUN)):
        with pytest.raises(IntegrityError, match="another run or bound") as caught:
            totals.TotalsSecret.restore(kept, bound, run)
        assert caught.value.code == "totals.kept-run"
    with pytest.raises(IntegrityError, match="damaged"):
        totals.TotalsSecret.restore(kept, 1 << 20, RUN)  # other parameters
    with pytest.raises(BoundError):
        totals.TotalsSecret.restore(kept, 0, RUN)


@pytest.mark.parametrize("cut", [0, 1, HEADER_BYTES, SECRET_AT, PUBLIC_AT, -1])
def test_a_truncated_file_is_damaged(kept: bytes, cut: int) -> None:
    for data in (kept[:cut], kept + b"\x00"):
        with pytest.raises(IntegrityError, match="damaged"):
            totals.TotalsSecret.restore(data, BOUND, RUN)


@pytest.mark.parametrize("at", [0, 5, 20, HEADER_BYTES - 1, HEADER_BYTES, SECRET_AT, PUBLIC_AT, -1])
def test_a_flipped_bit_is_damaged(kept: bytes, at: int) -> None:
    data = bytearray(kept)
    data[at] ^= 1
    with pytest.raises(IntegrityError, match="damaged"):
        totals.TotalsSecret.restore(bytes(data), BOUND, RUN)


def test_a_checksum_alone_is_not_believed(secret: totals.TotalsSecret, kept: bytes) -> None:
    owner, key, public = kept[HEADER_BYTES:SECRET_AT], kept[SECRET_AT:PUBLIC_AT], kept[PUBLIC_AT:]
    assert totals.TotalsSecret.restore(sealed(secret, owner + key + public), BOUND, RUN).public_bytes() == public
    other = totals.TotalsSecret(BOUND).kept(RUN)
    moved = key[:8] + bytes([key[8] ^ (1 if key[8] & 3 == 0 else key[8] & 3)]) + key[9:]  # one coefficient
    assert unpack_ternary(moved).tolist() != unpack_ternary(key).tolist()
    cases = [
        (owner + key + other[PUBLIC_AT:], "not that of the secret key"),
        (owner + other[SECRET_AT:PUBLIC_AT] + public, "not that of the secret key"),
        (owner + moved + public, "not that of the secret key"),
        (owner + bytes(TERNARY_BYTES) + public, "a secret key that is zero"),
        (owner + key[:-1] + b"\xff" + public, "coefficient other than"),
        (owner + key + public[:-1] + bytes([public[-1] ^ 1]), "public key is damaged"),
        (owner + key + totals.TotalsSecret(1 << 20).public_bytes(), "public key is damaged"),
    ]
    for body, text in cases:
        with pytest.raises(IntegrityError, match=text):
            totals.TotalsSecret.restore(sealed(secret, body), BOUND, RUN)


def test_a_pair_of_another_length_is_refused(kept: bytes) -> None:
    for data in (b"", kept[SECRET_AT:-1]):
        with pytest.raises(IntegrityError, match=f"{SecretContext.KEPT_BYTES} expected"):
            SecretContext(31, data)


def test_nothing_shows_it(secret: totals.TotalsSecret, kept: bytes) -> None:
    key = kept[SECRET_AT:PUBLIC_AT]
    assert repr(totals.TotalsSecret.restore(kept, BOUND, RUN)) == f"TotalsSecret(bound={BOUND})"
    public = secret.public_bytes()
    assert not [at for at in range(0, len(key), 16) if key[at : at + 16] in public]
