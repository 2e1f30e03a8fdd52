"""What ``fedcredit simulate`` shows while it runs and at its end, model by model."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress as Bar
from rich.text import Text

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import results
    from fedcredit.cli import simulate as module

from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.progress import Listener, Progress
from fedcredit.runtime.simulate import Simulation
from fedcredit.spec.load import LoadedSpec, load_spec

DEMO = Path(__file__).parents[2] / "configs" / "simulations" / "demo.toml"


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (Progress("bin"), "counting goods and bads by bin"),
        (Progress("bin", 2, 5), "counting goods and bads by bin: step 2 of 5"),
        (Progress("unheard of", 2, 5, "AUC .78"), "unheard of: step 2 of 5, AUC .78"),
        (Progress("unheard of", 0, 5), "unheard of: step 0 of 5"),
    ],
)
def test_words(at: Progress, words: str) -> None:
    assert module.describe(at) == words


def run(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """What is written to standard error during a run that tells of two stages and three steps."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120, highlight=False, markup=False)

    at: list[float] = []
    steps = (Progress("score", done, 4, f"AUC .78{done}") for done in (1, 2, 3))

    def told(loaded: LoadedSpec, out: Path, *, progress: Listener, **_: object) -> Simulation:
        for one in (Progress("load"), Progress("score"), *steps):
            progress(one)
        return Simulation(out, {"name": loaded.spec.run.name})

    class Watched(Bar):
        def update(self, *arguments: Any, **more: Any) -> None:
            super().update(*arguments, **more)
            at.append(self.tasks[0].completed)
            self.refresh()

    monkeypatch.setattr(module, "stderr", lambda: console)
    monkeypatch.setattr(module, "simulate", told)
    monkeypatch.setattr(module, "Bar", Watched)
    module._with_progress(load_spec(DEMO), Path("o"), resume=False, engine=None)
    assert at == [1, 2, 2.25, 2.5, 2.75]
    return written.getvalue()


def test_a_terminal_is_told_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "scoring held-out rows: step 2 of 4, AUC .782" in run(monkeypatch, terminal=True)


def test_no_terminal_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, terminal=False) == ""


def test_every_model_has_a_view() -> None:
    assert set(results.VIEWS) == set(MODEL_RUNS)


def test_the_table_of_a_scorecard(
    small_run: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    summary = json.loads(json.dumps(small_run.summary))
    summary["metrics"]["alone"] = None
    summary["fit"]["features_beyond_ledgers"] = 2
    results.show_results(summary, Path("o") / "report.html")
    out = capsys.readouterr().out
    assert "bank alone" in out
    assert "—" in out
    assert f"{summary['metrics']['federated']['auc']:.4f}" in out
    assert "2 features were left out because the ledgers allow no more" in out
    assert out.endswith("Report: o/report.html\n")


def test_another_model_brings_its_own_lines(
    small_run: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view = results.View("trees", lambda _: [results.Row("mine", 0.5, None, main=True)], lambda _: [Text("said")])
    monkeypatch.setattr(results, "VIEWS", {"trees": view})
    results.show_results({**small_run.summary, "model": "trees"}, Path("r"))
    out = capsys.readouterr().out
    assert "mine" in out
    assert "0.5000" in out
    assert "said\n" in out
    assert "scikit-learn" not in out
