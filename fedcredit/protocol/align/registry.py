"""Alignment in mode ``registry``: everyone indexes one public register, so nobody learns who is whose customer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, PeerError
from fedcredit.protocol.align.index import UNKNOWN, RowIndex, check_split, in_order, rows_of
from fedcredit.protocol.align.messages import Register
from fedcredit.protocol.channel import Channel
from fedcredit.types import PartyId

__all__ = ["register_digest", "registry_holder", "registry_leader"]


def register_digest(ids: Sequence[str]) -> bytes:
    """32 bytes that name a register: its ids in the common order, each with its length."""
    digest = hashlib.sha256(b"fedcredit/register/v1")
    for one in ids:
        encoded = one.encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.digest()


async def registry_leader(
    channel: Channel,
    feature_holders: Sequence[PartyId],
    own_ids: Sequence[str],
    register: Sequence[str],
    split: tuple[Callable[[Sequence[str]], NDArray[np.bool_]], int],
) -> RowIndex:
    """Names the register; which of its rows are customers, and which are held out, stays here.

    Args:
        channel: To the feature holders.
        feature_holders: All of them.
        own_ids: Ids of the label holder's table.
        register: Ids of the public register, each once, in any order.
        split: Says which of some ids are test rows; seed of the order.

    Raises:
        DataError: no customer is in the register, or no row is left to train or to test on.
    """
    channel.stage("align")
    held_out, seed = split
    ids = in_order(register, seed)
    rows = rows_of(own_ids, ids)
    members = rows != UNKNOWN
    if not members.any():
        raise DataError(
            "align.empty", f"{channel.party}: none of {len(own_ids)} own ids is in the register of {len(ids)}"
        )
    test = held_out(ids) & members
    check_split(test, int(members.sum()))
    await channel.broadcast(feature_holders, Register(digest=register_digest(ids), rows=len(ids)))
    return RowIndex(tuple(ids), rows, test, members, hidden=True)


async def registry_holder(
    channel: Channel, label_holder: PartyId, own_ids: Sequence[str], register: Sequence[str], seed: int
) -> RowIndex:
    """Indexes the register; rows unknown here are missing.

    Raises:
        PeerError: the label holder's register is another one.
    """
    channel.stage("align")
    ids = in_order(register, seed)
    named = await channel.receive(label_holder, Register)
    if (named.digest, named.rows) != (register_digest(ids), len(ids)):
        raise PeerError(
            "align.register", f"{label_holder}: its register of {named.rows} ids is not the one here, of {len(ids)}"
        )
    return RowIndex(tuple(ids), rows_of(own_ids, ids), np.zeros(len(ids), np.bool_), hidden=True)
