"""``fedcredit sweep`` over real runs: processes, run directories, an interrupt in the middle, banks of one source."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec

Make = Callable[..., Path]
PLAIN = {"crypto": {"profile": "unsafe-plaintext"}}
SWEEP = (sys.executable, "-P", "-m", "fedcredit.cli", "sweep")

pytestmark = pytest.mark.slow


def sweep(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SWEEP, *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False)


def test_runs_are_those_of_simulate(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path, rows=600, sections=PLAIN)
    out = tmp_path / "o"
    done = sweep(config, "--set", "scorecard.fit=moments,one-step", "--jobs", 2, "--out", out)
    assert (done.returncode, "made-up: 2 runs" in done.stdout) == (0, True), done.stderr
    frame = pl.read_parquet(out / "results.parquet")
    assert frame["scorecard.fit"].to_list() == ["moments", "one-step"]
    for name, digest, found in frame.select("run", "spec_digest", "auc_test").iter_rows():
        folder = out / "runs" / name
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["spec_digest"], summary["auc_test"]) == (digest, found)
        assert (folder / "report.html").is_file()
        assert (folder / "model" / "customs" / "report.html").is_file()
        assert json.loads((folder / "audit" / "heads.json").read_text())
    alone = simulate(load_spec(config, ["scorecard.fit=moments"]), tmp_path / "alone")
    assert alone.summary["auc_test"] == frame["auc_test"][0]
    assert alone.summary["spec_digest"] == frame["spec_digest"][0]
    assert "±" in done.stdout  # from the predictions of both runs
    page = (out / "sweep.html").read_text()
    assert 'href="runs/fit%3Dmoments/report.html"' in page
    again = sweep(config, "--set", "scorecard.fit=moments,one-step", "--out", out, "--resume", "--metric", "brier_test")
    assert again.returncode == 0
    assert "2 of 2 runs were finished before" in again.stderr
    assert "by brier_test, lower is better" in again.stdout


def test_an_interrupted_sweep_goes_on(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path, rows=600, sections={"run": {"model": "boost"}, "boost": {"trees": 40}, **PLAIN})
    out = tmp_path / "o"
    arguments = [str(config), "--set", "boost.depth=2,3", "--jobs", "1", "--out", str(out)]
    process = subprocess.Popen([*SWEEP, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(out.glob("runs/.depth=2.*/run.json")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "--resume" in told
    assert not any(one.name == "depth=3" for one in (out / "runs").iterdir())
    done = sweep(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert sorted(one.name for one in (out / "runs").iterdir()) == ["depth=2", "depth=3"]
    whole = sweep(*arguments[:-1], tmp_path / "p")
    assert whole.returncode == 0
    same = [pl.read_parquet(place / "results.parquet")["auc_test"].to_list() for place in (out, tmp_path / "p")]
    assert same[0] == same[1]


def test_a_killed_sweep_takes_its_runs_with_it(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path, rows=600, sections={"run": {"model": "boost"}, "boost": {"trees": 200}, **PLAIN})
    out = tmp_path / "o"
    process = subprocess.Popen(
        [*SWEEP, str(config), "--set", "boost.depth=2,3", "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not list(out.glob("runs/.depth=*/run.json")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    children = [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert children
    process.kill()
    process.wait()
    time.sleep(0.5)
    alive = [one for one in children if Path(f"/proc/{one}").exists() and not _zombie(one)]
    assert alive == []


def _zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_records_that_are_not_there_fail_one_run(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path, rows=600, sections=PLAIN)
    failed = sweep(config, "--set", "party.customs.source=none.csv,customs.csv", "--out", tmp_path / "o")
    assert failed.returncode == 3
    assert "failed source=none.csv: party customs: no such file" in failed.stdout
    assert (tmp_path / "o" / "runs" / "source=customs.csv" / "summary.json").is_file()
