"""``fedcredit simulate``: a whole run on one machine."""

from __future__ import annotations

import itertools
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fedcredit.cli.console import stderr, write_json, write_notice
from fedcredit.cli.results import show_results
from fedcredit.errors import SpecError
from fedcredit.report.build import build_report
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.progress import Progress
from fedcredit.runtime.runs.driver_parts import IN_ROUNDS
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.runtime.unfinished import find_unfinished
from fedcredit.shipped import named_file
from fedcredit.spec.load import LoadedSpec, load_spec

__all__ = ["describe", "register"]

_STAGES = {
    "load": "reading each party's records",
    "reference": "agreeing on a reference string",
    "align": "finding the common rows",
    "bin": "counting goods and bads by bin",
    "scorecard": "selecting and fitting",
    "boost": "growing trees",
    "rounds": "averaging over banks",
    "score": "scoring held-out rows",
    "compare": "repeating everything in the clear to compare",
    "report": "writing the report",
}

_STEPS = {"boost": "tree"}
"""What the steps of a counted stage are called, where it is not "step"."""


class _Engine(StrEnum):
    """What can carry the rounds of averaging."""

    LOCAL = "local"
    FLOWER = "flower"


_EPILOG = """Examples:

fedcredit simulate configs/simulations/demo.toml

fedcredit simulate configs/simulations/taiwan_scorecard.toml --out runs/taiwan --set scorecard.fit=moments

fedcredit simulate configs/simulations/taiwan_boost.toml --out runs/trees --resume

Exit codes: 0 done; 2 the configuration or the records are wrong; 3 a party, its policy or the protocol failed."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("simulate", epilog=_EPILOG)(_simulate)


def _simulate(
    config: Annotated[Path, typer.Argument(help="Configuration file, or the name of a shipped one, such as demo.")],
    out: Annotated[
        Path | None, typer.Option(help="Run directory to create; by default runs/NAME, runs/NAME-2, …")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a key, such as split.seed=1.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,  # noqa: FBT002
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed or interrupted.")] = False,  # noqa: FBT002
    engine: Annotated[
        _Engine | None,
        typer.Option(help="What carries the rounds of averaging: this process, or Flower's simulation engine on Ray."),
    ] = None,
) -> None:
    """Run all parties of a configuration on this machine and write a run directory.

    Nothing but signed, encrypted bytes crosses between the parties, as between institutions. Beside the run the same
    model is computed from the pooled columns in the clear, to show that both are equal, and from the label holder's
    columns alone, to show what the others add.

    A run that was killed or interrupted leaves a hidden folder beside its run directory. With --resume and the same
    configuration the run goes on there, under its own name: what was sent before is sent again byte by byte, and the
    ledgers charge nothing twice.
    """
    loaded = load_spec(named_file("simulations", config), overrides or ())
    if engine is not None and loaded.spec.run.model not in IN_ROUNDS:
        raise SpecError("simulate.engine", f"--engine: for runs that average, not for {loaded.spec.run.model}")
    target = _target(out, loaded.spec.run.name, resume=resume)
    try:
        simulation = _with_progress(loaded, target, resume=resume, engine=engine)
    except KeyboardInterrupt:
        _notice(target)
        raise
    if json_output:
        write_json(dict(simulation.summary))
    else:
        show_results(simulation.summary, simulation.out / "report.html")


def _target(out: Path | None, name: str, *, resume: bool) -> Path:
    """The run directory: the one asked for, else the first of runs/NAME, runs/NAME-2, … that is free.

    To resume, it is the first that has an unfinished run; else a name with one is not free, and is spoken of.
    """
    if out is not None:
        if not resume:
            _notice(out)
        return out
    first = Path("runs") / name
    for number in itertools.count(1):
        candidate = first if number == 1 else first.with_name(f"{name}-{number}")
        if candidate.exists():
            continue
        unfinished = find_unfinished(candidate)
        if resume and unfinished:
            return candidate
        if not unfinished:
            return first if resume else candidate
        _notice(candidate)
    return first


def _notice(out: Path) -> None:
    """Says on standard error what other runs of a run directory have left."""
    for one in find_unfinished(out):
        write_notice(one.notice)


def _with_progress(loaded: LoadedSpec, out: Path, *, resume: bool, engine: _Engine | None) -> Simulation:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = stderr()
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, stages = bar.add_task("starting", total=_stages(loaded)), 0

        def tell(at: Progress) -> None:
            nonlocal stages
            stages += at.done is None  # a new stage
            within = at.done / at.total if at.done is not None and at.total else 0.0
            bar.update(task, completed=stages + within, description=describe(at))

        def report(folder: Path) -> None:
            tell(Progress("report"))
            build_report(folder)
            for party in loaded.spec.feature_holders:
                build_report(folder, party.name)

        if engine is not None:
            from fedcredit.runtime.averaging.simulation import How, simulate_averaging  # noqa: PLC0415 -- only where it is used

            how = How(resume=resume, engine=engine.value)
            simulate_averaging(loaded, out, progress=tell, finish=report, how=how)
            return Simulation(out, json.loads((out / "summary.json").read_text("utf-8")))
        return simulate(loaded, out, progress=tell, finish=report, resume=resume)


def _stages(loaded: LoadedSpec) -> int:
    """Stages of a run: the model's, with loading, comparing and reporting around them."""
    if loaded.spec.run.model in IN_ROUNDS:
        return 4
    model = MODEL_RUNS.get(loaded.spec.run.model)
    return 3 + (len(model.seconds.keys() - {"start"}) if model else 0)


def describe(at: Progress) -> str:
    """What the bar says: the stage, and the step where steps are counted."""
    words = _STAGES.get(at.stage, at.stage)
    if at.done is None:
        return words
    step = f"{_STEPS.get(at.stage, 'step')} {at.done} of {at.total}"
    return ", ".join(part for part in (f"{words}: {step}", at.note) if part)
