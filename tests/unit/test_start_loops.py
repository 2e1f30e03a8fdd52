"""Compiled loops: kept where nobody else can write, made by one process while others wait, complete for a real run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.kernels.loop_store import CACHE_VARIABLE, LOOP_SOURCES, UNUSABLE, check_store, loop_store, store_place
from fedcredit.runtime.ready_loops import place_loops

ROOT = Path(__file__).parents[2]

WAITER = """
import os, sys, time
from pathlib import Path
import fedcredit.runtime.ready_loops as ready
def compile_slowly(group):
    Path(sys.argv[1], f"compiled-by-{os.getpid()}").touch()
    time.sleep(0.7)
    return 1
ready._compile = compile_slowly
print(ready.ready_loops((ready.SUMS,)))
"""


def _store(folder: Path) -> Path:
    return loop_store({CACHE_VARIABLE: str(folder)})


def _start(folder: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WAITER, str(out)],
        env={**os.environ, CACHE_VARIABLE: str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_of_two_processes_one_compiles_and_the_other_waits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    both = [_start(tmp_path / "kept", out) for _ in range(2)]
    said = sorted(one.communicate(timeout=60)[0].strip() for one in both)
    assert said == ["0", "1"]
    assert len(list(out.iterdir())) == 1


def test_a_process_that_is_killed_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    killed = _start(tmp_path / "kept", out)
    until = time.monotonic() + 60
    while not list(out.iterdir()) and time.monotonic() < until:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert _start(tmp_path / "kept", out).communicate(timeout=60)[0].strip() == "1"
    assert len(list(out.iterdir())) == 2


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    assert _store(tmp_path / "kept").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = _store(tmp_path / "kept")
    folder.chmod(mode)
    with pytest.raises(IntegrityError, match=f"others can write it \\(mode {mode:04o}\\)"):
        _store(tmp_path / "kept")


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = _store(tmp_path / "kept")
    folder.chmod(0o755)
    (folder / "loop.nbc").touch()
    (folder / "loop.nbc").chmod(0o666)
    with pytest.raises(IntegrityError, match=r"loop\.nbc: .* others can write it"):
        _store(tmp_path / "kept")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = _store(tmp_path / "kept")
    (folder / "loop.nbc").touch()
    os.chown(folder / "loop.nbc", 12345, 12345)
    with pytest.raises(IntegrityError, match="belongs to user 12345"):
        _store(tmp_path / "kept")


def test_a_link_is_refused(tmp_path: Path) -> None:
    folder = _store(tmp_path / "kept")
    (folder / "loop.nbc").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="neither file nor folder"):
        check_store(folder)


def test_a_folder_in_one_that_everybody_writes_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(IntegrityError, match="everybody can write it"):
        _store(open_to_all / "kept")


def test_a_refused_folder_is_not_read_by_the_loops(tmp_path: Path) -> None:
    _store(tmp_path / "kept").chmod(0o777)
    code = "import fedcredit.kernels.compiled as c, numba; print(repr(c.KEPT), numba.config.CACHE_DIR)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, CACHE_VARIABLE: str(tmp_path / "kept")},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.startswith("''")


def test_an_unusable_place_has_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IntegrityError) as refused:
        _store(tmp_path / "file" / "kept")
    assert refused.value.code == UNUSABLE


def test_place_is_the_named_folder_the_users_or_the_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_place({CACHE_VARIABLE: "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert store_place({"XDG_CACHE_HOME": "/b", "HOME": "/c"}) == Path("/b/fedcredit/compiled")
    assert store_place({"HOME": "/c"}) == Path("/c/.cache/fedcredit/compiled")
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert place_loops(tmp_path) == {CACHE_VARIABLE: str(tmp_path / "user/fedcredit/compiled")}
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert place_loops(tmp_path / "home") == {CACHE_VARIABLE: str(tmp_path / "home/cache/compiled")}


def test_every_file_with_loops_names_the_version() -> None:
    package = ROOT / "fedcredit"
    with_loops = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "\n@compiled" in path.read_text("utf-8") or "import njit" in path.read_text("utf-8")
    }
    assert with_loops <= set(LOOP_SOURCES)


@pytest.mark.slow
def test_a_run_finds_every_loop_ready() -> None:
    """What the list lacks would be compiled in the middle of a run."""
    code = """
import sys, tempfile
from pathlib import Path
from fedcredit.runtime.loop_signatures import _dispatchers
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
for name in ("demo", "credit_data_boost"):
    simulate(load_spec(Path("configs/simulations") / f"{name}.toml"), Path(tempfile.mkdtemp()) / "out")
print([one.py_func.__name__ for one in _dispatchers() if one.stats.cache_misses])
"""
    subprocess.run([sys.executable, "-m", "fedcredit.runtime.ready_loops"], check=True, cwd=ROOT)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr
