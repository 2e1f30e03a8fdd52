"""Shares, boxes, fixed point, words and ciphertexts of secure sums."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.crypto.boxes import BoxKey, joined
from fedcredit.crypto.fixed_point import check_no_overflow, fixed_bound, from_fixed, to_fixed
from fedcredit.crypto.masks import MaskRoster
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.secure_sum import (
    MOST_ENCRYPTED,
    CipherAdder,
    GroupCipher,
    SumShape,
    add_words,
    mask_vector,
    masks_left,
    pair_key,
    read_total,
    read_words,
    seed_digest,
    threshold,
    word_bits,
    write_words,
)
from fedcredit.crypto.shares import (
    FIELD_PRIME,
    combine,
    read_share,
    secret_of,
    split,
    weighted,
    weights,
    write_share,
)
from fedcredit.errors import BoundError, DataError, PeerError


class Words:
    """Entropy that gives listed integers, 33 bytes each."""

    def __init__(self, *values: int) -> None:
        self._data = b"".join(value.to_bytes(33, "little") for value in values)

    def take(self, size: int) -> bytes:
        found, self._data = self._data[:size], self._data[size:]
        return found


def test_the_field_is_one() -> None:
    """Fermat to many bases, and the largest such number below 2^257."""

    def passes(number: int) -> bool:
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):  # Miller and Rabin
            value = pow(base, odd, number)
            if value not in (1, number - 1) and not any(
                (value := value * value % number) == number - 1 for _ in range(twos - 1)
            ):
                return False
        return True

    assert passes(FIELD_PRIME)
    assert not any(passes(number) for number in range(FIELD_PRIME + 2, 1 << 257, 2))
    assert FIELD_PRIME > 1 << 256


def test_shares_by_hand() -> None:
    """Secret 5, polynomial 5 + 3x + 2x^2: values 10, 19, 32, 49 at 1 to 4."""
    shares = split((5).to_bytes(32, "little"), 3, 4, Words(2, 3))
    assert shares == [10, 19, 32, 49]
    assert weights([1, 2, 3]) == [3, FIELD_PRIME - 3, 1]
    for places in itertools.combinations(range(1, 5), 3):
        assert combine({place: shares[place - 1] for place in places}) == 5
    assert combine({1: 10, 2: 19}) == 1, "two of three give the line through them, not the secret"


@given(st.binary(min_size=32, max_size=32), st.integers(1, 40), st.integers(0, 40), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_any_threshold_of_shares_give_the_secret(secret: bytes, needed: int, more: int, luck: object) -> None:
    shares = split(secret, needed, needed + more, UnsafeSeededEntropy(secret))
    places = sorted(luck.sample(range(1, needed + more + 1), needed))  # type: ignore[attr-defined]
    assert secret_of(combine({place: shares[place - 1] for place in places})) == secret
    assert [read_share(write_share(share)) for share in shares] == shares


def test_fewer_shares_fit_every_secret() -> None:
    """For two shares of three and any secret there is exactly one polynomial: shares say nothing."""
    shares = split(bytes(32), 3, 5, UnsafeSeededEntropy(bytes(32)))
    for secret in (0, 1, FIELD_PRIME - 1):
        third = next(share for share in [(secret - weighted(weights([1, 2, 3])[:2], shares[:2])) % FIELD_PRIME]) * pow(
            weights([1, 2, 3])[2], -1, FIELD_PRIME
        )
        assert combine({1: shares[0], 2: shares[1], 3: third % FIELD_PRIME}) == secret


def test_combining_is_linear() -> None:
    entropy = UnsafeSeededEntropy(b"\7" * 32)
    first, second = (split(bytes([at]) * 32, 3, 5, entropy) for at in (1, 2))
    blinded = {place: (first[place - 1] + second[place - 1]) % FIELD_PRIME for place in (1, 3, 5)}
    pads = combine({place: second[place - 1] for place in (1, 3, 5)})
    assert secret_of((combine(blinded) - pads) % FIELD_PRIME) == b"\1" * 32


def test_malformed_shares_are_refused() -> None:
    with pytest.raises(PeerError, match=r"shares\.share"):
        read_share(FIELD_PRIME.to_bytes(33, "little"))
    with pytest.raises(PeerError, match=r"shares\.share"):
        read_share(bytes(32))
    with pytest.raises(PeerError, match=r"shares\.secret"):
        secret_of(1 << 256)
    for places in ([], [1, 1], [0, 1], [1, 1 << 17]):
        with pytest.raises(BoundError, match=r"shares\.places"):
            weights(places)
    for secret, needed, count in ((bytes(31), 2, 3), (bytes(32), 0, 3), (bytes(32), 4, 3)):
        with pytest.raises(BoundError):
            split(secret, needed, count, UnsafeSeededEntropy(bytes(32)))


def test_boxes_open_for_their_reader_and_place_alone() -> None:
    a, b, c = (BoxKey(bytes([at]) * 32) for at in (1, 2, 3))
    box = a.seal(b.public, b"here", b"content")
    assert b.open(a.public, b"here", box) == b"content"
    for reader, writer, place, data in (
        (c, a.public, b"here", box),
        (b, c.public, b"here", box),
        (b, a.public, b"there", box),
        (b, a.public, b"here", box[:-1]),
        (b, a.public, b"here", b""),
        (a, b.public, b"here", box),
    ):
        with pytest.raises(PeerError, match=r"boxes\.forged"):
            reader.open(writer, place, data)
    for key in (bytes(31), b"\xff" * 32, a.public):
        with pytest.raises(PeerError, match=r"boxes\.key"):
            a.seal(key, b"here", b"content")
    with pytest.raises(PeerError, match=r"boxes\.low-order"):
        a.seal(bytes(32), b"here", b"content")
    assert "secret" in repr(a)


def test_keys_of_boxes_are_those_of_the_standard() -> None:
    """Extraction once a peer and one block of expansion are HKDF as the library has it."""
    a, b = BoxKey(b"\1" * 32), BoxKey(b"\2" * 32)
    shared = X25519PrivateKey.from_private_bytes(b"\1" * 32).exchange(X25519PublicKey.from_public_bytes(b.public))
    info = joined(b"fedcredit/boxes/v1", a.public, b.public, b"here")
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)
    assert ChaCha20Poly1305(key).encrypt(bytes(12), b"content", None) == a.seal(b.public, b"here", b"content")
    assert BoxKey(b"\2" * 32, b.links).open(a.public, b"here", a.seal(b.public, b"here", b"content")) == b"content"
    assert a.links.keys() == {b.public}


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
    st.integers(0, 30),
    st.floats(0.001, 1000),
    st.integers(1, 9),
)
@settings(max_examples=80, deadline=None)
def test_totals_in_fixed_point_are_off_by_half_a_unit_a_value(
    values: list[float], bits: int, clip: float, banks: int
) -> None:
    array = np.array(values)
    fixed = [to_fixed(array * (at + 1) / banks, bits, clip) for at in range(banks)]
    assert max(int(np.abs(one).max()) for one in fixed) <= fixed_bound(bits, clip)
    total = from_fixed(np.sum(fixed, axis=0), bits)
    exact = np.sum([np.clip(array * (at + 1) / banks, -clip, clip) for at in range(banks)], axis=0)
    assert float(np.abs(total - exact).max()) <= (banks / 2) * 2.0**-bits + 1e-9


def test_what_is_no_number_is_refused_without_its_value() -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(DataError, match=r"update: 1 of 3 are not finite, first number 1"):
            to_fixed(np.array([1.0, wrong, 2.0]), 16, 1.0, "update")
    for bits, clip in ((-1, 1.0), (53, 1.0), (16, 0.0), (16, np.nan), (16, np.inf), (40, 1e6)):
        with pytest.raises(BoundError):
            to_fixed(np.zeros(1), bits, clip)
    assert to_fixed(np.array([0.5, 1.5, -0.5, 9.0, -9.0]), 0, 4.0).tolist() == [0, 2, 0, 4, -4]


def test_overflow_is_an_error() -> None:
    check_no_overflow(3, 10, 6)
    for members, bound, bits in ((4, 8, 6), (1, 32, 6), (0, 1, 6)):
        with pytest.raises(BoundError, match=r"fixed\.overflow"):
            check_no_overflow(members, bound, bits)
    assert word_bits(10, 1 << 30) == 35
    assert word_bits(3, 1) == 16
    assert word_bits(2, (1 << 62) - 1) == 64
    with pytest.raises(BoundError, match=r"secure_sum\.bound"):
        word_bits(4, 1 << 62)


@pytest.mark.parametrize("colluding", [0, 1, 2, 4])
def test_thresholds_hold_what_they_promise(colluding: int) -> None:
    least = max(3, colluding + 2)
    for members in range(least, 120):
        needed = threshold(members, colluding, least)
        assert least <= needed <= members
        assert 2 * needed > members + colluding
        honest, margin = members - colluding, 2 * needed - members - colluding
        assert -(-honest * margin // (needed - colluding)) >= least - colluding
    assert [threshold(members, 1, 3) for members in (3, 4, 5, 8, 98)] == [3, 3, 4, 5, 50]
    for members, bad, floor in ((2, 1, 3), (5, 2, 3), (2000, 1, 3)):
        with pytest.raises(BoundError, match=r"secure_sum\.floor"):
            threshold(members, bad, floor)


def opened_by_lists(members: int, colluding: int, shares: int) -> tuple[bool, int]:
    """Over all lists that honest members of one roster can be told: both secrets of one opened; fewest in a total."""
    honest = range(members - colluding)
    told = [
        [
            frozenset((own, *others))
            for size in range(shares - 1, members)
            for others in itertools.combinations([one for one in range(members) if one != own], size)
        ]
        for own in honest
    ]
    both, fewest = False, members
    for lists in itertools.product(*told):
        named = [sum(one in answered for answered in lists) for one in honest]
        seeds = {one for one in honest if named[one] + colluding >= shares}
        pairs = {one for one in honest if len(lists) - named[one] + colluding >= shares}
        both = both or bool(seeds & pairs)
        if seeds and seeds | pairs == set(honest):
            fewest = min(fewest, len(seeds))
    return both, fewest


@pytest.mark.parametrize(("members", "colluding"), [(3, 1), (4, 1), (5, 1), (4, 2), (5, 2)])
def test_no_lists_open_both_secrets_or_a_total_over_few(members: int, colluding: int) -> None:
    least = max(3, colluding + 2)
    needed = threshold(members, colluding, least)
    both, fewest = opened_by_lists(members, colluding, needed)
    assert not both
    assert fewest >= least - colluding


def test_a_share_fewer_would_open_both() -> None:
    both, _ = opened_by_lists(5, 1, threshold(5, 1, 3) - 1)
    assert both


@pytest.mark.parametrize("bits", [16, 23, 40, 46, 47, 64])
def test_ciphertexts_add_up(bits: int) -> None:
    shape = SumShape(8200, 100, bits)
    rng = np.random.default_rng(bits)
    words = [rng.integers(0, 1 << bits, 8200, dtype=np.uint64) for _ in range(5)]
    expected = np.sum(words, axis=0, dtype=np.uint64) & shape.mask
    cipher, adder = GroupCipher(b"\3" * 32), CipherAdder()
    total = adder.add([GroupCipher(b"\3" * 32).encrypt(one, shape) for one in words], shape)
    assert np.array_equal(cipher.decrypt(total, shape), expected)
    assert np.array_equal(add_words([write_words(one, bits) for one in words], shape), expected)
    assert not np.array_equal(GroupCipher(b"\4" * 32).decrypt(total, shape), expected)


def test_as_many_ciphertexts_as_are_proven_add_up() -> None:
    shape = SumShape(8192, 1, 64)
    cipher, adder = GroupCipher(b"\3" * 32), CipherAdder()
    body = cipher.encrypt(np.full(8192, (1 << 64) - 1, dtype=np.uint64), shape)
    other = cipher.encrypt(np.full(8192, (1 << 64) - 1, dtype=np.uint64), shape)
    total = cipher.decrypt(adder.add([body, other] * (MOST_ENCRYPTED // 2), shape), shape)
    assert np.array_equal(total, np.full(8192, (1 << 64) - MOST_ENCRYPTED, dtype=np.uint64))
    with pytest.raises(BoundError, match=r"secure_sum\.parts"):
        adder.add([body] * (MOST_ENCRYPTED + 1), shape)
    for wrong in (body[:-1], b"", body[:80] + bytes([body[80] ^ 1]) + body[81:]):
        with pytest.raises(PeerError, match=r"bfv\."):
            adder.check(wrong, shape)


def test_masks_come_off_whoever_is_missing() -> None:
    names, shape = ["a", "b", "c", "d"], SumShape(50, 9, 16)
    secrets = {name: bytes([at + 1]) * 32 for at, name in enumerate(names)}
    seeds = {name: bytes([at + 9]) * 32 for at, name in enumerate(names)}
    roster = MaskRoster("run", "1", {name: pair_key(secret).public_bytes() for name, secret in secrets.items()})
    values = {name: np.arange(50) % 19 - 9 for name in names}
    sent = {
        name: mask_vector(values[name], pair_key(secrets[name]), seeds[name], roster, name, shape) for name in names
    }
    for size in range(1, 5):
        for there in itertools.combinations(names, size):
            summed = np.sum([sent[name] for name in there], axis=0, dtype=np.uint64)
            gone = {name: secrets[name] for name in names if name not in there}
            left = masks_left({name: seeds[name] for name in there}, gone, roster, shape)
            total = read_total((summed - left) & shape.mask, size, shape)
            assert np.array_equal(total, size * values["a"])
    with pytest.raises(BoundError, match=r"secure_sum\.value"):
        mask_vector(np.full(50, 10), pair_key(secrets["a"]), seeds["a"], roster, "a", shape)
    with pytest.raises(BoundError, match=r"secure_sum\.shape"):
        mask_vector(np.zeros(49, dtype=np.int64), pair_key(secrets["a"]), seeds["a"], roster, "a", shape)
    assert seed_digest(seeds["a"]) != seed_digest(seeds["b"])


def test_malformed_words_are_refused() -> None:
    shape = SumShape(4, 9, 17)
    assert read_words(write_words(np.arange(4, dtype=np.uint64), 17), shape).tolist() == [0, 1, 2, 3]
    with pytest.raises(PeerError, match=r"secure_sum\.length"):
        read_words(bytes(11), shape)
    with pytest.raises(PeerError, match=r"secure_sum\.word"):
        read_words(b"\xff" * 12, shape)
    with pytest.raises(PeerError, match=r"secure_sum\.range"):
        read_total(np.array([19, 0, 0, 0], dtype=np.uint64), 2, shape)
    for length, bound, bits in ((0, 1, 16), (1, 0, 16), (1, 1, 15), (1, 1, 65), ((1 << 24) + 1, 1, 16)):
        with pytest.raises(BoundError, match=r"secure_sum\.shape"):
            SumShape(length, bound, bits)
