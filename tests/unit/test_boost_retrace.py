"""Growing trees once more from what the label holder kept gives exactly the vectors that were sent, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcredit.attack.recorder import Recording, recording
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_tables
from fedcredit.errors import DataError, IntegrityError
from fedcredit.protocol.boost.archive import Archive, KeptTree, note_tree, read_archive
from fedcredit.protocol.boost.draws import LabelDraws
from fedcredit.protocol.boost.messages import Bitmaps, WantedSplits
from fedcredit.protocol.boost.plan import plan_boost
from fedcredit.protocol.boost.retrace import Asked, Growth, Retraced, retrace
from fedcredit.protocol.boost.roles import BoostResult, own_features
from fedcredit.protocol.boost.slots import SlotFormat
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.runtime import simulate as module
from fedcredit.runtime.boost.run import BOOST_RUN
from fedcredit.runtime.escrow import NoEscrow, read_escrow
from fedcredit.runtime.model_run import Outcome, Written
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.spec.load import load_spec
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

Make = Callable[..., Path]
BANK = PartyId("bank")
SMALL = {"trees": 4, "min_child_rows": 20, "holder_bins": 8, "min_bin_rows": 20}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "depth-wise with noise": ({}, {"noise_rows": 1.0}),
    "depth-wise, exact, capped": ({"holder_thresholds": 1, "depth": 4}, {"noise_rows": 0.0}),
    "leaf-wise with noise": ({"growth": "leaf", "max_leaves": 6}, {"noise_rows": 1.0}),
    "leaf-wise, exact": ({"growth": "leaf", "max_leaves": 6}, {"noise_rows": 0.0}),
    "early stopping": ({"trees": 30}, {"noise_rows": 1.0, "early_stopping": 2}),
    "samples of rows and columns": ({"column_sampling": 0.6}, {"noise_rows": 1.0, "row_sampling": 0.7}),
}
MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact without a cap": ({"holder_thresholds": 0}, {"noise_rows": 0.0}),
    "leaf-wise, exact, without a cap": (
        {"growth": "leaf", "max_leaves": 8, "depth": 5, "holder_thresholds": 0},
        {"noise_rows": 0.0},
    ),
    "leaf-wise until all thresholds are used": (
        {"growth": "leaf", "max_leaves": 6, "holder_thresholds": 1, "trees": 12},
        {"noise_rows": 0.5},
    ),
    "exact until all thresholds are used": ({"holder_thresholds": 1, "trees": 12}, {"noise_rows": 0.0}),
    "first trees local": ({"first_trees_local": 2}, {"noise_rows": 1.0, "row_sampling": 0.7}),
    "first trees local, exact": ({"first_trees_local": 1, "column_sampling": 0.5}, {"noise_rows": 0.0}),
    "few large nodes, much padding": ({"depth": 4, "min_child_rows": 120}, {"noise_rows": 4.0}),
    "early stopping, exact": ({"trees": 30}, {"noise_rows": 0.0, "early_stopping": 2}),
}


class _Kept:
    """The rows of one run, for what an auditor has."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def write(self, files: RunFiles, outcome: Outcome) -> Written:
        del files
        self.outcome = outcome
        raise KeyboardInterrupt  # the run has ended; the oracle is another test's business


def run(folder: Path, make: Make, case: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Growth, Recording]:
    """A run's growth as an auditor finds it, and what was really asked."""
    boost, privacy = case
    config = make(
        folder / "c",
        rows=900,
        sections={"run": {"model": "boost"}, "boost": {**SMALL, **boost}, "privacy": {"enforce": False, **privacy}},
    )
    loaded, kept = load_spec(config), _Kept()
    with pytest.MonkeyPatch.context() as patch, recording() as notes:
        patch.setattr(module, "MODEL_RUNS", {"boost": replace(BOOST_RUN, write=kept.write)})
        with pytest.raises(KeyboardInterrupt):
            module.simulate(loaded, folder / "out")
    assert kept.outcome is not None
    (left,) = folder.glob(".out.*")
    return growth_of(loaded.spec, load_tables(loaded), kept.outcome.results[BANK], left), notes


def growth_of(spec: RunSpec, tables: Mapping[PartyId, Any], result: BoostResult, folder: Path) -> Growth:
    entries = read_escrow(folder / "escrow" / "bank.jsonl")
    (seed,) = {entry["seed"] for entry in entries if entry.get("what") == "draws"}
    nothing = RunSecret(bytes(32))
    holding = Holding(spec, "", tables[BANK], KeptSecrets(nothing, nothing.entropy("x"), NoEscrow()))
    own, _ = own_features(holding, result.index)
    return Growth(
        label_holder=BANK,
        own=own,
        bad=result.bad,
        index=result.index,
        holders=[party.name for party in spec.feature_holders],
        plan=plan_boost(spec),
        draws=LabelDraws(bytes.fromhex(seed)),
        archive=read_archive(entries),
    )


def check(growth: Growth, notes: Recording) -> tuple[list[Asked], Retraced]:
    *asked, ended = list(retrace(growth))
    assert isinstance(ended, Retraced)
    requests = [one for one in asked if isinstance(one, Asked)]
    assert len(requests) == len(asked) == len(notes.batches) > 0
    for again, sent in zip(requests, notes.batches, strict=True):
        assert len(again.columns) == len(sent.columns)
        assert all(np.array_equal(one, other) for one, other in zip(again.columns, sent.columns, strict=True))
    assert ended.finished
    return requests, ended


@pytest.mark.parametrize("name", CASES)
def test_the_vectors_are_those_that_were_sent(tmp_path: Path, consortium: Make, name: str) -> None:
    growth, notes = run(tmp_path, consortium, CASES[name])
    _, ended = check(growth, notes)
    if name == "early stopping":  # trees after the best one are asked too
        assert len(ended.model.trees) < ended.grown < 30


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_more_vectors_are_those_that_were_sent(tmp_path: Path, consortium: Make, name: str) -> None:
    growth, notes = run(tmp_path, consortium, MORE[name])
    asked, _ = check(growth, notes)
    padded = any(not column.any() for one in asked for column in one.columns)
    assert padded or "padding" not in name
    assert padded or "used" not in name


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Growth:
    return run(tmp_path_factory.mktemp("exact"), consortium, CASES["leaf-wise, exact"])[0]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Growth:
    return run(tmp_path_factory.mktemp("noisy"), consortium, CASES["depth-wise with noise"])[0]


def changed(growth: Growth, number: int, **fields: Any) -> Growth:
    """With other fields of the first inner node, or the first leaf if ``value`` is one, of a recorded tree."""
    kept = growth.archive.trees[number]
    nodes = list(kept.tree.nodes)
    place = next(at for at, node in enumerate(nodes) if (node.split < 0) == ("value" in fields))
    nodes[place] = replace(nodes[place], **fields)
    trees = {**growth.archive.trees, number: KeptTree(replace(kept.tree, nodes=tuple(nodes)), kept.splits)}
    return replace(growth, archive=replace(growth.archive, trees=trees))


def refused(growth: Growth) -> str:
    with pytest.raises(IntegrityError) as caught:
        list(retrace(growth))
    assert caught.value.code == "replay.tree"
    return caught.value.public


@pytest.mark.parametrize("fields", [{"value": 0.75}, {"gain": 1e9}, {"rows": 3}, {"split": 1}])
def test_a_tree_that_is_no_honest_one_is_refused(exact: Growth, noisy: Growth, fields: dict[str, Any]) -> None:
    for growth in (exact, noisy):
        assert "tree 2 is not what honest training gives" in refused(changed(growth, 1, **fields))


def test_a_leaf_wise_tree_in_another_order_is_refused(exact: Growth) -> None:
    root = exact.archive.trees[0].tree.nodes[0]
    assert "tree 1" in refused(changed(exact, 0, left=root.left + 1, right=root.right + 1))


def test_a_worse_split_than_a_known_one_is_refused(exact: Growth) -> None:
    """A leaf left alone although the label holder's own columns would have parted it."""
    kept = exact.archive.trees[0]
    stump = replace(kept.tree, nodes=(replace(kept.tree.nodes[0], split=-1, left=-1, right=-1, gain=0.0),))
    empty = {}
    for party, shapes in exact.archive.shapes.items():
        slots = SlotFormat(tuple(shape.bins for shape in shapes.features)).write([], exact.plan.wanted(0))
        empty[party, 0, 0] = WantedSplits(tree=0, round=0, slots=slots)
    archive = replace(exact.archive, trees={0: KeptTree(stump, ())}, wanted=empty, bitmaps={})
    assert "node 0 had a better split" in refused(replace(exact, archive=archive))


@pytest.mark.parametrize("which", ["exact", "noisy"])
def test_other_bitmaps_give_other_trees(which: str, request: pytest.FixtureRequest) -> None:
    growth: Growth = request.getfixturevalue(which)
    key = min(growth.archive.bitmaps)
    sent = growth.archive.bitmaps[key]
    bits = np.frombuffer(sent.bitmaps[0], np.uint8).copy()
    bits[:8] ^= 0xFF
    lied = Bitmaps(tree=sent.tree, round=sent.round, bitmaps=[bits.tobytes(), *sent.bitmaps[1:]])
    archive = replace(growth.archive, bitmaps={**growth.archive.bitmaps, key: lied})
    refused(replace(growth, archive=archive))


def test_a_bitmap_that_nobody_wanted_or_that_is_missing_is_refused(noisy: Growth) -> None:
    key = min(noisy.archive.bitmaps)
    less = {one: value for one, value in noisy.archive.bitmaps.items() if one != key}
    assert "were wanted" in refused(replace(noisy, archive=replace(noisy.archive, bitmaps=less)))
    unasked = {one: value for one, value in noisy.archive.wanted.items() if one != key}
    assert "not on record" in refused(replace(noisy, archive=replace(noisy.archive, wanted=unasked)))


def test_other_labels_give_other_vectors(noisy: Growth) -> None:
    honest = next(one for one in retrace(noisy) if isinstance(one, Asked))
    bad = noisy.bad.copy()
    train = np.flatnonzero(noisy.index.train)
    bad[train[0]] ^= True
    other = next(one for one in retrace(replace(noisy, bad=bad)) if isinstance(one, Asked))
    assert not np.array_equal(honest.columns[0], other.columns[0])


def test_more_trees_than_growth_gives_are_refused(noisy: Growth) -> None:
    count = len(noisy.archive.trees)
    trees = {**noisy.archive.trees, count: noisy.archive.trees[count - 1]}
    assert "ended before" in refused(replace(noisy, archive=replace(noisy.archive, trees=trees)))


def test_a_run_that_broke_off_says_so(noisy: Growth) -> None:
    trees = {number: tree for number, tree in noisy.archive.trees.items() if number < 2}
    *asked, ended = retrace(replace(noisy, archive=replace(noisy.archive, trees=trees)))
    assert isinstance(ended, Retraced)
    assert (ended.finished, ended.grown) == (False, 2)
    assert len(asked) == 2 * len(noisy.plan.slots)


class _Escrow(NoEscrow):
    """Keeps entries in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        self.entries.append({"what": what, **entry})


def entries_of(growth: Growth) -> Iterator[dict[str, Any]]:
    escrow = _Escrow()
    for number, kept in growth.archive.trees.items():
        note_tree(escrow, number, kept.tree, kept.splits)
    yield from escrow.entries


ROWS = {"what": "rows", "common": "gA==", "count": 1}


def test_a_record_is_read_back_and_a_repeated_one_counts_once(noisy: Growth) -> None:
    entries = list(entries_of(noisy))
    again = read_archive([ROWS, *entries, ROWS, *entries])
    assert again.trees == noisy.archive.trees
    assert again.rows.tolist() == [True] + [False] * 7


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [ROWS, {**ROWS, "count": 2}],
        [{**ROWS, "count": 2}],
        [{**ROWS, "common": "!"}],
        [ROWS, {"what": "tree", "number": 0, "body": "gA=="}],
        [ROWS, {"what": "message", "peer": "tax_office", "kind": "boost.shapes", "body": "gA=="}],
        [ROWS, {"what": "message", "peer": "tax_office", "kind": "boost.paths", "body": "gA=="}],
    ],
)
def test_a_damaged_record_is_refused(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(IntegrityError) as caught:
        read_archive(entries)
    assert caught.value.code == "replay.archive"


def test_two_records_of_one_tree_or_a_gap_are_refused(noisy: Growth) -> None:
    first, second, *_ = entries_of(noisy)
    for entries in ([ROWS, first, {**second, "number": 0}], [ROWS, second]):
        with pytest.raises(IntegrityError, match="record of the run"):
            read_archive(entries)


def test_an_announcement_that_is_missing_is_refused(noisy: Growth) -> None:
    archive: Archive = replace(noisy.archive, shapes={})
    with pytest.raises(IntegrityError, match="kept no announcement of tax_office"):
        list(retrace(replace(noisy, archive=archive)))


def test_trees_of_several_banks_are_not_taken_for_one_banks() -> None:
    with pytest.raises(DataError, match="of several banks"):
        read_archive([ROWS, {"what": "pool", "members": "a b c"}])
