"""``fedcredit sweep`` as a user meets it, over runs that only pretend; real ones are in the end-to-end tests."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main, sweep_table
    from fedcredit.cli import sweep as module

from fedcredit.runtime.sweep.plan import Point
from fedcredit.runtime.sweep.runs import News, run_sweep
from fedcredit.spec.write import spec_toml

Make = Callable[..., Path]

SCRIPT = """
import json, pathlib, sys
out, digest, spec, summary = pathlib.Path(sys.argv[1]), *sys.argv[2:5]
if not summary:
    print("error: the peer is gone [transport.gone]", file=sys.stderr)
    sys.exit(3)
out.mkdir()
(out / "spec.toml").write_text(spec)
(out / "summary.json").write_text(json.dumps({"spec_digest": digest, **json.loads(summary)}))
"""


def pretend(point: Point, target: Path, _: bool) -> Sequence[str]:
    """A run whose AUC follows from its keys; 7 bins fail, 5 bins are not encrypted."""
    assert point.loaded is not None
    spec = point.loaded.spec
    auc = 0.7 + 0.01 * spec.bin.max_bins + 0.002 * spec.run.seed + (0.005 if spec.scorecard.fit == "mle" else 0.0)
    summary = {
        "run_id": "ab" * 16,
        "model": "scorecard",
        "bank": "bank",
        "auc_test": auc,
        "ks_test": auc / 2,
        "rows_test": 300,
        "rows_train": 700,
        "positives_test": 90,
        "scores_equal_pooled_plaintext": True,
        "encryption": {"enabled": spec.bin.max_bins != 5},
        "seconds": {"total": 2.0},
        "bytes_sent": {"bank": 1000 * spec.bin.max_bins, "tax_office": 5},
    }
    written = "" if spec.bin.max_bins == 7 else json.dumps(summary)
    kept = spec_toml(spec, base=point.loaded.base)
    return (sys.executable, "-I", "-S", "-c", SCRIPT, str(target), point.digest, kept, written)


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_sweep", functools.partial(run_sweep, command=pretend))


@pytest.fixture
def config(tmp_path: Path, consortium: Make) -> Path:
    return consortium(tmp_path, rows=200)


def command(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["sweep", *(str(one) for one in arguments)])
    return code, out.getvalue(), err.getvalue()


def test_a_table_the_best_first(config: Path, tmp_path: Path) -> None:
    code, out, err = command(
        config, "--set", "bin.max_bins=3,4,6", "--set", "scorecard.fit=moments,mle", "--out", tmp_path / "o"
    )
    assert code == 0
    rows = [line.split() for line in out.splitlines() if re.match(r" +[346] ", line)]
    assert [row[:3] for row in rows] == [
        ["6", "mle", "0.7710"],
        ["6", "moments", "0.7660"],
        ["4", "mle", "0.7510"],
        ["4", "moments", "0.7460"],
        ["3", "mle", "0.7410"],
        ["3", "moments", "0.7360"],
    ]
    assert rows[0][3] == "best"
    assert rows[1][3] == "−0.0050"
    assert "made-up: 6 runs by auc_test, higher is better" in out
    assert "The best of 6 was chosen on the same 300 held-out rows (90 bad)" in out
    assert "NOT ENCRYPTED" not in out
    assert "\x1b" not in out + err
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "results.csv",
        "results.parquet",
        "runs",
        "sweep.html",
        "sweep.json",
    ]
    assert len([line for line in err.splitlines() if re.match(r"\d/6 max_bins=", line)]) == 6


def test_failures_are_listed_and_the_code_says_so(config: Path, tmp_path: Path) -> None:
    code, out, err = command(config, "--set", "bin.max_bins=3,7", "--out", tmp_path / "o")
    assert code == 3
    assert "made-up: 1 of 2 runs" in out
    assert "failed max_bins=7: the peer is gone [transport.gone]" in out
    assert "max_bins=7: the peer is gone" in err
    assert pl.read_parquet(tmp_path / "o" / "results.parquet")["status"].to_list() == ["done", "failed"]


def test_all_failed(config: Path, tmp_path: Path) -> None:
    code, out, _ = command(config, "--set", "bin.max_bins=7", "--set", "bin.min_goods=11,12", "--out", tmp_path / "o")
    assert code == 3
    assert "failed min_goods=11 and 1 more: the peer is gone" in out
    assert "No run has a result" in (tmp_path / "o" / "sweep.html").read_text()


def test_refused_combinations_are_told_at_once(config: Path, tmp_path: Path) -> None:
    code, out, err = command(config, "--set", "bin.max_bins=3,30", "--out", tmp_path / "o")
    assert code == 0
    assert "1 of 2 runs are refused, such as max_bins=30" in err
    assert "refused max_bins=30: " in out


def test_encryption_off_is_shouted(config: Path, tmp_path: Path) -> None:
    _, out, _ = command(config, "--set", "bin.max_bins=3,5", "--out", tmp_path / "o")
    assert "NOT ENCRYPTED: in 1 of 2 runs" in out


def test_seeds(config: Path, tmp_path: Path) -> None:
    code, out, _ = command(config, "--set", "bin.max_bins=3,4", "--seeds", "0,1,2", "--out", tmp_path / "o")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if re.match(r" +[34] ", line)]
    assert [row[:3] for row in rows] == [["4", "0.7420", "0.0020"], ["3", "0.7320", "0.0020"]]
    assert rows[1][3:5] == ["−0.0100", "±0.0000"]  # the difference is the same for every seed
    frame = pl.read_parquet(tmp_path / "o" / "results.parquet")
    assert frame["seed"].to_list() == [0, 1, 2] * 2
    assert command(config, "--seeds", "one")[0] == 2


def test_resumed_with_another_figure(config: Path, tmp_path: Path) -> None:
    arguments = (config, "--set", "bin.max_bins=3,4", "--out", tmp_path / "o")
    assert command(*arguments)[0] == 0
    refused = command(*arguments)
    assert refused[0] == 2
    assert "--resume" in refused[2]
    code, out, err = command(*arguments, "--resume", "--metric", "ks_test", "--metric", "seconds.total")
    assert code == 0
    assert "2 of 2 runs were finished before" in err
    assert "by ks_test" in out
    assert "seconds.total" in out


def test_a_misspelt_figure_is_told_at_the_first_run_and_loses_nothing(config: Path, tmp_path: Path) -> None:
    arguments = (config, "--set", "bin.max_bins=3,4", "--out", tmp_path / "o", "--metric", "auc_tst")
    code, out, err = command(*arguments)
    assert code == 0
    assert err.count('did you mean "auc_test"?') == 2
    assert "auc_test is shown instead" in err
    assert "by auc_test" in out
    code, _, err = command(*arguments[:-1], "auc:best")
    assert (code, ":min or :max" in err) == (2, True)


def test_json(config: Path, tmp_path: Path) -> None:
    code, out, _ = command(config, "--set", "bin.max_bins=3,7", "--out", tmp_path / "o", "--json")
    assert code == 3
    rows = json.loads(out)
    assert [row["auc_test"] for row in rows] == [pytest.approx(0.736), None]
    assert rows[1]["error"] == "the peer is gone [transport.gone]"


def test_a_dry_run_starts_nothing(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(config, "--set", "bin.max_bins=3,30", "--seeds", "1,2", "--dry-run")
    assert code == 0
    assert out.splitlines()[:2] == ["max_bins=3,seed=1", "max_bins=3,seed=2"]
    assert "max_bins=30,seed=1: refused: " in out
    assert out.splitlines()[-1] == "4 runs"
    assert not (tmp_path / "runs").exists()


def test_without_out_names_are_never_reused(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [command(config, "--set", "bin.max_bins=3,4")[0] for _ in range(2)] == [0, 0]
    assert sorted(one.name for one in (tmp_path / "runs").iterdir()) == ["sweep-made-up", "sweep-made-up-2"]


def test_ledgers_that_last_are_spoken_of(config: Path, tmp_path: Path) -> None:
    _, _, err = command(config, "--set", f"privacy.ledger_dir={tmp_path / 'l'}", "--out", tmp_path / "o")
    assert "privacy.ledger_dir: all runs are charged to the same ledgers" in err


def test_an_interrupt_says_how_to_go_on(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(point: Point, target: Path, resume: bool) -> Sequence[str]:
        if point.name == "max_bins=4":
            os.kill(os.getpid(), signal.SIGINT)
        return pretend(point, target, resume)

    monkeypatch.setattr(module, "run_sweep", functools.partial(run_sweep, command=interrupted))
    arguments = (config, "--set", "bin.max_bins=3,4,6", "--jobs", "1", "--out", tmp_path / "o")
    code, out, err = command(*arguments)
    assert code == 130
    assert "2 of 3 runs are missing; go on by --out" in err
    assert "1 of 3 runs" in out
    monkeypatch.setattr(module, "run_sweep", functools.partial(run_sweep, command=pretend))
    code, out, _ = command(*arguments, "--resume")
    assert (code, "made-up: 3 runs" in out) == (0, True)


def test_a_terminal_sees_bars(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120, highlight=False, markup=False)
    monkeypatch.setattr(sweep_table, "stdout", lambda: console)
    monkeypatch.setattr(module, "stderr", lambda: console)
    command(config, "--set", "bin.max_bins=3,4,6", "--out", tmp_path / "o")
    assert "██████████████" in written.getvalue()
    assert "▏" in written.getvalue()


@pytest.mark.parametrize(
    ("seconds", "elapsed", "words"),
    [([], 1.0, "a 3 s"), ([4.0, 4.0], 8.0, "a 3 s; about 32 s left"), ([60.0] * 2, 120.0, "a 3 s; about 8 min left")],
)
def test_what_is_at_work(seconds: list[float], elapsed: float, words: str) -> None:
    assert module._at_work(News(None, (("a", 3.2),), 2, 10), seconds, elapsed) == words
    many = News(None, tuple((name, 1.0) for name in "abcde"), 2, 10)
    assert module._at_work(many, [], 1.0) == "a 1 s, b 1 s, c 1 s and 2 more"
    assert module._at_work(News(None, (), 0, 10), [], 0.0) == "starting"
