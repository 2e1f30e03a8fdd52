"""``fedcredit audit replay``: an honest run holds, every lie about what was asked is named."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main

from fedcredit.crypto.commitment import commit_vector
from fedcredit.crypto.packing import pack
from fedcredit.errors import BoundError, IntegrityError, PeerError, SpecError
from fedcredit.governance.audit import HEADS_FILE, AuditLog, read_entries
from fedcredit.governance.gate import Released
from fedcredit.protocol.boost.archive import KeptTree
from fedcredit.protocol.group_sum.asker import GroupSumAsker
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.replay import Picked, replay
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec
from fedcredit.types import PartyId, RunId

Make = Callable[..., Path]
Columns = Sequence[NDArray[np.int64]]
Edit = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
TAX, CUSTOMS = PartyId("tax_office"), PartyId("customs")
ALL = Picked()
BOOST: dict[str, Any] = {
    "run": {"model": "boost"},
    "boost": {"trees": 4, "depth": 4, "min_child_rows": 100, "holder_bins": 8, "min_bin_rows": 20},
    "privacy": {"enforce": False, "noise_rows": 1.0, "gradient_bits": 8},
}


@dataclass(frozen=True)
class Run:
    """A finished run and the folder of its records."""

    records: Path
    out: Path


def made(folder: Path, make: Make, sections: Mapping[str, Any] = BOOST) -> Run:
    config = make(folder / "records", rows=900, sections=sections)
    simulate(load_spec(config), folder / "out")
    return Run(folder / "records", folder / "out")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Run:
    return made(tmp_path_factory.mktemp("honest"), consortium)


@pytest.fixture
def copy(honest: Run, tmp_path: Path) -> Path:
    """The run directory, to be tampered with."""
    return Path(shutil.copytree(honest.out, tmp_path / "run"))


def command(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["audit", "replay", *(str(one) for one in arguments)])
    return code, out.getvalue(), err.getvalue()


def refused(folder: Path, code: str, picked: Picked = ALL) -> str:
    with pytest.raises(IntegrityError) as caught:
        replay(folder, TAX, picked)
    assert caught.value.code == code, caught.value
    return caught.value.public


def escrow(folder: Path, edit: Edit) -> None:
    path = folder / "escrow" / "bank.jsonl"
    entries = edit([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries))


def rewrite(folder: Path, party: str, edit: Edit) -> None:
    """Writes a log anew, as its own house could before it publishes the head."""
    path = folder / "audit" / f"{party}.jsonl"
    entries = edit([dict(one) for one in read_entries(path)[:-1]])
    path.unlink()
    log = AuditLog(path, PartyId(party), RunId(entries[0]["run"]), lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for entry in entries:
        for key in ("hash", "line", "party", "previous", "run", "time"):
            entry.pop(key)
        log.append(entry.pop("event"), entry)
    heads = json.loads((folder / "audit" / HEADS_FILE).read_text())
    (folder / "audit" / HEADS_FILE).write_text(json.dumps({**heads, party: log.close().head}))


def is_request(entry: Mapping[str, Any]) -> bool:
    return entry["event"] == "received" and entry.get("kind") == "group_sum.request"


def test_every_vector_of_an_honest_run_is_checked(honest: Run) -> None:
    for holder in (TAX, CUSTOMS):
        found = replay(honest.out, holder, ALL)
        assert found.checked == tuple(range(found.vectors))
        assert found.vectors > found.requests == 4 * 4
        assert found.trees == 4
        assert found.unchecked == ""
        assert 0 < len(found.zeros) < found.vectors  # nodes that were not split are padded
        assert found.messages > 3 + 4 * 4


def test_the_command_says_what_was_checked(honest: Run) -> None:
    code, out, _ = command(honest.out, "--holder", "tax_office")
    assert code == 0
    assert "replay against the log of tax_office" in out
    assert "all equal" in out
    assert "padded zeros: vectors" in out
    code, out, _ = command(honest.out, "--holder", "customs", "--vector", 1, "--json")
    parsed = json.loads(out)
    assert code == 0
    assert 1 in parsed["checked"]
    assert parsed["requests"] == 1
    code, out, _ = command(honest.out, "--holder", "customs", "--sample", 2, "--json")
    assert 1 <= json.loads(out)["requests"] <= 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--holder", "bank"], "no feature holder of this run; name tax_office or customs"),
        (["--holder", "tax_office", "--vector", "9999"], "--vector 9999: this run asked vectors 0 to"),
        (["--holder", "tax_office", "--sample", "0"], "at least 1"),
        (["--holder", "tax_office", "--all", "--sample", "3"], "--all leaves nothing to choose"),
    ],
)
def test_wrong_command_lines_exit_2(honest: Run, arguments: list[str], text: str) -> None:
    code, _, err = command(honest.out, *arguments)
    assert code == 2
    assert text in err


def test_a_folder_that_is_no_run_exits_2(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no run directory"):
        replay(tmp_path, TAX, ALL)


@dataclass(frozen=True)
class Crafted:
    """A vector that was sent in place of another.

    Args:
        number: Its number.
        honest: What should have been sent.
    """

    number: int
    honest: NDArray[np.int64]


def craft(patch: pytest.MonkeyPatch) -> list[Crafted]:
    """The label holder fills its first padded slot with powers of two: the answer prints the bins of seven rows."""
    ask = GroupSumAsker.ask
    sent: list[Crafted] = []

    async def cheating(self: GroupSumAsker, columns: Columns, keep: KeptSecrets, **options: Any) -> Any:
        asked = [column.copy() for column in columns]
        empty = next((at for at, column in enumerate(asked) if not column.any()), None)
        if empty is not None and not sent:
            asked[empty][:7] = 2 ** np.arange(7)
            plan, first = (each[options["batch"]] for each in (self._conversation.plans, self._conversation.starts))
            pairs = zip(pack(plan, columns), pack(plan, asked), strict=True)
            sent.extend(Crafted(first + at, one) for at, (one, two) in enumerate(pairs) if not np.array_equal(one, two))
        return await ask(self, asked, keep, **options)

    patch.setattr(GroupSumAsker, "ask", cheating)
    return sent


def test_a_crafted_vector_is_caught(tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        sent = craft(patch)
        out = made(tmp_path, consortium).out
    (one,) = sent  # the run itself saw nothing: it ended well
    for picked in (ALL, Picked((one.number,))):
        text = refused(out, "replay.vector", picked)
        assert text.startswith(f"vector {one.number} of boost (tree 1, round ")
        assert "what was encrypted is not what honest training gives" in text
    replay(out, TAX, Picked((0,)))  # nobody notices who does not look at it

    def forge(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An escrow that speaks of the honest vector: it opens, but not to the bytes that the holder logged."""
        (mine,) = [entry for entry in entries if entry.get("what") == "vector" and entry["index"] == one.number]
        old, new = mine["commitment"], commit_vector(one.honest, bytes.fromhex(mine["seed"])).hex()
        return [{key: new if value == old else value for key, value in entry.items()} for entry in entries]

    escrow(out, forge)
    assert "its bytes are not those that tax_office logged" in refused(out, "replay.bytes")


def first_seed(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Edit:
    return lambda entries: [edit(one) if one.get("what") == "vector" and one["index"] == 0 else one for one in entries]


def test_lies_of_the_escrow_are_named(copy: Path, honest: Run) -> None:
    lies: list[tuple[Edit, str]] = [
        (first_seed(lambda one: {**one, "seed": "11" * 32}), "replay.vector"),
        (first_seed(lambda one: {**one, "commitment": "11" * 32}), "replay.seed"),
        (first_seed(lambda one: {**one, "seed": "no"}), "replay.escrow"),
        (lambda entries: [one for one in entries if one.get("what") != "vector"], "replay.seed"),
        (lambda entries: [one for one in entries if one.get("what") != "nonce"], "replay.nonces"),
        (lambda entries: [one for one in entries if one.get("what") != "draws"], "replay.draws"),
        (lambda entries: [one for one in entries if one.get("what") != "tree"], "replay.archive"),
        (lambda entries: [{**one, "run": "0" * 64} if "nonce" in one else one for one in entries], "replay.nonces"),
        (lambda entries: [{**one, "nonce": "0" * 64} if "nonce" in one else one for one in entries], "replay.message"),
    ]
    for edit, code in lies:
        escrow(copy, edit)
        refused(copy, code)
        shutil.copy(honest.out / "escrow" / "bank.jsonl", copy / "escrow" / "bank.jsonl")
    (copy / "escrow" / "bank.jsonl").unlink()
    refused(copy, "replay.escrow")


def test_trees_that_were_not_grown_are_named(copy: Path) -> None:
    def lie(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A leaf value that the rows of the leaf do not give: it would single their gradients out from then on."""
        for entry in entries:
            if entry.get("what") == "tree" and entry["number"] == 1:
                kept = msgspec.msgpack.decode(base64.b64decode(entry["body"]), type=KeptTree)
                nodes = [replace(one, value=one.value * 2) if one.split < 0 else one for one in kept.tree.nodes]
                body = msgspec.msgpack.encode(KeptTree(replace(kept.tree, nodes=tuple(nodes)), kept.splits))
                entry["body"] = base64.b64encode(body).decode()
        return entries

    escrow(copy, lie)
    assert "tree 2 is not what honest training gives" in refused(copy, "replay.tree")


@pytest.mark.parametrize(
    ("party", "event", "kind", "peer"),
    [
        ("tax_office", "sent", "boost.bitmaps", "bank"),
        ("tax_office", "sent", "boost.shapes", "bank"),
        ("tax_office", "received", "boost.splits", "bank"),
        ("tax_office", "received", "boost.basis", "bank"),
        ("tax_office", "received", "boost.tree", "bank"),
        ("tax_office", "received", "group_sum.nonce_reveal", "bank"),
        ("bank", "received", "boost.bitmaps", "customs"),
    ],
)
def test_other_messages_than_those_on_record_are_named(
    copy: Path, party: str, event: str, kind: str, peer: str
) -> None:
    """What the vectors are derived from is held against the logs too."""

    def lie(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        side = {"sent": "recipient", "received": "sender"}[event]
        last = max(
            at
            for at, one in enumerate(entries)
            if (one["event"], one.get("kind"), one.get(side)) == (event, kind, peer)
        )
        entries[last]["body_sha256"] = "0" * 64
        return entries

    rewrite(copy, party, lie)
    text = refused(copy, "replay.message")
    assert kind in text
    assert party in text


def test_a_model_that_was_not_grown_is_named(copy: Path) -> None:
    path = copy / "model" / "bank" / "trees.json"
    model = json.loads(path.read_text())
    leaf = next(node for node in model["trees"][0]["nodes"] if node["value"] is not None)
    leaf["value"] += 1e-9
    path.write_text(json.dumps(model))
    refused(copy, "replay.model")
    path.unlink()
    refused(copy, "replay.model")


def test_a_log_with_fewer_or_more_requests_is_named(copy: Path, honest: Run) -> None:
    def without_last(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        last = max(at for at, one in enumerate(entries) if is_request(one))
        return [*entries[:last], *entries[last + 1 :]]

    def with_one_more(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        last = max(at for at, one in enumerate(entries) if is_request(one))
        return [*entries[: last + 1], {**entries[last], "body_sha256": "0" * 64}, *entries[last + 1 :]]

    def twice(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [again for one in entries for again in ([dict(one), dict(one)] if is_request(one) else [one])]

    rewrite(copy, "tax_office", without_last)
    assert "has no such message" in refused(copy, "replay.missing")
    refused(copy, "replay.missing", Picked((0,)))
    rewrite(copy, "tax_office", with_one_more)
    refused(copy, "replay.bytes")  # it stands where the last one should
    shutil.copytree(honest.out / "audit", copy / "audit", dirs_exist_ok=True)
    rewrite(copy, "tax_office", with_one_more)
    assert "1 more requests than honest training sends" in refused(copy, "replay.extra")
    shutil.copytree(honest.out / "audit", copy / "audit", dirs_exist_ok=True)
    rewrite(copy, "tax_office", twice)
    assert replay(copy, TAX, ALL).requests == 16  # the same bytes once more, after a restart, are no new question


def test_a_broken_chain_is_named(copy: Path) -> None:
    path = copy / "audit" / "tax_office.jsonl"
    path.write_text(path.read_text().replace('"event":"received"', '"event":"receives"', 1))
    assert "tax_office.jsonl line" in refused(copy, "audit.changed")


def test_other_labels_and_other_rows_are_named(tmp_path: Path, consortium: Make) -> None:
    run = made(tmp_path, consortium)
    path = run.records / "bank.csv"
    frame = pl.read_csv(path)
    frame.with_columns(bad=1 - pl.col("bad")).write_csv(path)
    refused(run.out, "replay.vector")
    frame.with_columns(id=pl.lit("X") + pl.col("id")).write_csv(path)
    refused(run.out, "replay.rows")


def test_a_run_that_was_interrupted_and_resumed_holds(
    tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holders have logged some requests twice."""
    loaded, out = load_spec(consortium(tmp_path / "records", rows=900, sections=BOOST)), tmp_path / "out"
    deliver, seen = LocalNetwork._deliver, [0]

    def interrupted(self: LocalNetwork, sender: PartyId, recipient: PartyId, released: Released) -> None:
        deliver(self, sender, recipient, released)
        seen[0] += released.kind == "boost.splits"
        if seen[0] == 2 * 6:  # in the middle of the second tree
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(LocalNetwork, "_deliver", interrupted)
        with pytest.raises(KeyboardInterrupt):
            simulate(loaded, out)
    simulate(loaded, out, resume=True)
    logged = [one for one in read_entries(out / "audit" / "tax_office.jsonl") if is_request(one)]
    found = replay(out, TAX, ALL)
    assert len(logged) > found.requests == 16
    assert found.unchecked == ""


def test_of_a_run_that_failed_the_finished_trees_are_checked(
    tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asked in the tree it failed in is counted, not checked."""
    loaded = load_spec(consortium(tmp_path / "records", rows=900, sections=BOOST))
    deliver, seen = LocalNetwork._deliver, [0]

    def failing(self: LocalNetwork, sender: PartyId, recipient: PartyId, released: Released) -> None:
        seen[0] += released.kind == "boost.splits"
        if seen[0] == 2 * 6:
            raise PeerError("wire.test", "the line is cut")
        deliver(self, sender, recipient, released)

    with monkeypatch.context() as patch:
        patch.setattr(LocalNetwork, "_deliver", failing)
        with pytest.raises(PeerError, match="the line is cut"):
            simulate(loaded, tmp_path / "out")
    (left,) = tmp_path.glob("out.failed-*")
    found = replay(left, TAX, ALL)
    assert (found.trees, found.requests) == (1, 4)
    assert found.unchecked == "2 requests of a tree that was not finished: its splits are not on record"

    def shorter(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in entries if one.get("what") != "tree"]

    escrow(left, shorter)
    assert replay(left, TAX, ALL).unchecked.startswith("6 requests")


def test_of_a_scorecard_the_counts_are_checked(small_run: Simulation) -> None:
    found = replay(small_run.out, TAX, ALL)
    assert (found.conversation, found.vectors, found.requests, found.trees) == ("bin", 1, 1, 0)
    assert "requests of selection and fit" in found.unchecked
    code, _, err = command(small_run.out, "--holder", "tax_office")
    assert code == 0
    assert "not checked:" in err


def test_a_crafted_count_of_a_scorecard_is_caught(
    tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = GroupSumAsker.ask

    async def cheating(self: GroupSumAsker, columns: Columns, keep: KeptSecrets, **options: Any) -> Any:
        asked = [column.copy() for column in columns]
        if len(asked) == 3:
            row = int(np.flatnonzero((asked[0] == 0) & (asked[1] == 1))[0])
            asked[0][row] = 1  # one more bad tells in which bin of each feature this row lies
        return await ask(self, asked, keep, **options)

    with monkeypatch.context() as patch:
        patch.setattr(GroupSumAsker, "ask", cheating)
        out = made(tmp_path, consortium, {"privacy": {"enforce": False}}).out
    refused(out, "replay.vector")


def test_bfv_cannot_be_rebuilt(copy: Path) -> None:
    spec = copy / "spec.toml"
    spec.write_text(spec.read_text().replace("rlwe-8192", "bfv-8192"))
    with pytest.raises(BoundError, match="draws its own randomness"):
        replay(copy, TAX, ALL)
    assert command(copy, "--holder", "tax_office")[0] == 2
