"""The choice of rows, a feature holder's side: it answers for all rows and cannot see which of them count."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.commitment import content_digest
from fedcredit.crypto.slots import Selection
from fedcredit.crypto.slots_products import Vectors, masked_column, shade, share_sums
from fedcredit.errors import PeerError
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.select.label_holder import own_key
from fedcredit.protocol.select.messages import (
    ColumnShades,
    OpenedSums,
    RowChoice,
    ShadedColumns,
    ShadeSums,
    SharedColumns,
    SumShares,
)
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Cost, CostKind, Spend
from fedcredit.wire.message import Message, encode

__all__ = ["GivenRows", "OwnColumns", "answer_products", "take_rows"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GivenRows:
    """The label holder's rows, encrypted.

    Args:
        label_holder: Whose they are.
        public: Its key.
        train: Rows to train on.
        test: Rows held out.
    """

    label_holder: PartyId
    public: bytes
    train: Selection
    test: Selection


@dataclass(frozen=True)
class OwnColumns:
    """Columns to be multiplied with those of other holders.

    Args:
        names: Names of the columns in the ledger.
        values: int64 (n, columns).
        others: Every other holder that has columns, and how many.
    """

    names: Sequence[str]
    values: Ints
    others: Sequence[tuple[PartyId, int]]


async def take_rows(channel: Channel, label_holder: PartyId, rows: int, keep: KeptSecrets) -> GivenRows:
    """Takes the label holder's choice, once in a run.

    Args:
        channel: To the label holder.
        label_holder: Who chooses.
        rows: Number of rows n of the common order.
        keep: Remembers the choice: under a second one the same answers would tell of other rows.

    Raises:
        PeerError: malformed, or of another number of rows.
        IntegrityError: another choice than in an earlier attempt at this run.
    """
    message = await channel.receive(label_holder, RowChoice)
    for part, commitment in (("train", message.train_commitment), ("test", message.test_commitment)):
        keep.escrow.bind("chosen-by", f"{label_holder}/{part}", commitment.hex())
    with blaming(label_holder):
        train, test = Selection(message.public, message.train), Selection(message.public, message.test)
    for part, choice in (("train", train), ("test", test)):  # a second encryption would be a second question
        keep.escrow.bind("chosen-as", f"{label_holder}/{part}", choice.digest.hex())
    if {train.rows, test.rows} != {rows}:
        raise PeerError("select.rows", f"{label_holder}: chooses among {train.rows} and {test.rows} rows, of {rows}")
    return GivenRows(label_holder, message.public, train, test)


async def answer_products(
    channel: Channel, given: GivenRows, own: OwnColumns, keep: KeptSecrets, run_digest: str
) -> None:
    """Takes part in the sums of products of every pair of holders.

    Of two holders the one that comes first by name shades its columns on the rows that count, so that the label holder
    opens uniform values; the second multiplies those, and the shades, with its own columns under offsets that cancel.

    Args:
        channel: To the label holder and the other holders.
        given: The rows.
        own: Own columns, and the others' number.
        keep: Randomness.
        run_digest: Binds it.

    Raises:
        DisclosureRefused: the ledger's cap does not allow it.
        PeerError: a message does not fit what was agreed.
        IntegrityError: an earlier attempt at this run was asked something else, or what it kept is damaged or gone.
    """
    columns = dict(own.others)
    for first in sorted([channel.party, *columns]):
        later = [party for party in sorted(columns) if party > first]
        if first == channel.party:
            await _lead(channel, given, own, (keep, run_digest), later)
        elif first < channel.party:
            await _follow(channel, given, own, (keep, run_digest), first)


async def _lead(
    channel: Channel, given: GivenRows, own: OwnColumns, secret: tuple[KeptSecrets, str], later: Sequence[PartyId]
) -> None:
    """The first of each pair."""
    if not later:
        return
    keep, run_digest = secret
    # Bound to the choice: the same shades under another one would show the columns on the rows in which they differ.
    entropy = keep.secret.entropy("select/shades", run_digest.encode(), given.train.digest, content_digest(own.values))
    shades = [shade(given.train, entropy) for _ in own.values.T]
    about = given.train.digest + content_digest(own.values)  # all that columns and shades follow from
    pairs = list(zip(own.values.T, shades, strict=True))
    bodies = keep.all_once("select/columns", about, lambda: [masked_column(given.train, x, r) for x, r in pairs])
    await channel.send(given.label_holder, ShadedColumns(bodies=bodies))
    key = own_key("select/shades-key", keep, run_digest)
    vectors = keep.all_once("select/shades", about, lambda: [key.encrypt_vector(r) for r in shades])
    await channel.broadcast(later, ColumnShades(public=key.public_bytes(), bodies=vectors))
    columns = dict(own.others)
    for second in later:
        answer = await channel.receive(second, ShadeSums)
        with blaming(second):
            opened = key.open_sums(vectors, answer.body, columns[second])
        message = OpenedSums(other=second, sums=opened.tolist())
        await channel.send(given.label_holder, message, spend=_spend(message, own.names, columns[second]))


async def _follow(
    channel: Channel, given: GivenRows, own: OwnColumns, secret: tuple[KeptSecrets, str], first: PartyId
) -> None:
    """The second of a pair."""
    keep, run_digest = secret
    leader, columns = given.label_holder, dict(own.others)[first]
    shades = await channel.receive(first, ColumnShades)
    shared = await channel.receive(leader, SharedColumns)
    if shared.of != first or {len(shared.bodies), len(shades.bodies)} != {columns}:
        raise PeerError("select.columns", f"{first} and {leader}: columns do not fit the {columns} that were agreed")
    # Fresh for these very vectors: the same offsets under two answers would show their difference.
    asked = hashlib.sha256(encode(shades) + encode(shared)).digest()
    entropy = keep.secret.entropy("select/offsets", run_digest.encode(), asked, content_digest(own.values))
    of_label, of_holder = Vectors(given.public, shared.bodies), Vectors(shades.public, shades.bodies)
    with blaming(f"{first} and {leader}"):
        ours, theirs = keep.all_once(
            f"select/sums/{first}",
            asked + content_digest(own.values),
            lambda: list(share_sums(of_label, of_holder, own.values, entropy)),
        )
    message = SumShares(of=first, body=ours)
    await channel.send(leader, message, spend=_spend(message, own.names, columns))
    await channel.send(first, ShadeSums(body=theirs))


def _spend(message: Message, names: Sequence[str], equations: int) -> Spend:
    costs = tuple(Cost(CostKind.EQUATIONS, name, equations) for name in names)
    return Spend(hashlib.sha256(encode(message)).hexdigest(), costs)
