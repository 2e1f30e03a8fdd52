"""Alignment in mode ``blind``, the label holder's side: customers among decoys, in an order that says nothing.

It alone learns which of its entries all parties have, keeps all common customers and exactly as many common decoys as
were agreed, gives each a place at random, and tells the places through the shufflers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.blind_reply import ReplySecret
from fedcredit.crypto.blind_shuffle import permutation
from fedcredit.errors import DataError
from fedcredit.protocol.align.blind_decoys import OVERSAMPLE, draw_decoys
from fedcredit.protocol.align.blind_inputs import BlindInputs, Ring, below_floor, decoys_of, spelt
from fedcredit.protocol.align.blind_pieces import NOWHERE, receive_replies, send_places
from fedcredit.protocol.align.blind_shuffler import Shuffler
from fedcredit.protocol.align.index import UNKNOWN, RowIndex, check_split
from fedcredit.protocol.align.messages import CommonRows, ReplyKey
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.types import COORDINATOR

__all__ = ["DecoySource", "align_blind_leader"]

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class DecoySource:
    """Where decoys come from.

    Args:
        register: Public ids; its own customers and ids that are not valid are left out.
        key: 32 secret bytes of the label holder, the same in every run: decoys drawn afresh in each would give the
            customers away to whoever compares two runs.
        oversample: Candidates for each decoy that is needed if every customer is common.
    """

    register: Sequence[str]
    key: bytes
    oversample: float = OVERSAMPLE

    def __repr__(self) -> str:
        return f"DecoySource({len(self.register)} ids, secret key)"


async def align_blind_leader(
    channel: Channel,
    inputs: BlindInputs,
    held_out: Callable[[Sequence[str]], Bools],
    source: DecoySource | None = None,
) -> RowIndex:
    """The label holder's role.

    Args:
        channel: To everyone.
        inputs: What it brings.
        held_out: Says which of some ids of its own table are test rows.
        source: Where decoys come from; not needed where there are none.

    Returns:
        The common order. With decoys it is hidden: ``members`` says which rows are customers, decoys have no row.

    Raises:
        PolicyDenied: the common customers are below the floor. Nobody has learned their number.
        DataError: own ids are not usable, the register has too few ids, too few decoys are known to all parties (no
            feature holder has learned anything then), or a part of the split would have no row.
        PeerError: a party broke the protocol.
        DisclosureRefused: the own ledger does not answer as many ids as a feature holder asks.
    """
    channel.stage("align")
    own, own_rows = spelt(inputs.own_ids, inputs.ids, channel.party)
    candidates = _candidates(inputs, own, source, channel.party)
    run = inputs.run_digest.encode()
    reply = ReplySecret(inputs.secret.entropy("align/reply-key", run))
    hands = Shuffler(channel, inputs, [*own, *candidates])
    await hands.announce()
    seed = inputs.secret.derive("align/reply-seed", run)
    await channel.send(COORDINATOR, ReplyKey(public=reply.public, seed=seed))
    await hands.pass_lists()
    chosen = _chosen(await _common(hands, reply), len(own), inputs, channel.party)
    table = np.concatenate([own_rows, np.full(len(candidates), UNKNOWN, dtype=np.int64)])
    order = _in_random_order(hands, chosen, inputs)
    index = _index(hands, table, order, held_out)
    places = np.full(len(table), NOWHERE, dtype=np.int64)
    places[order] = np.arange(len(order))
    await send_places(channel, hands.ahead, channel.party, places[hands.own_order()])
    counted = int((index.rows != UNKNOWN).sum())
    test_rows = b"" if index.hidden else np.packbits(index.test).tobytes()
    await channel.broadcast(inputs.parties[1:], CommonRows(rows=len(order), counted=counted, test_rows=test_rows))
    await hands.hand_back_places()
    return index


def _index(hands: Shuffler, table: Indices, order: Indices, held_out: Callable[[Sequence[str]], Bools]) -> RowIndex:
    """The common order as the label holder sees it.

    Args:
        hands: Knows the listed ids.
        table: int64, the row of each listed id in the own table; `UNKNOWN` for decoys.
        order: int64 (n,), the listed id at each place.
        held_out: Says which of some ids of the own table are test rows.

    Raises:
        DataError: a part of the split would have no row.
    """
    inputs, rows = hands.inputs, table[order]
    members = rows != UNKNOWN
    test = np.zeros(len(order), dtype=np.bool_)
    test[members] = held_out([inputs.own_ids[row] for row in rows[members]])
    check_split(test, int(members.sum()))
    hidden = inputs.decoys > 0
    ids = tuple(hands.listed[entry] for entry in order)
    return RowIndex(ids, rows, test, members if hidden else None, hidden)


def _candidates(inputs: BlindInputs, own: Sequence[str], source: DecoySource | None, me: str) -> list[str]:
    """Ids from which decoys will be kept, in the order in which they are preferred."""
    if not inputs.decoys:
        return []
    if source is None:
        raise DataError("align.no-register", f"{me}: has no register of public ids; name its file as align.registry")
    public, _ = spelt(list(dict.fromkeys(source.register)), inputs.ids, f"{me}: register")
    wanted = decoys_of(len(own), inputs.decoys * source.oversample)
    return draw_decoys(public, own, min(wanted, len(set(public).difference(own))), source.key)


async def _common(hands: Shuffler, reply: ReplySecret) -> Bools:
    """Which of the listed ids every party has, bool (n,)."""
    ring = Ring(hands.inputs.parties)
    sender = ring.step(ring.leader, 1)
    sent = np.empty(len(hands.listed), dtype=np.bool_)
    async for first, piece in receive_replies(hands.channel, sender, len(sent)):
        with blaming(sender):
            sent[first : first + len(piece)] = reply.read(piece)
    common = np.empty_like(sent)
    common[hands.own_order()] = sent
    return common


def _chosen(common: Bools, customers: int, inputs: BlindInputs, me: str) -> Indices:
    """Numbers of the listed ids that are kept: all common customers, and exactly as many decoys as agreed."""
    mine, decoys = (part.nonzero()[0] for part in (common[:customers], common[customers:]))
    if len(mine) < inputs.min_overlap:
        raise below_floor()
    needed = decoys_of(len(mine), inputs.decoys)
    if len(decoys) < needed:
        raise DataError(
            "align.decoys",
            f"{me}: too few decoys are known to all parties: draw more of them, or from a larger register",
            f"{len(decoys)} of {len(common) - customers} candidates are common, {needed} are needed",
        )
    return np.concatenate([mine, customers + decoys[:needed]])


def _in_random_order(hands: Shuffler, chosen: Indices, inputs: BlindInputs) -> Indices:
    """The chosen entries in an order that depends on no input order; the same for the same entries."""
    content = hashlib.sha256("\n".join(sorted(hands.listed[entry] for entry in chosen)).encode()).digest()
    entropy = inputs.secret.entropy("align/common-order", inputs.run_digest.encode(), content)
    # Sorted by id first: what is permuted must follow from the ids alone, or a retry could give another order.
    by_id = np.array(sorted(chosen.tolist(), key=lambda entry: hands.listed[entry]), dtype=np.int64)
    return by_id[permutation(len(by_id), entropy)]
