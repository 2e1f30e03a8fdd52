"""The escrow: what a party has bound itself to holds after a restart, a torn write and a second process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.runtime.escrow import FileEscrow, NoEscrow, read_escrow


def _bound(path: Path, *bindings: tuple[str, str, str]) -> None:
    kept = FileEscrow(path)
    for binding in bindings:
        kept.bind(*binding)
    kept.close()


def test_a_binding_holds_across_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    _bound(path, ("answered", "bin/0", "aa"), ("answered", "bin/1", "bb"), ("asked", "bin/0", "cc"))
    size = path.stat().st_size
    kept = FileEscrow(path)
    kept.bind("answered", "bin/0", "aa")
    assert path.stat().st_size == size  # a repeat takes no room
    for what, key in (("answered", "bin/0"), ("asked", "bin/0")):
        with pytest.raises(IntegrityError, match=f"{what} {key}: bound to other content before"):
            kept.bind(what, key, "zz")
    kept.bind("answered", "bin/2", "zz")
    kept.close()
    _bound(path, ("answered", "bin/2", "zz"))


def test_entries_and_bindings_are_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    kept = FileEscrow(path, durable=False)
    kept.record("vector", {"seed": "aa", "index": 0})
    kept.bind("asked", "bin/0", "cc")
    kept.record("bind", {"key": "bin/9", "digest": "a record is no binding, whatever it is called"})
    kept.close()
    first, second, third = read_escrow(path)
    assert first == {"what": "vector", "seed": "aa", "index": 0}
    assert second == {"bind": "asked", "key": "bin/0", "digest": "cc"}
    assert third["what"] == "bind"
    _bound(path, ("bind", "bin/9", "free"))


def test_a_line_that_a_crash_cut_off_never_counted(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    _bound(path, ("answered", "bin/0", "aa"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"bind": "answered", "key": "bin/1", "dig')
    assert len(read_escrow(path)) == 1
    _bound(path, ("answered", "bin/1", "bb"), ("answered", "bin/0", "aa"))
    assert [json.loads(line)["digest"] for line in path.read_text().splitlines()] == ["aa", "bb"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"7",
        b"\xff",
        b'{"bind": "answered", "key": "bin/0", "digest": "bb"}',
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bank.jsonl"
    _bound(path, ("answered", "bin/0", "aa"))
    path.write_bytes(path.read_bytes() + line + b"\n")
    for _ in range(2):  # a refusal leaves no lock behind
        with pytest.raises(IntegrityError, match=r"bank\.jsonl: (line 2|binds answered bin/0)"):
            FileEscrow(path)


def test_a_second_process_may_not_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    kept = FileEscrow(path)
    program = (
        f"from pathlib import Path; from fedcredit.runtime.escrow import FileEscrow; FileEscrow(Path({str(path)!r}))"
    )
    other = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "another process writes to this escrow" in other.stderr
    kept.close()
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_a_file_bindings_hold_for_the_object() -> None:
    kept = NoEscrow()
    kept.record("vector", {"seed": "aa"})
    kept.bind("answered", "bin/0", "aa")
    kept.bind("answered", "bin/0", "aa")
    with pytest.raises(IntegrityError):
        kept.bind("answered", "bin/0", "bb")
