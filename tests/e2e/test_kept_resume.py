"""Runs whose cipher library draws its own randomness go on from anywhere: rows that are hidden, and bfv-8192.

The same bytes are sent again, so that no holder sees two encryptions of one vector and no label holder two answers to
one request; the model is that of a run that was never interrupted; nothing is charged twice; nothing kept stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.errors import IntegrityError, TransportError
from fedcredit.governance.audit import verify_directory
from fedcredit.governance.gate import Released
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.party_end import PEER_ENDED
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
from fedcredit.types import PartyId

Make = Callable[..., Path]
Stop = tuple[str, int]  # kind of message, and the how-manieth of it is the last that is delivered

HOLDERS = ("tax_office", "customs")
SEED = bytes(range(32))  # the order of rows, and with it whose noise is whose, follows from secrets where it is blind
HIDDEN: dict[str, dict[str, Any]] = {"align": {"mode": "registry", "registry": "register.csv"}}
BLIND: dict[str, dict[str, Any]] = {"align": {"mode": "blind", "decoys": 1.0, "registry": "register.csv"}}
BFV: dict[str, dict[str, Any]] = {"crypto": {"profile": "bfv-8192"}}
TREES: dict[str, dict[str, Any]] = {
    "run": {"model": "boost"},
    "boost": {
        "trees": 3,
        "depth": 2,
        "bins": 8,
        "holder_bins": 4,
        "min_bin_rows": 40,
        "min_child_rows": 20,
        "first_trees_local": 0,
    },
    "privacy": {"noise_rows": 4.0},
}
FAST: dict[str, dict[str, Any]] = {"crypto": {"profile": "unsafe-plaintext"}}

SCORECARD_STOPS: Sequence[Stop] = [
    ("select.rows", 1),
    ("select.rows", 2),
    ("select.columns", 1),
    ("select.shades", 1),
    ("select.shared", 1),
    ("select.sums", 1),
    ("select.shade_sums", 1),
    ("select.opened_sums", 1),
    ("scorecard.totals_key", 2),
    ("scorecard.partial", 1),
    ("scorecard.total", 1),
    ("scorecard.partial", 3),
    ("scorecard.total", 2),
    ("scorecard.partial", 5),
    ("scorecard.total", 3),
]
TREES_STOPS: Sequence[Stop] = [
    ("select.rows", 1),
    ("select.rows", 2),
    ("group_sum.answer", 1),
    ("boost.bitmaps", 1),
    ("group_sum.answer", 3),
    ("boost.tree", 4),
    ("group_sum.answer", 2),
    ("boost.splits", 3),
    ("boost.kept", 2),
    ("boost.chosen_paths", 1),
    ("boost.chosen_paths", 2),
]
BFV_STOPS: Sequence[Stop] = [
    ("group_sum.setup", 1),
    ("group_sum.request", 1),
    ("group_sum.answer", 1),
    ("group_sum.answer", 3),
    ("group_sum.request", 6),
    ("group_sum.answer", 7),
    ("scorecard.partial", 1),
    ("group_sum.answer", 9),
    ("scorecard.total", 3),
]
BFV_TREES_STOPS: Sequence[Stop] = [
    ("group_sum.setup", 2),
    ("group_sum.request", 1),
    ("group_sum.answer", 1),
    ("group_sum.answer", 3),
    ("group_sum.answer", 4),
    ("group_sum.request", 4),
    ("group_sum.answer", 2),
    ("boost.kept", 1),
]
CASES: Mapping[str, tuple[Mapping[str, Mapping[str, Any]], Sequence[Stop]]] = {
    "scorecard-register": ({**HIDDEN, **FAST}, SCORECARD_STOPS),
    "scorecard-blind": ({**BLIND, **FAST}, SCORECARD_STOPS[:6]),
    "trees-register": ({**HIDDEN, **FAST, **TREES}, TREES_STOPS),
    "scorecard-bfv": (BFV, BFV_STOPS),
    "trees-bfv": ({**BFV, **TREES}, BFV_TREES_STOPS),
    "scorecard-bfv-register": ({**HIDDEN, **BFV}, SCORECARD_STOPS[2:10:3]),
}

# Ends itself in the middle of a run, as the kernel or an administrator would.
KILLED = """
import os, signal, sys
from pathlib import Path
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
kind, count, config, out = sys.argv[1:]
deliver, seen = LocalNetwork._deliver, 0
def dying(self, sender, recipient, released):
    global seen
    deliver(self, sender, recipient, released)
    seen += released.kind == kind
    if seen == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
LocalNetwork._deliver = dying
out = Path(out)
simulate(load_spec(Path(config)), out, entropy_seed=bytes(range(32)), resume=any(out.parent.glob(f".{out.name}.*")))
"""


@dataclass
class Wire:
    """Records what crosses; behind one message the wire is cut and the process is interrupted."""

    stop: Stop | None = None
    cut: bool = False
    envelopes: dict[tuple[str, str, int], str] = field(default_factory=dict)
    bodies: dict[str, set[tuple[str, str, str]]] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        deliver = LocalNetwork._deliver

        def watched(network: LocalNetwork, sender: PartyId, recipient: PartyId, released: Released) -> None:
            digest = hashlib.sha256(released.data).hexdigest()
            self.envelopes[sender, recipient, released.sequence] = f"{released.kind} {digest}"
            self.bodies.setdefault(released.kind, set()).add((sender, recipient, released.body_sha256))
            if self.cut:  # paid for and signed, but nobody has it
                return
            deliver(network, sender, recipient, released)
            self.kinds.append(released.kind)
            if self.stop is not None and self.kinds.count(self.stop[0]) == self.stop[1]:
                self.cut = True
                for end in network._ends.values():
                    end.post.broken = TransportError(PEER_ENDED, "the wire is cut")
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(LocalNetwork, "_deliver", watched)


def interrupted(config: Path, out: Path, stop: Stop, *, resume: bool = False) -> Wire:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(stop)
        wire.watch(patch)
        with pytest.raises(KeyboardInterrupt):
            simulate(load_spec(config), out, resume=resume, entropy_seed=SEED)
    assert not out.exists()
    return wire


def resumed(config: Path, out: Path) -> tuple[dict[str, Any], Wire]:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire()
        wire.watch(patch)
        return dict(simulate(load_spec(config), out, resume=True).summary), wire


def hidden(out: Path) -> Path:
    (folder,) = out.parent.glob(f".{out.name}.*")
    return folder


def charged(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for path in sorted((folder / "ledger").glob("*.sqlite")):
        connection = sqlite3.connect(path)
        query = "SELECT counterparty, kind, feature, amount FROM totals ORDER BY 1, 2, 3"
        found[path.stem] = connection.execute(query).fetchall()
        connection.close()
    return found


def same(out: Path, other: Path) -> None:
    parts, other_parts = (
        {path.parent.name: json.loads(path.read_text()) for path in (one / "model").glob("*/*.json")}
        for one in (out, other)
    )
    assert parts == other_parts
    assert parts.keys() == {"bank", *HOLDERS}
    assert pl.read_parquet(out / "predictions.parquet").equals(pl.read_parquet(other / "predictions.parquet"))
    assert charged(out) == charged(other)
    assert all(charged(out)[one] for one in HOLDERS)
    assert verify_directory(out / "audit").keys() == {"bank", *HOLDERS, "coordinator"}
    assert not {one.name for one in out.iterdir()} & {"kept", "secrets", "checkpoints"}


def configuration(folder: Path, consortium: Make, sections: Mapping[str, Mapping[str, Any]]) -> Path:
    rows = 1200
    config = consortium(folder, holders=HOLDERS, rows=rows, sections=sections)
    if sections.get("align", {}).get("decoys"):  # the others know enterprises that are no customers
        path = folder / "bank.csv"
        path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:560]), "utf-8")
    ids = [f"E{number:05d}" for number in range(rows)]
    (folder / "register.csv").write_text("id\n" + "".join(f"{one}\n" for one in ids), "utf-8")
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Callable[[str], tuple[Path, Path]]:
    """Configuration of a case, and the same run never interrupted."""
    known: dict[str, tuple[Path, Path]] = {}

    def make(case: str) -> tuple[Path, Path]:
        if case not in known:
            config = configuration(tmp_path_factory.mktemp(case), consortium, CASES[case][0])
            out = tmp_path_factory.mktemp("whole") / "o"
            simulate(load_spec(config), out, entropy_seed=SEED)
            known[case] = config, out
        return known[case]

    return make


def goes_on(config: Path, whole: Path, out: Path, stops: Sequence[Stop]) -> None:
    before = [interrupted(config, out, stop, resume=place > 0) for place, stop in enumerate(stops)]
    assert any((hidden(out) / "kept").rglob("*"))
    summary, after = resumed(config, out)
    assert summary["restarts"] == len(stops)
    trees = load_spec(config).spec.run.model == "boost"
    for place, one in enumerate(before):
        for later in [*before[place + 1 :], after]:
            shared = one.envelopes.keys() & later.envelopes.keys()
            assert trees or {key for key in shared if later.envelopes[key] != one.envelopes[key]} == set()
    same(out, whole)
    once(whole, [*before, after])


def once(whole: Path, wires: Sequence[Wire]) -> None:
    """However often they were sent, there were no more different messages of a kind than in a run that was not killed:
    nobody has two encryptions of one vector, or two answers to one request."""
    lines = [json.loads(line) for line in (whole / "transcript.jsonl").read_text().splitlines()]
    for kind in {line["type"] for line in lines}:
        counted = {(line["sender"], line["recipient"], line["sha256"]) for line in lines if line["type"] == kind}
        seen = set().union(*(wire.bodies.get(kind, set()) for wire in wires))
        assert len(seen) == len(counted), kind


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_from_every_stage(made: Callable[[str], tuple[Path, Path]], tmp_path: Path, case: str) -> None:
    config, whole = made(case)
    goes_on(config, whole, tmp_path / "o", CASES[case][1])


def test_hidden_rows_go_on_after_they_were_chosen(made: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    config, whole = made("scorecard-register")
    goes_on(config, whole, tmp_path / "o", [("select.sums", 1)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "stops"),
    [
        ("scorecard-register", [("select.rows", 2), ("select.shared", 1), ("scorecard.total", 1)]),
        ("trees-bfv", [("group_sum.answer", 3), ("group_sum.request", 3)]),
    ],
)
def test_killed_by_the_kernel(
    made: Callable[[str], tuple[Path, Path]], tmp_path: Path, case: str, stops: Sequence[Stop]
) -> None:
    config, whole = made(case)
    out = tmp_path / "o"
    for kind, count in stops:
        words = [sys.executable, "-W", "ignore", "-c", KILLED, kind, str(count), str(config), str(out)]
        process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
        assert process.returncode == -signal.SIGKILL, process.stderr
    summary, _ = resumed(config, out)
    assert summary["restarts"] == len(stops)
    same(out, whole)


@pytest.mark.slow
def test_what_trees_have_kept_goes_with_the_tree(made: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    """However many trees: what stays is a key, and the messages of one tree."""
    config, _ = made("trees-bfv")
    files = []
    for count in (1, 3):
        out = tmp_path / str(count)
        interrupted(config, out, ("boost.tree", 2 * count))
        files.append({party: len(list((hidden(out) / "kept" / party).iterdir())) for party in ("bank",)})
    assert files[0]["bank"] == files[1]["bank"] == 1  # trees have begun, nothing has been asked: the key alone


@pytest.mark.parametrize("party", ["bank", "tax_office", "customs"])
def test_what_was_lost_is_never_made_again(
    made: Callable[[str], tuple[Path, Path]], tmp_path: Path, party: str
) -> None:
    config, _ = made("scorecard-register")
    out = tmp_path / "o"
    interrupted(config, out, ("scorecard.total", 1))
    before = charged(hidden(out))
    for path in (hidden(out) / "kept" / party).iterdir():
        path.unlink()
    with pytest.raises(IntegrityError, match=r"kept select/.*: bound to other content before") as caught:
        simulate(load_spec(config), out, resume=True)
    assert caught.value.code == "escrow.bound"
    (failed,) = tmp_path.iterdir()
    assert charged(failed) == before
    assert not (failed / "kept").exists()


def test_a_second_encryption_of_the_choice_is_refused_by_its_holders(
    made: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """A label holder that forgets all it has kept and bound, on purpose: two ciphertexts of one choice are compared by
    nobody, and other rows under the same commitment are answered by nobody."""
    config, _ = made("scorecard-register")
    out = tmp_path / "o"
    interrupted(config, out, ("select.columns", 1))
    shutil.rmtree(hidden(out) / "kept" / "bank")
    escrow = hidden(out) / "escrow" / "bank.jsonl"
    lines = escrow.read_text().splitlines()
    left = [line for line in lines if json.loads(line).get("bind") != "kept"]
    assert len(left) < len(lines)
    escrow.write_text("".join(line + "\n" for line in left))
    with pytest.raises(IntegrityError, match="chosen-as bank/train: bound to other content before"):
        simulate(load_spec(config), out, resume=True)
