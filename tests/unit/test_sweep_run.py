"""Processes of a sweep: several at a time, failures told and not fatal, interrupts and resumption."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fedcredit.errors import SpecError
from fedcredit.runtime.sweep.plan import Point, SweepPlan, plan_sweep
from fedcredit.runtime.sweep.runs import LOGS, RUNS, Ended, News, default_jobs, run_sweep, simulate_command
from fedcredit.runtime.unfinished import FolderLock
from fedcredit.spec.write import spec_toml

Make = Callable[..., Path]

SCRIPT = """
import json, os, pathlib, signal, sys, time
out, digest, spec, behave, resumed = pathlib.Path(sys.argv[1]), *sys.argv[2:6]
if behave.startswith("sleep"):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (out.parent / f"began-{out.name}").write_text(str(os.getpid()))
    time.sleep(60)
if behave == "refuse":
    print("note: something\\nerror: no such file: x.csv [data.no-file]", file=sys.stderr)
    sys.exit(2)
if behave == "crash":
    raise ValueError("boom")
if behave == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if behave == "silent":
    sys.exit(0)
if behave == "unresumable" and resumed == "True":
    print("error: --resume: cannot [resume.secret]", file=sys.stderr)
    sys.exit(2)
out.mkdir()
(out / "spec.toml").write_text(spec)
found = {"spec_digest": digest, "auc_test": 0.7, "threads": int(os.environ["OMP_NUM_THREADS"])}
(out / "summary.json").write_text(json.dumps({**found, "resumed": resumed}))
"""


class Stub:
    """The command of a run that behaves as told, by name of the run; records what was started."""

    def __init__(self, **behaviour: str) -> None:
        self.behaviour = behaviour
        self.started: list[str] = []

    def __call__(self, point: Point, target: Path, resume: bool) -> Sequence[str]:
        assert point.loaded is not None
        self.started.append(point.name)
        spec = spec_toml(point.loaded.spec, base=point.loaded.base)
        behave = self.behaviour.get(point.name.rpartition("=")[2], "well")
        return (sys.executable, "-I", "-S", "-c", SCRIPT, str(target), point.digest, spec, behave, str(resume))


@pytest.fixture
def plan(tmp_path: Path, consortium: Make) -> SweepPlan:
    return plan_sweep(consortium(tmp_path, rows=200), ["bin.max_bins=3,4,5,6"])


def statuses(ended: Sequence[Ended]) -> list[str]:
    return [one.status for one in ended]


def test_all_runs_in_the_order_of_the_plan(plan: SweepPlan, tmp_path: Path) -> None:
    heard: list[News] = []
    ended = run_sweep(plan, tmp_path / "o", jobs=3, tell=heard.append, command=Stub())
    assert statuses(ended) == ["done"] * 4
    assert [one.point.name for one in ended] == [f"max_bins={number}" for number in (3, 4, 5, 6)]
    assert all(one.summary["auc_test"] == 0.7 for one in ended)
    assert all(one.seconds > 0 for one in ended)
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [RUNS]
    assert [news.done for news in heard if news.ended is not None] == [1, 2, 3, 4]
    assert all(len(news.running) <= 3 for news in heard)
    assert max(len(news.running) for news in heard) == 3


def test_processors_are_shared(plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = default_jobs()
    assert cores == len(os.sched_getaffinity(0))
    whole = run_sweep(plan, tmp_path / "o", jobs=1, command=Stub())
    shared = run_sweep(plan, tmp_path / "p", jobs=1000, command=Stub())
    assert whole[0].summary["threads"] == cores
    assert shared[0].summary["threads"] == max(1, cores // 4)  # four runs, so four at a time


def test_failures_are_one_line_each_and_stop_nothing(plan: SweepPlan, tmp_path: Path) -> None:
    stub = Stub(**{"3": "refuse", "4": "crash", "5": "kill"})
    ended = run_sweep(plan, tmp_path / "o", jobs=2, command=stub)
    assert statuses(ended) == ["failed", "failed", "failed", "done"]
    assert [one.error for one in ended] == [
        "no such file: x.csv [data.no-file]",
        f"its process ended with code 1: ValueError: boom; all it wrote is in {LOGS}/",
        "its process was ended by SIGKILL; the machine may be out of memory, try fewer --jobs",
        "",
    ]
    assert all(one.folder is None and one.summary == {} for one in ended[:3])
    assert "ValueError: boom" in (tmp_path / "o" / LOGS / "max_bins=4.log").read_text()


def test_a_run_that_says_it_is_well_but_left_nothing_failed(plan: SweepPlan, tmp_path: Path) -> None:
    ended = run_sweep(plan, tmp_path / "o", jobs=2, command=Stub(**{"3": "silent"}))
    assert ended[0].status == "failed"
    assert "code 0" in ended[0].error


def test_finished_runs_are_kept_and_failed_ones_done_again(plan: SweepPlan, tmp_path: Path) -> None:
    run_sweep(plan, tmp_path / "o", jobs=2, command=Stub(**{"4": "refuse"}))
    with pytest.raises(SpecError, match=r"exists already.*--resume"):
        run_sweep(plan, tmp_path / "o", jobs=2, command=Stub())
    again = Stub()
    ended = run_sweep(plan, tmp_path / "o", jobs=2, resume=True, command=again)
    assert statuses(ended) == ["kept", "done", "kept", "kept"]
    assert again.started == ["max_bins=4"]
    assert not (tmp_path / "o" / LOGS).exists()


def test_more_values_add_runs_and_a_new_key_finds_old_ones(plan: SweepPlan, tmp_path: Path) -> None:
    run_sweep(plan, tmp_path / "o", jobs=2, command=Stub())
    usual = plan.points[0].loaded
    assert usual is not None
    fit = usual.spec.scorecard.fit
    wider = plan_sweep(plan.config, ["bin.max_bins=3,4,7", f"scorecard.fit={fit},moments"])
    stub = Stub()
    ended = run_sweep(wider, tmp_path / "o", jobs=2, resume=True, command=stub)
    assert statuses(ended) == ["kept", "done", "kept", "done", "done", "done"]
    assert ended[0].folder == tmp_path / "o" / RUNS / "max_bins=3"
    assert f"max_bins=7,fit={fit}" in stub.started


def test_another_configuration_under_the_same_name_is_refused(plan: SweepPlan, tmp_path: Path) -> None:
    run_sweep(plan, tmp_path / "o", jobs=2, command=Stub())
    other = plan_sweep(plan.config, ["bin.max_bins=3,4", "bin.min_goods=11"])
    stub = Stub()
    with pytest.raises(SpecError, match="max_bins=3: it is of another configuration"):
        run_sweep(other, tmp_path / "o", jobs=2, resume=True, command=stub)
    source = plan_sweep(plan.config, ["bin.max_bins=3,4", "party.bank.source=other.csv"])
    assert source.points[0].digest == plan.points[0].digest  # the digest leaves sources out
    with pytest.raises(SpecError, match="other sources"):
        run_sweep(source, tmp_path / "o", jobs=2, resume=True, command=stub)
    assert stub.started == []


def test_a_summary_of_another_digest_is_not_taken_for_finished(plan: SweepPlan, tmp_path: Path) -> None:
    run_sweep(plan, tmp_path / "o", jobs=2, command=Stub())
    path = tmp_path / "o" / RUNS / "max_bins=3" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "spec_digest": "0" * 64}))
    with pytest.raises(SpecError, match="max_bins=3"):
        run_sweep(plan, tmp_path / "o", jobs=2, resume=True, command=Stub())


def test_refused_combinations_are_not_started(tmp_path: Path, consortium: Make) -> None:
    plan = plan_sweep(consortium(tmp_path, rows=200), ["bin.prebins=3,8", "bin.max_bins=3,4"])
    stub = Stub()
    ended = run_sweep(plan, tmp_path / "o", jobs=2, command=stub)
    assert statuses(ended) == ["done", "refused", "done", "done"]
    assert "above bin.prebins" in ended[1].error
    assert len(stub.started) == 3


def interrupt_when(there: Callable[[], bool]) -> threading.Thread:
    def wait() -> None:
        until = time.monotonic() + 20
        while not there() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_an_interrupt_keeps_what_is_finished_and_ends_every_process(plan: SweepPlan, tmp_path: Path) -> None:
    out = tmp_path / "o"
    began = [out / RUNS / f"began-max_bins={number}" for number in (4, 5)]
    interrupt_when(lambda: all(path.exists() and path.read_text() for path in began))
    ended = run_sweep(plan, out, jobs=2, command=Stub(**{"4": "sleep", "5": "sleep"}))
    assert statuses(ended) == ["done", "stopped", "stopped", "stopped"]
    assert "under way" in ended[1].error
    assert "not run" in ended[3].error
    for path in began:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    FolderLock(out).close()  # nobody holds it any more
    assert statuses(run_sweep(plan, out, jobs=2, resume=True, command=Stub())) == ["kept", "done", "done", "done"]


def unfinished(plan: SweepPlan, out: Path, digest: str | None = None) -> Path:
    """What a killed run of the first point leaves."""
    point = plan.points[0]
    folder = out / RUNS / f".{point.name}.0123abcd"
    folder.mkdir(parents=True)
    identity = {"run": "0123abcd" * 4, "spec_digest": digest or point.digest, "seeded": False, "restarts": 0}
    (folder / "run.json").write_text(json.dumps({**identity, "data": {}, "ledgers": "", "versions": {}}))
    return folder


def test_a_killed_run_is_gone_on_with(plan: SweepPlan, tmp_path: Path) -> None:
    unfinished(plan, tmp_path / "o")
    ended = run_sweep(plan, tmp_path / "o", jobs=2, resume=True, command=Stub())
    assert [one.summary["resumed"] for one in ended] == ["True", "False", "False", "False"]


def test_a_killed_run_that_cannot_be_gone_on_with_is_done_afresh(plan: SweepPlan, tmp_path: Path) -> None:
    folder = unfinished(plan, tmp_path / "o")
    stub = Stub(**{"3": "unresumable"})
    ended = run_sweep(plan, tmp_path / "o", jobs=2, resume=True, command=stub)
    assert statuses(ended) == ["done"] * 4
    assert stub.started.count("max_bins=3") == 2
    assert ended[0].summary["resumed"] == "False"
    assert not folder.exists()


def test_a_killed_run_of_another_specification_is_removed(plan: SweepPlan, tmp_path: Path) -> None:
    folder = unfinished(plan, tmp_path / "o", "0" * 64)
    ended = run_sweep(plan, tmp_path / "o", jobs=2, resume=True, command=Stub())
    assert ended[0].summary["resumed"] == "False"
    assert not folder.exists()


def test_two_sweeps_do_not_share_a_folder(plan: SweepPlan, tmp_path: Path) -> None:
    out = tmp_path / "o"
    run_sweep(plan, out, jobs=2, command=Stub())
    lock = FolderLock(out)
    try:
        with pytest.raises(SpecError, match="another sweep works in it"):
            run_sweep(plan, out, jobs=2, resume=True, command=Stub())
    finally:
        lock.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_the_place_of_the_folder(plan: SweepPlan, tmp_path: Path, resume: bool) -> None:
    (tmp_path / "o").write_text("mine")
    with pytest.raises(SpecError, match="is a file"):
        run_sweep(plan, tmp_path / "o", jobs=2, resume=resume, command=Stub())
    assert (tmp_path / "o").read_text() == "mine"


def test_the_command_is_simulate_with_every_override(plan: SweepPlan) -> None:
    words = simulate_command(plan.points[1], Path("o/runs/x"), True)
    assert words[:5] == (sys.executable, "-P", "-m", "fedcredit.cli", "simulate")
    assert words[5:] == (str(plan.config.resolve()), "--out", "o/runs/x", "--set", "bin.max_bins=4", "--resume")
