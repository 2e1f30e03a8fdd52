"""The scorecard, a feature holder's side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.commitment import content_digest
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.crypto.slots import Selection as Choice
from fedcredit.crypto.slots_parameters import MODULUS
from fedcredit.crypto.totals import encrypt_partial, modulus_bits
from fedcredit.errors import BoundError, PeerError
from fedcredit.kernels.woe import WOE_LIMIT_UNITS
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.answerer import GroupSumAnswerer, Priced, price_each
from fedcredit.protocol.group_sum.asker import Expected, GroupSumAsker
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.protocol.scorecard.messages import (
    EncryptedPartial,
    FitStep,
    Kept,
    MaskedProducts,
    MaskPublicKey,
    OtherHolder,
    PartialPoints,
    ProductMasks,
    Selection,
    TotalsKey,
)
from fedcredit.protocol.scorecard.partial import RowDraws, check_table, partial_totals, perturb, total_bits
from fedcredit.protocol.scorecard.plan import FIT_UNIT, TOTAL_BOUND, FitPlan, column_costs, pairs
from fedcredit.protocol.select.feature_holder import GivenRows, OwnColumns, answer_products, take_rows
from fedcredit.protocol.select.label_holder import Part
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.message import encode

__all__ = ["HolderFeature", "HolderInputs", "hold_features"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HolderInputs:
    """What a feature holder brings.

    Args:
        label_holder: Who asks.
        holders: All feature holders of the spec, this one included: the roster of the masks.
        features: Own features in the order of this run.
        index: Common rows.
        basis: Sizes signed by the label holder.
        data_version: Name of the data in the ledger.
        plan: The fit.
        keep: Randomness and escrow.
        min_rows: Rows without which a merged bin is refused; 0 where bins were made for several banks.
    """

    label_holder: PartyId
    holders: Sequence[PartyId]
    features: Sequence[OwnFeature]
    index: RowIndex
    basis: Basis
    data_version: str
    plan: FitPlan
    keep: KeptSecrets
    min_rows: int = 1


@dataclass(frozen=True)
class HolderFeature:
    """A feature of the finished scorecard as its owner keeps it.

    Args:
        own: Name, edges and codes.
        group: int64 (prebins,), prebin to merged bin.
        woe_units: int64 (bins,).
        points: int64 (bins,).
    """

    own: OwnFeature
    group: Ints
    woe_units: Ints
    points: Ints


@dataclass(frozen=True)
class _Chosen:
    """A candidate: merged bins of each row, and WOE by bin."""

    own: OwnFeature
    group: Ints
    woe: Ints

    @property
    def codes(self) -> NDArray[np.int32]:
        return self.group[self.own.codes].astype(np.int32)

    @property
    def column(self) -> Ints:
        return self.woe[self.codes]


async def hold_features(channel: Channel, session: Session, inputs: HolderInputs) -> list[HolderFeature]:
    """Takes part in selection, fit and scoring with one holder's features.

    Returns:
        This holder's part of the model; empty if none of its features was chosen.

    Raises:
        DisclosureRefused: the ledger's cap does not allow what the selection would ask.
        PeerError: a message does not fit what was agreed.
        IntegrityError: what an earlier attempt at this run has kept is damaged or foreign, or a party sends other
            content than it did then.
    """
    channel.stage("scorecard")
    selection = await channel.receive(inputs.label_holder, Selection)
    chosen = _chosen(selection, inputs)
    named = [other.party for other in selection.others]
    if len(set(named)) != len(named) or not set(named) <= {p for p in inputs.holders if p != channel.party}:
        raise PeerError(
            "scorecard.others", f"{inputs.label_holder}: names holders that are not in the spec, or one twice"
        )
    given = None
    if inputs.index.hidden:
        given = await take_rows(channel, inputs.label_holder, len(inputs.index.ids), inputs.keep)
    sums = None
    names = [one.own.name for one in chosen]
    if chosen:
        others = sum(other.columns for other in selection.others)
        costs = column_costs(inputs.plan, names, selection.own_columns, others, hidden=inputs.index.hidden)
        channel.declare(
            inputs.label_holder,
            Declaration(
                data_version=inputs.data_version,
                basis=inputs.basis,
                costs=costs,
                purpose="scorecard",
                rows=len(inputs.index.ids),
            ),
        )
        sums = await _answer_products(channel, session, inputs, selection, chosen)
        await _cross(channel, session, inputs, selection, (chosen, given))
    kept = await channel.receive(inputs.label_holder, Kept)
    by_code = {one.own.shape.code: one for one in chosen}
    if len(set(kept.codes)) != len(kept.codes) or not set(kept.codes) <= by_code.keys():
        raise PeerError("scorecard.kept", f"{inputs.label_holder}: keeps features that were not chosen, or one twice")
    final = [by_code[code] for code in kept.codes]
    points = await _Totals(channel, session, inputs, (final, given)).run(sums, price_each(names))
    return [HolderFeature(one.own, one.group, one.woe, table) for one, table in zip(final, points, strict=True)]


def _chosen(selection: Selection, inputs: HolderInputs) -> list[_Chosen]:
    own = {feature.shape.code: feature for feature in inputs.features}
    chosen = []
    for choice in selection.choices:
        feature = own.pop(choice.code, None)
        group, woe = np.array(choice.group, np.int64), np.array(choice.woe, np.int64)
        fits = feature is not None and len(group) == feature.shape.bins and set(choice.group) == set(range(len(woe)))
        if feature is None or not fits:
            raise PeerError("scorecard.choice", f"{inputs.label_holder}: chose an unknown feature, or bins it has not")
        chosen.append(_Chosen(feature, group, woe))
    return chosen


async def _answer_products(
    channel: Channel, session: Session, inputs: HolderInputs, selection: Selection, chosen: Sequence[_Chosen]
) -> GroupSumAnswerer | None:
    """Answers all products of columns; returns the conversation over merged bins, if any, which goes on in the fit."""
    rows, names = len(inputs.index.ids), [one.own.name for one in chosen]
    codes = np.column_stack([one.codes for one in chosen])
    grouping = Grouping(codes, tuple(len(one.woe) for one in chosen), min_rows=inputs.min_rows)
    conversation = inputs.plan.bins(session, rows, selection.own_columns)
    sums = None
    if conversation.batches:
        sums = await GroupSumAnswerer.open(channel, conversation, inputs.label_holder, grouping, inputs.keep)
        if selection.own_columns:
            await sums.answer(price_each(names))
    columns = np.column_stack([one.column for one in chosen])
    if len(chosen) > 1:
        products = np.column_stack([columns[:, i] * columns[:, j] for i, j in pairs(len(chosen))]).astype(np.int32)
        matrix = Grouping(np.zeros((rows, 0), np.int32), (), products, WOE_LIMIT_UNITS**2)
        conversation = inputs.plan.products(session, rows)
        answerer = await GroupSumAnswerer.open(channel, conversation, inputs.label_holder, matrix, inputs.keep)
        await answerer.answer(Priced(tuple((name, len(chosen) - 1) for name in names)))
    return sums


async def _cross(
    channel: Channel,
    session: Session,
    inputs: HolderInputs,
    selection: Selection,
    own: tuple[Sequence[_Chosen], GivenRows | None],
) -> None:
    """Products with every other holder."""
    chosen, given = own
    if given is None:
        for other in selection.others:
            await _cross_open(channel, session, inputs, other, chosen)
        return
    others = [(PartyId(other.party), other.columns) for other in selection.others]
    columns = OwnColumns([one.own.name for one in chosen], np.column_stack([one.column for one in chosen]), others)
    await answer_products(channel, given, columns, inputs.keep, session.run_digest)


async def _cross_open(
    channel: Channel, session: Session, inputs: HolderInputs, other: OtherHolder, chosen: Sequence[_Chosen]
) -> None:
    """Products over rows that all know: the first by name asks, the other masks, only the label holder can add."""
    rows, party = len(inputs.index.ids), PartyId(other.party)
    columns = np.column_stack([one.column for one in chosen])
    costs = tuple(Cost(CostKind.EQUATIONS, one.own.name, other.columns) for one in chosen)
    if channel.party < party:
        conversation = inputs.plan.cross(session, rows, channel.party, party, len(chosen))
        asker = await GroupSumAsker.open(channel, conversation, {party: Expected((), other.columns)}, inputs.keep)
        train = np.where(inputs.index.train[:, None], columns, 0)
        masked = await asker.ask_masked([train[:, i] for i in range(len(chosen))], party, inputs.keep)
        message: MaskedProducts | ProductMasks = MaskedProducts(other=party, masked=masked)
    else:
        conversation = inputs.plan.cross(session, rows, party, channel.party, other.columns)
        matrix = Grouping(np.zeros((rows, 0), np.int32), (), columns.astype(np.int32), WOE_LIMIT_UNITS)
        answerer = await GroupSumAnswerer.open(channel, conversation, party, matrix, inputs.keep)
        message = ProductMasks(other=party, masks=await answerer.answer_masked())
    await channel.send(inputs.label_holder, message, spend=Spend(_digest(message), costs))


class _Totals:
    """Rounds of masked, encrypted partial points."""

    def __init__(
        self,
        channel: Channel,
        session: Session,
        inputs: HolderInputs,
        kept: tuple[Sequence[_Chosen], GivenRows | None],
    ) -> None:
        self._channel, self._session, self._inputs = channel, session, inputs
        self._kept, self._given = kept
        self._mask = MaskKey(inputs.keep.secret.entropy("scorecard/mask-key", session.run_digest.encode()))
        self._draws = RowDraws(inputs.keep.replayable.take(SEED_BYTES), inputs.index.ids)
        self._number = 0
        self._bits = 0.0

    async def run(self, sums: GroupSumAnswerer | None, priced: Priced) -> list[Ints]:
        """Answers rounds until the scoring; returns the points of the model."""
        key = await self._channel.receive(self._inputs.label_holder, TotalsKey)
        if self._given is not None and key.public != self._given.public:
            raise PeerError("scorecard.key", f"{self._inputs.label_holder}: names another key than that of its choice")
        # Totals under a second key would be a second answer: the label holder goes on with the one it had.
        self._inputs.keep.escrow.bind("totals-key", self._inputs.label_holder, hashlib.sha256(key.public).hexdigest())
        peers = [party for party in self._inputs.holders if party != self._channel.party]
        await self._channel.broadcast(peers, MaskPublicKey(key=self._mask.public_bytes()))
        keys: dict[str, bytes] = {
            party: one.key for party, one in (await self._channel.gather(peers, MaskPublicKey)).items()
        }
        keys[self._channel.party] = self._mask.public_bytes()
        while (await self._channel.receive(self._inputs.label_holder, FitStep)).more:
            if self._number >= self._inputs.plan.rounds:
                raise PeerError(
                    "scorecard.round", f"{self._inputs.label_holder}: asks for more rounds than were agreed"
                )
            await self._send(key, keys, "train")
            if sums is not None:
                await sums.answer(priced)
        self._channel.stage("score")
        return await self._send(key, keys, "test")

    async def _send(self, key: TotalsKey, keys: dict[str, bytes], part: Part) -> list[Ints]:
        index = self._inputs.index
        rows = np.ones(len(index.ids), np.bool_) if index.hidden else index.train if part == "train" else index.test
        points = await self._channel.receive(self._inputs.label_holder, PartialPoints)
        tables = self._tables(points, part)
        plan = self._inputs.plan
        total = partial_totals([one.codes[rows] for one in self._kept], tables, int(rows.sum()))
        if part == "train" and self._kept:
            total = perturb(total, plan, self._draws.of(rows), self._number)
        # The masks follow from keys alone: one that hides two totals would show their difference.
        # Nor may they hide one total under two choices of rows.
        chosen = "" if self._given is None else f"/{self._choice(part).digest.hex()}"
        asked = f"{part}/{self._number}{chosen}"
        self._inputs.keep.escrow.bind("partial", f"{part}/{self._number}", f"{content_digest(total).hex()}{chosen}")
        roster = MaskRoster(self._session.run_digest, asked, keys) if len(keys) > 1 else None
        # What is asked: points, key and roster, none of which says anything of a row.
        request = _joined(encode(points), key.public, b"" if roster is None else roster.digest())
        body = self._body(_joined(request, content_digest(total), chosen.encode()), key, (part, total), roster)
        message = EncryptedPartial(round=self._number, rows=part, body=body)
        bits = total_bits(tables, plan.step_units if part == "train" else 1)
        # A row is in one part of the split: the run costs it what the dearer part costs. Where the split is not known
        # here, it costs both.
        cost = Cost(CostKind.ROW_BITS, "", bits if part == "train" or index.hidden else max(0.0, bits - self._bits))
        self._bits += bits
        spend = Spend(request.hex(), (cost,), self._inputs.label_holder)
        await self._channel.send(COORDINATOR, message, spend=spend)
        self._number += 1
        return tables

    def _body(self, about: bytes, key: TotalsKey, rows: tuple[Part, Ints], roster: MaskRoster | None) -> bytes:
        """The masked, encrypted partial: of an earlier attempt at this run, or fresh and kept before it leaves."""

        def fresh() -> bytes:
            return self._encrypted(key, *rows, roster) if self._given is None else self._selected(*rows, roster)

        return self._inputs.keep.once(f"scorecard/partial/{rows[0]}/{self._number}", about, fresh)

    def _encrypted(self, key: TotalsKey, _part: Part, total: Ints, roster: MaskRoster | None) -> bytes:
        masks, largest = None, TOTAL_BOUND
        if roster is not None:
            masks = self._mask.mask(roster, self._channel.party, len(total), modulus_bits(TOTAL_BOUND))
            largest = TOTAL_BOUND // len(roster.keys)
        with blaming(self._inputs.label_holder):
            return encrypt_partial(key.public, total, masks, bound=TOTAL_BOUND, partial_bound=largest)

    def _selected(self, part: Part, total: Ints, roster: MaskRoster | None) -> bytes:
        """Partials of all rows times the label holder's encrypted choice: what it did not choose, it does not get."""
        masks = None
        if roster is not None:
            masks = self._mask.mask_below(roster, self._channel.party, len(total), MODULUS)
        if int(np.abs(total).max(initial=0)) > TOTAL_BOUND // (1 if roster is None else len(roster.keys)):
            raise BoundError("totals.partial", "a partial exceeds this holder's part of the bound")
        return self._choice(part).select(total, masks)

    def _choice(self, part: Part) -> Choice:
        given = cast("GivenRows", self._given)
        return given.train if part == "train" else given.test

    def _tables(self, points: PartialPoints, part: str) -> list[Ints]:
        tables = [np.array(table, np.int64) for table in points.tables]
        shapes = [len(table) for table in tables] == [len(one.woe) for one in self._kept]
        if points.round != self._number or points.rows != part or not shapes:
            raise PeerError(
                "scorecard.points", f"{self._inputs.label_holder}: points of another round, or not one for each bin"
            )
        unit = FIT_UNIT if part == "train" else self._inputs.plan.score_unit
        for table, one in zip(tables, self._kept, strict=True):
            try:
                check_table(table, one.woe, unit)
            except BoundError as error:
                raise PeerError("scorecard.table", f"{self._inputs.label_holder}: sent {error.public}") from error
        return tables


def _digest(message: MaskedProducts | ProductMasks) -> str:
    return hashlib.sha256(encode(message)).hexdigest()


def _joined(*parts: bytes) -> bytes:
    """32 bytes that name some parts in their order."""
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()
