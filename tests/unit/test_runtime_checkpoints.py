"""A checkpoint is the old state or the new one, never anything between."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.runtime.checkpoints import FileCheckpoints


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return FileCheckpoints(tmp_path / "checkpoints" / "bank")


def test_the_last_state_is_loaded_by_the_next_process(kept: Checkpoints, tmp_path: Path) -> None:
    assert kept.load() is None
    for state in (b"", b"one", b"two" * 1000):
        kept.save(state)
        assert FileCheckpoints(tmp_path / "checkpoints" / "bank").load() == state
    assert [one.name for one in (tmp_path / "checkpoints").iterdir()] == ["bank"]


def test_for_its_owner_only(kept: Checkpoints, tmp_path: Path) -> None:
    kept.save(b"state")
    assert stat.S_IMODE((tmp_path / "checkpoints").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "checkpoints" / "bank").stat().st_mode) == 0o600


def test_parties_do_not_share(kept: Checkpoints, tmp_path: Path) -> None:
    kept.save(b"bank")
    other = FileCheckpoints(tmp_path / "checkpoints" / "customs")
    assert other.load() is None
    other.save(b"customs")
    assert kept.load() == b"bank"


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:20], lambda data: data + b"x"])
def test_damage_is_noticed(kept: Checkpoints, tmp_path: Path, damage: object) -> None:
    kept.save(b"state")
    path = tmp_path / "checkpoints" / "bank"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(IntegrityError, match="bank: the checkpoint is damaged"):
        kept.load()


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_crash_leaves_the_old_state(
    kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def crash(*_: object) -> int:
        raise KeyboardInterrupt

    kept.save(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path if at == "replace" else os, at, crash)
        with pytest.raises(KeyboardInterrupt):
            kept.save(b"new")
    assert kept.load() == b"old"
    kept.save(b"newer")
    assert kept.load() == b"newer"
    assert [one.name for one in (tmp_path / "checkpoints").iterdir()] == ["bank"]


def test_content_and_name_are_on_the_disk_before_it_goes_on(
    kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.save(b"old")
    forced, rename = [], Path.replace

    def replace(path: Path, to: Path) -> Path:
        forced.append("replace")
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", lambda file: forced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    monkeypatch.setattr(Path, "replace", replace)
    kept.save(b"new")
    assert forced == [".bank.new", "replace", "checkpoints"]


def test_a_write_that_takes_a_part_is_finished(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, bytes(data)[:7]))
    kept.save(b"state" * 10)
    assert kept.load() == b"state" * 10
