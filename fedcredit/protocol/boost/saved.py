"""The label holder's state after a tree, as bytes for its own disk."""

from __future__ import annotations

import msgspec
import numpy as np

from fedcredit.errors import IntegrityError
from fedcredit.kernels.tree_model import Split, Tree
from fedcredit.kernels.trees import BoostCheckpoint, TreeRecord

__all__ = ["read_checkpoint", "write_checkpoint"]


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint with its arrays as little-endian bytes."""

    trees: tuple[Tree, ...]
    splits: tuple[Split, ...]
    history: tuple[TreeRecord, ...]
    known: tuple[Split, ...]
    known_bits: bytes
    margins: bytes
    best_margins: bytes


def write_checkpoint(state: BoostCheckpoint) -> bytes:
    """Bytes of a checkpoint."""
    saved = _Saved(
        trees=state.trees,
        splits=state.splits,
        history=state.history,
        known=state.known,
        known_bits=state.known_bits.tobytes(),
        margins=state.margins.astype("<f8").tobytes(),
        best_margins=state.best_margins.astype("<f8").tobytes(),
    )
    return msgspec.msgpack.encode(saved)


def read_checkpoint(data: bytes) -> BoostCheckpoint:
    """The checkpoint in some bytes.

    Raises:
        IntegrityError: they hold none.
    """
    try:
        saved = msgspec.msgpack.decode(data, type=_Saved)
        margins, best = (np.frombuffer(one, dtype="<f8").copy() for one in (saved.margins, saved.best_margins))
        bits = np.frombuffer(saved.known_bits, dtype=np.uint8).reshape(len(saved.known), -(-len(margins) // 8))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _damaged(str(error)) from None
    if len(margins) != len(best):
        raise _damaged("margins of two lengths")
    return BoostCheckpoint(saved.trees, saved.splits, saved.history, saved.known, bits, margins, best)


def _damaged(why: str) -> IntegrityError:
    return IntegrityError("boost.checkpoint", "the checkpoint of this run is damaged", why)
