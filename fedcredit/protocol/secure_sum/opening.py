"""From combined shares to the total; done by the members or, under profile masked, by the relay."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.masks import MaskRoster
from fedcredit.crypto.secure_sum import SumShape, masks_left, pair_key, seed_digest
from fedcredit.crypto.shares import FIELD_PRIME, SHARE_BYTES, read_share, secret_of, weighted, weights
from fedcredit.errors import PeerError
from fedcredit.protocol.blame import blaming

__all__ = ["Masked", "combined", "read_shares"]


@dataclass(frozen=True)
class Masked:
    """The masks of one sum, and what opens them.

    Args:
        roster: Who masked together, with their pair keys.
        digests: What the seed of each member must match.
        survivors: Whose vectors are in the sum.
        shape: Of the sum.
    """

    roster: MaskRoster
    digests: Mapping[str, bytes]
    survivors: Sequence[str]
    shape: SumShape

    def taken_off(self, summed: NDArray[np.uint64], values: Sequence[int]) -> NDArray[np.uint64]:
        """The total modulo 2^k.

        Args:
            summed: uint64 (length,), sum of the survivors' masked vectors.
            values: What the shares about each member of the roster, sorted, combine to.

        Raises:
            PeerError: a secret is not the one its member was bound to, so a share was wrong; names the member it is of.
        """
        there = set(self.survivors)
        seeds: dict[str, bytes] = {}
        secrets: dict[str, bytes] = {}
        for name, value in zip(sorted(self.roster.keys), values, strict=True):
            with blaming(name):
                secret = secret_of(value)
                known = self.digests[name] if name in there else self.roster.keys[name]
                found = seed_digest(secret) if name in there else pair_key(secret).public_bytes()
                if not hmac.compare_digest(known, found):
                    raise PeerError("secure_sum.share", "its secret does not come out of the shares of it")
            (seeds if name in there else secrets)[name] = secret
        return (summed - masks_left(seeds, secrets, self.roster, self.shape)) & self.shape.mask


def read_shares(data: bytes, count: int) -> list[int]:
    """Shares one after the other.

    Raises:
        PeerError: another length, or a share that is no field element.
    """
    if len(data) != count * SHARE_BYTES:
        raise PeerError("secure_sum.shares", f"{len(data)} bytes of shares, {count * SHARE_BYTES} expected")
    return [read_share(data[at : at + SHARE_BYTES]) for at in range(0, len(data), SHARE_BYTES)]


def combined(places: Sequence[int], answers: Sequence[Sequence[int]]) -> list[int]:
    """What the answers of some holders combine to, for each member asked about.

    Args:
        places: Place of each holder.
        answers: For each holder its shares about each member, padded or not: pads are the same at all holders.
    """
    factors = weights(places)
    return [weighted(factors, column) % FIELD_PRIME for column in zip(*answers, strict=True)]
