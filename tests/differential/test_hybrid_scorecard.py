"""Encrypted parts of a hybrid scorecard against the oracle: every bank's scorecard, number for number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcredit.crypto.prg import SystemEntropy
from fedcredit.data.load import load_tables
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.joint_account import JointAccount
from fedcredit.protocol.hybrid.warm_start import CommonScorecard, common_scorecard
from fedcredit.protocol.pool import Alone, Pool, UnsafeLocalPools
from fedcredit.protocol.scorecard.roles import SCHEMAS, LabelResult, coordinate, hold, lead
from fedcredit.runtime import houses
from fedcredit.runtime.hybrid.oracle import BankRows, HybridTables, hybrid_scorecards
from fedcredit.runtime.hybrid.side_by_side import Played, run_side_by_side
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.runtime.model_run import HeldOutRows
from fedcredit.runtime.scorecard.oracle import PooledResult
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

PARTITION = {"party": "bank", "by": "size", "banks": 3, "alpha": 1.5, "min_rows": 180}
COMMON = bytes(range(32))


@dataclass(frozen=True)
class BankRole:
    """With whom a bank decides."""

    digest: str
    pool: Pool | None
    accounts: Mapping[PartyId, JointAccount]
    start: CommonScorecard | None = None


@dataclass(frozen=True)
class Looked:
    """What a hybrid run left, and what the oracle found."""

    loaded: LoadedSpec
    records: HybridTables
    results: Mapping[PartyId, Mapping[PartyId, Any]]
    oracle: Mapping[PartyId, PooledResult]
    sums: list[tuple[str, int, int]]

    @property
    def spec(self) -> RunSpec:
        return self.records.spec

    def label(self, bank: PartyId) -> LabelResult:
        found: LabelResult = self.results[bank][bank]
        return found


def rows_held_out(loaded: LoadedSpec, table: HolderTable) -> HeldOutRows:
    mask = held_out_rows(table, loaded.spec.split, loaded.base)
    out_of = {one for one, test in zip(table.ids.to_list(), mask, strict=True) if test}
    return lambda ids: np.array([one in out_of for one in ids], np.bool_)


def part_of(loaded: LoadedSpec, tables: Mapping[PartyId, HolderTable], bank: PartyId, role: BankRole) -> Played:
    """One bank's part over its own network."""
    part = loaded.spec.for_bank(bank)
    network = LocalNetwork(
        LocalSettings(
            run=RunId(role.digest[:32]),
            spec_digest=spec_digest(loaded.spec),
            roster={**{party.name: party.role for party in part.party}, COORDINATOR: Role.COORDINATOR},
            schemas=SCHEMAS,
            entropy=SystemEntropy(),
            policies=houses.policies(part, SCHEMAS),
        )
    )
    held = rows_held_out(loaded, tables[bank])
    roles: dict[PartyId, Coroutine[Any, Any, Any]] = {COORDINATOR: coordinate(network.channel(COORDINATOR), part)}
    for party, keep in secrets(part, tables).items():
        holding, channel = Holding(part, role.digest, tables[party], keep), network.channel(party)
        if party == bank:
            roles[party] = lead(channel, replace(holding, pool=role.pool), held, role.start)
        else:
            account = role.accounts.get(party)
            roles[party] = hold(channel, replace(holding, common=COMMON, account=account))
    return Played(network, roles)


def played(parts: Mapping[PartyId, Played]) -> dict[PartyId, Mapping[PartyId, Any]]:
    results = dict(zip(parts, asyncio.run(run_side_by_side(list(parts.values()))), strict=True))
    for one in parts.values():
        one.network.close()
    return results


def run_hybrid(config: Path) -> Looked:
    """Every bank's part, banks adding in the clear; then the oracle."""
    loaded = load_spec(config)
    spec, tables = loaded.spec, load_tables(loaded)
    pools = UnsafeLocalPools([bank.name for bank in spec.banks])
    accounts = {holder.name: JointAccount(pools.members) for holder in spec.feature_holders}
    roles = {bank: BankRole(f"{number:064d}", pools.pool(bank), accounts) for number, bank in enumerate(pools.members)}
    results = played({bank: part_of(loaded, tables, bank, role) for bank, role in roles.items()})
    rows = {bank: rows_of(results[bank][bank], spec.for_bank(bank), tables) for bank in results}
    orders = {holder.name: COMMON for holder in spec.feature_holders}
    records = HybridTables(spec, tables, orders)
    return Looked(loaded, records, results, hybrid_scorecards(records, rows), pools.sums)


def rows_of(label: LabelResult, part: RunSpec, tables: Mapping[PartyId, HolderTable]) -> BankRows:
    return BankRows(label.index, label.bad, label.budgets, secrets(part, tables))


def secrets(part: RunSpec, tables: Mapping[PartyId, HolderTable]) -> dict[PartyId, KeptSecrets]:
    """As every party begins a bank's part."""
    origin = houses.Origin.of(part, {party: tables[party] for party in part.parties})
    return houses.oracle_secrets(origin, houses.fresh_secrets(part.parties, b"\x07" * 32))


def equal(seen: Looked) -> None:
    """Every bank has the oracle's scorecard, and all have the same common part."""
    for bank, theirs in seen.oracle.items():
        same_scorecard(seen.label(bank), theirs)
        kept = [(f.owner, f.code) for f in seen.label(bank).fitted.features]
        tables = dict(zip(kept, seen.label(bank).fitted.tables, strict=True))
        for holder in seen.spec.feature_holders:
            _, features = seen.results[bank][holder.name]
            assert [(holder.name, f.own.shape.code) for f in features] == [at for at in kept if at[0] == holder.name]
            for one in features:
                assert np.array_equal(one.points, tables[holder.name, one.own.shape.code])


def same_scorecard(label: LabelResult, theirs: PooledResult) -> None:
    mine, pooled = label.fitted, theirs.fitted
    assert [(f.owner, f.code) for f in mine.features] == [(f.owner, f.code) for f in pooled.features]
    assert np.array_equal(mine.coefficients, pooled.coefficients)
    assert np.array_equal(mine.covariance, pooled.covariance)
    assert np.array_equal(mine.scores, pooled.scores)
    assert (mine.base_points, mine.totals, mine.dropped) == (pooled.base_points, pooled.totals, pooled.dropped)
    assert all(np.array_equal(a, b) for a, b in zip(mine.tables, pooled.tables, strict=True))
    assert label.candidates.dropped == theirs.candidates.dropped
    for found, expected in zip(label.binned.features, theirs.features, strict=True):
        assert (found.owner, found.shape) == (expected.owner, expected.shape)
        for key in ("group", "goods", "bads", "woe_units"):
            assert np.array_equal(getattr(found.merged, key), getattr(expected.merged, key))


@pytest.fixture
def hybrid(tmp_path: Path, consortium: Callable[..., Path]) -> Callable[..., Looked]:
    def run(**sections: Any) -> Looked:
        given = {"partition": PARTITION, "crypto": {"profile": "unsafe-plaintext"}, **sections}
        return run_hybrid(consortium(tmp_path, rows=1000, sections=given))

    return run


def same_in_common(seen: Looked) -> None:
    """All banks have the same bins, candidates and coefficients before they make them their own."""
    first, *others = [seen.label(bank) for bank in seen.oracle]
    assert first.fitted.common is not None
    for label in others:
        assert label.fitted.common is not None
        assert np.array_equal(label.fitted.common.slopes, first.fitted.common.slopes)
        assert [f.code for f in label.fitted.features] == [f.code for f in first.fitted.features]
        for mine, theirs in zip(label.binned.features, first.binned.features, strict=True):
            assert np.array_equal(mine.merged.group, theirs.merged.group)
            assert (mine.merged.iv, mine.stability) == (theirs.merged.iv, theirs.stability)


@pytest.mark.parametrize(
    "profile",
    [
        "unsafe-plaintext",
        pytest.param("rlwe-8192", marks=pytest.mark.slow),
        pytest.param("bfv-8192", marks=pytest.mark.slow),
    ],
)
def test_every_bank_has_the_oracles_scorecard(hybrid: Callable[..., Looked], profile: str) -> None:
    seen = hybrid(crypto={"profile": profile})
    equal(seen)
    same_in_common(seen)
    labels = [seen.label(bank).fitted for bank in seen.oracle]
    assert len({tuple(label.coefficients) for label in labels}) == len(labels)  # each has made it its own
    assert any(not np.array_equal(a.merged.woe_units, b.merged.woe_units) for a, b in zip(
        labels[0].features, labels[1].features, strict=True))  # fmt: skip


@pytest.mark.parametrize("fit", ["moments", pytest.param("mle", marks=pytest.mark.slow)])
def test_each_fit(hybrid: Callable[..., Looked], fit: str) -> None:
    seen = hybrid(scorecard={"fit": fit})
    equal(seen)
    same_in_common(seen)


@pytest.mark.parametrize("own", [True, False])
def test_a_scorecard_in_common(hybrid: Callable[..., Looked], *, own: bool) -> None:
    """Without WOE and coefficients of their own, banks differ in the intercept, or in nothing."""
    seen = hybrid(hybrid={"woe_rows": 0.0, "slope_ridge": 0.0, "own_intercepts": own})
    equal(seen)
    same_in_common(seen)
    points = np.array([seen.label(bank).fitted.coefficients for bank in seen.oracle])
    assert np.ptp(points[:, 1:], axis=0).max() == 0
    assert (np.ptp(points[:, 0]) > 0) == own


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules", [{"max_vif": 1.05}, {"max_correlation": 0.3}, {"max_features": 3}, {"max_stability": 0.02}], ids=str
)
def test_each_selection_rule(hybrid: Callable[..., Looked], rules: dict[str, float]) -> None:
    seen = hybrid(scorecard=rules)
    equal(seen)
    same_in_common(seen)
    assert all(seen.label(bank).dropped for bank in seen.oracle)


@pytest.mark.slow
def test_rows_found_blindly(hybrid: Callable[..., Looked]) -> None:
    seen = hybrid(align={"mode": "blind", "decoys": 0.0}, scorecard={"max_features": 3})
    equal(seen)
    same_in_common(seen)


def test_no_bank_answers_for_few_rows_of_a_holder(hybrid: Callable[..., Looked]) -> None:
    """In no prebin does a bank see fewer rows than a plain run would allow, but none."""
    seen = hybrid()
    for bank in seen.oracle:
        for feature in seen.label(bank).binned.features:
            rows = feature.merged.goods + feature.merged.bads + feature.test_rows
            if feature.owner != bank:
                assert ((rows == 0) | (rows >= seen.spec.bin.min_prebin_rows)).all()


@pytest.mark.slow
def test_a_bank_joins_later(hybrid: Callable[..., Looked]) -> None:
    """It gets the common scorecard, plays a run of one bank, and has the oracle's scorecard."""
    seen = hybrid()
    models = {bank: common_scorecard(bank, seen.label(bank).own, seen.label(bank).fitted) for bank in seen.results}
    numbers = [
        [
            (f.owner, f.code, f.name, f.prebins and f.prebins.edges, f.group, f.woe, f.iv, f.slope)
            for f in model.features
        ]
        for model in models.values()
    ]
    assert all(each == numbers[0] for each in numbers)
    bank, model = next(iter(models.items()))
    start = CommonScorecard.decode(model.encode(), model.digest())
    newcomer = next(reversed(models))
    role = BankRole("f" * 64, None, {}, start)
    result = played({newcomer: part_of(seen.loaded, seen.records.tables, newcomer, role)})[newcomer][newcomer]
    rows = rows_of(result, seen.spec.for_bank(newcomer), seen.records.tables)
    oracle = asyncio.run(seen.records.scorecard(newcomer, rows, Alone(newcomer), start))
    same_scorecard(result, oracle)
    assert result.fitted.totals == 1
    given = seen.label(bank).fitted.common
    assert given is not None
    assert result.fitted.common is not None
    assert np.array_equal(result.fitted.common.slopes, given.slopes)
