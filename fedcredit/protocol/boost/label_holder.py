"""Boosting, the label holder's side: grows trees over its own bins and the encrypted sums of all holders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, PeerError
from fedcredit.kernels.known_splits import model_bits, needed_splits
from fedcredit.kernels.pooled_rows import Among
from fedcredit.kernels.tree_grower import TreeGrower
from fedcredit.kernels.tree_model import BoostedTrees, Split, margins
from fedcredit.kernels.trees import BoostState, Records, TreeRecord
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.blame import blaming
from fedcredit.protocol.boost.agreement import RoundSums
from fedcredit.protocol.boost.archive import note_message, note_pool, note_rows, note_tree
from fedcredit.protocol.boost.columns import FeatureList, code_matrix
from fedcredit.protocol.boost.draws import LabelDraws, OfferedDraws
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
from fedcredit.protocol.boost.plan import FIELDS, BoostPlan
from fedcredit.protocol.boost.saved import read_checkpoint, write_checkpoint
from fedcredit.protocol.boost.slots import NO_FEATURE, SlotFormat, pack_bits, unpack_bits
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.group_sum.asker import Expected, GroupSumAsker
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.protocol.hybrid.trees_personal import own_trees
from fedcredit.protocol.hybrid.trees_pool import Together, answer_bound, settle_trees
from fedcredit.protocol.pool import Pool
from fedcredit.protocol.select.label_holder import ChosenRows, choose_rows
from fedcredit.spec.model import HybridSection
from fedcredit.types import PartyId

__all__ = ["LabelInputs", "LedTrees", "Report", "TreeRun", "gather_shapes", "lead_trees", "training_rows"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Report = Callable[[int, int, TreeRecord], None]
"""Told of each finished tree: how many there are, how many were asked for, and how good they are."""


@dataclass(frozen=True)
class LabelInputs:
    """What the label holder brings.

    Args:
        own: Own features.
        bad: bool (n,), labels in the common order.
        index: Common rows.
        holders: All feature holders.
        plan: The run.
        draws: Rounding and samples.
        keep: Randomness and escrow.
        checkpoints: Its state after each tree.
        report: Told of each tree.
        pool: The banks that grow these trees together; None = this one alone.
        hybrid: What is a bank's own in them.
    """

    own: Sequence[OwnFeature]
    bad: Bools
    index: RowIndex
    holders: Sequence[PartyId]
    plan: BoostPlan
    draws: LabelDraws
    keep: KeptSecrets
    checkpoints: Checkpoints
    report: Report
    pool: Pool | None = None
    hybrid: HybridSection = field(default_factory=HybridSection)


@dataclass(frozen=True, eq=False)
class LedTrees:
    """The label holder's part of the model, and what it knows of the rows.

    Args:
        model: The trees; a feature of another party is a code.
        disclosed: The disclosed splits that those of the model are or follow from, each with its owner's number of it.
        train: bool (n,), rows trained on; rows neither held out nor trained on judged early stopping.
        margins: float64 (n,), log-odds of default of all common rows that count; of no meaning in others.
        bits: bool (n, S), side of every such row in every split of the model.
        history: One record a tree, those after the best one included, those for own rows alone left out.
        counts: Distinct splits each holder has disclosed, those that no tree needed in the end included.
        outputs: Sums that all holders together answer to one vector.
        shared: Trees of the model that all banks of the pool have; the others are for own rows alone.
    """

    model: BoostedTrees
    disclosed: Mapping[Split, int]
    train: Bools
    margins: Floats
    bits: Bools
    history: tuple[TreeRecord, ...]
    counts: Mapping[PartyId, int]
    outputs: int
    shared: int = 0


async def lead_trees(channel: Channel, session: Session, inputs: LabelInputs) -> LedTrees:
    """Grows all trees, then has the held-out rows' paths told.

    Raises:
        DataError: the common rows do not carry a model.
        PeerError: a holder's answer can not be one.
        IntegrityError: a holder's bins do not add up, or its bitmaps do not fit them; or the own checkpoint is damaged.
    """
    channel.stage("boost")
    train = training_rows(inputs.index, inputs.bad, inputs.plan, inputs.draws)
    note_rows(inputs.keep.escrow, inputs.index)
    shapes = await gather_shapes(channel, inputs, train)
    features = FeatureList.of(channel.party, inputs.own, shapes, inputs.plan.cap if inputs.plan.capped else None)
    counting = inputs.index.train
    if inputs.pool is not None:
        note_pool(inputs.keep.escrow, inputs.pool.members)
    common = await settle_trees(
        inputs.pool,
        (inputs.plan, inputs.hybrid),
        features.features,
        (inputs.bad[counting], train[counting]),
        (channel.party, inputs.draws),
    )
    features = replace(features, features=common.features)
    bins = {party: Expected(tuple((f.code, f.bins) for f in announced)) for party, announced in shapes.items()}
    chosen = None
    if inputs.index.hidden:
        chosen = await choose_rows(channel, inputs.holders, inputs.index, inputs.keep, session.run_digest)
    conversation = inputs.plan.conversation(session, int(inputs.index.summed.sum()))
    asker = await GroupSumAsker.open(channel, conversation, bins, inputs.keep)
    inputs = replace(inputs, draws=replace(inputs.draws, common=common.columns or b""))
    run = TreeRun(channel, (asker, chosen), inputs, features, (train, common.among))
    while not run.state.finished:
        await run.grow()
    await channel.broadcast(inputs.holders, TreeStart(tree=len(run.state.history), more=False))
    return await run.score(own=inputs.pool is not None)


def training_rows(index: RowIndex, bad: Bools, plan: BoostPlan, draws: LabelDraws) -> Bools:
    """Rows that count: not held out, and not set aside to judge early stopping on; bool (n,).

    Raises:
        DataError: one class is missing among them, among the rows set aside, or among those held out.
    """
    rows = index.train
    parts = {"held-out rows": index.test}
    if plan.privacy.early_stopping:
        aside = rows & draws.validation(len(rows), plan.boost.validation_fraction)
        rows = rows & ~aside
        parts["rows that judge early stopping"] = aside
    for name, part in {"rows to train on": rows, **parts}.items():
        bads = int(bad[part].sum())
        if bads in {0, int(part.sum())}:
            raise DataError("label.one-class", f"{bads} of {int(part.sum())} {name} are bad: both classes are needed")
    return rows


async def gather_shapes(channel: Channel, inputs: LabelInputs, train: Bools) -> dict[PartyId, Sequence[TreeShape]]:
    """Signs the sizes, and has every holder announce its features."""
    basis = BoostBasis(n_eff=int(train.sum()), n_bad=int(inputs.bad[train].sum()))
    await channel.broadcast(inputs.holders, basis)
    found = await channel.gather(inputs.holders, TreeShapes)
    for party, shapes in found.items():
        note_message(inputs.keep.escrow, party, shapes)
        codes = [feature.code for feature in shapes.features]
        if not 0 < len(codes) < NO_FEATURE or len(set(codes)) != len(codes):
            raise PeerError("boost.shapes", f"{party}: announces no features, too many, or a code twice")
        if any(f.ordered > f.bins or (f.monotone and not f.ordered) for f in shapes.features):
            raise PeerError("boost.shapes", f"{party}: announces more ordered bins than bins, or an order of none")
        if any(f.thresholds > inputs.plan.cap for f in shapes.features):
            raise PeerError("boost.shapes", f"{party}: announces more thresholds than the run's cap")
    return {party: found[party].features for party in inputs.holders}


class TreeRun:
    """The model under growth, and the conversation about it with all holders."""

    def __init__(
        self,
        channel: Channel,
        asked: tuple[GroupSumAsker | None, ChosenRows | None],
        inputs: LabelInputs,
        features: FeatureList,
        rows: tuple[Bools, Among | None],
    ) -> None:
        train, among = rows
        self._together = Together(inputs.pool)
        self._channel, self._inputs, self._features = channel, inputs, features
        self._asker, self._chosen = asked
        self._plan, self._train = inputs.plan, train
        self._rows = np.flatnonzero(inputs.index.train)  # rows that judge early stopping go down the trees too
        self._formats = {party: SlotFormat(features.bins_of(party)) for party in inputs.holders}
        codes = code_matrix(inputs.own, self._rows)
        records = Records(features.features, codes, inputs.bad[self._rows], train[self._rows], among)
        saved = inputs.checkpoints.load()
        rules = inputs.plan.rules
        fresh = BoostState(records, rules)
        self.state = fresh if saved is None else BoostState.from_state(records, rules, read_checkpoint(saved))

    async def grow(self) -> None:
        """One tree."""
        tree, plan = len(self.state.history), self._plan
        if tree < plan.boost.first_trees_local:
            grower = await self._begin(tree, self._own_offer(tree))
            while not grower.done:
                await self._choose(tree, grower, [])
                await self._together.run(f"tree/{tree}", grower.settling({}))
        else:
            await self._channel.broadcast(self._inputs.holders, TreeStart(tree=tree, more=True))
            offered = await self._offered(tree)
            grower = await self._begin(tree, offered)
            root: RoundSums | None = None
            for number in range(len(plan.slots)):
                answered = await self._sums(grower, (tree, number))
                root = root or answered
                bits = await self.bitmaps((tree, number), await self._choose(tree, grower, answered.sums))
                for one in (root, answered):  # the root holds every row that counts in this tree
                    one.check(self._features.features, bits, plan, common=self._inputs.pool is not None)
                await self._together.run(f"tree/{tree}", grower.settling(bits))
        known = len(self.state.known.numbered)
        record = await self._together.run(f"tree/{tree}", self.state.adding(grower))
        state = self.state.to_state()
        note_tree(self._inputs.keep.escrow, tree, state.trees[-1], state.splits[known:])
        self._inputs.checkpoints.save(write_checkpoint(state))
        if self._asker is not None and self._inputs.pool is None:  # a pool begins again with the first tree
            self._asker.settled(self._inputs.keep)
        self._inputs.report(tree + 1, plan.boost.trees, record)

    async def _begin(self, tree: int, offered: Bools) -> TreeGrower:
        draws = OfferedDraws(self._inputs.draws, offered)
        return await self._together.run(f"tree/{tree}", self.state.growing(draws))

    async def _choose(self, tree: int, grower: TreeGrower, sums: Sequence[tuple[Ints, Ints]]) -> list[Split]:
        return await self._together.run(f"tree/{tree}", grower.choosing(sums, answer_bound(self._plan)))

    def _own_offer(self, tree: int) -> Bools:
        places = self._features.of_party(self._channel.party)
        active = np.ones(len(self._features.features), np.bool_)
        active[places] = self._inputs.draws.columns(tree, len(places), self._plan.boost.column_sampling)
        return active

    async def _offered(self, tree: int) -> Bools:
        active = self._own_offer(tree)
        if self._plan.boost.column_sampling >= 1:
            return active
        for party, offer in (await self._channel.gather(self._inputs.holders, Offer)).items():
            if offer.tree != tree:
                raise PeerError("boost.tree", f"{party}: offers features for tree {offer.tree}, {tree} has begun")
            note_message(self._inputs.keep.escrow, party, offer)
            with blaming(party):
                offered = unpack_bits(offer.offered, (len(self._features.shapes[party]),), "offered features")
            active[self._features.of_party(party)] = offered[self._features.announced(party)]
        return active

    async def _sums(self, grower: TreeGrower, at: tuple[int, int]) -> RoundSums:
        """Sums of every question of a round; the rest of the round's slots is filled with encrypted zeros."""
        questions = grower.queries()
        columns = [column for question in questions for column in (question.g, question.h)]
        slots = FIELDS * self._plan.slots[at[1]]
        columns += [np.zeros(len(self._rows), np.int64)] * (slots - len(columns))
        if self._chosen is not None:
            columns = [self._among_all(column) for column in columns]
        withheld = {party: self._withheld(party, grower) for party in self._inputs.holders}
        batch = self._plan.batch(*at)
        if self._asker is None:
            raise DataError("boost.asker", "a run that takes trees over asks for no sums")
        answers = await self._asker.ask(columns, self._inputs.keep, batch=batch, withheld=withheld)
        parts = {party: self._features.outputs_in_model(party) for party in self._inputs.holders}

        def together(field: int) -> Ints:
            return np.concatenate([answers[party][field][part] for party, part in parts.items()])

        sums = [(together(FIELDS * i), together(FIELDS * i + 1)) for i in range(len(questions))]
        return RoundSums(questions, sums)

    def _among_all(self, column: Ints) -> Ints:
        """A column of the training rows, 0 in all other rows of the common order."""
        full = np.zeros(len(self._inputs.index.rows), np.int64)
        full[self._rows] = column
        return full

    def _withheld(self, party: PartyId, grower: TreeGrower) -> Bools:
        """What a holder does not tell, as it decides itself: features not offered, and those that are used up."""
        shown = np.zeros(len(self._features.shapes[party]), np.bool_)
        places = self._features.of_party(party)
        shown[self._features.announced(party)] = grower.asked[places]
        return np.repeat(~shown, self._features.bins_of(party))

    async def bitmaps(self, at: tuple[int, int], wanted: Sequence[Split]) -> dict[Split, Bools]:
        """Bits of the new splits, each from its owner."""
        tree, number = at
        of_owner: dict[PartyId, list[Split]] = {party: [] for party in self._inputs.holders}
        for split in wanted:
            of_owner[PartyId(self._features.features[split.feature].owner)].append(split)
        for party, splits in of_owner.items():
            announced = dict(zip(self._features.of_party(party), self._features.announced(party), strict=True))
            slots = self._formats[party].write(
                [(announced[split.feature], split.left) for split in splits], self._plan.wanted(number)
            )
            message = WantedSplits(tree=tree, round=number, slots=slots)
            note_message(self._inputs.keep.escrow, party, message)
            await self._channel.send(party, message)
        bits: dict[Split, Bools] = {}
        for party, splits in of_owner.items():
            if splits:
                answer = await self._channel.receive(party, Bitmaps)
                if (answer.tree, answer.round, len(answer.bitmaps)) != (tree, number, len(splits)):
                    raise PeerError("boost.bitmaps", f"{party}: bitmaps of another round, or too many or too few")
                sides = [self._side(party, bitmap) for bitmap in answer.bitmaps]
                if self._chosen is not None:  # what was opened, in place of what nobody can open again
                    answer = Bitmaps(tree=tree, round=number, bitmaps=[pack_bits(side) for side in sides])
                note_message(self._inputs.keep.escrow, party, answer)
                bits.update(zip(splits, sides, strict=True))
        return {split: bits[split] for split in wanted}

    def _side(self, party: PartyId, bitmap: bytes) -> Bools:
        if self._chosen is not None:
            return self._chosen.bits("train", bitmap, party)
        with blaming(party):
            return unpack_bits(bitmap, (len(self._rows),), "bitmap")

    async def score(self, *, own: bool) -> LedTrees:
        """Has the held-out rows' paths told, and puts the model together; with ``own``, adds trees of its own first."""
        self._channel.stage("score")
        state = own_trees(self.state, self._inputs.hybrid) if own else self.state
        model, test = state.result().model, self._inputs.index.test
        disclosed = {party: self._disclosed(party) for party in self._inputs.holders}
        needed = needed_splits(model, self.state.known.splits)
        for party, splits in disclosed.items():
            kept = np.zeros(self._plan.kept_slots([s.thresholds for s in self._features.shapes[party]]), np.bool_)
            kept[: len(splits)] = [split in needed for split in splits]
            await self._channel.send(party, KeptSplits(kept=pack_bits(kept)))
        told: dict[Split, Bools] = {}
        for party, splits in disclosed.items():
            kept_of_party = [split for split in splits if split in needed]
            paths = await self._paths(party, int(test.sum()), len(kept_of_party))
            told |= {split: paths[:, place] for place, split in enumerate(kept_of_party)}
        bits = np.zeros((len(test), len(model.splits)), np.bool_)  # rows that do not count go nowhere
        bits[self._rows] = state.bits()
        bits[test] = model_bits(model, code_matrix(self._inputs.own, np.flatnonzero(test)), told)
        numbers = {split: place for splits in disclosed.values() for place, split in enumerate(splits)}
        return LedTrees(
            model=model,
            disclosed={split: numbers[split] for split in self.state.known.splits if split in needed},
            train=self._train,
            margins=margins(model, bits),
            bits=bits,
            history=self.state.history,
            counts={party: len(splits) for party, splits in disclosed.items()},
            outputs=sum(sum(self._features.bins_of(party)) for party in self._inputs.holders),
            shared=self.state.best_tree + 1,
        )

    async def _paths(self, party: PartyId, rows: int, splits: int) -> Bools:
        if self._chosen is not None:
            bodies = (await self._channel.receive(party, ChosenPaths)).bodies
            if len(bodies) != splits:
                raise PeerError("boost.paths", f"{party}: paths in {len(bodies)} splits, {splits} needed")
            sides = [self._chosen.bits("test", body, party) for body in bodies]
            return np.column_stack([np.zeros((rows, 0), np.bool_), *sides])
        paths = await self._channel.receive(party, Paths)
        if (paths.rows, paths.splits) != (rows, splits):
            raise PeerError(
                "boost.paths",
                f"{party}: paths of {paths.rows} rows in {paths.splits} splits, {rows} in {splits} needed",
            )
        with blaming(party):
            return unpack_bits(paths.bits, (rows, splits), "paths")

    def _disclosed(self, party: PartyId) -> list[Split]:
        """All splits a holder has disclosed, in the order in which it numbers them."""
        known = self.state.known.splits
        return [split for split in known if self._features.features[split.feature].owner == party]
