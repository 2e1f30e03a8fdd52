"""A bank that joins later with few rows: it takes over the trees that the banks of a hybrid run have in common.

It plays a run of its own with the feature holders, who cut and number their features as they did then. They tell it on
which side of each disclosed split its rows lie, and no sum: that costs bits of its rows and next to no equations, which
so few rows would not pay for. From its rows come its intercept and trees of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, IntegrityError, PeerError
from fedcredit.kernels.boost_state import BoostCheckpoint, BoostState
from fedcredit.kernels.known_splits import model_bits, needed_splits
from fedcredit.kernels.pooled_rows import Among, bank_margin
from fedcredit.kernels.prebin import Prebins
from fedcredit.kernels.tree_model import BoostedTrees, Split, Tree, TreeFeature, margins
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.boost.archive import note_pool, note_rows
from fedcredit.protocol.boost.columns import FeatureList
from fedcredit.protocol.boost.label_holder import LabelInputs, LedTrees, TreeRun, gather_shapes, training_rows
from fedcredit.protocol.boost.messages import TreeStart
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import Session
from fedcredit.protocol.select.label_holder import choose_rows
from fedcredit.types import PartyId

__all__ = ["SharedColumn", "SharedTrees", "join_trees", "shared_trees"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SharedColumn:
    """A column that the banks have in common.

    Args:
        name: Its name.
        code: Its code in the model.
        monotone: Direction of risk that was asked for.
        prebins: How all banks cut it. Of categories each bank can only name those that it has: a newcomer's others go
            where unknown names go.
    """

    name: str
    code: str
    monotone: str
    prebins: Prebins


@dataclass(frozen=True)
class SharedTrees:
    """What all banks of a hybrid run have in common, as one of them hands it on.

    Args:
        columns: The banks' own columns.
        features: Features of the model; those of the banks have no owner.
        splits: Splits of the trees, in order of first use.
        disclosed: Splits that the holders disclosed for them, in the order disclosed.
        trees: In order of growth.
    """

    columns: tuple[SharedColumn, ...]
    features: tuple[TreeFeature, ...]
    splits: tuple[Split, ...]
    disclosed: tuple[Split, ...]
    trees: tuple[Tree, ...]

    def encode(self) -> bytes:
        """As bytes to hand to a bank that joins."""
        return msgspec.json.encode(self)

    def digest(self) -> str:
        """SHA-256 of these bytes, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def decode(cls, data: bytes, digest: str) -> SharedTrees:
        """Reads what another bank has sent.

        Args:
            data: The bytes.
            digest: As that bank states it by another way.

        Raises:
            IntegrityError: other bytes than that bank has sent, or no trees.
        """
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError("hybrid.shared", "the shared trees are not those whose digest was stated")
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise IntegrityError("hybrid.shared", "the shared trees cannot be read", str(error)) from None

    def own_features(self, table: HolderTable, index: RowIndex) -> list[OwnFeature]:
        """A bank's own columns in the bins of the trees.

        Raises:
            DataError: the bank lacks a column.
        """
        found = []
        for one in self.columns:
            if one.name not in table.columns:
                raise DataError("hybrid.column", f"{table.party}: has no column {one.name!r} of the shared trees")
            column = index.take(table.columns[one.name])
            prebins, single = one.prebins, one.prebins.bins < 2
            shape = msgspec.convert(
                {"code": one.code, "bins": prebins.bins, "ordered": prebins.ordered, "monotone": one.monotone},
                FeatureShape,
            )
            codes = np.zeros(len(column), np.int32) if single else prebins.apply(column).astype(np.int32)
            found.append(OwnFeature(one.name, shape, prebins, codes))
        return found


def shared_trees(me: PartyId, own: Sequence[OwnFeature], led: LedTrees) -> SharedTrees:
    """The common part of one bank's model; the same at every bank but for names of categories.

    Args:
        me: The bank.
        own: Its own features.
        led: What it has from the hybrid run.
    """
    model = led.model
    trees = model.trees[: led.shared]
    used = 1 + max((node.split for tree in trees for node in tree.nodes), default=-1)
    features = tuple(replace(one, owner="") if one.owner == me else one for one in model.features)
    splits, known = model.splits[:used], list(led.disclosed)
    needed = needed_splits(replace(model, trees=trees, splits=splits), known)
    return SharedTrees(
        columns=tuple(SharedColumn(one.name, one.shape.code, one.shape.monotone, one.prebins) for one in own),
        features=features,
        splits=splits,
        disclosed=tuple(split for split in known if split in needed),
        trees=trees,
    )


async def join_trees(channel: Channel, session: Session, inputs: LabelInputs, shared: SharedTrees) -> LedTrees:
    """A joining bank's part; the holders play `fedcredit.protocol.boost.feature_holder.hold_trees` with ``joins``.

    Raises:
        DataError: the common rows do not carry a model.
        PeerError: a holder's features are not those of the trees, it allows fewer splits, or its answer can not be one.
    """
    channel.stage("boost")
    index, plan = inputs.index, inputs.plan
    train = training_rows(index, inputs.bad, plan, inputs.draws)
    note_rows(inputs.keep.escrow, index)
    note_pool(inputs.keep.escrow, [])
    shapes = await gather_shapes(channel, inputs, train)
    features = FeatureList.of(channel.party, inputs.own, shapes, plan.cap if plan.capped else None)
    _check(channel.party, features.features, shared)
    chosen = None
    if index.hidden:
        chosen = await choose_rows(channel, inputs.holders, index, inputs.keep, session.run_digest)
    bads, goods = int((inputs.bad & train).sum()), int((~inputs.bad & train).sum())
    base = bank_margin((bads, goods), (bads, goods))
    among = Among(base, np.full(int(index.train.sum()), base))
    run = TreeRun(channel, (None, chosen), inputs, features, (train, among))
    bits = await _told(channel, inputs, run, features, shared.disclosed)
    run.state = _state(run, bits, shared)
    return await run.score(own=True)


def _check(me: PartyId, features: Sequence[TreeFeature], shared: SharedTrees) -> None:
    """Refuses features that are not those of the trees, and caps that do not allow their splits."""
    mine = [replace(one, owner="" if one.owner == me else one.owner, thresholds=None) for one in features]
    if mine != [replace(one, thresholds=None) for one in shared.features]:
        raise PeerError("hybrid.shapes", "the holders' features are not cut as in the shared trees, or are others")
    for place, one in enumerate(features):
        wanted = sum(split.feature == place for split in shared.disclosed)
        if one.thresholds is not None and wanted > one.thresholds:
            text = f"{one.owner}: allows {one.thresholds} splits of {one.code}; the shared trees have {wanted}"
            raise PeerError("hybrid.thresholds", text)


async def _told(
    channel: Channel, inputs: LabelInputs, run: TreeRun, features: FeatureList, disclosed: Sequence[Split]
) -> dict[Split, Bools]:
    """The bits of the disclosed splits, asked in the rounds that trees under growth would have."""
    left = {
        party: [split for split in disclosed if features.features[split.feature].owner == party]
        for party in inputs.holders
    }
    plan, bits = inputs.plan, dict[Split, Bools]()
    for tree in range(plan.boost.first_trees_local, plan.boost.trees):
        if not any(left.values()):
            break
        await channel.broadcast(inputs.holders, TreeStart(tree=tree, more=True))
        for number in range(len(plan.slots)):
            asked = [split for party in inputs.holders for split in left[party][: plan.wanted(number)]]
            bits |= await run.bitmaps((tree, number), asked)
            left = {party: rest[plan.wanted(number) :] for party, rest in left.items()}
    if any(left.values()):
        raise PeerError("hybrid.rounds", "this run has too few trees to ask for all splits of the shared ones")
    await channel.broadcast(inputs.holders, TreeStart(tree=plan.boost.trees, more=False))
    return bits


def _state(run: TreeRun, bits: Mapping[Split, Bools], shared: SharedTrees) -> BoostState:
    """The shared trees on this bank's rows."""
    records = run.state.records
    model = BoostedTrees(run.state.base, records.features, shared.splits, shared.trees)
    margin = margins(model, model_bits(model, records.codes, {split: bits[split] for split in shared.disclosed}))
    packed = np.array([np.packbits(bits[split]) for split in shared.disclosed], np.uint8)
    packed = packed.reshape(len(shared.disclosed), -(-len(margin) // 8))
    rules = replace(run.state.rules, early_stopping=0)
    kept = BoostCheckpoint(shared.trees, shared.splits, (), shared.disclosed, packed, margin, margin)
    return BoostState.from_state(records, rules, kept)
