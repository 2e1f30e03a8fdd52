"""``fedcredit simulate``: a whole run on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fedcredit.cli.console import stderr, write_json
from fedcredit.cli.results import show_results
from fedcredit.report.build import build_report
from fedcredit.runtime.progress import Progress
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import LoadedSpec, load_spec

__all__ = ["describe", "register"]

_STAGES = {
    "load": "reading each party's records",
    "reference": "agreeing on a reference string",
    "align": "finding the common rows",
    "bin": "counting goods and bads by bin",
    "scorecard": "selecting and fitting",
    "score": "scoring held-out rows",
    "compare": "repeating everything in the clear to compare",
    "report": "writing the report",
}

_STEPS: dict[str, str] = {}
"""What the steps of a counted stage are called, where it is not "step"."""

_EPILOG = """Examples:

fedcredit simulate configs/simulations/demo.toml

fedcredit simulate configs/simulations/taiwan_scorecard.toml --out runs/taiwan --set scorecard.fit=moments

Exit codes: 0 done; 2 the configuration or the records are wrong; 3 a party, its policy or the protocol failed."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("simulate", epilog=_EPILOG)(_simulate)


def _simulate(
    config: Annotated[Path, typer.Argument(help="Configuration file; see configs/simulations.")],
    out: Annotated[
        Path | None, typer.Option(help="Run directory to create; by default runs/NAME, runs/NAME-2, …")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a key, such as split.seed=1.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Run all parties of a configuration on this machine and write a run directory.

    Nothing but signed, encrypted bytes crosses between the parties, as between institutions. Beside the run the same
    scorecard is computed from the pooled columns in the clear, to show that both are equal, and from the label holder's
    columns alone, to show what the others add.
    """
    loaded = load_spec(config, overrides or ())
    target = out if out is not None else _free(Path("runs") / loaded.spec.run.name)
    simulation = _with_progress(loaded, target)
    if json_output:
        write_json(dict(simulation.summary))
    else:
        show_results(simulation.summary, simulation.out / "report.html")


def _free(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _with_progress(loaded: LoadedSpec, out: Path) -> Simulation:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = stderr()
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, stages = bar.add_task("starting", total=len(_STAGES)), 0

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

        return simulate(loaded, out, progress=tell, finish=report)


def describe(at: Progress) -> str:
    """What the bar says: the stage, and the step where steps are counted."""
    words = _STAGES.get(at.stage, at.stage)
    if at.done is None:
        return words
    step = f"{_STEPS.get(at.stage, 'step')} {at.done} of {at.total}"
    return ", ".join(part for part in (f"{words}: {step}", at.note) if part)
