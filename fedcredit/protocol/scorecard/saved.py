"""What a party keeps on its own disk because the cipher library draws its own randomness and no restart could make it
again: the label holder the key pair of the totals, a feature holder the partials it has encrypted.

Both are on the disk before anything made with them leaves, so that a process that goes on sends the same bytes.
"""

from __future__ import annotations

import msgspec

from fedcredit.crypto.totals import TotalsSecret
from fedcredit.errors import IntegrityError
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND

__all__ = ["SavedKey", "SavedPartials"]


class SavedKey:
    """The label holder's key pair of the totals; what an earlier process saved is read and checked at once.

    Args:
        checkpoints: The label holder's.
        run: Digest of the run, which the key is bound to.

    Raises:
        IntegrityError: what is saved is damaged, or belongs to another run.
    """

    def __init__(self, checkpoints: Checkpoints, run: str) -> None:
        self._checkpoints, self._run = checkpoints, run
        saved = checkpoints.load()
        self._key = None if saved is None else TotalsSecret.restore(saved, TOTAL_BOUND, run)

    def take(self) -> TotalsSecret:
        """The saved key; else a fresh one, which is saved when this returns."""
        if self._key is None:
            fresh = TotalsSecret(TOTAL_BOUND)
            self._checkpoints.save(fresh.kept(self._run))
            self._key = fresh
        return self._key


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """Bodies of a run's encrypted partials, by what was encrypted."""

    run: str
    partials: dict[str, bytes]


class SavedPartials:
    """A feature holder's encrypted partials: masked, and under a key that it does not have.

    Args:
        checkpoints: The feature holder's.
        run: Digest of the run.

    Raises:
        IntegrityError: what is saved is damaged, or belongs to another run.
    """

    def __init__(self, checkpoints: Checkpoints, run: str) -> None:
        self._checkpoints = checkpoints
        saved = checkpoints.load()
        self._state = _State(run=run, partials={}) if saved is None else _read(saved)
        if self._state.run != run:
            raise IntegrityError("scorecard.checkpoint-run", "the saved totals are those of another run")

    def find(self, name: str) -> bytes | None:
        """The body that was saved under a name; None if there is none."""
        return self._state.partials.get(name)

    def keep(self, name: str, body: bytes) -> None:
        """Saves a body; it is on the disk when this returns.

        Args:
            name: Digest of all that the body is made from but the library's randomness.
            body: The encrypted partial.
        """
        self._state = _State(run=self._state.run, partials={**self._state.partials, name: body})
        self._checkpoints.save(msgspec.msgpack.encode(self._state))


def _read(saved: bytes) -> _State:
    try:
        return msgspec.msgpack.decode(saved, type=_State)
    except msgspec.MsgspecError as error:
        raise IntegrityError("scorecard.checkpoint", "the saved totals of this run are damaged", str(error)) from None
