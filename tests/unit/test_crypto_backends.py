"""One contract for every back end, and the choice between them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from fedcredit.crypto.backends import answer_size, make_answerer, make_asker, request_size, unmask
from fedcredit.crypto.group_sum import Answerer, Asker, Grouping
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.profiles import PROFILES, GroupSumParameters, derive
from fedcredit.errors import BoundError, FedCreditError, PeerError

REFERENCE = bytes(range(32))
ROWS, OUTPUTS = 50, 4
GROUPING = Grouping((np.arange(ROWS) % 3).astype(np.int32)[:, None], (3,), np.full((ROWS, 1), 2, dtype=np.int32), 2)
VALUES = np.arange(ROWS, dtype=np.int64) - 20
SUMS = [*(int(VALUES[k::3].sum()) for k in range(3)), int(2 * VALUES.sum())]

every_profile = pytest.mark.parametrize("profile", sorted(PROFILES))


def pair(profile: str) -> tuple[GroupSumParameters, Asker, Answerer]:
    parameters = derive(profile, ROWS, 100, 2)
    entropy = UnsafeSeededEntropy(bytes(32))
    asker = make_asker(parameters, REFERENCE, entropy.child("asker"))
    answerer = make_answerer(parameters, REFERENCE, asker.setup(), GROUPING, entropy.child("answerer"))
    for name in ("a", "b"):
        asker.accept_hints(name, answerer.hints(), OUTPUTS)
    return parameters, asker, answerer


@every_profile
def test_sums_and_masked_sums_are_exact(profile: str) -> None:
    parameters, asker, answerer = pair(profile)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    assert pending.open("a", answerer.answer(request)).tolist() == SUMS
    masked, mask = answerer.answer_masked(request)
    assert unmask(parameters, pending.open_masked("b", masked), mask).tolist() == SUMS


@every_profile
def test_sizes_are_known_before_anything_is_made(profile: str) -> None:
    parameters, asker, answerer = pair(profile)
    request, _ = asker.encrypt(VALUES, b"\x01" * 32)
    assert len(request) == request_size(parameters)
    assert len(answerer.answer(request)) == answer_size(parameters, OUTPUTS)
    assert len(answerer.answer_masked(request)[0]) == answer_size(parameters, OUTPUTS)
    with pytest.raises(BoundError, match="no back end carries"):
        request_size(dataclasses.replace(parameters, profile="plain"))
    with pytest.raises(BoundError, match="no back end carries"):
        answer_size(dataclasses.replace(parameters, profile="plain"), OUTPUTS)


@every_profile
def test_withheld_outputs_of_another_shape_are_refused(profile: str) -> None:
    _, asker, answerer = pair(profile)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    for bad in (np.ones(OUTPUTS - 1, np.bool_), np.ones(OUTPUTS, np.int64)):
        with pytest.raises(BoundError, match="withheld"):
            answerer.answer(request, None, bad)  # type: ignore[arg-type]
        with pytest.raises(BoundError, match="withheld"):
            pending.open("a", answerer.answer(request), bad)  # type: ignore[arg-type]


@every_profile
def test_rules_of_the_interface(profile: str) -> None:
    _, asker, answerer = pair(profile)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    answer = answerer.answer(request)
    pending.open("a", answer)
    with pytest.raises(BoundError):
        pending.open("a", answer)
    with pytest.raises(BoundError):
        pending.open("stranger", answer)
    with pytest.raises(BoundError):
        asker.encrypt(VALUES, b"\x01" * 32)
    with pytest.raises(BoundError):
        asker.encrypt(VALUES + 100, b"\x02" * 32)
    with pytest.raises(PeerError):
        asker.accept_hints("a", answerer.hints(), OUTPUTS)
    other, _ = asker.encrypt(-VALUES, b"\x03" * 32)
    with pytest.raises(PeerError):
        pending.open("b", answerer.answer(other))


@every_profile
def test_hostile_bytes_are_named(profile: str) -> None:
    parameters, asker, answerer = pair(profile)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    answer, (masked, mask) = answerer.answer(request), answerer.answer_masked(request)
    for bad in (b"", request[:-1], request + b"\x00", b"\xff" + request[1:]):
        with pytest.raises(PeerError):
            answerer.answer(bad)
    for bad in (b"", answer[:-1], answer + b"\x00", masked):
        with pytest.raises(PeerError):
            pending.open("a", bad)
    opened = pending.open_masked("b", masked)
    for left, right in ((opened[:-1], mask), (opened, mask[:-1]), (b"", mask), (opened + b"\x00", mask)):
        with pytest.raises(PeerError):
            unmask(parameters, left, right)


@every_profile
def test_groupings_that_do_not_fit_are_refused(profile: str) -> None:
    parameters, asker, _ = pair(profile)
    for bad in (Grouping(GROUPING.codes, (4,)), Grouping(GROUPING.codes[:-1], (3,)), Grouping(GROUPING.codes, (2,))):
        with pytest.raises(BoundError):
            make_answerer(parameters, REFERENCE, asker.setup(), bad, UnsafeSeededEntropy(bytes(32)))


@pytest.mark.parametrize("profile", ["rlwe-8192", "unsafe-plaintext"])
def test_setup_bytes_are_refused_where_there_are_none(profile: str) -> None:
    with pytest.raises(PeerError, match="none are right"):
        make_answerer(derive(profile, ROWS, 1, 2), REFERENCE, b"x", GROUPING, UnsafeSeededEntropy(bytes(32)))


def test_an_unknown_profile_has_no_back_end_and_no_fallback() -> None:
    parameters = dataclasses.replace(derive("unsafe-plaintext", ROWS, 1), profile="plain")
    entropy = UnsafeSeededEntropy(bytes(32))
    calls = (
        lambda: make_asker(parameters, REFERENCE, entropy),
        lambda: make_answerer(parameters, REFERENCE, b"", GROUPING, entropy),
        lambda: unmask(parameters, b"", b""),
    )
    for call in calls:
        with pytest.raises(FedCreditError, match="no back end carries"):
            call()


def test_the_default_profile_does_not_load_the_library_of_the_other() -> None:
    program = (
        "import sys; from fedcredit.crypto.backends import make_asker; from fedcredit.crypto.profiles import derive;"
        "make_asker(derive('rlwe-8192', 10, 1), bytes(32), None);"
        "sys.exit(any(name.split('.')[0] == 'tenseal' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_unsafe_plaintext_refuses_sums_beyond_its_bound_and_sends_what_it_says() -> None:
    _, asker, answerer = pair("unsafe-plaintext")
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    assert request.startswith(b"UNSAFE-PLAINTEXT")
    answer = answerer.answer(request)
    with pytest.raises(PeerError, match="beyond the bound"):
        pending.open("a", answer[:-8] + (10**12).to_bytes(8, "little"))
    with pytest.raises(PeerError, match="beyond the bound"):
        pending.open("b", answer[:-8] + (1 << 63).to_bytes(8, "little"))
