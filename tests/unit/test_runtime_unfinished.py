"""Hidden folders of runs that were killed: found by name, held by one process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from fedcredit.errors import DataError, SpecError
from fedcredit.runtime.unfinished import (
    FolderLock,
    Identity,
    check_unchanged,
    digest_of,
    find_unfinished,
    read_identity,
    to_resume,
    write_identity,
)

IDENTITY = Identity(
    run="0123456789abcdef",
    spec_digest="aa",
    seeded=False,
    restarts=0,
    data={"bank": "b1", "split": "s1"},
    ledgers="",
    versions={"numpy": "2.0"},
)


def folder(out: Path, run: str = "01234567") -> Path:
    made = out.parent / f".{out.name}.{run}"
    made.mkdir()
    return made


def begun(out: Path, run: str = "01234567", spec_digest: str = "aa") -> Path:
    made = folder(out, run)
    write_identity(made, msgspec.structs.replace(IDENTITY, run=run * 2, spec_digest=spec_digest))
    return made


def test_only_the_runs_of_this_name_are_found(tmp_path: Path) -> None:
    out = tmp_path / "o"
    mine = [begun(out), begun(out, "fedcba98")]
    begun(tmp_path / "o.x")
    begun(tmp_path / "oo")
    folder(out, "backup")
    (tmp_path / ".o.00000000").write_text("a file")
    assert [one.folder for one in find_unfinished(out)] == mine
    assert find_unfinished(tmp_path / "nowhere" / "o") == []


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    begun(tmp_path / "aXb")
    assert find_unfinished(tmp_path / "a.b") == []


def test_what_is_said_of_each(tmp_path: Path) -> None:
    out = tmp_path / "o"
    made = begun(out)
    (one,) = find_unfinished(out)
    assert (one.run, one.spec_digest, one.running) == ("0123456701234567", "aa", False)
    assert "--resume" in one.notice
    lock = FolderLock(made)
    (one,) = find_unfinished(out)
    assert one.running
    assert "still going on" in one.notice
    lock.close()
    (made / "run.json").unlink()
    (one,) = find_unfinished(out)
    assert one.run is None
    assert "can be removed" in one.notice
    (made / "summary.json").write_text(json.dumps({"run_id": "77", "spec_digest": "bb", "auc_test": 0.7}))
    (one,) = find_unfinished(out)
    assert (one.run, one.spec_digest, one.finished) == ("77", "bb", ("77", "bb"))
    assert "\n" not in one.notice


def test_an_identity_is_kept(tmp_path: Path) -> None:
    write_identity(tmp_path, IDENTITY)
    assert read_identity(tmp_path) == IDENTITY
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SpecError, match="holds no run that has begun"):
        read_identity(tmp_path)


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(SpecError, match="still running"):
        FolderLock(tmp_path)
    first.close()
    FolderLock(tmp_path).close()


def test_a_folder_that_is_gone_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may end its run between the opening of the file and the lock on it."""
    made = folder(tmp_path / "o")
    with pytest.raises(SpecError, match="still running"):
        FolderLock(tmp_path / "never")

    def ends(*_: object) -> bool:
        made.rename(tmp_path / "o")
        return True

    monkeypatch.setattr("fedcredit.runtime.unfinished._locked", ends)
    with pytest.raises(SpecError, match="still running"):
        FolderLock(made)


def test_what_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "o"
    with pytest.raises(SpecError, match="no unfinished run"):
        to_resume(out, "aa")
    empty = folder(out, "00000000")
    with pytest.raises(
        SpecError, match=f"no unfinished run to go on with .{empty} was stopped before its first message"
    ):
        to_resume(out, "aa")
    made = begun(out)
    assert to_resume(out, "aa").folder == made
    with pytest.raises(SpecError, match="of spec aa, this configuration is bb"):
        to_resume(out, "bb")
    other = begun(out, "11111111")
    with pytest.raises(SpecError, match=f"2 unfinished runs, keep one of {made}, {other}"):
        to_resume(out, "aa")
    lock = FolderLock(other)
    with pytest.raises(SpecError, match=f"{other}: this run is still running"):
        to_resume(out, "aa")
    lock.close()


@dataclass(frozen=True)
class Change:
    field: str
    value: object
    error: type[Exception]
    text: str


CHANGES = [
    Change("data", {"bank": "b2", "split": "s1"}, DataError, "^bank: not the records .* remove folder"),
    Change("data", {"bank": "b1", "split": "s2"}, DataError, "^split: "),
    Change("ledgers", "/x", SpecError, "ledger_dir: /x, the unfinished run began with none"),
    Change("versions", {"numpy": "2.1"}, SpecError, "^numpy is 2.1, the unfinished run began with 2.0"),
    Change("versions", {}, SpecError, "^numpy is None"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.text[:12])
def test_what_would_not_fit_is_refused(change: Change) -> None:
    now = msgspec.structs.replace(IDENTITY, **{change.field: change.value})
    with pytest.raises(change.error, match=change.text):
        check_unchanged(IDENTITY, now, Path("folder"))


def test_the_same_fits() -> None:
    check_unchanged(IDENTITY, msgspec.structs.replace(IDENTITY, run="other", restarts=3), Path("folder"))


def test_digests_of_names() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of(["a"]) == digest_of(["a"])
