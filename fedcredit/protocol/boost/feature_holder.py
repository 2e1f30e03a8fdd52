"""Boosting, a feature holder's side: noisy sums of vectors it cannot read, bitmaps of the splits that win."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.commitment import content_digest
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.slots import Selection
from fedcredit.errors import DataError, DisclosureRefused, IntegrityError, PeerError
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.boost.columns import direction
from fedcredit.protocol.boost.draws import HolderDraws
from fedcredit.protocol.boost.messages import (
    Bitmaps,
    BoostBasis,
    ChosenPaths,
    KeptSplits,
    Offer,
    Paths,
    TreeShape,
    TreeShapes,
    TreeStart,
    WantedSplits,
)
from fedcredit.protocol.boost.plan import SHAPE_EQUATIONS, BoostPlan, check_trees
from fedcredit.protocol.boost.slots import NO_FEATURE, SlotFormat, pack_bits, unpack_bits
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.group_sum.answerer import GroupSumAnswerer, price_each
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.protocol.select.feature_holder import GivenRows, take_rows
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.message import encode

__all__ = ["HolderInputs", "HolderTrees", "OwnSplit", "hold_trees"]

Bools = NDArray[np.bool_]

_SIDES = "boost/bitmaps/"


@dataclass(frozen=True)
class HolderInputs:
    """What a feature holder brings.

    Args:
        label_holder: Who asks.
        own: Own features, in the order announced.
        index: Common rows.
        data_version: Digest of the table, for the ledger.
        plan: The run.
        draws: Noise and samples.
        keep: Randomness and escrow.
        checkpoints: Where disclosed splits are kept.
        common: Whether bins are those of several banks: one of them may have no rows at this bank, and none has a few.
        joins: Whether the label holder takes trees over that others have grown: it asks for bitmaps, and for no sum.
    """

    label_holder: PartyId
    own: Sequence[OwnFeature]
    index: RowIndex
    data_version: str
    plan: BoostPlan
    draws: HolderDraws
    keep: KeptSecrets
    checkpoints: Checkpoints
    common: bool = False
    joins: bool = False


@dataclass(frozen=True)
class OwnSplit:
    """A split of one's own that is in the model.

    Args:
        number: Its number among the splits this party has disclosed; the name under which the label holder knows it.
        feature: Place among the own features.
        left: Bins that go left.
    """

    number: int
    feature: int
    left: tuple[int, ...]


@dataclass(frozen=True)
class HolderTrees:
    """A feature holder's part of the model.

    Args:
        own: Its features.
        splits: Its splits in the model.
        disclosed: How many splits it has disclosed, those not used in the end included.
    """

    own: tuple[OwnFeature, ...]
    splits: tuple[OwnSplit, ...]
    disclosed: int


class _Disclosed(msgspec.Struct, frozen=True):
    """A split whose bitmap has left, and when: a run that goes on from an earlier tree sees what it saw then."""

    tree: int
    round: int
    feature: int
    left: tuple[int, ...]


async def hold_trees(channel: Channel, session: Session, inputs: HolderInputs) -> HolderTrees:
    """Answers every tree, then the paths of the rows to score.

    Raises:
        DataError: more features than a split can name.
        DisclosureRefused: the ledger's cap does not allow so many trees, and nothing was sent; or the label holder asks
            for more thresholds than were declared.
        PeerError: the label holder asks out of turn.
        IntegrityError: in an earlier attempt at this run it wanted other splits; or the own checkpoint is damaged, or
            not the last one.
    """
    channel.stage("boost")
    thresholds = await _announce(channel, inputs)
    given = None
    if inputs.index.hidden:
        given = await take_rows(channel, inputs.label_holder, len(inputs.index.rows), inputs.keep)
    answers = _Answers(inputs, thresholds, given)
    answerer = None if inputs.joins else await _open(channel, session, inputs)
    last = inputs.plan.boost.first_trees_local - 1
    while (start := await channel.receive(inputs.label_holder, TreeStart)).more:
        if not last < start.tree < inputs.plan.boost.trees:
            raise PeerError("boost.tree", f"{inputs.label_holder}: tree {start.tree} after tree {last}")
        last = start.tree
        await answers.tree(channel, answerer, start.tree)
    channel.stage("score")
    kept = await channel.receive(inputs.label_holder, KeptSplits)
    splits = answers.kept(kept.kept)
    await _send_paths(channel, inputs, splits, given)
    return HolderTrees(tuple(inputs.own), splits, len(answers.disclosed))


async def _open(channel: Channel, session: Session, inputs: HolderInputs) -> GroupSumAnswerer:
    """Gets ready to answer sums."""
    matrix = np.column_stack([feature.codes[inputs.index.summed] for feature in inputs.own])
    bins = tuple(feature.shape.bins for feature in inputs.own)
    grouping = Grouping(matrix, bins, min_rows=0 if inputs.common else inputs.plan.boost.min_bin_rows)
    conversation = inputs.plan.conversation(session, grouping.rows)
    return await GroupSumAnswerer.open(channel, conversation, inputs.label_holder, grouping, inputs.keep)


async def _announce(channel: Channel, inputs: HolderInputs) -> list[int]:
    """Declares the whole price, then sends the shapes; returns how many new splits each feature may disclose."""
    plan, leader = inputs.plan, inputs.label_holder
    signed = await channel.receive(leader, BoostBasis)
    if len(inputs.own) >= NO_FEATURE:
        raise DataError("boost.features", f"{len(inputs.own)} features, at most {NO_FEATURE - 1} are possible")
    basis = Basis(n_eff=signed.n_eff, n_bad=signed.n_bad, noise_rows=plan.privacy.noise_rows)
    names = [feature.name for feature in inputs.own]
    free = channel.headroom(leader, inputs.data_version, basis, CostKind.ROW_BITS, names)
    usable = [plan.cap if feature.shape.bins > 1 else 0 for feature in inputs.own]
    thresholds = [int(min(cap, left)) for cap, left in zip(usable, free, strict=True)]
    left = channel.headroom(leader, inputs.data_version, basis, CostKind.EQUATIONS, names)
    if inputs.joins:
        offered = [0] * len(names)
    else:
        room = [one if new else np.inf for one, new in zip(left, thresholds, strict=True)]
        check_trees(plan, inputs.draws, room, leader)
        offered = plan.trees_offered(inputs.draws, len(names), plan.boost.trees)
    declaration = Declaration(
        data_version=inputs.data_version,
        basis=basis,
        costs=plan.costs(names, offered, thresholds),
        purpose="boost",
        rows=int(inputs.index.summed.sum()),  # no sum is over a held-out row
    )
    channel.declare(leader, declaration)
    shapes = TreeShapes(
        features=[
            TreeShape(
                code=feature.shape.code,
                bins=feature.shape.bins,
                ordered=feature.shape.ordered,
                monotone=direction(feature),
                thresholds=new,
            )
            for feature, new in zip(inputs.own, thresholds, strict=True)
        ]
    )
    costs = tuple(Cost(CostKind.EQUATIONS, name, SHAPE_EQUATIONS) for name in names)
    await channel.send(leader, shapes, spend=Spend(_digest(shapes), costs))
    return thresholds


class _Answers:
    """What has been disclosed so far, and the answers that follow from it."""

    def __init__(self, inputs: HolderInputs, thresholds: Sequence[int], given: GivenRows | None) -> None:
        self._inputs, self._plan, self._thresholds, self._given = inputs, inputs.plan, thresholds, given
        self._bins = [feature.shape.bins for feature in inputs.own]
        self._format = SlotFormat(tuple(self._bins))
        self._rows = inputs.index.summed
        self._grown = False
        state = inputs.checkpoints.load()
        self.disclosed = [] if state is None else _read(state)

    async def tree(self, channel: Channel, answerer: GroupSumAnswerer | None, tree: int) -> None:
        """All rounds of one tree; without an answerer only the bitmaps."""
        if answerer is None:
            every = np.ones(len(self._bins), np.bool_)
            for number in range(len(self._plan.slots)):
                await self._bitmaps(channel, (tree, number), every)
            return
        # Whoever begins a tree has saved the one before, but where banks grow them together; the first may be a repeat.
        if self._grown and not self._inputs.common:
            answerer.settled()
            self._inputs.keep.kept.drop(_SIDES)
        self._grown = True
        draws, plan, outputs = self._inputs.draws, self._plan, sum(self._bins)
        offered = draws.columns(tree, len(self._bins), plan.boost.column_sampling)
        if plan.boost.column_sampling < 1:
            await channel.send(self._inputs.label_holder, Offer(tree=tree, offered=pack_bits(offered)))
        for number, slots in enumerate(plan.slots):
            batch = plan.batch(tree, number)
            left = [cap - self._used(f, (tree, number)) for f, cap in enumerate(self._thresholds)]
            asked = offered & (np.array(left) > 0)
            noise = [one for slot in range(slots) for one in draws.noise(batch, slot, outputs, plan.noise_units)]
            names = [f.name for f, one in zip(self._inputs.own, asked, strict=True) if one]
            withheld = np.repeat(~asked, self._bins)
            await answerer.answer(price_each(names, plan.weight), batch=batch, offsets=noise, withheld=withheld)
            await self._bitmaps(channel, (tree, number), offered)

    def _used(self, feature: int, before: tuple[int, int]) -> int:
        return sum(1 for one in self.disclosed if one.feature == feature and (one.tree, one.round) < before)

    async def _bitmaps(self, channel: Channel, at: tuple[int, int], offered: Bools) -> None:
        leader, (tree, number) = self._inputs.label_holder, at
        wanted = await channel.receive(leader, WantedSplits)
        if (wanted.tree, wanted.round) != at:
            raise PeerError("boost.round", f"{leader}: splits of another round")
        with blaming(leader):
            splits = self._format.read(wanted.slots, self._plan.wanted(number))
        for feature, left in splits:
            if not offered[feature]:
                raise PeerError("boost.offer", f"{leader}: wants a split of a feature that this tree was not offered")
            self._check_threshold(feature, left)
        # For good, before anything leaves: who may try a round again with other splits learns those too.
        self._inputs.keep.escrow.bind("wanted", f"boost/{tree}/{number}", _digest(wanted))
        if not splits:
            return
        known = {(one.feature, one.left) for one in self.disclosed}
        fresh = [_Disclosed(tree, number, feature, left) for feature, left in splits if (feature, left) not in known]
        disclosed = [*self.disclosed, *fresh]
        if any(sum(one.feature == f for one in disclosed) > self._thresholds[f] for f, _ in splits):
            text = f"{leader}: asks for more thresholds of a feature than were declared"
            raise DisclosureRefused("boost.thresholds", text)
        for place, one in enumerate(fresh, len(self.disclosed)):  # a checkpoint that was lost would give numbers anew
            name = hashlib.sha256(msgspec.json.encode(one)).hexdigest()
            self._inputs.keep.escrow.bind("disclosed", f"boost/{place}", name)
        self.disclosed = disclosed
        self._inputs.checkpoints.save(msgspec.json.encode(disclosed))
        sides = [self._goes_left(feature, left) for feature, left in splits]
        if self._given is None:
            bitmaps = [pack_bits(bits[self._rows]) for bits in sides]
        else:
            bitmaps = _chosen(f"{_SIDES}{tree}/{number}", self._given.train, sides, self._inputs.keep)
        names = [self._inputs.own[one.feature].name for one in fresh]
        costs = tuple(Cost(CostKind.ROW_BITS, name, names.count(name)) for name in dict.fromkeys(names))
        answer = Bitmaps(tree=tree, round=number, bitmaps=bitmaps)
        await channel.send(leader, answer, spend=Spend(_digest(wanted), costs))

    def _check_threshold(self, feature: int, left: tuple[int, ...]) -> None:
        """A split of ordered bins is a threshold: anything else would be chosen to tell rows apart, not to predict."""
        ordered = self._inputs.own[feature].shape.ordered
        below = [bin_ for bin_ in left if bin_ < ordered]
        if below != list(range(len(below))):
            raise PeerError(
                "boost.threshold", f"{self._inputs.label_holder}: a split of ordered bins that is no threshold"
            )

    def _goes_left(self, feature: int, left: tuple[int, ...]) -> Bools:
        table = np.zeros(self._bins[feature], np.bool_)
        table[list(left)] = True
        return table[self._inputs.own[feature].codes]

    def kept(self, mask: bytes) -> tuple[OwnSplit, ...]:
        """The disclosed splits that the label holder keeps."""
        with blaming(self._inputs.label_holder):
            bits = unpack_bits(mask, (self._plan.kept_slots(self._thresholds),), "kept splits")
        if bits[len(self.disclosed) :].any():
            raise PeerError("boost.kept", f"{self._inputs.label_holder}: keeps splits that were never disclosed")
        return tuple(
            OwnSplit(number, one.feature, one.left) for number, one in enumerate(self.disclosed) if bits[number]
        )


def _read(state: bytes) -> list[_Disclosed]:
    """The splits in a checkpoint."""
    try:
        return msgspec.json.decode(state, type=list[_Disclosed])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IntegrityError("boost.checkpoint", "the checkpoint of this run is damaged", str(error)) from None


async def _send_paths(
    channel: Channel, inputs: HolderInputs, splits: Sequence[OwnSplit], given: GivenRows | None
) -> None:
    sides = [np.isin(inputs.own[split.feature].codes, split.left) for split in splits]
    message: Paths | ChosenPaths
    if given is None:
        test = inputs.index.test
        bits = np.column_stack([np.zeros((int(test.sum()), 0), np.bool_), *(one[test] for one in sides)])
        message = Paths(rows=len(bits), splits=len(splits), bits=pack_bits(bits))
    else:
        message = ChosenPaths(bodies=_chosen("boost/paths", given.test, sides, inputs.keep))
    # No cost: the same thresholds as in training, about other rows; no row is told more often than the cap allows.
    await channel.send(inputs.label_holder, message, spend=Spend(_digest(message), ()))


def _chosen(name: str, rows: Selection, sides: Sequence[Bools], keep: KeptSecrets) -> list[bytes]:
    """Sides of splits in the rows that the label holder chose, once: a second answer would be a second release."""
    about = rows.digest + b"".join(content_digest(side.astype(np.int8)) for side in sides)
    return keep.all_once(name, about, lambda: [rows.select(side.astype(np.int64), None) for side in sides])


def _digest(message: TreeShapes | WantedSplits | Paths | ChosenPaths) -> str:
    return hashlib.sha256(encode(message)).hexdigest()
