"""Trees of several banks, encrypted, against one model from all their rows in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcredit.attack.rehearsal import InMemory, Rehearsal
from fedcredit.crypto.prg import SEED_BYTES, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_tables
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import FedCreditError, IntegrityError, PeerError
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.tree_model import BoostedTrees, margins, pooled_bits
from fedcredit.protocol.boost.feature_holder import HolderTrees
from fedcredit.protocol.boost.roles import BoostResult, coordinate, hold, lead
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.trees_join import SharedTrees, shared_trees
from fedcredit.protocol.pool import Pool, UnsafeLocalPools
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.runtime.hybrid.trees_oracle import HybridTrees, TreesTogether, bank_columns, trees_together
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId

Make = Callable[..., Path]
Keys = Mapping[str, Any]

PARTITION: dict[str, Any] = {"party": "bank", "by": "size", "banks": 3, "alpha": 1.0, "min_rows": 250}
BOOST: Keys = {"trees": 4, "bins": 8, "holder_bins": 5, "min_bin_rows": 15, "min_child_rows": 15}
EXACT: Keys = {"noise_rows": 0.0, "enforce": False}
NOISY: Keys = {"noise_rows": 4.0, "enforce": False}
LEAF: Keys = {"growth": "leaf", "depth": 4, "max_leaves": 5}
PERSONAL: Keys = {"personal_trees": 6}


@dataclass(frozen=True)
class Case:
    """Options of one run."""

    boost: Keys = field(default_factory=dict)
    privacy: Keys = field(default_factory=lambda: EXACT)
    hybrid: Keys = field(default_factory=lambda: PERSONAL)
    crypto: Keys = field(default_factory=lambda: {"profile": "unsafe-plaintext"})
    rows: int = 1500
    banks: int = 3


@dataclass(frozen=True)
class Played:
    """What each bank's part came to."""

    spec: RunSpec
    label: Mapping[PartyId, BoostResult]
    held: Mapping[PartyId, Mapping[PartyId, HolderTrees]]
    pooled: Mapping[PartyId, HybridTrees]
    sums: list[tuple[str, int, int]]


def kept(bank: PartyId, party: PartyId) -> KeptSecrets:
    draws = UnsafeSeededEntropy(bytes(SEED_BYTES)).child(f"{bank}/{party}")
    return KeptSecrets(RunSecret.fresh(), draws, NoEscrow())


def common(holder: PartyId) -> bytes:
    return UnsafeSeededEntropy(bytes(SEED_BYTES)).child(holder).take(SEED_BYTES)


def held_out(table: HolderTable, loaded: LoadedSpec) -> Callable[..., Any]:
    mask = held_out_rows(table, loaded.spec.split, loaded.base)
    tests = {one for one, test in zip(table.ids.to_list(), mask, strict=True) if test}
    return lambda ids: np.array([one in tests for one in ids], np.bool_)


def write(folder: Path, consortium: Make, case: Case) -> LoadedSpec:
    sections = {
        "run": {"model": "boost"},
        "boost": {**BOOST, **case.boost},
        "privacy": case.privacy,
        "crypto": case.crypto,
        "hybrid": case.hybrid,
        "partition": PARTITION | {"banks": case.banks},
    }
    return load_spec(consortium(folder, rows=case.rows, sections=sections))


async def play_part(
    loaded: LoadedSpec,
    bank: PartyId,
    tables: Mapping[PartyId, HolderTable],
    pool: Pool | None,
    shared: SharedTrees | None = None,
) -> Any:
    spec = loaded.spec.for_bank(bank)
    network = Rehearsal(replace(loaded, spec=spec), tables=tables).network()
    roles: dict[PartyId, Any] = {}
    for party in spec.parties:
        leads = party == bank
        holding = Holding(
            spec=spec,
            run_digest=f"part of {bank}",
            table=tables[party],
            keep=kept(bank, party),
            pool=pool if leads else None,
            common=None if leads else common(party),
        )
        channel, checkpoints = network.channel(party), InMemory()
        if leads:
            held = held_out(tables[bank], loaded)
            roles[party] = lead(channel, holding, held, checkpoints, lambda *_: None, shared=shared)
        else:
            roles[party] = hold(channel, holding, checkpoints, joins=shared is not None)
    roles[COORDINATOR] = coordinate(network.channel(COORDINATOR), spec)
    try:
        result = await network.run_roles(roles)
        return result | {"kinds": {entry.kind for entry in network.transcript}}
    finally:
        network.close()


def play(loaded: LoadedSpec, change: Callable[[PartyId, Pool], Pool] = lambda _, pool: pool) -> Played:
    spec, tables = loaded.spec, load_tables(loaded)
    banks = [bank.name for bank in spec.banks]
    pools = UnsafeLocalPools(banks)

    async def together() -> list[Any]:
        parts = [play_part(loaded, bank, tables, change(bank, pools.pool(bank))) for bank in banks]
        return await asyncio.gather(*parts)

    results = dict(zip(banks, asyncio.run(together()), strict=True))
    label: dict[PartyId, BoostResult] = {bank: results[bank][bank] for bank in banks}
    held = {bank: {one.name: results[bank][one.name][1] for one in spec.feature_holders} for bank in banks}
    return Played(spec, label, held, oracle(spec, tables, label), pools.sums)


def oracle(
    spec: RunSpec, tables: Mapping[PartyId, HolderTable], label: Mapping[PartyId, BoostResult]
) -> Mapping[PartyId, HybridTrees]:
    rows = {bank: (one.index, one.bad) for bank, one in label.items()}
    keep = {bank: {party: kept(bank, party) for party in spec.for_bank(bank).parties} for bank in label}
    shared = {one.name: common(one.name) for one in spec.feature_holders}
    first = next(iter(label.values())).trees.model
    allowed = {(one.owner, one.code): one.thresholds for one in first.features if one.foreign}
    return trees_together(TreesTogether(spec, bank_columns(spec, tables, rows, keep, shared), allowed))


def equal(played: Played) -> None:
    for bank, label in played.label.items():
        expected, trees = played.pooled[bank], label.trees
        assert trees.model == expected.model
        assert trees.shared == expected.shared
        assert np.array_equal(trees.margins, expected.margins)
        for party, one in played.held[bank].items():
            mine = {split: number for split, number in trees.disclosed.items() if owner(trees.model, split) == party}
            theirs = {split.number: (one.own[split.feature].shape.code, split.left) for split in one.splits}
            assert {n: (trees.model.features[s.feature].code, s.left) for s, n in mine.items()} == theirs
    first, *others = [label.trees for label in played.label.values()]
    for trees in others:
        assert trees.model.trees[: trees.shared] == first.model.trees[: first.shared]
        assert trees.history == first.history


def owner(model: Any, split: Any) -> str:
    return str(model.features[split.feature].owner)


CASES: dict[str, Case] = {
    "plain": Case(),
    "leaf-noise": Case({**LEAF, "holder_bins": 4}, NOISY, rows=2400),
    "noise": Case({"holder_bins": 4}, NOISY, rows=2400),
    "one-intercept": Case(hybrid={"own_intercepts": False}),
    "no-cap-leaf": Case({**LEAF, "holder_thresholds": 0}),
    "columns-rows": Case({"column_sampling": 0.5, "trees": 5}, {**EXACT, "row_sampling": 0.7}),
    "local-first": Case({"first_trees_local": 2}),
    "stopping": Case({"trees": 25, "learning_rate": 1.0}, {**EXACT, "early_stopping": 2}, rows=2000),
    "rlwe": Case({"trees": 2, **LEAF}, {**NOISY, "noise_rows": 1.0}, crypto={"profile": "rlwe-8192"}, rows=1200),
}


@pytest.mark.parametrize("name", CASES)
def test_every_bank_has_the_oracles_trees(tmp_path: Path, consortium: Make, name: str) -> None:
    played = play(write(tmp_path, consortium, CASES[name]))
    equal(played)
    trees = [label.trees for label in played.label.values()]
    assert all(sum(one.counts.values()) > 0 for one in trees)
    bases = {one.model.base for one in trees}
    assert len(bases) == (1 if name == "one-intercept" else 3)
    added = [len(one.model.trees) - one.shared for one in trees]
    assert added == [0 if name == "one-intercept" else 6] * 3
    assert (len(trees[0].history) > trees[0].shared) == (name == "stopping")


class Around:
    """A pool with a hand on its totals."""

    def __init__(self, pool: Pool, change: Callable[[str, Any], Any]) -> None:
        self._pool, self._change = pool, change

    @property
    def members(self) -> tuple[PartyId, ...]:
        return self._pool.members

    async def sum(self, what: str, values: Any, bound: int) -> Any:
        return self._change(what, await self._pool.sum(what, values, bound))


def test_every_decision_hangs_on_totals(tmp_path: Path, consortium: Make) -> None:
    """One unit more in the leaf sums, told to all banks alike, is another model at all of them."""

    def more(what: str, total: Any) -> Any:
        return total + (1 << 20) * what.endswith("leaves")

    loaded = write(tmp_path, consortium, Case(hybrid={}))
    moved = play(loaded, lambda _, pool: Around(pool, more))
    first, *others = [label.trees.model.trees for label in moved.label.values()]
    assert all(trees == first for trees in others)
    assert first != next(iter(moved.pooled.values())).model.trees


def test_banks_that_go_other_ways_find_out(tmp_path: Path, consortium: Make) -> None:
    """A bank that is told another total at the root parts from the others, and no run ends."""

    def fewer(what: str, total: Any) -> Any:
        return total // (10 if what == "trees/tree/1/root" else 1)

    loaded = write(tmp_path, consortium, Case())
    with pytest.raises(FedCreditError):
        play(loaded, lambda bank, pool: Around(pool, fewer) if bank == "bank_01" else pool)


def test_banks_with_other_rules_find_out(tmp_path: Path, consortium: Make) -> None:
    loaded = write(tmp_path, consortium, Case())
    tables, pools = load_tables(loaded), UnsafeLocalPools([bank.name for bank in loaded.spec.banks])
    boost = loaded.spec.boost
    assert boost is not None
    other = replace(
        loaded, spec=loaded.spec.model_copy(update={"boost": boost.model_copy(update={"learning_rate": 0.2})})
    )

    async def together() -> None:
        parts = [
            play_part(other if place == 0 else loaded, bank.name, tables, pools.pool(bank.name))
            for place, bank in enumerate(loaded.spec.banks)
        ]
        await asyncio.gather(*parts)

    with pytest.raises(PeerError, match="members ask for different sums"):
        asyncio.run(together())


def test_trees_need_every_bank_to_the_end(tmp_path: Path, consortium: Make) -> None:
    class Fewer(Around):
        @property
        def members(self) -> tuple[PartyId, ...]:
            return self._pool.members[: 3 - self.gone]

        gone = 0

        async def sum(self, what: str, values: Any, bound: int) -> Any:
            self.gone = int(what.startswith("trees/tree/1"))
            return await super().sum(what, values, bound)

    loaded = write(tmp_path, consortium, Case())
    with pytest.raises(PeerError, match="bank_03 has left while trees were grown"):
        play(loaded, lambda _, pool: Fewer(pool, lambda _, total: total))


def test_what_is_summed_is_the_same_whatever_the_labels(tmp_path: Path, consortium: Make) -> None:
    """Names and lengths of sums follow the tree, which all banks know; none is of a single bank."""
    played = play(write(tmp_path, consortium, Case(LEAF)))
    kinds = {what.rsplit("/", 1)[1] for what, _, _ in played.sums if what.startswith("trees/")}
    assert kinds == {"rows", "thresholds", "root", "bins", "children", "leaves", "record"}


def test_a_bank_joins_later(tmp_path: Path, consortium: Make) -> None:
    """Three banks grow trees; a fourth one takes them over for bits of its rows alone, and adds its own."""
    loaded = write(tmp_path, consortium, Case({**LEAF, "holder_bins": 4}, rows=2000, banks=4))
    spec, tables = loaded.spec, load_tables(loaded)
    *first, late = [bank.name for bank in spec.banks]
    pools = UnsafeLocalPools(first)

    async def together() -> list[Any]:
        return await asyncio.gather(*(play_part(loaded, bank, tables, pools.pool(bank)) for bank in first))

    results = dict(zip(first, asyncio.run(together()), strict=True))
    told = {bank: shared_trees(bank, results[bank][bank].own, results[bank][bank].trees) for bank in first}
    assert len({replace(one, columns=()).digest() for one in told.values()}) == 1
    sent = told[first[0]]
    shared = SharedTrees.decode(sent.encode(), sent.digest())
    assert shared == sent
    with pytest.raises(IntegrityError, match="not those whose digest"):
        SharedTrees.decode(sent.encode() + b" ", sent.digest())
    joined = asyncio.run(play_part(loaded, late, tables, None, shared))
    label: BoostResult = joined[late]
    led = label.trees
    assert led.model.trees[: led.shared] == shared.trees
    assert len(led.model.trees) == led.shared + 6
    assert led.model.base == pytest.approx(np.log(label.bad[led.train].mean() / (1 - label.bad[led.train].mean())))
    assert not {"group_sum.request", "group_sum.answer"} & joined["kinds"]
    assert "group_sum.request" in results[first[0]]["kinds"]
    codes = [one.codes for one in label.own if one.shape.bins > 1]
    for holder in spec.feature_holders:
        index, trees = joined[holder.name]
        assert np.array_equal(index.train, label.index.train)
        codes += [one.codes for one in trees.own if one.shape.bins > 1]
    assert np.array_equal(margins(led.model, pooled_bits(led.model, np.array(codes))), led.margins)
    before = BoostedTrees(led.model.base, led.model.features, led.model.splits, led.model.trees[: led.shared])
    rows, bits = led.train, pooled_bits(led.model, np.array(codes))
    assert auc(label.bad[rows], led.margins[rows]) > auc(label.bad[rows], margins(before, bits)[rows])
    first_feature = shared.features[0]
    changed = replace(first_feature, bins=first_feature.bins + 1)
    other = replace(shared, features=(changed, *shared.features[1:]))
    with pytest.raises(PeerError, match="not cut as in the shared trees"):
        asyncio.run(play_part(loaded, late, tables, None, other))
