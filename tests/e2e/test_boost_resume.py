"""A boosting run that was killed in the middle of a tree goes on: the same model, and nothing is charged twice."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main

from fedcredit.errors import DataError, IntegrityError
from fedcredit.governance.audit import verify_directory
from fedcredit.governance.gate import Released
from fedcredit.protocol.boost.saved import read_checkpoint
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
from fedcredit.types import PartyId

Make = Callable[..., Path]
Keys = Mapping[str, Any]
Point = tuple[str, int]  # kind of message, and the how-manieth of it is the last that is delivered

HOLDERS = ("tax_office", "customs")
ROUNDS = 3  # of a tree of depth 3
MIDDLE: Point = ("group_sum.answer", 6 * ROUNDS * len(HOLDERS) + 3)
"""Tree 7 of 20: one holder has answered its second round, the other has not."""

PROTECTED: Keys = {"noise_rows": 4.0, "enforce": True}
BARE: Keys = {"noise_rows": 0.0, "enforce": False}
CAPPED: Keys = {"holder_thresholds": 2}
FREE: Keys = {"holder_thresholds": 0}

# Ends itself in the middle of a run, as the kernel or an administrator would.
KILLED = """
import os, signal, sys
from fedcredit.cli import main
from fedcredit.runtime.local import LocalNetwork
kind, count, *arguments = sys.argv[1:]
deliver, seen = LocalNetwork._deliver, 0
def dying(self, sender, recipient, released):
    global seen
    deliver(self, sender, recipient, released)
    seen += released.kind == kind
    if seen == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
LocalNetwork._deliver = dying
sys.exit(main(arguments))
"""


def write(folder: Path, consortium: Make, boost: Keys, privacy: Keys, profile: str = "unsafe-plaintext") -> Path:
    sections = {
        "run": {"model": "boost"},
        "boost": {"trees": 20, "bins": 8, "holder_bins": 4, "min_bin_rows": 40, "min_child_rows": 20, **boost},
        "privacy": privacy,
        "crypto": {"profile": profile},
    }
    return consortium(folder, holders=HOLDERS, rows=2100, sections=sections)


def command(*arguments: object) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(one) for one in arguments])
    return code, err.getvalue()


@dataclass
class Wire:
    """Records what crosses, and interrupts the process after one message."""

    stop: Point | None = None
    envelopes: dict[tuple[str, str, int], str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        deliver = LocalNetwork._deliver

        def watched(network: LocalNetwork, sender: PartyId, recipient: PartyId, released: Released) -> None:
            deliver(network, sender, recipient, released)
            key = (sender, recipient, released.sequence)
            self.envelopes[key] = f"{released.kind} {hashlib.sha256(released.data).hexdigest()}"
            self.kinds.append(released.kind)
            if self.stop is not None and self.kinds.count(self.stop[0]) == self.stop[1]:
                self.stop = None
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(LocalNetwork, "_deliver", watched)


def interrupted(config: Path, out: Path, point: Point, *, resume: bool = False) -> Wire:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(point)
        wire.watch(patch)
        with pytest.raises(KeyboardInterrupt):
            simulate(load_spec(config), out, resume=resume)
    assert wire.stop is None
    return wire


def resumed(config: Path, out: Path) -> tuple[dict[str, Any], Wire]:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire()
        wire.watch(patch)
        return dict(simulate(load_spec(config), out, resume=True).summary), wire


def hidden(out: Path) -> Path:
    (folder,) = out.parent.glob(f".{out.name}.*")
    return folder


def totals(out: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that each ledger was charged."""
    found = {}
    for path in sorted((out / "ledger").glob("*.sqlite")):
        connection = sqlite3.connect(path)
        query = "SELECT counterparty, kind, feature, amount FROM totals ORDER BY 1, 2, 3"
        found[path.stem] = connection.execute(query).fetchall()
        connection.close()
    return found


def same(out: Path, other: Path) -> None:
    summary, expected = (json.loads((one / "summary.json").read_text()) for one in (out, other))
    assert summary["model_digest"] == expected["model_digest"]
    assert summary["boost"]["history"] == expected["boost"]["history"]
    assert summary["boost"]["thresholds_disclosed"] == expected["boost"]["thresholds_disclosed"]
    assert summary["model_equals_pooled_plaintext"] is True
    assert summary["scores_equal_pooled_plaintext"] is True
    for name in ("predictions", "explanations"):
        assert pl.read_parquet(out / f"{name}.parquet").equals(pl.read_parquet(other / f"{name}.parquet"))
    assert totals(out) == totals(other)
    assert {party for party, lines in totals(out).items() if lines} == set(HOLDERS)
    verify_directory(out / "audit")


@pytest.mark.slow
@pytest.mark.parametrize(("boost", "privacy"), [(FREE, BARE), (CAPPED, PROTECTED)], ids=["bare", "noise-and-caps"])
def test_killed_in_the_middle_of_tree_7_of_20(tmp_path: Path, consortium: Make, boost: Keys, privacy: Keys) -> None:
    config = write(tmp_path / "c", consortium, boost, privacy, "rlwe-8192")
    simulate(load_spec(config), tmp_path / "whole")
    out = tmp_path / "o"
    words = [sys.executable, "-W", "ignore", "-c", KILLED, MIDDLE[0], str(MIDDLE[1]), "simulate", config, "--out", out]
    process = subprocess.run([str(one) for one in words], capture_output=True, text=True, check=False, timeout=250)
    assert process.returncode == -signal.SIGKILL, process.stderr
    state = FileCheckpoints(hidden(out) / "checkpoints" / "bank").load()
    assert state is not None
    assert len(read_checkpoint(state).trees) == 6
    charged = totals(hidden(out))
    assert any(charged[party] for party in HOLDERS)
    code, err = command("simulate", config, "--out", out, "--resume")
    assert (code, err) == (0, "")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["restarts"] == 1
    assert summary["boost"]["trees"] == 20
    assert sum(summary["boost"]["thresholds_disclosed"].values()) > 0
    same(out, tmp_path / "whole")


LEAF: Keys = {"growth": "leaf", "depth": 4, "max_leaves": 4, "trees": 9}
OPTIONS: dict[str, tuple[Keys, Keys, tuple[Point, ...]]] = {
    "bare": ({**FREE, "trees": 9}, BARE, (("group_sum.answer", 39),)),
    "noise-and-caps": ({**CAPPED, "trees": 9}, PROTECTED, (("group_sum.answer", 39),)),
    "leaf": ({**LEAF, **CAPPED}, {**BARE, "noise_rows": 1.0}, (("boost.splits", 25),)),
    "sampled": ({**CAPPED, "column_sampling": 0.5, "trees": 9}, {**BARE, "row_sampling": 0.7}, (("boost.offer", 9),)),
    "local-first": ({"first_trees_local": 3, "trees": 6}, BARE, (("boost.shapes", 2),)),
    "stopping": ({"trees": 30, "learning_rate": 1.0}, {**BARE, "early_stopping": 2}, (("group_sum.request", 9),)),
    "after-a-bitmap": ({**CAPPED, "trees": 5}, BARE, (("boost.bitmaps", 2),)),
    "used-up-in-this-tree": ({"holder_thresholds": 1, "trees": 4}, BARE, (("boost.bitmaps", 1),)),
    "in-the-first-tree": ({**CAPPED, "trees": 4}, BARE, (("group_sum.request", 3),)),
    "while-scoring": ({**CAPPED, "trees": 4}, BARE, (("boost.kept", 1),)),
    "at-the-last-message": ({**CAPPED, "trees": 4}, BARE, (("boost.paths", 2),)),
    "twice": ({**CAPPED, "trees": 9}, PROTECTED, (("boost.tree", 8), ("boost.tree", 4))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_run_goes_on_with_the_same_bytes(tmp_path: Path, consortium: Make, name: str) -> None:
    boost, privacy, points = OPTIONS[name]
    config = write(tmp_path / "c", consortium, boost, privacy)
    out = tmp_path / "o"
    simulate(load_spec(config), tmp_path / "whole")
    before = [interrupted(config, out, point, resume=place > 0) for place, point in enumerate(points)]
    summary, _ = resumed(config, out)
    assert summary["restarts"] == len(points)
    assert sum(len(one.kinds) for one in before) > 0
    same(out, tmp_path / "whole")


def test_what_is_sent_again_is_the_same(tmp_path: Path, consortium: Make) -> None:
    """A tree that was begun is begun again: every request, answer and bitmap of it repeats."""
    config = write(tmp_path / "c", consortium, {**CAPPED, "trees": 4}, PROTECTED)
    out = tmp_path / "o"
    before: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}

    def bodies(found: dict[str, set[str]]) -> None:
        for line in (hidden(out) / "audit" / "bank.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] in {"sent", "received"}:
                found.setdefault(entry["kind"], set()).add(entry["body_sha256"])

    interrupted(config, out, ("group_sum.answer", 9))  # in the second tree
    bodies(before)
    interrupted(config, out, ("group_sum.answer", 3), resume=True)  # it begins with the second tree: the same place
    bodies(after)
    assert before == after
    assert len(before["group_sum.request"]) == 5


def test_other_labels_are_refused(tmp_path: Path, consortium: Make) -> None:
    config = write(tmp_path / "c", consortium, {"trees": 4}, BARE)
    out = tmp_path / "o"
    interrupted(config, out, ("group_sum.answer", 9))
    path = config.parent / "bank.csv"
    table = pl.read_csv(path)
    table.with_columns(bad=pl.when(pl.col("id") == table["id"][0]).then(1 - pl.col("bad")).otherwise("bad")).write_csv(
        path
    )
    charged = totals(hidden(out))
    with pytest.raises(DataError, match=r"^bank: not the records that the unfinished run began with"):
        simulate(load_spec(config), out, resume=True)
    assert totals(hidden(out)) == charged
    table.write_csv(path)
    resumed(config, out)


@pytest.mark.parametrize("party", ["bank", "tax_office"])
@pytest.mark.parametrize("how", ["bytes", "content"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, consortium: Make, party: str, how: str) -> None:
    config = write(tmp_path / "c", consortium, {"trees": 4}, BARE)
    out = tmp_path / "o"
    interrupted(config, out, ("group_sum.answer", 20))
    path = hidden(out) / "checkpoints" / party
    if how == "bytes":
        data = path.read_bytes()
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    else:
        FileCheckpoints(path).save(b"[1]")
    with pytest.raises(IntegrityError, match="damaged"):
        simulate(load_spec(config), out, resume=True)
    assert not out.exists()


@pytest.mark.parametrize("how", ["lost", "older"])
def test_a_holder_that_forgot_what_it_disclosed_is_stopped(tmp_path: Path, consortium: Make, how: str) -> None:
    """Its numbers of splits would mean others from then on."""
    config = write(tmp_path / "c", consortium, {**FREE, "trees": 6}, BARE)
    out = tmp_path / "o"
    interrupted(config, out, ("group_sum.answer", 9))
    older = {path.name: path.read_bytes() for path in (hidden(out) / "checkpoints").iterdir()}
    assert set(HOLDERS) <= older.keys()
    interrupted(config, out, ("group_sum.answer", 18), resume=True)
    for party in HOLDERS:
        path = hidden(out) / "checkpoints" / party
        assert path.read_bytes() != older[party]
        path.unlink()
        if how == "older":
            path.write_bytes(older[party])
    with pytest.raises(IntegrityError, match="bound to other content before") as caught:
        simulate(load_spec(config), out, resume=True)
    assert caught.value.code == "escrow.bound"
    assert not out.exists()
