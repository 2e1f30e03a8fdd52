"""The choice of rows, the label holder's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.commitment import commit_vector, content_digest
from fedcredit.crypto.slots import SlotsSecret
from fedcredit.crypto.slots_products import joined
from fedcredit.errors import PeerError
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.select.messages import OpenedSums, RowChoice, ShadedColumns, SharedColumns, SumShares
from fedcredit.types import COORDINATOR, PartyId

__all__ = ["ChosenRows", "Part", "choose_rows", "own_key", "sum_products"]

Ints = NDArray[np.int64]
Part = Literal["train", "test"]
"""Part of the split."""


@dataclass(frozen=True)
class ChosenRows:
    """The rows that count, and the key under which the others have them.

    Args:
        secret: The key pair.
        index: All rows, and which count.
        requests: For each part of the split, the encrypted choice as it was sent.
    """

    secret: SlotsSecret
    index: RowIndex
    requests: Mapping[Part, bytes]

    def rows(self, part: Part) -> NDArray[np.bool_]:
        """Bool (n,), the rows that count in a part of the split."""
        return self.index.train if part == "train" else self.index.test

    def total(self, part: Part, body: bytes, bound: int) -> Ints:
        """Opens a total of all holders; int64 (rows that count,).

        Raises:
            PeerError: malformed, outside the bound, or a mask that does not cancel: the rows that do not count are 0.
        """
        rows = self.rows(part)
        with blaming(COORDINATOR):
            values = self.secret.open_total(self.requests[part], body, bound)
        if values[~rows].any():
            raise PeerError("select.total", f"{COORDINATOR}: totals of rows that were not asked for are not 0")
        return values[rows]

    def bits(self, part: Part, body: bytes, party: PartyId) -> NDArray[np.bool_]:
        """Opens one holder's bit of every row; bool (rows that count,).

        Raises:
            PeerError: malformed, or something else than bits, or bits of rows that do not count.
        """
        rows = self.rows(part)
        with blaming(party):
            values = self.secret.open(self.requests[part], body, 1)
        if values[~rows].any() or (values < 0).any():
            raise PeerError("select.bits", f"{party}: answered something else than one bit for each row that counts")
        return values[rows].astype(np.bool_)


async def choose_rows(
    channel: Channel, holders: Sequence[PartyId], index: RowIndex, keep: KeptSecrets, run_digest: str
) -> ChosenRows:
    """Gives every feature holder the rows of each part of the split, encrypted.

    Args:
        channel: To everyone.
        holders: All feature holders; each gets the same bytes.
        index: All rows, and which count.
        keep: Escrow of the seeds of the commitments, for an auditor.
        run_digest: Binds those seeds, and the key.

    Raises:
        IntegrityError: an earlier attempt at this run chose other rows, or what it kept is damaged or gone.
    """
    secret = own_key("select/key", keep, run_digest)
    vectors: dict[Part, Ints] = {"train": index.train.astype(np.int64), "test": index.test.astype(np.int64)}
    commitments: dict[Part, bytes] = {}
    for part, vector in vectors.items():
        seed = keep.secret.derive("select/commitment", run_digest.encode(), part.encode())
        commitments[part] = commit_vector(vector, seed)
        keep.escrow.bind("chosen", part, commitments[part].hex())
        keep.escrow.record("choice", {"part": part, "seed": seed.hex(), "commitment": commitments[part].hex()})
    requests = {part: _encrypted(secret, part, vector, keep) for part, vector in vectors.items()}
    message = RowChoice(
        public=secret.public_bytes(),
        train=requests["train"],
        test=requests["test"],
        train_commitment=commitments["train"],
        test_commitment=commitments["test"],
    )
    await channel.broadcast(holders, message)
    return ChosenRows(secret, index, requests)


def own_key(name: str, keep: KeptSecrets, run_digest: str) -> SlotsSecret:
    """A key pair of this run: the one that an earlier attempt has kept, or a fresh one, kept before anyone has it."""
    about = run_digest.encode()
    return SlotsSecret.restore(keep.once(name, about, lambda: SlotsSecret().kept(run_digest)), run_digest)


def _encrypted(secret: SlotsSecret, part: Part, vector: Ints, keep: KeptSecrets) -> bytes:
    return keep.once(f"select/rows/{part}", content_digest(vector), lambda: secret.encrypt(vector))


async def sum_products(
    channel: Channel, chosen: ChosenRows, columns: Mapping[PartyId, int], limit: int, keep: KeptSecrets
) -> dict[tuple[PartyId, PartyId], Ints]:
    """Sums, over the training rows that count, of products of one holder's columns with another's.

    Args:
        channel: To the feature holders.
        chosen: The rows.
        columns: Number of columns of each holder that has any.
        limit: Largest absolute value of a column.
        keep: Keeps what is encrypted.

    Returns:
        For each pair of holders in the order of their names, int64 (columns of the first, columns of the second).

    Raises:
        PeerError: a message does not fit what was agreed, or a sum that no columns within the limit can have.
        IntegrityError: a holder's columns are other ones than in an earlier attempt at this run.
    """
    found = {}
    bound = int(chosen.index.train.sum()) * limit**2
    for first in sorted(columns):
        later = [party for party in sorted(columns) if party > first]
        if not later:
            continue
        shaded = await channel.receive(first, ShadedColumns)
        if len(shaded.bodies) != columns[first]:
            raise PeerError("select.columns", f"{first}: {len(shaded.bodies)} columns, {columns[first]} were agreed")
        with blaming(first):
            opened = [chosen.secret.open_masked(chosen.requests["train"], body) for body in shaded.bodies]
        shared = _shared(first, opened, chosen, keep)
        await channel.broadcast(later, SharedColumns(of=first, bodies=shared))
        for second in later:
            shares = await channel.receive(second, SumShares)
            rest = await channel.receive(first, OpenedSums)
            shape = (columns[first], columns[second])
            right = shares.of == first and rest.other == second and {len(row) for row in rest.sums} == {shape[1]}
            if not right or len(rest.sums) != shape[0]:
                raise PeerError("select.sums", f"{first} and {second}: sums do not fit what was agreed")
            with blaming(second):
                own = chosen.secret.open_sums(shared, shares.body, shape[1])
            with blaming(f"{first} and {second}"):  # either may have lied: each share alone is uniform
                found[first, second] = joined(own, np.array(rest.sums, dtype=np.uint64), bound)
    return found


def _shared(first: PartyId, opened: Sequence[NDArray[np.uint64]], chosen: ChosenRows, keep: KeptSecrets) -> list[bytes]:
    """What was opened of a holder, encrypted for the holders after it."""
    about = content_digest(np.stack(opened))
    return keep.all_once(f"select/shared/{first}", about, lambda: [chosen.secret.encrypt_vector(one) for one in opened])
