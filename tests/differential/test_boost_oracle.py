"""Encrypted boosting is the pooled computation, bit for bit, under every option."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.crypto.prg import SEED_BYTES, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_tables
from fedcredit.errors import DataError
from fedcredit.kernels.tree_model import Split, margins
from fedcredit.protocol.boost.feature_holder import HolderTrees
from fedcredit.protocol.boost.plan import plan_boost
from fedcredit.protocol.boost.roles import BoostResult
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.runtime.boost.oracle import PooledTrees, pool_columns, pooled_trees
from fedcredit.runtime.boost.parts import holder_part, label_holder_part, model_digest
from fedcredit.runtime.boost.read import OwnBits, all_bits, boosted_trees, own_splits
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import PartyId

Make = Callable[..., Path]
Keys = Mapping[str, Any]

TAX, CUSTOMS, UTILITY = "tax_office", "customs", "utility"
BOOST: Keys = {"trees": 4, "bins": 8, "holder_bins": 5, "min_bin_rows": 30, "min_child_rows": 15}
EXACT: Keys = {"noise_rows": 0.0, "enforce": False}
NOISY: Keys = {"noise_rows": 4.0, "enforce": False}
PLAIN: Keys = {"profile": "unsafe-plaintext"}


@dataclass(frozen=True)
class Case:
    """Options of one run; ``told`` = holders are expected to have disclosed something."""

    boost: Keys = field(default_factory=dict)
    privacy: Keys = field(default_factory=lambda: EXACT)
    holders: tuple[str, ...] = (TAX, CUSTOMS)
    crypto: Keys = field(default_factory=lambda: PLAIN)
    split: Keys = field(default_factory=dict)
    parties: Mapping[str, Keys] = field(default_factory=dict)
    rows: int = 1300
    told: bool = True


@dataclass(frozen=True)
class Played:
    """What an encrypted run and the pooled one came to."""

    loaded: LoadedSpec
    label: BoostResult
    held: Mapping[PartyId, HolderTrees]
    pooled: PooledTrees


def write(folder: Path, consortium: Make, case: Case) -> LoadedSpec:
    sections = {
        "run": {"model": "boost"},
        "boost": {**BOOST, **case.boost},
        "privacy": case.privacy,
        "crypto": case.crypto,
        "split": case.split,
    }
    config = consortium(folder, holders=case.holders, rows=case.rows, sections=sections, parties=case.parties)
    for path in folder.glob("*.csv"):  # columns that hardly ever move or are nearly always missing, and a time
        table = pl.read_csv(path)
        still = pl.Series([8.0 if row == 0 else 7.0 for row in range(len(table))])
        rare = pl.Series([1.5 if row % 97 == 0 else None for row in range(len(table))])
        frame = table.with_columns(still=still, rare=rare, when=pl.col("id").str.slice(1).cast(pl.Int64))
        frame.write_csv(path)
    return load_spec(config)


def play(loaded: LoadedSpec) -> Played:
    spec = loaded.spec
    results = Rehearsal(loaded, secrets={party: kept(party) for party in spec.parties}).play()
    leader = spec.label_holder.name
    label: BoostResult = results[leader]
    held = {party.name: results[party.name][1] for party in spec.feature_holders}
    again = {party: kept(party) for party in spec.parties}
    columns = pool_columns((label.index, label.bad), spec, load_tables(loaded), again)
    allowed = {(one.owner, one.code): one.thresholds for one in label.trees.model.features if one.foreign}
    return Played(loaded, label, held, pooled_trees(columns, allowed))


def kept(party: PartyId) -> KeptSecrets:
    """What a party begins with: a fresh secret, and draws that can be repeated."""
    return KeptSecrets(RunSecret.fresh(), UnsafeSeededEntropy(bytes(SEED_BYTES)).child(party), NoEscrow())


def equal(played: Played) -> None:
    """Model, margins and files."""
    label, spec = played.label, played.loaded.spec
    leader = spec.label_holder.name
    assert label.trees.model == played.pooled.model
    assert np.array_equal(label.trees.margins, played.pooled.margins)
    parts: dict[str, Any] = {leader: label_holder_part(label, spec, leader)}
    parts |= {party: holder_part(one, party) for party, one in played.held.items()}
    oracle = replace(label, trees=replace(label.trees, model=played.pooled.model))
    again = {**parts, leader: label_holder_part(oracle, spec, leader)}
    assert model_digest(parts) == model_digest(again)
    assert model_digest(json.loads(json.dumps(parts))) == model_digest(parts)
    holders_agree(played)


def holders_agree(played: Played) -> None:
    """Each holder means the same bins by the number of a split as the label holder, and tells its own side of it."""
    label, model = played.label, played.label.trees.model
    for party, one in played.held.items():
        mine = {split: number for split, number in label.trees.disclosed.items() if owner(played, split) == party}
        theirs = {split.number: (one.own[split.feature].shape.code, split.left) for split in one.splits}
        assert {number: (model.features[split.feature].code, split.left) for split, number in mine.items()} == theirs
        assert one.disclosed == label.trees.counts[party]
        for split, number in mine.items():
            if split in model.splits:
                own = one.own[next(each.feature for each in one.splits if each.number == number)]
                there = np.isin(own.codes, split.left)
                assert np.array_equal(label.trees.bits[:, model.splits.index(split)], there)


def owner(played: Played, split: Split) -> str:
    return played.label.trees.model.features[split.feature].owner


def most_told(played: Played) -> int:
    """Most distinct splits that a feature's owner was asked for and that are in the model."""
    return max(Counter(split.feature for split in played.label.trees.disclosed).values(), default=0)


LEAF: Keys = {"growth": "leaf", "depth": 4, "max_leaves": 5}
CASES: dict[str, Case] = {
    "one-holder": Case(holders=(TAX,)),
    "three-holders": Case(holders=(TAX, CUSTOMS, UTILITY)),
    "depth-1": Case({"depth": 1, "trees": 12, "learning_rate": 1.0}),
    "depth-2": Case({"depth": 2}),
    "depth-4": Case({"depth": 4}),
    "depth-5": Case({"depth": 5, "min_child_rows": 5, "trees": 3}),
    "leaf": Case(LEAF),
    "leaf-two": Case({**LEAF, "max_leaves": 2, "trees": 12, "learning_rate": 1.0}),
    "leaf-all": Case({"growth": "leaf", "depth": 3}),
    "leaf-deep": Case({"growth": "leaf", "depth": 10, "max_leaves": 7, "trees": 3}),
    "leaf-noise": Case({**LEAF, "holder_bins": 4}, NOISY, rows=3000),
    "noise": Case({"holder_bins": 4}, NOISY, rows=3000),
    "noise-no-cap": Case({"holder_bins": 4, "holder_thresholds": 0}, NOISY, rows=3000),
    "noise-one": Case({"holder_bins": 4, "holder_thresholds": 1, "trees": 6}, NOISY, rows=3000),
    "noise-deep": Case({"holder_bins": 4, "depth": 5}, NOISY, rows=3000),
    "some-noise": Case({"trees": 8}, {**NOISY, "noise_rows": 0.5}),
    "no-cap": Case({"holder_thresholds": 0}),
    "no-cap-leaf": Case({**LEAF, "holder_thresholds": 0}),
    "one-threshold": Case({"holder_thresholds": 1, "trees": 8}),
    "one-threshold-leaf": Case({**LEAF, "holder_thresholds": 1, "trees": 8}),
    "columns": Case({"column_sampling": 0.5, "trees": 6}),
    "columns-noise": Case({"column_sampling": 0.5, "trees": 6, "holder_bins": 4}, NOISY, rows=3000),
    "one-column-each": Case({"column_sampling": 0.01, "trees": 6, "holder_thresholds": 2}),
    "rows": Case(privacy={**EXACT, "row_sampling": 0.7}),
    "rows-columns-leaf": Case({**LEAF, "column_sampling": 0.5}, {**EXACT, "row_sampling": 0.7}),
    "local-first": Case({"first_trees_local": 2}),
    "local-first-noise": Case({"first_trees_local": 1, "holder_bins": 4}, NOISY, rows=3000),
    "local-first-columns": Case({"first_trees_local": 2, "column_sampling": 0.5, "trees": 6}),
    "local-only": Case({"first_trees_local": 4}, told=False),
    "stopping": Case({"trees": 30, "learning_rate": 1.0}, {**EXACT, "early_stopping": 2}),
    "stopping-noise": Case({"trees": 30, "holder_bins": 4}, {**NOISY, "early_stopping": 1}, rows=3000),
    "bits-2": Case(privacy={**EXACT, "gradient_bits": 2}),
    "bits-16": Case(privacy={**EXACT, "gradient_bits": 16}),
    "bits-2-noise": Case({"holder_bins": 4}, {**NOISY, "gradient_bits": 2}, rows=3000),
    "bits-16-noise": Case({"holder_bins": 4}, {**NOISY, "gradient_bits": 16}, rows=3000),
    "no-penalty": Case({"l2": 0.0, "min_child_weight": 0.0, "min_child_rows": 1, "depth": 4, "trees": 3}),
    "no-penalty-noise": Case(
        {"l2": 0.0, "min_child_weight": 0.0, "min_child_rows": 1, "depth": 4, "holder_bins": 4}, NOISY, rows=3000
    ),
    "much-penalty": Case({"l2": 50.0, "min_child_weight": 20.0}),
    "nothing-gains": Case({"min_child_rows": 900}, told=False),
    "monotone": Case(
        parties={
            "bank": {"monotone": {"turnover_0": "increasing", "delay_0": "decreasing"}},
            TAX: {"monotone": {"turnover_1": "decreasing", "arrears_1": "increasing"}},
        }
    ),
    "constant-holder": Case(parties={CUSTOMS: {"columns": ["still"], "special": {}}}),
    "only-constant-holder": Case(
        holders=(TAX,), parties={TAX: {"columns": ["still"], "special": {}, "monotone": {}}}, told=False
    ),
    "single-bin-columns": Case(
        {"column_sampling": 0.6, "trees": 6},
        parties={
            TAX: {"columns": ["still", "turnover_1", "rare", "sector_1"], "special": {}, "monotone": {}},
            "bank": {"columns": ["still", "turnover_0", "rare"], "special": {}},
        },
    ),
    "bank-without-columns": Case(parties={"bank": {"columns": ["still"], "special": {}}}),
    "bank-without-columns-noise": Case(
        {"holder_bins": 4, "column_sampling": 0.5},
        NOISY,
        parties={"bank": {"columns": ["still"], "special": {}}},
        rows=3000,
    ),
    "bank-without-columns-local": Case(
        {"first_trees_local": 1}, parties={"bank": {"columns": ["still"], "special": {}}}
    ),
    "out-of-time": Case(
        split={"time": "when", "test_from": 900}, parties={"bank": {"columns": ["turnover_0", "sector_0", "delay_0"]}}
    ),
    "rlwe": Case({"column_sampling": 0.5}, {**NOISY, "noise_rows": 1.0}, crypto={"profile": "rlwe-8192"}),
    "rlwe-leaf": Case(LEAF, crypto={"profile": "rlwe-8192"}),
    "rlwe-bits-16": Case(privacy={**EXACT, "gradient_bits": 16}, crypto={"profile": "rlwe-8192"}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_option(tmp_path: Path, consortium: Make, name: str) -> None:
    case = CASES[name]
    played = play(write(tmp_path, consortium, case))
    equal(played)
    assert (sum(played.label.trees.counts.values()) > 0) == case.told
    cap = case.boost.get("holder_thresholds", 3)
    assert not cap or most_told(played) <= cap
    assert cap != 1 or not case.told or most_told(played) == 1


@pytest.mark.parametrize("noise_rows", [0.0, 4000.0])
def test_several_vectors_a_node(tmp_path: Path, consortium: Make, noise_rows: float) -> None:
    """Sums of so many bits, with so much noise, that g and h of a node do not share a vector."""
    privacy = {**EXACT, "gradient_bits": 16, "noise_rows": noise_rows}
    loaded = write(tmp_path, consortium, Case({"trees": 2}, privacy, crypto={"profile": "rlwe-8192"}))
    session = Session("", "rlwe-8192", {})
    conversation = plan_boost(loaded.spec).conversation(session, 1300)
    assert (len(conversation.plans[0].vectors) > 1) == (noise_rows > 0)
    equal(play(loaded))


@pytest.mark.parametrize("name", ["three-holders", "noise", "leaf", "stopping"])
def test_ciphers_give_the_same_model(tmp_path: Path, consortium: Make, name: str) -> None:
    models = []
    for profile in ("rlwe-8192", "unsafe-plaintext"):
        played = play(write(tmp_path / profile, consortium, replace(CASES[name], crypto={"profile": profile})))
        models.append(played.label.trees.model)
    assert models[0] == models[1]


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["rlwe-8192", "bfv-8192"])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("rlwe")])
def test_each_option_with_each_cipher(tmp_path: Path, consortium: Make, name: str, profile: str) -> None:
    equal(play(write(tmp_path, consortium, replace(CASES[name], crypto={"profile": profile}))))


def test_early_stopping_cuts_the_model_back(tmp_path: Path, consortium: Make) -> None:
    played = play(write(tmp_path, consortium, CASES["stopping"]))
    trees = played.label.trees
    assert len(trees.model.trees) < len(trees.history) < 30
    scores = [one.validation_auc or 0.0 for one in trees.history]
    assert len(trees.model.trees) == scores.index(max(scores)) + 1
    aside = ~trees.train & ~played.label.index.test
    assert 0.1 < aside.sum() / played.label.index.train.sum() < 0.3


def test_local_trees_use_own_columns_only(tmp_path: Path, consortium: Make) -> None:
    played = play(write(tmp_path, consortium, CASES["local-first"]))
    model = played.label.trees.model
    for number, tree in enumerate(model.trees):
        foreign = [model.features[model.splits[node.split].feature].foreign for node in tree.nodes if node.split >= 0]
        assert not (number < 2 and any(foreign))
        assert foreign


def test_nothing_can_be_split_anywhere(tmp_path: Path, consortium: Make) -> None:
    still: Keys = {"columns": ["still"], "special": {}, "monotone": {}}
    loaded = write(tmp_path, consortium, Case(holders=(TAX,), parties={"bank": still, TAX: still}))
    with pytest.raises(DataError, match="nothing can be split"):
        play(loaded)


@pytest.mark.parametrize("name", ["three-holders", "noise", "stopping", "bank-without-columns"])
def test_a_simulation_says_so(tmp_path: Path, consortium: Make, name: str) -> None:
    loaded = write(tmp_path / "data", consortium, CASES[name])
    summary = simulate(loaded, tmp_path / "out").summary
    assert summary["model_equals_pooled_plaintext"] is True
    assert summary["scores_equal_pooled_plaintext"] is True
    assert summary["auc_test"] == summary["auc_pooled_plaintext"]
    assert (summary["auc_label_holder_alone"] is None) == (name == "bank-without-columns")
    assert summary["boost"]["stopped_early"] == (name == "stopping")


@pytest.mark.parametrize("name", ["noise-no-cap", "single-bin-columns", "bank-without-columns", "leaf-noise"])
def test_scores_come_back_from_the_files_of_a_run(tmp_path: Path, consortium: Make, name: str) -> None:
    """Each party tells the sides of its own rows by its own file; the label holder's file does the rest."""
    loaded = write(tmp_path / "data", consortium, CASES[name])
    out = simulate(loaded, tmp_path / "out").out
    predictions = pl.read_parquet(out / "predictions.parquet")
    ids = predictions["id"].to_list()
    bits: dict[str, OwnBits] = {}
    parts = {}
    for party, table in load_tables(loaded).items():
        place = {one: row for row, one in enumerate(table.ids.to_list())}
        rows = pl.Series([place[one] for one in ids])
        columns = {column: values.gather(rows) for column, values in table.columns.items()}
        parts[party] = json.loads((out / "model" / party / "trees.json").read_text())
        bits[party] = own_splits(parts[party]).bits(columns, len(ids))
    leader = parts[loaded.spec.label_holder.name]
    found = margins(boosted_trees(leader), all_bits(leader, bits))
    expected = predictions["sample_probability"].to_numpy()
    assert len(np.unique(expected)) > 5
    assert np.array_equal(np.exp(-np.logaddexp(0.0, -found)), expected)
