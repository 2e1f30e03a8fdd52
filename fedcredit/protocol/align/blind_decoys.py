"""Decoys: public ids that are no customers, mixed in so that nobody else can tell customers from them.

Which ids serve is decided by a keyed hash under a key that stays with the label holder from run to run: were they drawn
afresh each time, whoever sees two runs would know that those in both are customers.

Source: Mezzour, Perrig, Gligor, Papadimitratos, CANS 2009 (what repeated intersections give away).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.errors import BoundError, DataError

__all__ = ["OVERSAMPLE", "draw_decoys"]

OVERSAMPLE = 2.0
"""Candidates for each decoy needed: decoys that another party does not know are lost, and only as many of the rest are
kept as there are common customers."""

_PERSON = b"fedcredit-decoys"


def draw_decoys(register: Iterable[str], own: Collection[str], count: int, key: bytes) -> list[str]:
    """Public ids that are not one's own, uniformly at random to all who lack the key; the same for the same key.

    Args:
        register: Public ids; repeated ones count once.
        own: Own ids.
        count: How many.
        key: 32 secret bytes of the label holder, the same in every run.

    Returns:
        ``count`` ids. Of several draws under one key, the smaller is the beginning of the larger.

    Raises:
        BoundError: a key of another length.
        DataError: the register has fewer ids that are not one's own.
    """
    if len(key) != SEED_BYTES:
        raise BoundError("align.decoy-key", f"a key of {len(key)} bytes was given, {SEED_BYTES} are needed")
    others = set(register).difference(own)
    if count > len(others):
        raise DataError(
            "align.register",
            f"{count} decoys are asked for, the register has {len(others)} that are no customers: name a larger one",
        )

    def rank(one: str) -> bytes:
        return hashlib.blake2b(one.encode(), key=key, digest_size=16, person=_PERSON).digest()

    return sorted(others, key=rank)[:count]
