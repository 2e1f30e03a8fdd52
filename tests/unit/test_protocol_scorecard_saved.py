"""What a scorecard run keeps for a restart: on the disk before it is used, and of this run only."""

from __future__ import annotations

import msgspec
import pytest

from fedcredit.attack.rehearsal import InMemory
from fedcredit.crypto.totals import TotalsSecret
from fedcredit.errors import IntegrityError
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND
from fedcredit.protocol.scorecard.saved import SavedKey, SavedPartials


def test_a_key_is_saved_once_and_taken_again() -> None:
    checkpoints = InMemory()
    saved = SavedKey(checkpoints, "run")
    assert checkpoints.load() is None  # a run that sends no key keeps none
    first = saved.take()
    state = checkpoints.load()
    assert state is not None
    assert TotalsSecret.restore(state, TOTAL_BOUND, "run").public_bytes() == first.public_bytes()
    assert saved.take() is first
    assert SavedKey(checkpoints, "run").take().public_bytes() == first.public_bytes()
    assert checkpoints.load() == state


def test_a_key_that_cannot_be_saved_is_not_taken() -> None:
    class Full(InMemory):
        def save(self, state: bytes) -> None:
            raise OSError(28, "No space left on device")

    saved = SavedKey(Full(), "run")
    with pytest.raises(OSError, match="No space"):
        saved.take()
    assert saved._key is None


def test_a_foreign_or_damaged_key_is_named_at_once() -> None:
    checkpoints = InMemory()
    SavedKey(checkpoints, "another").take()
    with pytest.raises(IntegrityError, match="another run"):
        SavedKey(checkpoints, "run")
    checkpoints.save(b"no key")
    with pytest.raises(IntegrityError, match="damaged"):
        SavedKey(checkpoints, "run")


def test_partials_are_found_by_name_in_the_next_process() -> None:
    checkpoints = InMemory()
    saved = SavedPartials(checkpoints, "run")
    assert saved.find("a") is None
    saved.keep("a", b"first")
    saved.keep("b", b"second")
    again = SavedPartials(checkpoints, "run")
    assert [again.find(name) for name in ("a", "b", "c")] == [b"first", b"second", None]


@pytest.mark.parametrize("state", [b"", b"\xc1", msgspec.msgpack.encode({"run": "run"})])
def test_damaged_partials_are_named(state: bytes) -> None:
    checkpoints = InMemory()
    checkpoints.save(state)
    with pytest.raises(IntegrityError, match="saved totals of this run are damaged"):
        SavedPartials(checkpoints, "run")


def test_partials_of_another_run_are_refused() -> None:
    checkpoints = InMemory()
    SavedPartials(checkpoints, "another").keep("a", b"first")
    with pytest.raises(IntegrityError, match="those of another run"):
        SavedPartials(checkpoints, "run")
