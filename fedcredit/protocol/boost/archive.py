"""What the label holder writes down for its auditor while trees grow, in its own escrow, and how it is read back.

Bodies of messages as they were received or sent, so that each can be held against the digest in a holder's log; every
finished tree, those after the best one included; and which of its rows are in the run. No sum is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, IntegrityError, PeerError
from fedcredit.kernels.tree_model import Split, Tree
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.boost.messages import Bitmaps, Offer, TreeShapes, WantedSplits
from fedcredit.protocol.group_sum.session import Escrow
from fedcredit.types import PartyId
from fedcredit.wire.message import Message, decode, encode, kind_of

__all__ = ["Archive", "KeptTree", "note_message", "note_pool", "note_rows", "note_tree", "read_archive"]

M = TypeVar("M", bound=Message)
K = TypeVar("K")
V = TypeVar("V")


class KeptTree(msgspec.Struct, frozen=True):
    """A finished tree.

    Args:
        tree: Its nodes; a split is a number among those of this tree and the trees before it.
        splits: Splits that are used in it for the first time.
    """

    tree: Tree
    splits: tuple[Split, ...]


def note_rows(escrow: Escrow, index: RowIndex) -> None:
    """Which rows of the own table are in the run; their order follows from the spec."""
    rows = index.rows[index.known]
    mask = np.zeros(int(rows.max(initial=-1)) + 1, np.bool_)
    mask[rows] = True
    escrow.record("rows", {"common": _text(np.packbits(mask).tobytes()), "count": len(rows)})


def note_message(escrow: Escrow, peer: PartyId, message: Message) -> None:
    """A message from a peer, or to it."""
    escrow.record("message", {"peer": peer, "kind": kind_of(message), "body": _text(encode(message))})


def note_tree(escrow: Escrow, number: int, tree: Tree, splits: Sequence[Split]) -> None:
    """A finished tree.

    Args:
        escrow: The own one.
        number: Number of the tree, from 0.
        tree: The tree.
        splits: Splits that are used in it for the first time.
    """
    body = _text(msgspec.msgpack.encode(KeptTree(tree, tuple(splits))))
    escrow.record("tree", {"number": number, "body": body})


def note_pool(escrow: Escrow, members: Sequence[PartyId]) -> None:
    """Notes that the trees are of several banks, or were grown by others.

    Args:
        escrow: The own one.
        members: The banks.
    """
    escrow.record("pool", {"members": " ".join(members)})


@dataclass(frozen=True)
class Archive:
    """What a label holder wrote down.

    Args:
        rows: bool, the rows of its own table that are in the run; rows after the last one in it are left out.
        shapes: What each holder announced.
        offers: Of each holder and tree, where columns are sampled.
        wanted: Splits asked of each holder in each round of each tree.
        bitmaps: The answers; none where no split was asked.
        trees: Finished trees by number.
    """

    rows: NDArray[np.bool_]
    shapes: dict[PartyId, TreeShapes] = field(default_factory=dict)
    offers: dict[tuple[PartyId, int], Offer] = field(default_factory=dict)
    wanted: dict[tuple[PartyId, int, int], WantedSplits] = field(default_factory=dict)
    bitmaps: dict[tuple[PartyId, int, int], Bitmaps] = field(default_factory=dict)
    trees: dict[int, KeptTree] = field(default_factory=dict)


def read_archive(entries: Iterable[Mapping[str, Any]]) -> Archive:
    """Reads a label holder's escrow; what a restarted run wrote twice must be the same.

    Raises:
        DataError: the trees are of several banks, whose totals are on no record.
        IntegrityError: an entry is damaged or contradicts another one, or there is none of the rows.
    """
    entries = list(entries)
    if any(entry.get("what") == "pool" for entry in entries):
        text = "these trees are of several banks: what one bank asked follows from totals that are on no record"
        raise DataError("replay.pool", f"{text}, so they cannot be grown once more")
    noted = [entry for entry in entries if entry.get("what") in {"rows", "message", "tree"}]
    rows = {(str(entry["common"]), int(entry["count"])) for entry in noted if entry["what"] == "rows"}
    if len(rows) != 1:
        raise _damaged(f"{len(rows)} records of the common rows, one is needed")
    packed, count = rows.pop()
    mask = np.unpackbits(np.frombuffer(_bytes(packed), np.uint8)).astype(np.bool_)
    if int(mask.sum()) != count:
        raise _damaged("the record of the common rows does not fit their number")
    archive = Archive(mask)
    for entry in noted:
        if entry["what"] == "message":
            _take(archive, PartyId(str(entry.get("peer"))), str(entry.get("kind")), _bytes(str(entry.get("body"))))
        elif entry["what"] == "tree":
            _once(archive.trees, int(entry["number"]), _tree(_bytes(str(entry.get("body")))), "tree")
    if sorted(archive.trees) != list(range(len(archive.trees))):
        raise _damaged("a finished tree is missing")
    return archive


def _take(archive: Archive, peer: PartyId, kind: str, body: bytes) -> None:
    if kind == kind_of(TreeShapes):
        _once(archive.shapes, peer, _message(TreeShapes, body), kind)
    elif kind == kind_of(Offer):
        offer = _message(Offer, body)
        _once(archive.offers, (peer, offer.tree), offer, kind)
    elif kind == kind_of(WantedSplits):
        wanted = _message(WantedSplits, body)
        _once(archive.wanted, (peer, wanted.tree, wanted.round), wanted, kind)
    elif kind == kind_of(Bitmaps):
        bitmaps = _message(Bitmaps, body)
        _once(archive.bitmaps, (peer, bitmaps.tree, bitmaps.round), bitmaps, kind)
    else:
        raise _damaged(f"a message of kind {kind!s:.40}")


def _once(kept: dict[K, V], key: K, value: V, what: str) -> None:
    if kept.setdefault(key, value) != value:
        raise _damaged(f"two records of one {what} that differ")


def _message(kind: type[M], body: bytes) -> M:
    try:
        return decode(kind, body)
    except PeerError as error:
        raise _damaged(error.public) from None


def _tree(body: bytes) -> KeptTree:
    try:
        return msgspec.msgpack.decode(body, type=KeptTree)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _damaged(f"a tree that cannot be read ({type(error).__name__})") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _damaged("a record that is not in base64") from None


def _damaged(what: str) -> IntegrityError:
    return IntegrityError("replay.archive", f"the label holder's record of the run: {what}")
