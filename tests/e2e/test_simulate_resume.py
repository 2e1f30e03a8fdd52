"""A run that was killed goes on: the same bytes come out, nothing is charged twice, and no secret is left."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main

from fedcredit.errors import DataError, DisclosureRefused, IntegrityError, SpecError
from fedcredit.governance.audit import read_entries, verify_directory
from fedcredit.governance.gate import Released
from fedcredit.runtime import provenance
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.simulate import simulate
from fedcredit.runtime.unfinished import find_unfinished
from fedcredit.spec.load import load_spec
from fedcredit.types import PartyId

Make = Callable[..., Path]
Point = tuple[str, int]  # kind of message, and the how-manieth of it is the last that is delivered

PARTIES = ("bank", "tax_office", "customs")
EVERYONE = (*PARTIES, "coordinator")
ENFORCED = {"privacy": {"enforce": True}}
EARLY: Point = ("group_sum.answer", 1)
LATE: Point = ("group_sum.answer", 6)
TOTALS: Point = ("scorecard.partial", 1)
SCORING: Point = ("scorecard.partial", 5)

# Ends itself in the middle of a run, as the kernel or an administrator would.
KILLED = """
import os, signal, sys, time
from fedcredit.cli import main
from fedcredit.runtime import provenance
from fedcredit.runtime.local import LocalNetwork
kind, count, how, *arguments = sys.argv[1:]
deliver, seen = LocalNetwork._deliver, 0
def dying(self, sender, recipient, released):
    global seen
    deliver(self, sender, recipient, released)
    seen += released.kind == kind
    if seen == int(count):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        print("waiting", flush=True)
        time.sleep(600)
LocalNetwork._deliver = dying
sys.exit(main(arguments))
"""


def command(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(one) for one in arguments])
    return code, out.getvalue(), err.getvalue()


def elsewhere(point: Point, how: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-W", "ignore", "-c", KILLED, point[0], str(point[1]), how, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Wire:
    """Records what crosses, and interrupts the process after one message."""

    def __init__(self, patch: pytest.MonkeyPatch, stop: Point | None = None) -> None:
        self.envelopes: dict[tuple[str, str, int], str] = {}
        self.kinds: list[str] = []
        self.stop = stop
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


def interrupted(config: Path, out: Path, point: Point) -> Wire:
    """A run that ends after one message, and what it had sent."""
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(patch, point)
        with pytest.raises(KeyboardInterrupt):
            simulate(load_spec(config), out)
    assert not out.exists()
    return wire


def resumed(config: Path, out: Path) -> tuple[dict[str, Any], Wire]:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(patch)
        summary = simulate(load_spec(config), out, resume=True).summary
    return dict(summary), wire


def hidden(out: Path) -> Path:
    (folder,) = out.parent.glob(f".{out.name}.*")
    return folder


def result(out: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    parts = {path.parent.name: json.loads(path.read_text()) for path in (out / "model").glob("*/scorecard.json")}
    return pl.read_parquet(out / "predictions.parquet"), parts


def totals(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that each ledger was charged."""
    found = {}
    for path in sorted(folder.glob("*.sqlite")):
        connection = sqlite3.connect(path)
        query = "SELECT counterparty, kind, feature, amount FROM totals ORDER BY 1, 2, 3"
        found[path.stem] = connection.execute(query).fetchall()
        connection.close()
    return found


def same(out: Path, other: Path) -> None:
    (rows, parts), (other_rows, other_parts) = result(out), result(other)
    assert rows.equals(other_rows)
    assert parts == other_parts
    assert totals(out / "ledger") == totals(other / "ledger")
    assert len(totals(out / "ledger")) == len(PARTIES)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Path:
    return consortium(tmp_path_factory.mktemp("resume"), sections=ENFORCED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Path:
    """The same run, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "o"
    simulate(load_spec(config), out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("point", [EARLY, LATE, TOTALS, SCORING], ids=["early", "late", "totals", "scoring"])
def test_an_interrupted_run_goes_on_with_the_same_bytes(
    config: Path, whole: Path, tmp_path: Path, point: Point
) -> None:
    out = tmp_path / "o"
    before = interrupted(config, out, point)
    ids = {one.run for one in find_unfinished(out)}
    charged = totals(hidden(out) / "ledger")
    assert any(charged.values())
    summary, after = resumed(config, out)
    assert ids == {summary["run_id"]}
    assert summary["restarts"] == 1
    differing = {key for key, sent in before.envelopes.items() if after.envelopes.get(key) != sent}
    assert differing == set()  # keys, nonces, signatures, seeds, answers: everything repeats
    same(out, whole)
    lines = (out / "transcript.jsonl").read_text().splitlines()
    assert len(lines) == summary["messages"] == len(before.kinds) + len(after.kinds)
    assert sum(json.loads(line)["bytes"] for line in lines) == sum(summary["bytes_sent"].values())


@pytest.mark.slow
def test_a_killed_process_is_resumed_from_the_command_line(config: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    process = elsewhere(LATE, "kill", "simulate", config, "--out", out)
    assert process.communicate()[1] == ""
    assert process.returncode == -signal.SIGKILL
    left = hidden(out)
    assert {one.name for one in (left / "secrets").iterdir()} == set(EVERYONE)
    assert {stat.S_IMODE(one.stat().st_mode) for one in (left / "secrets").iterdir()} == {0o600}
    assert stat.S_IMODE((left / "secrets").stat().st_mode) == 0o700
    secrets = [one.read_bytes() for one in (left / "secrets").iterdir()]
    assert {len(one) for one in secrets} == {32}
    assert len(set(secrets)) == len(EVERYONE)
    code, _, err = command("simulate", config, "--out", out, "--resume")
    assert (code, err) == (0, "")
    same(out, whole)
    assert {one.name for one in out.iterdir()} == {one.name for one in whole.iterdir()} | {"report.html"}
    assert list(tmp_path.glob(".*")) == []
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(one in content or one.hex().encode() in content for one in secrets), path


def test_audit_logs_say_where_they_were_resumed_and_verify(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    interrupted(config, out, EARLY)
    log = hidden(out) / "audit" / "bank.jsonl"
    log.write_bytes(log.read_bytes() + b'{"event":"sent","hal')  # a kill in the middle of a line
    resumed(config, out)
    assert verify_directory(out / "audit").keys() == set(EVERYONE)
    for party in EVERYONE:
        events = [entry["event"] for entry in read_entries(out / "audit" / f"{party}.jsonl")]
        assert events.count("resumed") == 1
        assert events[-1] == "closed"


def test_twice(config: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    interrupted(config, out, EARLY)
    with pytest.MonkeyPatch.context() as patch:
        Wire(patch, LATE)
        with pytest.raises(KeyboardInterrupt):
            simulate(load_spec(config), out, resume=True)
    summary, _ = resumed(config, out)
    assert summary["restarts"] == 2
    same(out, whole)


def test_what_was_asked_of_the_ledgers_is_remembered(config: Path, tmp_path: Path) -> None:
    """Without it the label holder would find its own spends in the way, choose fewer features, and be refused."""
    out = tmp_path / "o"
    interrupted(config, out, LATE)
    for path in (hidden(out) / "headroom").iterdir():
        path.unlink()
    with pytest.raises(DisclosureRefused, match="declared to tax_office with other content"):
        resumed(config, out)


def test_a_run_that_only_lacked_its_report_sends_nothing(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(load_spec(config), out, finish=stop)
    written = json.loads((hidden(out) / "summary.json").read_text())
    (hidden(out) / "run.json").unlink()  # the last moment before the folder gets its name
    finished: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(patch)
        summary = simulate(load_spec(config), out, resume=True, finish=finished.append).summary
    assert wire.kinds == []
    assert summary == written
    assert len(finished) == 1
    assert verify_directory(out / "audit").keys() == set(EVERYONE)


def test_killed_between_summary_and_the_end_of_the_books(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"

    def stop(_: LocalNetwork) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalNetwork, "seal", stop)
        with pytest.raises(KeyboardInterrupt):
            simulate(load_spec(config), out)
    assert not (hidden(out) / "audit" / "heads.json").exists()
    simulate(load_spec(config), out, resume=True)
    assert verify_directory(out / "audit").keys() == set(EVERYONE)
    connection = sqlite3.connect(out / "ledger" / "customs.sqlite")
    assert connection.execute("SELECT count(*) FROM closed").fetchone() == (1,)
    connection.close()


def one_line(err: str, *parts: str) -> None:
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert [part for part in parts if part not in err] == []


def test_library_ciphers_go_on_too(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path / "c", rows=500, sections={"crypto": {"profile": "bfv-8192"}})
    simulate(load_spec(config), tmp_path / "whole")
    out = tmp_path / "o"
    before = interrupted(config, out, ("group_sum.request", 1))
    _, after = resumed(config, out)
    assert before.envelopes.items() <= after.envelopes.items()
    same(out, tmp_path / "whole")


@pytest.fixture
def left(tmp_path: Path, consortium: Make) -> Iterator[tuple[Path, Path]]:
    """Configuration and run directory of a small run that was interrupted; it is there at the end as it was."""
    config = consortium(tmp_path / "c", rows=500, sections={"crypto": {"profile": "unsafe-plaintext"}})
    out = tmp_path / "o"
    interrupted(config, out, EARLY)
    before = {path: path.read_bytes() for path in hidden(out).rglob("*") if path.is_file()}
    yield config, out
    assert {path: path.read_bytes() for path in hidden(out).rglob("*") if path.is_file()} == before


def test_a_full_disk_does_not_cost_a_resumed_run(left: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = left

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFiles, "text", full)
    code, _, err = command("simulate", config, "--out", out, "--resume")
    assert code == 2
    one_line(err, "no space left")


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = consortium(tmp_path / "c", rows=500, sections={"crypto": {"profile": "unsafe-plaintext"}})
    Wire(monkeypatch, EARLY)
    code, out, err = command("simulate", config, "--out", tmp_path / "o")
    assert (code, out) == (130, "")
    note, error = err.strip().splitlines()
    assert note.startswith("note: ")
    assert "--resume" in note
    assert error == "error: interrupted"


def test_nothing_to_resume(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path / "c", rows=500)
    code, _, err = command("simulate", config, "--out", tmp_path / "o", "--resume")
    assert code == 2
    one_line(err, "no unfinished run", str(tmp_path / "o"))
    assert [one.name for one in tmp_path.iterdir()] == ["c"]


def test_another_configuration(left: tuple[Path, Path]) -> None:
    config, out = left
    code, _, err = command("simulate", config, "--out", out, "--resume", "--set", "split.seed=5")
    assert code == 2
    one_line(err, "of spec", str(hidden(out) / "spec.toml"))


def test_other_records(left: tuple[Path, Path]) -> None:
    config, out = left
    path = config.parent / "customs.csv"
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(DataError, match=r"^customs: not the records"):
        simulate(load_spec(config), out, resume=True)


def test_other_versions(left: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = left
    monkeypatch.setattr("fedcredit.runtime.simulate.versions", lambda: {**provenance.versions(), "fedcredit": "9.9.9"})
    with pytest.raises(SpecError, match=r"fedcredit is 9\.9\.9, the unfinished run began with"):
        simulate(load_spec(config), out, resume=True)


def test_other_ledgers(left: tuple[Path, Path]) -> None:
    config, out = left
    with pytest.raises(SpecError, match=r"privacy\.ledger_dir: .*elsewhere, the unfinished run began with none"):
        simulate(load_spec(config, ["privacy.ledger_dir=elsewhere"]), out, resume=True)


def test_a_taken_name(left: tuple[Path, Path]) -> None:
    config, out = left
    out.mkdir()
    with pytest.raises(SpecError, match="exists already"):
        simulate(load_spec(config), out, resume=True)


def test_a_lost_secret(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path / "c", rows=500, sections={"crypto": {"profile": "unsafe-plaintext"}})
    interrupted(config, tmp_path / "o", EARLY)
    (hidden(tmp_path / "o") / "secrets" / "customs").write_bytes(b"short")
    with pytest.raises(IntegrityError, match="customs: its run secret is missing or damaged"):
        simulate(load_spec(config), tmp_path / "o", resume=True)


def test_a_run_without_resume_leaves_it_alone_and_says_so(left: tuple[Path, Path]) -> None:
    config, out = left
    folder = hidden(out)
    code, printed, err = command("simulate", config, "--out", out, "--json")
    assert code == 0
    assert err.startswith("note: ")
    assert len(err.strip().splitlines()) == 1
    assert "--resume" in err
    assert str(folder) in err
    assert json.loads(printed)["run_id"] != find_unfinished(out)[0].run


def test_only_one_process_at_a_time(left: tuple[Path, Path]) -> None:
    config, out = left
    file = os.open(hidden(out) / "lock", os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        code, _, err = command("simulate", config, "--out", out, "--resume")
        assert find_unfinished(out)[0].running
    finally:
        os.close(file)
    assert code == 2
    one_line(err, "still running", str(hidden(out)))


@pytest.mark.slow
def test_a_process_that_runs_holds_its_folder(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path / "c", rows=500, sections={"crypto": {"profile": "unsafe-plaintext"}})
    out = tmp_path / "o"
    process = elsewhere(EARLY, "wait", "simulate", config, "--out", out)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        with pytest.raises(SpecError, match="still running"):
            simulate(load_spec(config), out, resume=True)
        _, _, err = command("simulate", config, "--out", tmp_path / "p", "--resume")
        assert "no unfinished run" in err
    finally:
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 5
    while find_unfinished(out)[0].running:
        assert time.monotonic() < deadline
    simulate(load_spec(config), out, resume=True)
    assert (out / "summary.json").is_file()


@pytest.mark.slow
def test_without_out_the_unfinished_name_is_found_and_never_taken(
    tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = consortium(tmp_path, rows=500, sections={"crypto": {"profile": "unsafe-plaintext"}})
    monkeypatch.chdir(tmp_path)
    interrupted(config, Path("runs") / "made-up", EARLY)
    code, _, err = command("simulate", config)
    assert code == 0
    assert re.match(r"note: runs/made-up: a run of it is unfinished", err)
    assert [one.name for one in Path("runs").iterdir() if not one.name.startswith(".")] == ["made-up-2"]
    code, _, err = command("simulate", config, "--resume")
    assert (code, err) == (0, "")
    assert sorted(one.name for one in Path("runs").iterdir()) == ["made-up", "made-up-2"]
