"""The run directory appears whole or not at all; what was disclosed is kept."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fedcredit.errors import DataError, PeerError, SpecError
from fedcredit.runtime import provenance
from fedcredit.runtime.escrow import FileEscrow
from fedcredit.runtime.run_directory import RunFiles, run_directory
from fedcredit.types import RunId

RUN = RunId("0123456789abcdef")


def fill(files: RunFiles) -> None:
    files.text("spec.toml", "x = 1\n")
    files.json("audit/bank.json", {"a": None})
    files.text("ledger/bank.sqlite", "")
    files.text("escrow/bank.jsonl", "")
    files.text("model/bank/scorecard.json", "{}")
    pl.DataFrame({"id": [1]}).write_parquet(files.folder / "predictions.parquet")


def fail(out: Path, error: BaseException, *others: Path) -> None:
    with run_directory(out, RUN) as files:
        fill(files)
        for other in others:
            other.mkdir()
        raise error


def test_it_appears_under_its_name_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with run_directory(out, RUN) as files:
        fill(files)
        assert not out.exists()
    assert json.loads((out / "audit" / "bank.json").read_text()) == {"a": None}
    assert [one.name for one in out.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SpecError, match="exists already"), run_directory(out, RUN):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="--out") as caught, run_directory(tmp_path / "file" / "run", RUN):
        pass
    assert caught.value.code == "out.unwritable"


@pytest.mark.parametrize("error", [DataError("a.b", "c"), SpecError("a.b", "c"), OSError(errno.ENOSPC, "full")])
def test_wrong_input_or_a_full_disk_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        fail(tmp_path / "made" / "up" / "run", error)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_others_use_stay(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fail(tmp_path / "made" / "run", DataError("a.b", "c"), tmp_path / "made" / "other")
    assert [one.name for one in (tmp_path / "made").iterdir()] == ["other"]


@pytest.mark.parametrize("error", [PeerError("a.b", "c"), KeyboardInterrupt(), ValueError("bug")])
def test_a_failed_protocol_leaves_evidence_and_no_result(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail(tmp_path / "run", error)
    (kept,) = tmp_path.iterdir()
    assert kept.name == "run.failed-01234567"
    assert {one.name for one in kept.iterdir()} == {"audit", "ledger", "escrow", "spec.toml"}


def act(out: Path, *steps: Callable[[RunFiles], object]) -> None:
    """What a run does, step by step."""
    with run_directory(out, RUN) as files:
        for step in steps:
            step(files)


def raising(error: BaseException) -> Callable[[RunFiles], None]:
    def step(_: RunFiles) -> None:
        raise error

    return step


def begin(files: RunFiles) -> None:
    """What only an unfinished run needs."""
    for place in ("secrets/bank", "kept/bank/0", "checkpoints/bank", "headroom/bank.jsonl", "run.json"):
        files.text(place, "x")


TRANSIENT = {"secrets", "kept", "checkpoints", "headroom", "run.json", "lock"}


def test_secrets_and_checkpoints_are_never_in_a_run_directory(tmp_path: Path) -> None:
    with run_directory(tmp_path / "run", RUN) as files:
        fill(files)
        begin(files)
        assert {one.name for one in files.folder.iterdir()} >= TRANSIENT
    assert not {one.name for one in (tmp_path / "run").iterdir()} & TRANSIENT


def test_nor_in_what_a_failed_run_leaves(tmp_path: Path) -> None:
    with pytest.raises(PeerError):
        act(tmp_path / "run", fill, begin, raising(PeerError("a.b", "c")))
    assert {one.name for one in (tmp_path / "run.failed-01234567").iterdir()} == {
        "audit",
        "ledger",
        "escrow",
        "spec.toml",
    }


def interrupt(out: Path, *, begun: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        act(out, *([begin] if begun else []), raising(KeyboardInterrupt()))


def test_an_interrupted_run_stays_hidden_and_can_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupt(out, begun=True)
    folder = tmp_path / ".run.01234567"
    assert {one.name for one in folder.iterdir()} == TRANSIENT
    with run_directory(out, RUN, folder) as files:
        assert files.resumed
        fill(files)
    assert (out / "model").is_dir()
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_interrupted_before_its_first_message_it_leaves_nothing(tmp_path: Path) -> None:
    interrupt(tmp_path / "made" / "run", begun=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [DataError("a.b", "c"), SpecError("a.b", "c"), OSError(errno.ENOSPC, "full")])
def test_a_resumed_run_stays_where_input_or_disk_are_wrong(tmp_path: Path, error: Exception) -> None:
    """What the process before it disclosed stays disclosed, and the run can still go on."""
    out, folder = tmp_path / "run", tmp_path / ".run.01234567"
    interrupt(out, begun=True)
    with pytest.raises(type(error)), run_directory(out, RUN, folder):
        raise error
    assert {one.name for one in folder.iterdir()} == TRANSIENT


def test_a_folder_is_held_while_it_is_worked_in(tmp_path: Path) -> None:
    out, folder = tmp_path / "run", tmp_path / ".run.01234567"
    with run_directory(out, RUN):
        with pytest.raises(SpecError, match="still running"), run_directory(out, RUN, folder):
            pass
        assert folder.is_dir()
    assert out.is_dir()


def test_a_name_that_was_taken_meanwhile_costs_no_result(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SpecError, match=r"this run is in .*run\.01234567"):
        act(out, fill, lambda _: RunFiles(out).text("mine", ""))
    assert [one.name for one in out.iterdir()] == ["mine"]
    assert (tmp_path / "run.01234567" / "model").is_dir()


def test_a_text_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    files = RunFiles(tmp_path)
    files.text("a.txt", "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.text("a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_json_holds_no_infinity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFiles(tmp_path).json("x.json", {"a": float("inf")})


def test_escrow_appends_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "house" / "bank.jsonl"
    for seed in ("aa", "bb"):
        kept = FileEscrow(path)
        kept.record("vector", {"seed": seed, "index": 1})
        kept.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"what": "vector", "seed": seed, "index": 1} for seed in ("aa", "bb")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_escrow_finishes_a_line_that_was_taken_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, bytes(data)[:5]))
    kept = FileEscrow(tmp_path / "bank.jsonl", durable=False)
    kept.record("vector", {"seed": "aabbcc"})
    kept.close()
    assert json.loads((tmp_path / "bank.jsonl").read_text()) == {"what": "vector", "seed": "aabbcc"}


def test_a_tree_that_git_refuses_to_read_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexit 128\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit() is None
    assert provenance.versions()["fedcredit"]
