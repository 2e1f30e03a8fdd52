"""What a party cannot draw again: written once, whole, for its owner alone, of one run, and never a second time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.protocol.checkpoint import Kept, NothingKept
from fedcredit.runtime.kept import KeptFiles

OWNER = "run/bank"


def nobody() -> bytes:
    message = "made a second time"
    raise AssertionError(message)


def fixed(body: bytes) -> Callable[[], bytes]:
    return lambda: body


def opened(folder: Path, owner: str = OWNER) -> KeptFiles:
    return KeptFiles(folder / "kept", owner)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "kept").iterdir())


def only(folder: Path) -> Path:
    (path,) = (folder / "kept").iterdir()
    return path


def test_it_is_made_once_in_all_processes(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.once("key", b"run", fixed(b"drawn")) == b"drawn"
    assert first.once("key", b"run", nobody) == b"drawn"
    for _ in range(2):
        assert opened(tmp_path).once("key", b"run", nobody) == b"drawn"
    assert opened(tmp_path).once("other", b"run", fixed(b"")) == b""
    assert opened(tmp_path).once("other", b"run", nobody) == b""
    assert len(names(tmp_path)) == 2


def test_nothing_is_there_before_it_is_needed_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    assert list(tmp_path.iterdir()) == []
    kept.once("select/rows/train", b"", fixed(b"drawn"))
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert stat.S_IMODE(only(tmp_path).stat().st_mode) == 0o600


def test_another_content_under_the_same_name_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).once("key", b"these rows", fixed(b"drawn"))
    for kept in (opened(tmp_path), opened(tmp_path)):
        with pytest.raises(IntegrityError, match="key: kept by an earlier attempt at this run for other") as caught:
            kept.once("key", b"other rows", nobody)
        assert caught.value.code == "kept.other"


@pytest.mark.parametrize("at", [0, 20, 47, 50, 60, -1])
def test_a_changed_byte_is_noticed_at_once(tmp_path: Path, at: int) -> None:
    opened(tmp_path).once("key", b"run", fixed(b"drawn" * 10))
    path = only(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"^kept/{path.name} is damaged; the run cannot go on") as caught:
        opened(tmp_path)
    assert caught.value.code == "kept.damaged"


@pytest.mark.parametrize("size", [0, 10, 48, 52, 70])
def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path, size: int) -> None:
    opened(tmp_path).once("key", b"run", fixed(b"drawn" * 10))
    os.truncate(only(tmp_path), size)
    with pytest.raises(IntegrityError, match="is damaged") as caught:
        opened(tmp_path)
    assert caught.value.code == "kept.damaged"


def test_what_was_damaged_or_removed_meanwhile_is_noticed_when_it_is_needed(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.once("key", b"run", fixed(b"drawn"))
    path = only(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="is damaged"):
        kept.once("key", b"run", nobody)
    path.unlink()
    with pytest.raises(IntegrityError, match="is gone"):
        kept.once("key", b"run", nobody)


@pytest.mark.parametrize("other", ["another run/bank", "run/tax_office"])
def test_a_file_of_another_run_or_party_is_refused(tmp_path: Path, other: str) -> None:
    opened(tmp_path, other).once("key", b"run", fixed(b"drawn"))
    with pytest.raises(IntegrityError, match="is that of another run or party") as caught:
        opened(tmp_path)
    assert caught.value.code == "kept.run"


def test_a_file_in_anothers_place_is_refused(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.once("key", b"run", fixed(b"first"))
    first = only(tmp_path)
    kept.once("other", b"run", fixed(b"second"))
    (second,) = {*(tmp_path / "kept").iterdir()} - {first}
    second.replace(first)
    with pytest.raises(IntegrityError, match="holds other, which stands elsewhere"):
        opened(tmp_path)


def test_what_a_kill_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    opened(tmp_path).once("key", b"run", fixed(b"drawn"))
    (tmp_path / "kept" / ".0123.new").write_bytes(b"half of")
    kept = opened(tmp_path)
    assert len(names(tmp_path)) == 1
    assert kept.once("key", b"run", nobody) == b"drawn"


@pytest.mark.parametrize("at", ["write", "fsync"])
def test_what_cannot_be_written_is_not_kept_and_leaves_no_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    kept = opened(tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, at, full)
        with pytest.raises(OSError, match="No space left"):
            kept.once("key", b"run", fixed(b"first"))
    assert names(tmp_path) == []
    assert kept.once("key", b"run", fixed(b"second")) == b"second"  # nobody has seen the first


def test_content_and_name_are_on_the_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: forced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    opened(tmp_path).once("key", b"run", fixed(b"drawn"))
    assert forced == [f".{only(tmp_path).name}.new", "kept"]
    KeptFiles(tmp_path / "quick", OWNER, durable=False).once("key", b"run", fixed(b"drawn"))
    assert len(forced) == 2


def test_what_nobody_asks_for_again_is_dropped(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    for name in ("asks/trees/key", "asks/trees/vector/1", "asks/trees/vector/2"):
        kept.once(name, b"", fixed(name.encode()))
    again = opened(tmp_path)  # of an earlier process, too
    again.once("asks/trees/vector/3", b"", fixed(b"third"))
    again.drop("asks/trees/vector/")
    assert len(names(tmp_path)) == 1
    assert again.once("asks/trees/key", b"", nobody) == b"asks/trees/key"
    assert opened(tmp_path).once("asks/trees/vector/1", b"", fixed(b"new")) == b"new"


def test_roles_that_are_played_once_keep_nothing() -> None:
    kept: Kept = NothingKept()
    assert [kept.once("key", b"", fixed(one)) for one in (b"a", b"b")] == [b"a", b"b"]
    kept.drop("key")
