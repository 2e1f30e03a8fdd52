"""Bytes of a hostile peer end in a named error or in numbers, never in a crash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from fedcredit.crypto.bfv import PublicContext, SecretContext
from fedcredit.crypto.bfv_sum import BfvAnswerer, BfvAsker, BfvPending, unmask
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.profiles import BFV_8192, RLWE_8192, GroupSumParameters, derive
from fedcredit.crypto.seal_format import DEGREE, PRIMES, pack60, packed_size
from fedcredit.errors import BoundError, PeerError

ROWS, OUTPUTS, HEADER = 1500, 10, 56
PARAMETERS = derive(BFV_8192, ROWS, 100)
GROUPING = Grouping((np.arange(ROWS) % OUTPUTS).astype(np.int32)[:, None], (OUTPUTS,))
VALUES = np.arange(ROWS, dtype=np.int64) % 100


@dataclass
class Talk:
    asker: BfvAsker
    answerer: BfvAnswerer
    request: bytes
    pending: BfvPending
    answer: bytes


def begin(parameters: GroupSumParameters = PARAMETERS) -> Talk:
    asker = BfvAsker(parameters)
    asker.accept_hints("p", b"", OUTPUTS)
    answerer = BfvAnswerer(parameters, asker.setup(), GROUPING, SystemEntropy())
    request, pending = asker.encrypt(VALUES, os.urandom(32))
    return Talk(asker, answerer, request, pending, answerer.answer(request))


@pytest.fixture(scope="module")
def talk() -> Talk:
    return begin()


def readers(talk: Talk) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Every message, and who reads it."""
    return {
        "setup": (talk.asker.setup(), lambda data: BfvAnswerer(PARAMETERS, data, GROUPING, SystemEntropy())),
        "request": (talk.request, talk.answerer.answer),
        "answer": (talk.answer, lambda data: talk.pending.open("p", data)),
    }


MESSAGES = ["setup", "request", "answer"]


@pytest.mark.parametrize("name", MESSAGES)
def test_truncated_and_longer_bytes_are_refused(talk: Talk, name: str) -> None:
    good, read = readers(talk)[name]
    for size in (0, 1, 4, HEADER - 1, HEADER, HEADER + 1, len(good) // 2, len(good) - 8, len(good) - 1):
        with pytest.raises(PeerError, match="bytes"):
            read(good[:size])
    with pytest.raises(PeerError, match="bytes"):
        read(good + b"\x00")


@pytest.mark.parametrize("name", MESSAGES)
def test_every_flipped_bit_is_refused(talk: Talk, name: str) -> None:
    good, read = readers(talk)[name]
    generator = np.random.default_rng(1)
    places = [*range(0, HEADER, 5), *generator.integers(HEADER, len(good), 20).tolist(), len(good) - 1]
    for place in places:
        flipped = bytearray(good)
        flipped[place] ^= 1 << int(generator.integers(8))
        with pytest.raises(PeerError):
            read(bytes(flipped))


def sealed(context: PublicContext, kind: bytes, body: bytes) -> bytes:
    """A message whose header and checksum are right, as a hostile peer makes it."""
    return context.seal(kind, body)


@pytest.mark.parametrize("name", MESSAGES)
def test_crafted_bodies_do_not_crash(talk: Talk, name: str) -> None:
    good, read = readers(talk)[name]
    kind = {"setup": b"key", "request": b"req", "answer": b"ans"}[name]
    context = PublicContext(PARAMETERS.sum_bits, talk.asker.setup())
    generator = np.random.default_rng(2)
    for round_ in range(12):
        body = bytearray(good[HEADER:])
        start = 16 if name != "setup" and round_ % 2 else 0  # past the tag, so that what follows is read too
        if round_ < 4:
            body[start:] = generator.bytes(len(body) - start)
        elif round_ < 8:
            at = int(generator.integers(start, len(body) - 64))
            body[at : at + 64] = generator.bytes(64)
        else:
            body[start:] = bytes([(0, 255, 1, 128)[round_ - 8]]) * (len(body) - start)
        with contextlib.suppress(PeerError):  # any other exception fails
            read(sealed(context, kind, bytes(body)))
        talk.pending._opened.clear()


@pytest.mark.parametrize("name", MESSAGES)
def test_residues_of_another_range_are_refused(talk: Talk, name: str) -> None:
    good, read = readers(talk)[name]
    kind = {"setup": b"key", "request": b"req", "answer": b"ans"}[name]
    context = PublicContext(PARAMETERS.sum_bits, talk.asker.setup())
    start = HEADER + (0 if name == "setup" else 16)
    body = good[HEADER:start] + b"\xff" * 15 + good[start + 15 :]
    with pytest.raises(PeerError, match="not below its prime"):
        read(sealed(context, kind, body))


def test_an_output_out_of_range_is_refused(talk: Talk) -> None:
    context = PublicContext(PARAMETERS.sum_bits, talk.asker.setup())
    for value in (PRIMES[0], (1 << 64) - 1):
        body = talk.answer[HEADER:-8] + value.to_bytes(8, "little")
        with pytest.raises(PeerError, match="not below its prime"):
            talk.pending.open("p", sealed(context, b"ans", body))


def test_an_answer_that_encrypts_nothing_is_refused(talk: Talk) -> None:
    context = PublicContext(PARAMETERS.sum_bits, talk.asker.setup())
    nothing = bytes(packed_size(DEGREE))
    body = talk.answer[HEADER : HEADER + 16] + nothing + talk.answer[HEADER + 16 + len(nothing) :]
    with pytest.raises(PeerError, match="nothing is encrypted"):
        talk.pending.open("p", sealed(context, b"ans", body))


def test_a_ciphertext_without_second_half_is_refused() -> None:
    secret = SecretContext(20)
    context = PublicContext(20, secret.public_bytes())
    zero = np.zeros((2, 2, DEGREE), np.uint64)
    zero[0] = 5
    with pytest.raises(PeerError, match="the second not zero"):
        context.read_full(pack60(zero))


def test_crafted_ciphertexts_that_cancel_are_refused() -> None:
    secret = SecretContext(20)
    context = PublicContext(20, secret.public_bytes())
    ciphertext = context.encrypt(np.ones(DEGREE, np.uint64))
    residues = context.residues(ciphertext)
    primes = np.array(PRIMES[:2], np.uint64)[None, :, None]
    opposite = context.read_full(pack60(np.where(residues == 0, residues, primes - residues)))
    with pytest.raises(PeerError, match="SEAL refused adding"):
        context.add(ciphertext, opposite)


@pytest.mark.parametrize("name", MESSAGES)
def test_other_parameters_are_refused(talk: Talk, name: str) -> None:
    other = begin(derive(BFV_8192, ROWS, 10_000))
    _, read = readers(talk)[name]
    with pytest.raises(PeerError, match="parameters other than this run's"):
        read(readers(other)[name][0])


def test_messages_of_another_kind_are_refused(talk: Talk) -> None:
    with pytest.raises(PeerError, match="another kind"):
        talk.pending.open_masked("p", talk.answer)
    masked, _ = talk.answerer.answer_masked(talk.request)
    with pytest.raises(PeerError, match="another kind"):
        talk.pending.open("p", masked)


def test_a_request_under_another_key_is_refused(talk: Talk) -> None:
    with pytest.raises(PeerError, match="another key"):
        talk.answerer.answer(begin().request)


def test_an_answer_to_another_request_is_refused(talk: Talk) -> None:
    request, _ = talk.asker.encrypt(VALUES, os.urandom(32))
    with pytest.raises(PeerError, match="another request"):
        talk.pending.open("p", talk.answerer.answer(request))


def test_an_answer_is_opened_once_and_by_known_names(talk: Talk) -> None:
    _, pending = talk.asker.encrypt(VALUES, os.urandom(32))
    pending = BfvPending(PARAMETERS, talk.asker._context, {"p": OUTPUTS}, talk.request)
    with pytest.raises(BoundError, match="stranger: hints of this answerer"):
        pending.open("stranger", talk.answer)
    pending.open("p", talk.answer)
    with pytest.raises(BoundError, match="opened before"):
        pending.open("p", talk.answer)


def test_hints_must_be_empty_and_come_once(talk: Talk) -> None:
    for name, hints, outputs in (("p", b"", 5), ("q", b"x", 5), ("q", b"", 0)):
        with pytest.raises(PeerError):
            talk.asker.accept_hints(name, hints, outputs)


def test_a_seed_is_spent_once(talk: Talk) -> None:
    seed = os.urandom(32)
    talk.asker.encrypt(VALUES, seed)
    with pytest.raises(BoundError, match="encrypted a vector before"):
        talk.asker.encrypt(VALUES, seed)
    with pytest.raises(BoundError, match="31 bytes"):
        talk.asker.encrypt(VALUES, seed[:31])


def test_vectors_and_groupings_beyond_the_parameters_are_refused(talk: Talk) -> None:
    for values in (VALUES[1:], np.full(ROWS, 101), np.full(ROWS, -101)):
        with pytest.raises(BoundError):
            talk.asker.encrypt(values, os.urandom(32))
    weights = np.full((ROWS, 1), 2, np.int32)
    for grouping in (
        Grouping(GROUPING.codes[1:], (OUTPUTS,)),
        Grouping(GROUPING.codes, (OUTPUTS + 1,)),
        Grouping(GROUPING.codes, (OUTPUTS,), weights, 2),
    ):
        with pytest.raises(BoundError):
            BfvAnswerer(PARAMETERS, talk.asker.setup(), grouping, SystemEntropy())
    with pytest.raises(BoundError, match=f"{BFV_8192} expected"):
        BfvAsker(derive(RLWE_8192, ROWS, 100))
    with pytest.raises(BoundError, match="slack"):
        talk.answerer.answer(talk.request, np.ones(OUTPUTS, np.int64))


def test_a_sum_beyond_the_proven_bound_is_refused(talk: Talk) -> None:
    with pytest.raises(PeerError, match="exceeds the proven bound"):
        unmask(PARAMETERS, (PARAMETERS.sum_bound + 1).to_bytes(8, "little"), bytes(8))


@pytest.mark.parametrize(
    ("masked", "mask"), [(b"", b""), (bytes(8), bytes(16)), (bytes(9), bytes(9)), (bytes(8), b"\xff" * 8)]
)
def test_malformed_masks_are_refused(masked: bytes, mask: bytes) -> None:
    with pytest.raises(PeerError, match="mask"):
        unmask(PARAMETERS, masked, mask)


def test_a_request_that_comes_again_gets_the_same_mask(talk: Talk) -> None:
    """Under two masks the asker would have two numbers, and nobody could say which of them goes with the mask kept."""
    left = []
    for _ in range(2):
        pending = BfvPending(PARAMETERS, talk.asker._context, {"p": OUTPUTS}, talk.request)
        left.append(pending.open_masked("p", talk.answerer.answer_masked(talk.request)[0]))
    assert left[0] == left[1]


def test_a_masked_answer_is_uniform_to_its_asker(talk: Talk) -> None:
    left = []
    for _ in range(30):
        request, pending = talk.asker.encrypt(np.ones(PARAMETERS.rows, np.int64), os.urandom(32))
        masked, _ = talk.answerer.answer_masked(request)
        left.append(np.frombuffer(pending.open_masked("p", masked), "<u8"))
    seen = np.concatenate(left)
    assert len(np.unique(seen)) > 290  # 300 values of 2^18
    counts = np.bincount((seen >> np.uint64(PARAMETERS.sum_bits - 2)).astype(int), minlength=4)
    assert 40 < counts.min() <= counts.max() < 115  # 75 each, sd 7.5: five of them
