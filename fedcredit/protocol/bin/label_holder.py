"""Binning, the label holder's side: encrypted (bad, train, test) by prebin of every feature of every holder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError, PeerError
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.conversation import bin_conversation
from fedcredit.protocol.bin.features import (
    BinnedFeature,
    CountedFeature,
    LabelCounts,
    Merge,
    OwnFeature,
    count_labels,
    merge_alone,
)
from fedcredit.protocol.bin.messages import Budgets, FeatureShape, FeatureShapes, RunBasis
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.asker import Expected, GroupSumAsker
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.spec.model import BinSection
from fedcredit.types import PartyId

__all__ = ["BinInputs", "BinnedRun", "bin_all", "check_classes"]


@dataclass(frozen=True)
class BinInputs:
    """What the label holder brings.

    Args:
        own: Own features.
        bad: bool (n,), labels in the common order.
        index: Common rows.
        holders: The feature holders.
        rules: Section ``[bin]``.
        keep: Randomness and escrow.
        merge: How bins are decided on.
    """

    own: Sequence[OwnFeature]
    bad: NDArray[np.bool_]
    index: RowIndex
    holders: Sequence[PartyId]
    rules: BinSection
    keep: KeptSecrets
    merge: Merge = merge_alone


@dataclass(frozen=True)
class BinnedRun:
    """All features binned, the label holder's own first.

    Args:
        features: Every feature of every party.
        equations: For each feature holder, equations its ledger leaves for each feature code.
    """

    features: tuple[BinnedFeature, ...]
    equations: Mapping[PartyId, Mapping[str, float]]


def check_classes(bad: NDArray[np.bool_], index: RowIndex, rules: BinSection) -> tuple[int, int]:
    """Counts goods and bads to train on.

    Raises:
        DataError: fewer goods or bads than one bin needs, or one class only among the held-out rows.
    """
    bads = int((bad & index.train).sum())
    goods = int(index.train.sum()) - bads
    for name, found, needed in (("goods", goods, rules.min_goods), ("bads", bads, rules.min_bads)):
        if found < needed:
            raise DataError("label.too-few", f"{found} {name} among the common training rows, at least {needed} needed")
    held_out = bad[index.test]
    if held_out.all() or not held_out.any():
        raise DataError(
            "split.one-class",
            f"{int(held_out.sum())} of {held_out.size} held-out rows are bad: both classes needed",
        )
    return goods, bads


async def bin_all(channel: Channel, session: Session, inputs: BinInputs) -> BinnedRun:
    """Bins every feature of every party.

    Raises:
        DataError: too few goods or bads.
        PeerError: a holder's answer can not be one.
        IntegrityError: a holder's bins do not add up.
    """
    channel.stage("bin")
    bad, index, holders, rules = inputs.bad, inputs.index, inputs.holders, inputs.rules
    goods, bads = check_classes(bad, index, rules)
    await channel.broadcast(holders, RunBasis(n_eff=goods + bads, n_bad=bads))
    shapes = {party: shapes.features for party, shapes in (await channel.gather(holders, FeatureShapes)).items()}
    for party, features in shapes.items():
        if (
            not features
            or len({f.code for f in features}) != len(features)
            or any(f.ordered > f.bins for f in features)
        ):
            raise PeerError(
                "bin.shapes", f"{party}: announces no features, a code twice, or more ordered bins than bins"
            )
    expected = {party: Expected(tuple((f.code, f.bins) for f in features)) for party, features in shapes.items()}
    asker = await GroupSumAsker.open(channel, bin_conversation(session, len(bad)), expected, inputs.keep)
    columns = [(bad & index.train), index.train, index.test]
    sums = await asker.ask([column.astype(np.int64) for column in columns], inputs.keep)
    budgets = await channel.gather(holders, Budgets)
    counted = [
        CountedFeature(channel.party, f.shape, count_labels(f.codes, f.shape.bins, bad, index)) for f in inputs.own
    ]
    equations: dict[PartyId, dict[str, float]] = {}
    for party in holders:
        counts = _split(party, shapes[party], sums[party])
        counted += [CountedFeature(party, f, c) for f, c in zip(shapes[party], counts, strict=True)]
        if len(budgets[party].equations) != len(shapes[party]):
            raise PeerError("bin.budgets", f"{party}: budgets do not fit the announced features")
        left = zip((f.code for f in shapes[party]), budgets[party].equations, strict=True)
        equations[party] = dict(left)
    return BinnedRun(tuple(await inputs.merge(counted, rules)), equations)


def _split(party: PartyId, shapes: Sequence[FeatureShape], sums: Sequence[NDArray[np.int64]]) -> list[LabelCounts]:
    bads, rows, test = sums
    if (bads < 0).any() or (test < 0).any() or (bads > rows).any():
        raise PeerError("bin.counts", f"{party}: answered counts that no grouping of rows can have")
    cuts = np.cumsum([shape.bins for shape in shapes])[:-1]
    parts = zip(np.split(bads, cuts), np.split(rows, cuts), np.split(test, cuts), strict=True)
    return [LabelCounts(*part) for part in parts]
