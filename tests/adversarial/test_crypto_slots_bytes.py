"""Bytes of a hostile peer end in a named error or in numbers, never in a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from fedcredit.crypto import slots
from fedcredit.crypto.bfv import KeylessContext
from fedcredit.crypto.bfv_header import HEADER_BYTES
from fedcredit.crypto.seal_format import DEGREE, rows_size
from fedcredit.crypto.slots_parameters import MAX_ROWS, MODULUS, PARAMETERS
from fedcredit.errors import FedCreditError, PeerError

ROWS, HEAD = DEGREE + 20, 20
BODY = HEADER_BYTES + HEAD
CHOSEN = np.arange(ROWS) % 2
COLUMNS = np.stack([np.arange(ROWS) % 7, np.zeros(ROWS, np.int64)], axis=1)
OFFSETS = np.zeros((1, 2), np.uint64)
MASKS = np.zeros(ROWS, np.uint64)

KINDS = {"key": b"key", "request": b"slot", "vector": b"svec", "answer": b"sans", "total": b"stot", "sums": b"ssum"}


@dataclass
class Talk:
    """Every message of one owner and one holder."""

    secret: slots.SlotsSecret
    request: bytes
    vector: bytes
    answer: bytes
    total: bytes
    sums: bytes

    def readers(self) -> dict[str, list[tuple[bytes, Callable[[bytes], object]]]]:
        """Every message, and who reads it."""
        secret, public = self.secret, self.secret.public_bytes()
        return {
            "key": [
                (public, lambda data: slots.Selection(data, self.request)),
                (public, lambda data: slots.weighted_sums(data, [self.vector], COLUMNS, OFFSETS)),
                (public, lambda data: slots.add([self.answer], data)),
            ],
            "request": [
                (self.request, lambda data: slots.select(public, data, CHOSEN, MASKS)),
                (self.request, lambda data: secret.open_masked(data, self.answer)),
            ],
            "vector": [
                (self.vector, lambda data: slots.weighted_sums(public, [data], COLUMNS, OFFSETS)),
                (self.vector, lambda data: secret.open_sums([data], self.sums, 2)),
            ],
            "answer": [
                (self.answer, lambda data: secret.open_masked(self.request, data)),
                (self.answer, lambda data: slots.add([data, data], public)),
                (self.answer, lambda data: slots.add([self.answer, data], public)),
            ],
            "total": [(self.total, lambda data: secret.open_total(self.request, data, 1))],
            "sums": [(self.sums, lambda data: secret.open_sums([self.vector], data, 2))],
        }


def begin() -> Talk:
    secret = slots.SlotsSecret()
    public = secret.public_bytes()
    request, vector = secret.encrypt(CHOSEN), secret.encrypt_vector(CHOSEN.astype(np.uint64))
    answer = slots.select(public, request, CHOSEN, None)
    sums = slots.weighted_sums(public, [vector], COLUMNS, OFFSETS)
    return Talk(secret, request, vector, answer, slots.add([answer], public), sums)


@pytest.fixture(scope="module")
def talk() -> Talk:
    return begin()


@pytest.fixture(scope="module")
def other() -> Talk:
    return begin()


def sealed(name: str, body: bytes) -> bytes:
    """A message whose header and checksum are right, as a hostile peer makes it."""
    return KeylessContext(PARAMETERS).seal(KINDS[name], body)


@pytest.mark.parametrize("name", KINDS)
def test_the_messages_are_read(talk: Talk, name: str) -> None:
    for good, read in talk.readers()[name]:
        read(good)
        assert sealed(name, good[HEADER_BYTES:]) == good


@pytest.mark.parametrize("name", KINDS)
def test_truncated_and_longer_bytes_are_refused(talk: Talk, name: str) -> None:
    for good, read in talk.readers()[name]:
        for size in (0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, BODY, len(good) // 2, len(good) - 1):
            with pytest.raises(PeerError):
                read(good[:size])
            if size > HEADER_BYTES:
                with pytest.raises(PeerError):
                    read(sealed(name, good[HEADER_BYTES:size]))
        for longer in (good + b"\x00", sealed(name, good[HEADER_BYTES:] + b"\x00")):
            with pytest.raises(PeerError):
                read(longer)


@pytest.mark.parametrize("name", KINDS)
def test_every_flipped_bit_is_refused(talk: Talk, name: str) -> None:
    for good, read in talk.readers()[name]:
        generator = np.random.default_rng(1)
        places = [*range(0, BODY, 7), *generator.integers(BODY, len(good), 8).tolist(), len(good) - 1]
        for place in places:
            flipped = bytearray(good)
            flipped[place] ^= 1 << int(generator.integers(8))
            with pytest.raises(PeerError):
                read(bytes(flipped))


@pytest.mark.parametrize("name", KINDS)
def test_crafted_bodies_do_not_crash(talk: Talk, name: str) -> None:
    for good, read in talk.readers()[name]:
        generator = np.random.default_rng(2)
        for round_ in range(9):
            body = bytearray(good[HEADER_BYTES:])
            start = HEAD if name != "key" and round_ % 3 else 0  # past the head, so that what follows is read too
            if round_ < 3:
                body[start:] = generator.bytes(len(body) - start)
            elif round_ < 6:
                at = int(generator.integers(start, len(body) - 64))
                body[at : at + 64] = generator.bytes(64)
            else:
                body[start:] = bytes([(0, 255, 1)[round_ - 6]]) * (len(body) - start)
            with contextlib.suppress(PeerError):  # any other exception fails
                read(sealed(name, bytes(body)))


@pytest.mark.parametrize("name", KINDS)
def test_residues_that_are_not_canonical_are_refused(talk: Talk, name: str) -> None:
    """In each row of residues: of 60 bits, of 40, and of the key's 20."""
    starts = {"key": [0, rows_size(PARAMETERS.primes[:2]), rows_size(PARAMETERS.primes[:3])]}
    starts |= {"request": [0, rows_size(PARAMETERS.primes[:2])], "vector": [rows_size(PARAMETERS.primes[:1])]}
    good, read = talk.readers()[name][0]
    for start in starts.get(name, [0]):
        at = HEADER_BYTES + (0 if name == "key" else HEAD) + start
        crafted = sealed(name, good[HEADER_BYTES:at] + b"\xff" * 15 + good[at + 15 :])
        with pytest.raises(PeerError, match="not below its prime"):
            read(crafted)
        if name == "answer":
            with pytest.raises(PeerError, match="not below its prime"):
                slots.add([crafted], talk.secret.public_bytes())


def test_a_sum_out_of_range_is_refused(talk: Talk) -> None:
    for value in (PARAMETERS.primes[0], (1 << 64) - 1):
        body = talk.sums[HEADER_BYTES:-8] + value.to_bytes(8, "little")
        with pytest.raises(PeerError, match="not below its prime"):
            talk.secret.open_sums([talk.vector], sealed("sums", body), 2)


def test_answers_that_encrypt_nothing_are_refused(talk: Talk) -> None:
    half = rows_size(PARAMETERS.data[:1])
    body = talk.answer[HEADER_BYTES : BODY + half] + bytes(half) + talk.answer[BODY + 2 * half :]
    with pytest.raises(PeerError, match="the second not zero"):
        talk.secret.open_masked(talk.request, sealed("answer", body))
    with pytest.raises(PeerError, match="the second not zero"):
        slots.add([sealed("answer", body)], talk.secret.public_bytes())
    body = talk.sums[HEADER_BYTES:BODY] + bytes(half) + talk.sums[BODY + half :]
    with pytest.raises(PeerError, match="nothing is encrypted"):
        talk.secret.open_sums([talk.vector], sealed("sums", body), 2)


def test_answers_that_cancel_are_refused(talk: Talk) -> None:
    context, half = KeylessContext(PARAMETERS), rows_size(PARAMETERS.data[:1])
    parts = []
    for at in range(BODY, len(talk.answer), 2 * half):
        block = context.read_full(talk.answer[at : at + 2 * half], switched=True)
        context._evaluator.negate_inplace(block.raw)
        parts.append(context.write_full(block))
    opposite = sealed("answer", talk.answer[HEADER_BYTES:BODY] + b"".join(parts))
    with pytest.raises(PeerError, match="SEAL refused adding"):
        slots.add([talk.answer, opposite], talk.secret.public_bytes())


@pytest.mark.parametrize("rows", [0, ROWS - 21, ROWS + DEGREE, MAX_ROWS + 1, (1 << 32) - 1])
def test_other_numbers_of_rows_are_refused(talk: Talk, rows: int) -> None:
    public = talk.secret.public_bytes()

    def named(name: str, message: bytes) -> bytes:
        return sealed(name, message[HEADER_BYTES : BODY - 4] + rows.to_bytes(4, "little") + message[BODY:])

    calls: list[Callable[[], object]] = [
        lambda: slots.Selection(public, named("request", talk.request)),
        lambda: talk.secret.open_masked(named("request", talk.request), talk.answer),
        lambda: slots.weighted_sums(public, [named("vector", talk.vector)], COLUMNS, OFFSETS),
        lambda: slots.add([named("answer", talk.answer)], public),
        lambda: talk.secret.open_masked(talk.request, named("answer", talk.answer)),
        lambda: talk.secret.open_total(talk.request, named("total", talk.total), 1),
        lambda: talk.secret.open_sums([talk.vector], named("sums", talk.sums), 2),
    ]
    for call in calls:
        with pytest.raises(PeerError):
            call()


def test_slots_after_the_last_row_must_be_empty(talk: Talk) -> None:
    """One row fewer in the same number of blocks: what stands in the last row is then behind the last."""
    shorter = talk.secret.encrypt(CHOSEN[:-1])
    tag = slots.select(talk.secret.public_bytes(), shorter, CHOSEN[:-1], None)[HEADER_BYTES:BODY]
    with pytest.raises(PeerError, match="after the last row") as caught:
        talk.secret.open_masked(shorter, sealed("answer", tag + talk.answer[BODY:]))
    assert caught.value.code == "slots.padding"


def test_messages_of_another_kind_are_refused(talk: Talk) -> None:
    secret, public = talk.secret, talk.secret.public_bytes()
    calls: list[Callable[[], object]] = [
        lambda: slots.Selection(public, talk.vector),
        lambda: slots.weighted_sums(public, [talk.request], COLUMNS, OFFSETS),
        lambda: secret.open_masked(talk.request, talk.total),
        lambda: secret.open_total(talk.request, talk.answer, 1),
        lambda: slots.add([talk.total], public),
        lambda: slots.add([talk.answer], talk.request),
    ]
    for call in calls:
        with pytest.raises(PeerError, match=r"another kind|bytes"):
            call()


def test_what_belongs_to_another_key_is_refused(talk: Talk, other: Talk) -> None:
    public = other.secret.public_bytes()
    calls: list[Callable[[], object]] = [
        lambda: slots.Selection(public, talk.request),
        lambda: slots.weighted_sums(public, [talk.vector], COLUMNS, OFFSETS),
        lambda: slots.weighted_sums(public, [other.vector, talk.vector], COLUMNS, np.zeros((2, 2), np.uint64)),
        lambda: other.secret.open_masked(talk.request, talk.answer),
    ]
    for call in calls:
        with pytest.raises(PeerError, match="another key"):
            call()


def test_an_answer_to_another_request_is_refused(talk: Talk, other: Talk) -> None:
    with pytest.raises(PeerError, match="another request"):
        talk.secret.open_masked(talk.request, other.answer)
    with pytest.raises(PeerError, match="another request"):
        talk.secret.open_total(talk.request, other.total, 1)
    with pytest.raises(PeerError, match="another request"):
        talk.secret.open_sums([other.vector], talk.sums, 2)
    with pytest.raises(PeerError, match="different requests"):
        slots.add([talk.answer, other.answer], talk.secret.public_bytes())
    again = talk.secret.encrypt(CHOSEN)
    with pytest.raises(PeerError, match="another request"):
        talk.secret.open_masked(again, talk.answer)
    two = [talk.vector, talk.secret.encrypt_vector(CHOSEN.astype(np.uint64))]
    sums = slots.weighted_sums(talk.secret.public_bytes(), two, COLUMNS[:, :1], np.zeros((2, 1), np.uint64))
    assert talk.secret.open_sums(two, sums, 1).tolist() == [[int((CHOSEN * COLUMNS[:, 0]).sum())]] * 2
    for vectors, columns in ((two[::-1], 1), (two[:1], 2), (two, 2)):
        with pytest.raises(PeerError):
            talk.secret.open_sums(vectors, sums, columns)


def test_parameters_of_the_totals_are_refused(talk: Talk) -> None:
    from fedcredit.crypto.totals import TotalsSecret

    with pytest.raises(FedCreditError, match=r"bytes|parameters other"):
        slots.Selection(TotalsSecret(1 << 30).public_bytes(), talk.request)


def test_a_value_outside_the_bound_is_refused(talk: Talk) -> None:
    assert talk.secret.open(talk.request, talk.answer, 1).max() == 1
    with pytest.raises(PeerError, match="outside the bound"):
        talk.secret.open(talk.request, talk.answer, 0)
    with pytest.raises(PeerError, match="outside the bound"):
        talk.secret.open_total(talk.request, talk.total, 0)


def test_a_mask_that_is_no_residue_never_meets_a_ciphertext(talk: Talk) -> None:
    with pytest.raises(FedCreditError, match="not below"):
        slots.select(talk.secret.public_bytes(), talk.request, CHOSEN, MASKS + np.uint64(MODULUS))
