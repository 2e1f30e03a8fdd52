"""The label holder's state as bytes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fedcredit.errors import DataError, IntegrityError
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_grower import GrowRules
from fedcredit.kernels.tree_model import TreeFeature, left_bits
from fedcredit.kernels.trees import BoostRules, BoostState, NoDraws, Records
from fedcredit.protocol.boost.saved import read_checkpoint, write_checkpoint
from fedcredit.runtime.checkpoints import FileCheckpoints

ROWS = 403  # no multiple of eight
FEATURES = (
    TreeFeature("bank", "F1", 6, 6),
    TreeFeature("tax", "F1", 5, 5, foreign=True, thresholds=2),
    TreeFeature("tax", "F2", 4, 0, foreign=True, thresholds=2),
)
RULES = BoostRules(trees=6, grow=GrowRules(search=SplitRules(min_child_rows=10)), early_stopping=5)


def records(rows: int = ROWS) -> tuple[Records, np.ndarray]:
    rng = np.random.default_rng(1)
    codes = np.stack([rng.integers(0, one.bins, rows) for one in FEATURES]).astype(np.uint8)
    bad = rng.random(rows) < 1 / (1 + np.exp(2.5 - codes.sum(axis=0) / 3))
    return Records(FEATURES, codes[:1], bad, rng.random(rows) < 0.7), codes


def grow(state: BoostState, codes: np.ndarray) -> None:
    grower = state.next_tree(NoDraws(len(FEATURES)))
    while not grower.done:
        sums = [
            tuple(
                np.concatenate([np.bincount(codes[f], weights=one, minlength=FEATURES[f].bins) for f in (1, 2)])
                for one in (columns.g, columns.h)
            )
            for columns in grower.queries()
        ]
        wanted = grower.choose([(g.astype(np.int64), h.astype(np.int64)) for g, h in sums])
        grower.settle({split: left_bits(split, codes[split.feature]) for split in wanted})
    state.add(grower)


@pytest.mark.parametrize("trees", range(4))
def test_a_model_grows_on_as_if_nothing_had_happened(trees: int) -> None:
    kept, codes = records()
    state = BoostState(kept, RULES)
    for _ in range(trees):
        grow(state, codes)
    data = write_checkpoint(state.to_state())
    again = BoostState.from_state(kept, RULES, read_checkpoint(data))
    assert write_checkpoint(again.to_state()) == data
    assert again.finished == state.finished
    for _ in range(2):
        grow(state, codes)
        grow(again, codes)
    assert write_checkpoint(again.to_state()) == write_checkpoint(state.to_state())
    assert again.result().model == state.result().model
    assert np.array_equal(again.result().margins, state.result().margins)
    assert len(state.known) > 0


def grown() -> bytes:
    kept, codes = records()
    state = BoostState(kept, RULES)
    grow(state, codes)
    return write_checkpoint(state.to_state())


def test_damaged_bytes() -> None:
    data = grown()
    fields = msgspec.msgpack.decode(data)
    assert len(fields["known"]) > 1
    damaged = [b"", b"x", data[:-1], data + b"\0", data[: len(data) // 2], json.dumps([1]).encode()]
    for name, value in (
        ("margins", fields["margins"][:-1]),
        ("best_margins", fields["best_margins"] + b"\0"),
        ("best_margins", fields["best_margins"][8:]),
        ("known_bits", fields["known_bits"][:-1]),
        ("trees", [{"nodes": [1]}]),
        ("known", None),
        ("history", [{"train_auc": "a"}]),
    ):
        damaged.append(msgspec.msgpack.encode({**fields, name: value}))
    damaged += [msgspec.msgpack.encode({key: one for key, one in fields.items() if key != name}) for name in fields]
    for one in damaged:
        with pytest.raises(IntegrityError, match="the checkpoint of this run is damaged"):
            read_checkpoint(one)


def test_of_other_records() -> None:
    other, _ = records(ROWS - 8)
    with pytest.raises(DataError, match="not of 395 rows"):
        BoostState.from_state(other, RULES, read_checkpoint(grown()))


def test_on_the_disk(tmp_path: Path) -> None:
    kept = FileCheckpoints(tmp_path / "bank")
    assert kept.load() is None
    data = grown()
    kept.save(data)
    assert kept.load() == data
    whole = (tmp_path / "bank").read_bytes()
    for at in range(0, len(whole), 97):
        (tmp_path / "bank").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(IntegrityError, match="damaged"):
            kept.load()
