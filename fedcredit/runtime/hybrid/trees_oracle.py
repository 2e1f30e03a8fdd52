"""The plaintext oracle of boosting over several banks: one model from all rows of all banks in one place.

What banks add up in the encrypted run is here one computation over concatenated rows, which knows of banks only where
each row starts from, and the chance that each bank and each of its holders drew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.kernels.boost_state import BoostCheckpoint, BoostState, Records
from fedcredit.kernels.pooled_rows import Among, bank_margin
from fedcredit.kernels.tree_model import BoostedTrees, TreeFeature, margins, pooled_bits
from fedcredit.kernels.trees import grow_all
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.columns import FeatureList
from fedcredit.protocol.boost.draws import LabelDraws
from fedcredit.protocol.boost.label_holder import training_rows
from fedcredit.protocol.boost.plan import plan_boost
from fedcredit.protocol.boost.roles import bank_features, holder_draws, own_features
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.trees_personal import own_trees
from fedcredit.protocol.hybrid.trees_pool import seed_limbs, seed_of
from fedcredit.protocol.pool import UnsafeLocalPools
from fedcredit.runtime.boost.oracle import PooledColumns, PooledDraws, announced
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["BankColumns", "HybridTrees", "TreesTogether", "bank_columns", "trees_together"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BankColumns:
    """One bank's part of a hybrid run, in one place.

    Args:
        columns: Its own and all holders' columns.
        features: Features as it knows them.
        train: bool (n,), rows that it trains on.
    """

    columns: PooledColumns
    features: FeatureList
    train: Bools


@dataclass(frozen=True, eq=False)
class HybridTrees:
    """What a bank has in the end.

    Args:
        model: All its trees.
        shared: Those that all banks have.
        margins: float64 (n,), log-odds of default of all its common rows.
        shared_margins: The same by the shared trees alone.
    """

    model: BoostedTrees
    shared: int
    margins: Floats
    shared_margins: Floats


@dataclass(frozen=True)
class TreesTogether:
    """What the oracle works on.

    Args:
        spec: The hybrid run.
        banks: Each bank's part.
        thresholds: Splits that may be disclosed of each feature of a holder.
    """

    spec: RunSpec
    banks: Mapping[PartyId, BankColumns]
    thresholds: Mapping[tuple[str, str], int | None]


def bank_columns(
    spec: RunSpec,
    tables: Mapping[PartyId, HolderTable],
    rows: Mapping[PartyId, tuple[RowIndex, Bools]],
    keep: Mapping[PartyId, Mapping[PartyId, KeptSecrets]],
    common: Mapping[PartyId, bytes],
) -> dict[PartyId, BankColumns]:
    """Cuts every party's columns as it does for each bank.

    Args:
        spec: The hybrid run.
        tables: Records by party.
        rows: For each bank its common rows and bool (n,) labels.
        keep: For each bank the secrets of every party as it began that part.
        common: For each holder the bytes that its order of features follows from.
    """

    async def cut() -> list[tuple[list[OwnFeature], bytes]]:
        pools = UnsafeLocalPools(list(rows))
        holdings = [
            (Holding(spec.for_bank(bank), "", tables[bank], keep[bank][bank], pool=pools.pool(bank)), index)
            for bank, (index, _) in rows.items()
        ]
        return await asyncio.gather(*(bank_features(holding, index) for holding, index in holdings))

    cuts = dict(zip(rows, asyncio.run(cut()), strict=True))
    drawn = seed_of(np.sum([seed_limbs(seed) for _, seed in cuts.values()], axis=0))
    found = {}
    for bank, (index, bad) in rows.items():
        part, plan = spec.for_bank(bank), plan_boost(spec)
        own, seeds, alike = {bank: cuts[bank][0]}, {bank: cuts[bank][1]}, {bank: drawn}
        for holder in part.feature_holders:
            table = tables[holder.name]
            holding = Holding(part, "", table, keep[bank][holder.name], common=common[holder.name])
            own[holder.name], seed = own_features(holding, index.at(table.ids.to_list(), leads=False))
            draws = holder_draws(holding, seed)
            seeds[holder.name], alike[holder.name] = draws.seed, draws.common
        columns = PooledColumns(part, tables, keep[bank], index, bad, own, seeds, alike)
        features = FeatureList.of(bank, own[bank], announced(columns, bank), None)
        train = training_rows(index, bad, plan, LabelDraws(seeds[bank]))
        found[bank] = BankColumns(columns, features, train)
    return found


def trees_together(there: TreesTogether) -> dict[PartyId, HybridTrees]:
    """The trees of all banks from all rows, and what each bank makes of them."""
    banks = list(there.banks.values())
    features = tuple(_capped(one, there.thresholds) for one in banks[0].features.features)
    codes = [_codes(one) for one in banks]
    downs = [one.columns.index.train for one in banks]
    bad = [one.columns.bad[down] for one, down in zip(banks, downs, strict=True)]
    train = [one.train[down] for one, down in zip(banks, downs, strict=True)]
    bases = _bases(there.spec, bad, train)
    sizes = [len(one) for one in bad]
    every = np.ascontiguousarray(np.concatenate([c[:, down] for c, down in zip(codes, downs, strict=True)], axis=1))
    own = [not one.foreign for one in features]
    among = Among(0.0, np.repeat(bases, sizes), np.repeat(np.arange(len(banks)), sizes), len(banks))
    records = Records(features, np.ascontiguousarray(every[own]), np.concatenate(bad), np.concatenate(train), among)
    plan = plan_boost(there.spec)
    state = BoostState(records, plan.rules)
    grow_all(state, every, _Chance([PooledDraws(plan, one.columns, one.features) for one in banks], sizes))
    ends = np.cumsum(sizes)
    parts = [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]
    found = {}
    for place, bank in enumerate(there.banks):
        mine = _part_of(state, parts[place], float(bases[place]), bank)
        more = own_trees(mine, there.spec.hybrid).result().model
        shared = mine.result().model
        found[bank] = HybridTrees(more, len(shared.trees), _margins(more, codes[place]), _margins(shared, codes[place]))
    return found


def _capped(feature: TreeFeature, thresholds: Mapping[tuple[str, str], int | None]) -> TreeFeature:
    return replace(feature, thresholds=thresholds[feature.owner, feature.code]) if feature.foreign else feature


def _codes(bank: BankColumns) -> NDArray[np.uint16]:
    columns = bank.columns
    return columns.codes([columns.spec.label_holder.name, *bank.features.shapes]).astype(np.uint16)


def _bases(spec: RunSpec, bad: Sequence[Bools], train: Sequence[Bools]) -> Floats:
    """What each bank's rows start from."""
    own = [(int((b & t).sum()), int((~b & t).sum())) for b, t in zip(bad, train, strict=True)]
    pool = sum(bads for bads, _ in own), sum(goods for _, goods in own)
    return np.array([bank_margin(one if spec.hybrid.own_intercepts else pool, pool) for one in own])


def _part_of(state: BoostState, part: slice, base: float, bank: PartyId) -> BoostState:
    """One bank's rows of the model of all."""
    all_rows, kept = state.records, state.to_state()
    rows = part.stop - part.start
    features = tuple(one if one.foreign else replace(one, owner=bank) for one in all_rows.features)
    among = Among(base, np.full(rows, base), np.zeros(rows, np.int64), all_rows.among.members if all_rows.among else 1)
    codes = np.ascontiguousarray(all_rows.codes[:, part])
    records = Records(features, codes, all_rows.bad[part], all_rows.train_rows[part], among)
    bits = np.unpackbits(kept.known_bits, axis=1, count=len(all_rows.bad))[:, part]
    mine = BoostCheckpoint(
        kept.trees,
        kept.splits,
        kept.history,
        kept.known,
        np.packbits(bits, axis=1),
        kept.margins[part],
        kept.best_margins[part],
    )
    return BoostState.from_state(records, state.rules, mine)


def _margins(model: BoostedTrees, codes: NDArray[np.uint16]) -> Floats:
    return margins(model, pooled_bits(model, codes))


class _Chance:
    """Chance of all banks and all their holders: rows side by side, noise added up."""

    def __init__(self, banks: Sequence[PooledDraws], sizes: Sequence[int]) -> None:
        self._banks, self._sizes = banks, sizes

    def rounding(self, tree: int, n: int) -> tuple[Floats, Floats]:
        """Each bank's, for its rows."""
        del n
        drawn = [one.rounding(tree, size) for one, size in zip(self._banks, self._sizes, strict=True)]
        return np.concatenate([g for g, _ in drawn]), np.concatenate([h for _, h in drawn])

    def rows(self, tree: int, n: int) -> Floats:
        """Each bank's, for its rows."""
        del n
        return np.concatenate([one.rows(tree, size) for one, size in zip(self._banks, self._sizes, strict=True)])

    def columns(self, tree: int) -> Bools:
        """Alike at all banks."""
        return self._banks[0].columns(tree)

    def noise(self, tree: int, round_: int, slot: int) -> tuple[Ints, Ints] | None:
        """The sum of what the holders add for each bank."""
        found = [one.noise(tree, round_, slot) for one in self._banks]
        pairs = [one for one in found if one is not None]
        if not pairs:
            return None
        g, h = pairs[0][0].copy(), pairs[0][1].copy()
        for other_g, other_h in pairs[1:]:
            g, h = g + other_g, h + other_h
        return g, h
