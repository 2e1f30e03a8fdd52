"""Spare workers: taken by one process, used once, ended with whoever they work for and with the daemon."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from fedcredit.errors import TransportError
from fedcredit.runtime.daemon import spare
from fedcredit.runtime.daemon.spare import FOLDER, SparePool, handed_over
from fedcredit.runtime.daemon.worker_process import WorkerJob, run_worker

P = ParamSpec("P")
MODULE = "fake_worker"
WORKER = """
import os, sys, time
from pathlib import Path
LOADED = []
def load():
    LOADED.append(os.getpid())
def main(arguments):
    home, action = arguments
    said = sys.stdin.buffer.read()
    if action == "sleep":
        Path(home, "at-work").write_text(str(os.getpid()))
        time.sleep(60)
    if action == "refuse":
        sys.stderr.write("error: not here [policy.no]\\n")
        return 3
    sys.stdout.buffer.write(b"%d %d " % (bool(LOADED), os.getpid()) + said)
    return 0
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def alone(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Plays a test on a loop of its own."""

    @functools.wraps(test)
    def play(*given: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*given, **named))

    return play


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{MODULE}.py").write_text(WORKER, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    home = tmp_path / ("long-" * 30) / "home"  # longer than the address of a socket may be
    (home / "state").mkdir(parents=True)
    return home


def _pool(home: Path, count: int = 1) -> SparePool:
    return SparePool(home / FOLDER, MODULE, count, dict(os.environ), home / "spares.log")


def _job(home: Path, action: str) -> WorkerJob:
    return WorkerJob(handed_over(home, (sys.executable, "-m", MODULE, str(home), action)), home / "worker.log")


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 -- other processes
            await asyncio.sleep(0.02)


def _spares(home: Path) -> list[Path]:
    return list((home / FOLDER).glob("*.sock"))


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@alone
async def test_a_spare_that_has_loaded_works_once_and_another_takes_its_place(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare, "_AFTER_S", 0.1)
    keeping = asyncio.create_task(_pool(house).keep())
    seen = []
    for _ in range(2):
        await _until(lambda: _spares(house))
        loaded, pid, said = (await run_worker(_job(house, "run"), b"order")).split()
        assert (loaded, said) == (b"1", b"order")
        seen.append(pid)
        await _until(lambda: _gone(int(seen[-1])))
    assert len(set(seen)) == 2
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@alone
async def test_without_a_spare_the_worker_runs_itself(house: Path) -> None:
    assert (await run_worker(_job(house, "run"), b"order")).split()[::2] == [b"0", b"order"]


@alone
async def test_two_that_come_at_once_do_not_share_a_spare(house: Path) -> None:
    keeping = asyncio.create_task(_pool(house).keep())
    await _until(lambda: _spares(house))
    both = await asyncio.gather(*(run_worker(_job(house, "run"), b"x") for _ in range(2)))
    assert sorted(one.split()[0] for one in both) == [b"0", b"1"]
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@alone
async def test_a_spares_refusal_is_told_as_a_workers(house: Path) -> None:
    keeping = asyncio.create_task(_pool(house).keep())
    await _until(lambda: _spares(house))
    with pytest.raises(Exception, match=r"not here") as refused:
        await run_worker(_job(house, "refuse"), b"")
    assert getattr(refused.value, "code", "") == "policy.no"
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@alone
async def test_a_spare_at_work_ends_with_whoever_it_works_for(house: Path) -> None:
    keeping = asyncio.create_task(_pool(house).keep())
    await _until(lambda: _spares(house))
    working = asyncio.create_task(run_worker(_job(house, "sleep"), b""))
    await _until((house / "at-work").exists)
    pid = int((house / "at-work").read_text("utf-8") or 0)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await _until(lambda: _gone(pid))
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@alone
async def test_a_spare_that_is_killed_at_work_is_a_worker_that_died(house: Path) -> None:
    keeping = asyncio.create_task(_pool(house).keep())
    await _until(lambda: _spares(house))
    working = asyncio.create_task(run_worker(_job(house, "sleep"), b""))
    await _until(lambda: (house / "at-work").exists() and (house / "at-work").read_text("utf-8"))
    os.kill(int((house / "at-work").read_text("utf-8")), signal.SIGKILL)
    with pytest.raises(TransportError, match="the worker ended"):
        await working
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@alone
async def test_the_end_of_the_pool_is_the_end_of_all_spares(house: Path) -> None:
    pool = _pool(house, count=2)
    keeping = asyncio.create_task(pool.keep())
    await _until(lambda: len(_spares(house)) == 2)
    pids = [process.pid for process in pool._all.values()]
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert all(map(_gone, pids))
    assert not list((house / FOLDER).iterdir())


def test_spares_end_with_a_daemon_that_is_killed(house: Path) -> None:
    code = (
        "import asyncio, os, sys; from pathlib import Path; from fedcredit.runtime.daemon.spare import SparePool; "
        f"asyncio.run(SparePool(Path(sys.argv[1]), {MODULE!r}, 1, dict(os.environ), Path(sys.argv[2])).keep())"
    )
    root = str(Path(__file__).parents[2])
    daemon = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code, str(house / FOLDER), str(house / "log")],
        {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{root}"},
    )
    until = time.monotonic() + 30
    while not _spares(house) and time.monotonic() < until:
        time.sleep(0.02)
    mine = [int(one) for one in Path(f"/proc/{daemon}/task/{daemon}/children").read_text("utf-8").split()]
    assert mine
    os.kill(daemon, signal.SIGKILL)
    os.waitpid(daemon, 0)
    while not all(map(_gone, mine)) and time.monotonic() < until:
        time.sleep(0.02)
    assert all(map(_gone, mine))
