"""Bins without a row: refused unless they are asked for, and then 0 under every back end."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.crypto.backends import make_answerer, make_asker
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.crypto.profiles import PROFILES, derive
from fedcredit.errors import BoundError

ROWS, REFERENCE = 50, bytes(range(32))
CODES = np.column_stack([2 * (np.arange(ROWS) % 2), np.ones(ROWS)]).astype(np.int32)
VALUES = np.arange(ROWS, dtype=np.int64) - 20


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_sums_of_empty_bins_are_0(profile: str) -> None:
    parameters = derive(profile, ROWS, 100, 1)
    entropy = UnsafeSeededEntropy(bytes(32))
    asker = make_asker(parameters, REFERENCE, entropy.child("asker"))
    grouping = Grouping(CODES, (4, 3), min_rows=0)
    answerer = make_answerer(parameters, REFERENCE, asker.setup(), grouping, entropy.child("answerer"))
    asker.accept_hints("a", answerer.hints(), 7)
    request, pending = asker.encrypt(VALUES, b"\x01" * 32)
    even, odd = int(VALUES[::2].sum()), int(VALUES[1::2].sum())
    assert pending.open("a", answerer.answer(request)).tolist() == [even, 0, odd, 0, 0, even + odd, 0]


@pytest.mark.parametrize("least", [1, -1])
def test_they_are_refused_unless_asked_for(least: int) -> None:
    parameters = derive("unsafe-plaintext", ROWS, 100, 1)
    entropy = UnsafeSeededEntropy(bytes(32))
    asker = make_asker(parameters, REFERENCE, entropy.child("asker"))
    with pytest.raises(BoundError, match=r"fewer than the 1 rows|minimum rows -1"):
        make_answerer(parameters, REFERENCE, asker.setup(), Grouping(CODES, (4, 3), min_rows=least), entropy)
