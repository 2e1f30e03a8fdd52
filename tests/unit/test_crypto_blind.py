"""Blinding commutes, keys are used once and shown to nobody, bits survive the way back, permutations are uniform."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.crypto import blind_group
from fedcredit.crypto.blind import BlindingKey, domain, hash_to_group
from fedcredit.crypto.blind_group import Bytes, times_base, validate
from fedcredit.crypto.blind_reply import ReplySecret, refresh, tell
from fedcredit.crypto.blind_shuffle import permutation, undo
from fedcredit.crypto.prg import SystemEntropy, UnsafeSeededEntropy
from fedcredit.errors import BoundError, IntegrityError, PeerError

ENTROPY = SystemEntropy()


class Zeros:
    """A source that is broken."""

    def take(self, size: int) -> bytes:
        return bytes(size)


def _points(count: int) -> Bytes:
    return hash_to_group([b"%d" % one for one in range(count)], domain("test", "run"))


@given(count=st.integers(0, 40), keys=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_any_order_of_keys_gives_the_same_tokens(count: int, keys: int) -> None:
    points = _points(count)
    made = [BlindingKey(ENTROPY) for _ in range(keys)]
    forward, backward = points, points
    for key in made:
        forward = key.start("forward").blind(forward)
    for key in reversed(made):
        backward = key.start("backward").blind(backward)
    assert np.array_equal(forward, backward)
    assert forward.shape == (count, 32)
    assert count == 0 or not np.array_equal(forward, points)


def test_every_core_gives_the_same_as_one_by_one() -> None:
    points = _points(5000)  # several blocks
    key = BlindingKey(UnsafeSeededEntropy(bytes(32)))
    whole = key.start("whole").blind(points)
    pieces = key.start("pieces")
    assert np.array_equal(whole, np.vstack([pieces.blind(points[at : at + 7]) for at in range(0, len(points), 7)]))
    assert len(np.unique(whole, axis=0)) == len(points)


def test_tags_keep_purposes_and_runs_apart() -> None:
    tags = {domain(purpose, run) for purpose in ("a", "b") for run in ("1", "2" * 1000)}
    assert len(tags) == 4
    assert max(len(tag) for tag in tags) <= 255
    assert len({hash_to_group([b"x"], tag).tobytes() for tag in tags}) == 4


def test_a_list_passes_a_key_once() -> None:
    key = BlindingKey(ENTROPY)
    key.start("bank").blind(_points(1))
    with pytest.raises(BoundError, match="bank was blinded before") as caught:
        key.start("bank")
    assert caught.value.code == "blind.reuse"
    key.start("tax")


def test_a_destroyed_key_blinds_nothing() -> None:
    key = BlindingKey(ENTROPY)
    begun = key.start("bank")
    key.destroy()
    for action in (lambda: key.start("tax"), lambda: begun.blind(_points(1))):
        with pytest.raises(BoundError) as caught:
            action()
        assert caught.value.code == "blind.destroyed"


@pytest.mark.parametrize("secret", [BlindingKey(ENTROPY), BlindingKey(ENTROPY).start("x"), ReplySecret(ENTROPY)])
def test_secrets_are_not_copied_stored_or_printed(secret: object) -> None:
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(BoundError) as caught:
            action(secret)
        assert caught.value.code == "blind.secret"
    assert "secret" in repr(secret)
    assert len(repr(secret)) < 30


def test_a_source_that_gives_zero_gives_no_key() -> None:
    with pytest.raises(BoundError) as caught:
        BlindingKey(Zeros())
    assert caught.value.code == "blind.key"


@pytest.mark.parametrize("at", [0, 2047, 2048, 4999])
def test_one_bad_point_among_many_is_found_and_named(at: int) -> None:
    points = np.repeat(_points(1), 5000, axis=0)
    points[at] = 0
    with pytest.raises(PeerError, match=f"item {at} is the identity") as caught:
        BlindingKey(ENTROPY).start("x").blind(points)
    assert caught.value.code == "blind.identity"
    points[at] = 255
    with pytest.raises(PeerError, match=f"item {at} is not canonical") as caught:
        validate(points)
    assert caught.value.code == "blind.encoding"


@given(bits=st.lists(st.booleans(), max_size=40), hops=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_bits_survive_the_way_back(bits: list[bool], hops: int) -> None:
    secret = ReplySecret(ENTROPY)
    wanted = np.array(bits, dtype=np.bool_)
    pairs = tell(wanted, secret.public, ENTROPY)
    for _ in range(hops):
        fresh = refresh(pairs, ENTROPY)
        assert not (fresh.reshape(-1, 32)[:, None] == pairs.reshape(-1, 32)[None]).all(axis=2).any()
        pairs = fresh
    assert np.array_equal(secret.read(pairs), wanted)
    assert not ReplySecret(ENTROPY).read(pairs).any()


def test_a_refreshed_pair_is_a_uniform_pair_with_the_same_bit() -> None:
    """A set bit after one honest party is ``(z·B, z·y·B)`` for a uniform z, whatever came in."""
    secret, seed = ReplySecret(ENTROPY), UnsafeSeededEntropy(bytes(32))
    pairs = refresh(tell(np.ones(2, dtype=np.bool_), secret.public, ENTROPY), seed)
    assert not np.array_equal(pairs[0], pairs[1])
    again = refresh(tell(np.ones(2, dtype=np.bool_), secret.public, ENTROPY), UnsafeSeededEntropy(bytes(32)))
    assert not np.array_equal(pairs, again)


def test_replies_with_bad_points_are_refused() -> None:
    secret = ReplySecret(ENTROPY)
    pairs = tell(np.zeros(3, dtype=np.bool_), secret.public, ENTROPY)
    for half in (slice(0, 32), slice(32, 64)):
        broken = pairs.copy()
        broken[1, half] = 0
        with pytest.raises(PeerError, match="item 1 is the identity"):
            refresh(broken, ENTROPY)
    with pytest.raises(PeerError):
        tell(np.ones(1, dtype=np.bool_), bytes(32), ENTROPY)
    with pytest.raises(PeerError):
        secret.read(np.zeros((1, 64), dtype=np.uint8))


def test_permutations_are_uniform() -> None:
    entropy = UnsafeSeededEntropy(b"\x01" * 32)
    draws = 24 * 200
    found = Counter(tuple(permutation(4, entropy).tolist()) for _ in range(draws))
    assert len(found) == 24
    chi = sum((count - 200) ** 2 / 200 for count in found.values())
    assert chi < 49.7  # 23 degrees of freedom: exceeded once in 1,000 seeds


@given(count=st.integers(0, 300))
def test_a_permutation_is_undone(count: int) -> None:
    order = permutation(count, ENTROPY)
    values = np.arange(count) * 7
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(values[order][undo(order)], values)


def test_equal_keys_are_drawn_again() -> None:
    class Tied:
        def __init__(self) -> None:
            self.draws = 0

        def take(self, size: int) -> bytes:
            self.draws += 1
            return bytes(size) if self.draws == 1 else bytes(range(size))

    source = Tied()
    assert permutation(3, source).tolist() == [0, 1, 2]
    assert source.draws == 2


def test_the_library_leaves_no_file_and_needs_no_directory_that_allows_execution() -> None:
    code = (
        "import os, tempfile; tempfile.tempdir = '/nowhere'\n"
        "from fedcredit.crypto.blind_group import library\n"
        "library(); maps = open('/proc/self/maps').read()\n"
        "assert 'memfd:libsodium' in maps and '/tmp' not in maps"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_without_the_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    blind_group.library.cache_clear()
    with pytest.raises(IntegrityError, match="rbcl") as caught:
        blind_group.library()
    assert caught.value.code == "blind.library"
    monkeypatch.undo()
    blind_group.library.cache_clear()
    assert times_base(np.eye(1, 32, dtype=np.uint8))[0, 0] == 0xE2
