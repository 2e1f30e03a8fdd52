"""The secrets of one member for one sum: how they are made, shared in boxes, and read from the boxes of others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcredit.crypto.boxes import BOX_OVERHEAD, BoxKey, joined
from fedcredit.crypto.prg import SEED_BYTES, SeedStream, uniform_below
from fedcredit.crypto.secret import RunSecret
from fedcredit.crypto.secure_sum import pair_key, seed_digest
from fedcredit.crypto.shares import FIELD_PRIME, SHARE_BYTES, read_share, split, write_share
from fedcredit.errors import PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.secure_sum.messages import Fresh
from fedcredit.protocol.secure_sum.rules import FIRST, SumRules, place_of
from fedcredit.protocol.secure_sum.state import Peer
from fedcredit.types import PartyId

__all__ = ["SumSecrets", "box_content", "box_size", "group_key", "padded", "pads"]


@dataclass(frozen=True)
class SumSecrets:
    """One member's secrets for one sum, shared among the members of the roster before.

    Args:
        rules: Of the sums.
        party: The member.
        secret: Its secret of the run.
        origin: Digest of the roster (and, after the first, of the sum) under which they are shared.
        holders: Who gets shares, sorted.
        number: Of the sum they are for.
    """

    rules: SumRules
    party: PartyId
    secret: RunSecret
    origin: bytes
    holders: Sequence[str]
    number: int

    def derive(self, use: str) -> bytes:
        """32 bytes for one use; they follow from the roster, so that another roster gets others."""
        return self.secret.derive(f"secure_sum/{use}", self.rules.digest, self.origin, self.number.to_bytes(8, "big"))

    @property
    def pair(self) -> bytes:
        """Secret of the pair masks."""
        return self.derive("pair")

    @property
    def seed(self) -> bytes:
        """Seed of the self mask."""
        return self.derive("seed")

    def share(self) -> tuple[Peer, dict[str, bytes]]:
        """The member's public keys with its shares for itself, and what goes into the box of each other holder."""
        needed, count = self.rules.threshold(len(self.holders)), len(self.holders)
        pairs = split(self.pair, needed, count, SeedStream(self.derive("pair-shares"), "secure_sum"))
        seeds = split(self.seed, needed, count, SeedStream(self.derive("seed-shares"), "secure_sum"))
        contents = {
            name: write_share(pair) + write_share(seed)
            for name, pair, seed in zip(self.holders, pairs, seeds, strict=True)
        }
        own = contents.pop(self.party)
        me = Peer(
            party=self.party,
            pair_key=pair_key(self.pair).public_bytes(),
            seed_digest=seed_digest(self.seed),
            pair_share=own[:SHARE_BYTES],
            seed_share=own[SHARE_BYTES:],
        )
        return me, contents

    def boxes(self, key: BoxKey, keys: Mapping[str, bytes]) -> tuple[Peer, list[bytes]]:
        """As `share`, with a box for each holder in order; empty for the member itself."""
        me, contents = self.share()
        part = self.derive("group") if self.number == FIRST else b""
        found = []
        for name in self.holders:
            place = place_of(self.origin, self.number, self.party, name, (me.pair_key, me.seed_digest))
            found.append(b"" if name == self.party else key.seal(keys[name], place, contents[name] + part))
        return me, found

    def read(self, key: BoxKey, keys: Mapping[str, bytes], fresh: Fresh) -> tuple[Peer, bytes]:
        """What another member's box holds: its shares, and before the first sum its part of the group's key.

        Raises:
            PeerError: the box was not made by that member, for this one, under the same roster and sum.
        """
        place = place_of(self.origin, self.number, fresh.party, self.party, (fresh.pair_key, fresh.seed_digest))
        with blaming(fresh.party):
            content = key.open(keys[fresh.party], place, fresh.box)
            if len(content) != box_content(self.number):
                raise PeerError("secure_sum.box", f"a box of {len(content)} bytes, {box_content(self.number)} expected")
            shares = (content[:SHARE_BYTES], content[SHARE_BYTES : 2 * SHARE_BYTES])
            for share in shares:
                read_share(share)
        peer = Peer(
            party=fresh.party,
            pair_key=fresh.pair_key,
            seed_digest=fresh.seed_digest,
            pair_share=shares[0],
            seed_share=shares[1],
        )
        return peer, content[2 * SHARE_BYTES :]


def box_content(number: int) -> int:
    """Bytes in a box for a sum."""
    return 2 * SHARE_BYTES + (SEED_BYTES if number == FIRST else 0)


def box_size(number: int) -> int:
    """Bytes of a box for a sum."""
    return box_content(number) + BOX_OVERHEAD


def group_key(origin: bytes, parts: Mapping[str, bytes]) -> bytes:
    """The key of a group, to which every member has brought a part in its boxes; the relay has none of them."""
    brought = [piece for name, part in sorted(parts.items()) for piece in (name.encode(), part)]
    return hashlib.sha256(joined(b"fedcredit/secure_sum/group/v1", origin, *brought)).digest()


def pads(group: bytes, listed: bytes, count: int) -> list[int]:
    """What hides the answers about one list of survivors: a uniform field element for each member, known to the group.

    It is the same at all holders of one secret, so that it comes out unchanged when their shares are combined. Without
    it all shares of a secret give its polynomial plus that element: its value at 0 is uniform whatever the secret.
    """
    return uniform_below(SeedStream(group, f"secure_sum/pads/{listed.hex()}"), FIELD_PRIME, count)


def padded(shares: Sequence[bytes], hidden: Sequence[int]) -> bytes:
    """Shares with their pads added, one after the other."""
    pairs = zip(shares, hidden, strict=True)
    return b"".join(write_share((read_share(share) + pad) % FIELD_PRIME) for share, pad in pairs)
