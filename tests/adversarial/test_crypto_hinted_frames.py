"""Hostile bytes at every door of the hinted group sum end in a named error, and change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.hint_frames import FRAME_OVERHEAD
from fedcredit.crypto.hinted import HintedAnswerer, HintedAsker, HintedPendingSum, unmask
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.profiles import derive
from fedcredit.errors import PeerError

REFERENCE = bytes(range(32))
ROWS, OUTPUTS = 41, 3
PARAMETERS = derive("rlwe-8192", ROWS, 100)
VALUES = np.arange(ROWS, dtype=np.int64)
GROUPING = Grouping((np.arange(ROWS) % 3).astype(np.int32)[:, None], (3,))


def peer(parameters: object = PARAMETERS, reference: bytes = REFERENCE) -> HintedAnswerer:
    return HintedAnswerer(parameters, reference, GROUPING, UnsafeSeededEntropy(bytes(32)))  # type: ignore[arg-type]


def under_way() -> tuple[HintedAnswerer, bytes, HintedPendingSum]:
    answerer, asker = peer(), HintedAsker(PARAMETERS, REFERENCE)
    asker.accept_hints("a", answerer.hints(), OUTPUTS)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    return answerer, request, pending


def damaged(good: bytes) -> list[bytes]:
    """Truncated, extended, empty, and with a change at every part of the header and of the body's end."""
    out = [b"", good[: FRAME_OVERHEAD - 1], good[:FRAME_OVERHEAD], good[:-1], good + b"\x00"]
    out += [good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :] for place in (0, 4, 5, 6, 38, 70)]
    # The first residue becomes 2^27 - 1, which no prime is above.
    low = int.from_bytes(good[FRAME_OVERHEAD : FRAME_OVERHEAD + 4], "little") | (1 << 27) - 1
    out.append(good[:FRAME_OVERHEAD] + low.to_bytes(4, "little") + good[FRAME_OVERHEAD + 4 :])
    return out


def refuses(door: Callable[[bytes], object], good: bytes) -> None:
    for bad in damaged(good):
        with pytest.raises(PeerError) as caught:
            door(bad)
        assert "\n" not in caught.value.public


def test_damaged_requests_are_refused_and_the_good_one_still_answered() -> None:
    answerer, request, pending = under_way()
    refuses(answerer.answer, request)
    refuses(answerer.answer_masked, request)
    assert pending.open("a", answerer.answer(request)).sum() == VALUES.sum()


def test_padding_bits_of_a_request_are_zero() -> None:
    answerer, request, _ = under_way()
    assert (ROWS + 2 * 8192) * 135 % 8 != 0
    with pytest.raises(PeerError, match="padding"):
        answerer.answer(request[:-1] + bytes([request[-1] | 0x80]))


def test_damaged_hints_are_refused_and_the_good_ones_still_taken() -> None:
    hints, asker = peer().hints(), HintedAsker(PARAMETERS, REFERENCE)
    refuses(lambda data: asker.accept_hints("a", data, OUTPUTS), hints)
    for outputs in (OUTPUTS - 1, OUTPUTS + 1, 10**9):
        with pytest.raises(PeerError, match="are right"):
            asker.accept_hints("a", hints, outputs)
    asker.accept_hints("a", hints, OUTPUTS)


def test_damaged_answers_are_refused_and_the_good_one_still_opened() -> None:
    answerer, request, pending = under_way()
    answer = answerer.answer(request)
    refuses(lambda data: pending.open("a", data), answer)
    assert pending.open("a", answer).sum() == VALUES.sum()


def test_damaged_masked_answers_and_masks_are_refused() -> None:
    answerer, request, pending = under_way()
    masked, mask = answerer.answer_masked(request)
    refuses(lambda data: pending.open_masked("a", data), masked)
    opened = pending.open_masked("a", masked)
    refuses(lambda data: unmask(PARAMETERS, data, mask), opened)
    refuses(lambda data: unmask(PARAMETERS, opened, data), mask)
    assert unmask(PARAMETERS, opened, mask).sum() == VALUES.sum()


def test_frames_of_one_kind_do_not_pass_for_another() -> None:
    answerer, request, pending = under_way()
    masked, mask = answerer.answer_masked(request)
    for wrong in (masked, mask, request, answerer.hints()):
        with pytest.raises(PeerError, match="expected"):
            pending.open("a", wrong)
    with pytest.raises(PeerError, match="expected"):
        pending.open_masked("a", answerer.answer(request))
    with pytest.raises(PeerError, match="expected"):
        answerer.answer(masked)


def test_bytes_of_other_parameters_are_named_as_such() -> None:
    other = derive("rlwe-8192", ROWS, 101)
    _, request, _ = under_way()
    with pytest.raises(PeerError, match="another parameters"):
        peer(other).answer(request)
    with pytest.raises(PeerError, match="another parameters"):
        HintedAsker(PARAMETERS, REFERENCE).accept_hints("a", peer(other).hints(), OUTPUTS)


def test_bytes_of_another_reference_string_are_named_as_such() -> None:
    _, request, _ = under_way()
    foreign = peer(reference=bytes(32))
    with pytest.raises(PeerError, match="another reference string"):
        foreign.answer(request)
    with pytest.raises(PeerError, match="another reference string"):
        HintedAsker(PARAMETERS, REFERENCE).accept_hints("a", foreign.hints(), OUTPUTS)


def test_an_answer_to_another_vector_is_named_as_such() -> None:
    answerer, asker = peer(), HintedAsker(PARAMETERS, REFERENCE)
    asker.accept_hints("a", answerer.hints(), OUTPUTS)
    first, one = asker.encrypt(VALUES, b"\x01" * 32)
    second, _ = asker.encrypt(VALUES, b"\x02" * 32)
    with pytest.raises(PeerError, match="another request"):
        one.open("a", answerer.answer(second))
    assert one.open("a", answerer.answer(first)).sum() == VALUES.sum()


def test_masks_of_different_requests_do_not_combine() -> None:
    answerer, asker = peer(), HintedAsker(PARAMETERS, REFERENCE)
    asker.accept_hints("a", answerer.hints(), OUTPUTS)
    (first, one), (second, _) = (asker.encrypt(VALUES, bytes([i]) * 32) for i in (1, 2))
    opened = one.open_masked("a", answerer.answer_masked(first)[0])
    with pytest.raises(PeerError, match="another request"):
        unmask(PARAMETERS, opened, answerer.answer_masked(second)[1])


def test_random_residues_decode_to_no_sum_and_cannot_be_tried_twice() -> None:
    answerer, request, pending = under_way()
    answer = answerer.answer(request)
    forged = bytearray(answer)
    forged[FRAME_OVERHEAD + 1] ^= 0xFF
    with pytest.raises(PeerError, match="beyond the bound"):
        pending.open("a", bytes(forged))
    # A second try would make what is refused an oracle on the one-time secret.
    with pytest.raises(Exception, match="opened before"):
        pending.open("a", answer)


def test_hints_of_another_grouping_end_in_a_named_error() -> None:
    answerer, asker = peer(), HintedAsker(PARAMETERS, REFERENCE)
    stranger = HintedAnswerer(PARAMETERS, REFERENCE, GROUPING, UnsafeSeededEntropy(b"\x01" * 32))
    asker.accept_hints("a", stranger.hints(), OUTPUTS)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    with pytest.raises(PeerError, match="beyond the bound"):
        pending.open("a", answerer.answer(request))
