"""The scorecard, the label holder's side: the fit's sums, encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.backends import unmask
from fedcredit.crypto.packing import unpack
from fedcredit.crypto.totals import TotalsSecret
from fedcredit.errors import PeerError
from fedcredit.kernels.woe import WOE_LIMIT_UNITS
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.asker import Expected, GroupSumAsker
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.protocol.scorecard.candidates import Candidates, merged_codes, woe_columns
from fedcredit.protocol.scorecard.decisions import Decisions, OneBank
from fedcredit.protocol.scorecard.fit import FitRules, FittedScorecard, fit_scorecard
from fedcredit.protocol.scorecard.messages import (
    Choice,
    EncryptedTotal,
    FitStep,
    Kept,
    MaskedProducts,
    OtherHolder,
    PartialPoints,
    ProductMasks,
    Selection,
    TotalsKey,
)
from fedcredit.protocol.scorecard.partial import check_totals, partial_totals
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND, FitPlan, pairs
from fedcredit.protocol.select.label_holder import ChosenRows, Part, choose_rows, sum_products
from fedcredit.spec.model import ScorecardSection
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.message import encode

__all__ = ["LabelInputs", "lead_scorecard"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LabelInputs:
    """What the label holder brings.

    Args:
        own: Own features.
        bad: bool (n,), labels in the common order.
        index: Common rows.
        candidates: Features tried.
        holders: All feature holders.
        data_version: Name of the labels in the ledger.
        rules: Section ``[scorecard]``.
        plan: The fit.
        keep: Randomness and escrow.
        decisions: Who decides.
    """

    own: Sequence[OwnFeature]
    bad: NDArray[np.bool_]
    index: RowIndex
    candidates: Candidates
    holders: Sequence[PartyId]
    data_version: str
    rules: ScorecardSection
    plan: FitPlan
    keep: KeptSecrets
    decisions: Decisions = field(default_factory=OneBank)


async def lead_scorecard(channel: Channel, session: Session, inputs: LabelInputs) -> FittedScorecard:
    """Returns merged bins to their owners, fits, and scores the held-out rows.

    Raises:
        DisclosureRefused: more bins would be returned than the label holder's own ledger allows.
        DataError: no feature is left.
        PeerError: a holder's answer can not be one.
        IntegrityError: what an earlier attempt at this run has kept is damaged, foreign or lost.
    """
    channel.stage("scorecard")
    await _announce(channel, inputs)
    chosen = None
    if inputs.index.hidden:
        chosen = await choose_rows(channel, inputs.holders, inputs.index, inputs.keep, session.run_digest)
    sums = _EncryptedSums(channel, session, inputs, chosen)
    good = ~inputs.bad[inputs.index.train]
    how = FitRules(inputs.rules, inputs.plan, inputs.decisions)
    return await fit_scorecard(sums, inputs.candidates.features, good, how)


async def _announce(channel: Channel, inputs: LabelInputs) -> None:
    chosen = {party: inputs.candidates.of(party) for party in inputs.holders}
    own_columns = len(inputs.candidates.of(channel.party))
    train = int(inputs.index.train.sum())
    bads = int(inputs.bad[inputs.index.train].sum())
    for party, features in chosen.items():
        choices = [
            Choice(code=f.code, group=f.merged.group.tolist(), woe=f.merged.woe_units.tolist()) for f in features
        ]
        others = [
            OtherHolder(party=other, columns=len(theirs))
            for other, theirs in chosen.items()
            if theirs and other != party
        ]
        message = Selection(choices=choices, own_columns=own_columns, others=others)
        cost = Cost(CostKind.BINS_RETURNED, "", sum(f.merged.bins for f in features))
        declaration = Declaration(
            data_version=inputs.data_version,
            basis=Basis(n_eff=train, n_bad=bads),
            costs=(cost,),
            purpose="scorecard",
            rows=len(inputs.bad),
        )
        channel.declare(party, declaration)
        digest = hashlib.sha256(party.encode() + encode(message)).hexdigest()
        await channel.send(party, message, spend=Spend(digest, (cost,)))


class _EncryptedSums:
    """The sums of a fit from encrypted answers; see `fedcredit.protocol.scorecard.fit.FitSums`."""

    def __init__(self, channel: Channel, session: Session, inputs: LabelInputs, chosen: ChosenRows | None) -> None:
        self._channel, self._session, self._inputs, self._chosen = channel, session, inputs, chosen
        self._me = channel.party
        self._holders = [party for party in inputs.holders if inputs.candidates.of(party)]
        self._places = {party: inputs.candidates.places(party) for party in [self._me, *self._holders]}
        codes = {feature.shape.code: feature.codes for feature in inputs.own}
        mine = inputs.candidates.of(self._me)
        self._own_codes = [merged_codes(feature, codes[feature.code]) for feature in mine]
        self._own_columns = woe_columns(mine, inputs.own)
        self._asker: GroupSumAsker | None = None
        self._key: TotalsSecret | None = None
        self._kept: Mapping[PartyId, list[int]] = {}
        self._number = 0

    async def products(self) -> Ints:
        """Sums of products, block by block."""
        features, train = self._inputs.candidates.features, self._inputs.index.train
        found = np.zeros((len(features), len(features)), np.int64)
        own, columns = self._places[self._me], np.where(train[:, None], self._own_columns, 0)
        found[np.ix_(own, own)] = columns.T @ columns
        for place, feature in enumerate(features):
            found[place, place] = (feature.merged.goods + feature.merged.bads) @ feature.merged.woe_units**2
        if self._holders:
            await self._with_own(found, columns)
            await self._within(found)
        if self._chosen is not None:
            numbers = {party: len(self._places[party]) for party in self._holders}
            sums_of_pairs = await sum_products(self._channel, self._chosen, numbers, WOE_LIMIT_UNITS, self._inputs.keep)
            for (first, second), sums in sums_of_pairs.items():
                self._place(found, first, second, sums)
            return np.triu(found) + np.triu(found, 1).T
        for pair in combinations(self._holders, 2):  # in the order in which each holder goes through the others
            first, second = sorted(pair)
            await self._between(found, first, second)
        return np.triu(found) + np.triu(found, 1).T

    async def _with_own(self, found: Ints, columns: Ints) -> None:
        features, own = self._inputs.candidates.features, self._places[self._me]
        shapes = {
            party: Expected(tuple((features[place].code, features[place].merged.bins) for place in self._places[party]))
            for party in self._holders
        }
        conversation = self._inputs.plan.bins(self._session, len(self._inputs.bad), len(own))
        if not conversation.batches:
            return
        self._asker = await GroupSumAsker.open(self._channel, conversation, shapes, self._inputs.keep)
        if not own:
            return
        vectors = [columns[:, i] for i in range(len(own))]
        for party, sums in (await self._asker.ask(vectors, self._inputs.keep)).items():
            for mine, by_bin in zip(own, sums, strict=True):
                for place, part in zip(self._places[party], self._split(party, by_bin), strict=True):
                    found[mine, place] = part @ features[place].merged.woe_units

    async def _within(self, found: Ints) -> None:
        shapes = {
            party: Expected((), len(pairs(len(self._places[party]))))
            for party in self._holders
            if len(self._places[party]) > 1
        }
        if not shapes:
            return
        conversation = self._inputs.plan.products(self._session, len(self._inputs.bad))
        asker = await GroupSumAsker.open(self._channel, conversation, shapes, self._inputs.keep)
        weight = self._inputs.index.train.astype(np.int64)
        for party, (sums,) in (await asker.ask([weight], self._inputs.keep)).items():
            places = self._places[party]
            for (i, j), value in zip(pairs(len(places)), sums, strict=True):
                found[places[i], places[j]] = value

    async def _between(self, found: Ints, first: PartyId, second: PartyId) -> None:
        masked = await self._channel.receive(first, MaskedProducts)
        masks = await self._channel.receive(second, ProductMasks)
        columns = len(self._places[first])
        conversation = self._inputs.plan.cross(self._session, len(self._inputs.bad), first, second, columns)
        (plan,) = conversation.plans
        right = masked.other == second and masks.other == first
        if not right or {len(masked.masked), len(masks.masks)} != {len(plan.vectors)}:
            raise PeerError("scorecard.products", f"{first} and {second}: products do not fit what was agreed")
        parameters = conversation.parameters
        with blaming(f"{first} and {second}"):
            sums = [unmask(parameters, body, mask) for body, mask in zip(masked.masked, masks.masks, strict=True)]
            unpacked = unpack(plan, sums)
        if {len(values) for values in unpacked} != {len(self._places[second])}:
            raise PeerError("scorecard.products", f"{first} and {second}: not one product for each pair of columns")
        self._place(found, first, second, unpacked)

    def _place(self, found: Ints, first: PartyId, second: PartyId, sums: Sequence[Ints] | Ints) -> None:
        """Puts a block between two holders into the upper half."""
        for place, values in zip(self._places[first], sums, strict=True):
            for other, value in zip(self._places[second], values, strict=True):
                low, high = sorted((place, other))
                found[low, high] = value

    async def keep(self, kept: Sequence[int]) -> None:
        """Tells the holders which of their candidates stay, and gives everyone the key of the totals."""
        features = self._inputs.candidates.features
        self._kept = {
            party: [place for place in kept if features[place].owner == party] for party in [self._me, *self._holders]
        }
        for party in self._inputs.holders:
            codes = [features[place].code for place in self._kept.get(party, [])]
            await self._channel.send(party, Kept(codes=codes))
        if self._chosen is None:
            self._key = _totals_key(self._inputs.keep, self._session.run_digest)
            message = TotalsKey(public=self._key.public_bytes())
        else:
            message = TotalsKey(public=self._chosen.secret.public_bytes())
        await self._channel.broadcast([*self._inputs.holders, COORDINATOR], message)

    async def totals(self, tables: Sequence[Ints]) -> Ints:
        """One encrypted total a training row."""
        return await self._round(tables, more=True)

    async def score(self, tables: Sequence[Ints]) -> Ints:
        """One encrypted total a held-out row."""
        return await self._round(tables, more=False)

    async def by_bin(self, residual: Ints, weight: Ints) -> list[tuple[Ints, Ints]]:
        """Sums by merged bin of every candidate."""
        rows = []
        for values in (residual, weight):
            full = np.zeros(len(self._inputs.bad), np.int64)
            full[self._inputs.index.train] = values
            rows.append(full)
        found: dict[int, tuple[Ints, Ints]] = {}
        for place, codes in zip(self._places[self._me], self._own_codes, strict=True):
            bins = self._inputs.candidates.features[place].merged.bins
            first, second = (_sum_by(codes, values, bins) for values in rows)
            found[place] = (first, second)
        if self._asker is not None:
            for party, (first, second) in (await self._asker.ask(rows, self._inputs.keep)).items():
                parts = zip(self._places[party], self._split(party, first), self._split(party, second), strict=True)
                found.update({place: (a, b) for place, a, b in parts})
        return [found[place] for place in range(len(found))]

    async def _round(self, tables: Sequence[Ints], *, more: bool) -> Ints:
        part: Part = "train" if more else "test"
        rows = self._inputs.index.train if more else self._inputs.index.test
        at = iter(tables)
        by_place = {place: next(at) for place in sorted(chain.from_iterable(self._kept.values()))}
        mine = [self._places[self._me].index(place) for place in self._kept[self._me]]
        own_tables = [by_place[place] for place in self._kept[self._me]]
        total = partial_totals([self._own_codes[i][rows] for i in mine], own_tables, int(rows.sum()))
        await self._channel.broadcast([*self._inputs.holders, COORDINATOR], FitStep(more=more))
        if not more:
            self._channel.stage("score")
        for party in self._inputs.holders:
            points = [by_place[place].tolist() for place in self._kept.get(party, [])]
            await self._channel.send(party, PartialPoints(round=self._number, rows=part, tables=points))
        answer = await self._channel.receive(COORDINATOR, EncryptedTotal)
        if answer.round != self._number or answer.rows != part:
            raise PeerError("scorecard.round", "coordinator: totals of another round")
        self._number += 1
        theirs = self._opened(part, answer.body, int(rows.sum()))
        tables_of = {p: t for p, t in by_place.items() if self._inputs.candidates.features[p].owner != self._me}
        check_totals(theirs, self._inputs.candidates.features, tables_of, self._inputs.plan if more else None)
        return total + theirs

    def _opened(self, part: Part, body: bytes, rows: int) -> Ints:
        if self._chosen is not None:
            return self._chosen.total(part, body, TOTAL_BOUND)
        if self._key is None:
            raise PeerError("scorecard.key", f"{self._me}: totals were asked before their key was given out")
        with blaming(COORDINATOR):
            return self._key.decrypt(body, rows)

    def _split(self, party: PartyId, by_bin: Ints) -> list[Ints]:
        bins = [self._inputs.candidates.features[place].merged.bins for place in self._places[party]]
        return np.split(by_bin, np.cumsum(bins)[:-1])


def _totals_key(keep: KeptSecrets, run: str) -> TotalsSecret:
    """The key pair of the totals: totals under a second one would be paid for again."""
    kept = keep.once("scorecard/key", run.encode(), lambda: TotalsSecret(TOTAL_BOUND).kept(run))
    return TotalsSecret.restore(kept, TOTAL_BOUND, run)


def _sum_by(codes: NDArray[np.int32], values: Ints, bins: int) -> Ints:
    found = np.zeros(bins, np.int64)
    np.add.at(found, codes, values)
    return found
