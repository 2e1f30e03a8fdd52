"""``fedcredit sweep``: many runs of one configuration, compared."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from fedcredit.cli.console import stderr, write_json, write_line, write_notice
from fedcredit.cli.sweep_table import show_sweep
from fedcredit.errors import FedCreditError, SpecError
from fedcredit.report.sweep_page import build_sweep_page
from fedcredit.runtime.sweep.plan import SweepPlan, plan_sweep
from fedcredit.runtime.sweep.results import (
    Metric,
    figures,
    known_figures,
    metric,
    unknown_figure,
)
from fedcredit.runtime.sweep.runs import Ended, News, default_jobs, run_sweep
from fedcredit.runtime.sweep.study import Study, write_study
from fedcredit.shipped import named_file

__all__ = ["register"]

_DEFAULT = "auc_test"
_FEW_SECONDS = 90
_BAR = 24  # characters

_EPILOG = """Examples:

fedcredit sweep configs/simulations/demo.toml --set scorecard.fit=moments,one-step,mle --set bin.max_bins=4,6,8

fedcredit sweep configs/simulations/taiwan_boost.toml --set boost.depth=2,3,4 --set boost.trees=20,50 --seeds 0,1,2

fedcredit sweep configs/simulations/demo.toml --set bin.max_bins=4,6,8 --out runs/bins --resume --metric ks_test

Exit codes: 0 all runs done; 2 the command line or every combination is wrong; 3 some runs failed; 130 interrupted."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("sweep", epilog=_EPILOG)(_sweep)


def _sweep(  # noqa: PLR0913, PLR0917 -- one parameter an option
    config: Annotated[Path, typer.Argument(help="Configuration file, or the name of a shipped one, such as demo.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE,…", help="Values of a key, such as boost.depth=2,3,4; lists as [1],[2]."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Repeat every combination with other splits and draws.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Runs at a time; by default one for each processor.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to create; by default runs/sweep-NAME, …-2, ….")] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="NAME", help="Figure to compare by, more of them to show; NAME:min, NAME:max."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the finished runs in --out, do the others.")] = False,  # noqa: FBT002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list the runs, start none.")] = False,  # noqa: FBT002
    json_output: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Run a configuration once for every combination of the values given, and compare the runs.

    Every run is a process and a run directory of its own, as `fedcredit simulate`
    makes it. The folder gets a table (results.csv, results.parquet) and a page
    with charts (sweep.html). A run that fails is listed with its reason and stops
    no other. After an interrupt --resume goes on; with more values it adds the
    runs that are new.
    """
    wanted = [metric(one) for one in metrics or [_DEFAULT]]
    plan = plan_sweep(named_file("simulations", config), overrides or (), _seeds(seeds))
    refused = [point for point in plan.points if point.loaded is None]
    if dry_run:
        _list(plan)
        return
    if refused:
        write_notice(
            f"{len(refused)} of {len(plan.points)} runs are refused, such as {refused[0].name}: {refused[0].refusal}"
        )
    if any(point.loaded is not None and point.loaded.spec.privacy.ledger_dir for point in plan.points):
        write_notice("privacy.ledger_dir: all runs are charged to the same ledgers, so later ones may be refused")
    target = out or _free(plan.title)
    ended = _with_progress(plan, target, (jobs or default_jobs(), resume), wanted)
    study = _study(plan, ended, wanted)
    write_study(study, target)
    page = build_sweep_page(study, target)
    if json_output:
        write_json(study.rows.to_dicts())
    else:
        show_sweep(study, target, page)
    _leave(ended, target)


def _leave(ended: Sequence[Ended], target: Path) -> None:
    """The exit code of runs that are missing."""
    stopped = sum(one.status == "stopped" for one in ended)
    if stopped:
        write_notice(f"{stopped} of {len(ended)} runs are missing; go on by --out {target} --resume")
        raise KeyboardInterrupt
    if any(one.status == "failed" for one in ended):
        raise typer.Exit(FedCreditError.exit_code)


def _study(plan: SweepPlan, ended: Sequence[Ended], wanted: Sequence[Metric]) -> Study:
    """By the figures wanted; by the usual one where no run has the first of them."""
    names = known_figures(ended)
    if names and wanted[0].name not in names:
        problem = unknown_figure(wanted[0], ended)
        if _DEFAULT not in names:
            raise problem
        write_notice(f"{problem.public}; {_DEFAULT} is shown instead")
        wanted = [metric(_DEFAULT), *wanted[1:]]
    return Study.of(plan, ended, [wanted[0], *(one for one in wanted[1:] if one.name in names)])


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(int(one) for one in text.split(","))
    except ValueError:
        raise SpecError("sweep.seeds", f"--seeds {text}: write whole numbers with commas between them") from None


def _free(name: str) -> Path:
    """The first of runs/sweep-NAME, runs/sweep-NAME-2, … that is free."""
    for number in itertools.count(1):
        candidate = Path("runs") / (f"sweep-{name}" if number == 1 else f"sweep-{name}-{number}")
        if not candidate.exists():
            return candidate
    raise AssertionError  # unreachable: names do not run out


def _list(plan: SweepPlan) -> None:
    for point in plan.points:
        write_line(point.name if point.loaded is not None else f"{point.name}: refused: {point.refusal}")
    write_line(f"{len(plan.points)} runs")


def _with_progress(plan: SweepPlan, target: Path, how: tuple[int, bool], wanted: Sequence[Metric]) -> list[Ended]:
    """Runs all, with a bar and a line for each run that ended."""
    jobs, resume = how
    console, started = stderr(), time.monotonic()
    named = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (MofNCompleteColumn(), BarColumn(_BAR), TimeElapsedColumn(), named)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=len(plan.points))
        seconds: list[float] = []
        kept = 0

        def tell(news: News) -> None:
            nonlocal kept
            if news.ended is not None and news.ended.status in {"kept", "refused"}:
                kept += news.ended.status == "kept"
            elif news.ended is not None:
                seconds.append(news.ended.seconds)
                console.print(_line(news.ended, wanted[0], f"{news.done}/{news.total}"), soft_wrap=True)
                _warn(news.ended, wanted[0], len(seconds))
            bar.update(task, completed=news.done, description=_at_work(news, seconds, time.monotonic() - started))

        ended = run_sweep(plan, target, jobs=jobs, resume=resume, tell=tell)
    if kept:
        write_notice(f"{kept} of {len(plan.points)} runs were finished before")
    return ended


def _warn(ended: Ended, wanted: Metric, place: int) -> None:
    """Says at the first run that a figure is not there, so that nobody waits for all of them to learn it."""
    if place == 1 and ended.status == "done" and wanted.name not in figures(ended.summary):
        write_notice(unknown_figure(wanted, [ended]).public)


def _line(ended: Ended, wanted: Metric, place: str) -> Text:
    """A run that has ended."""
    line = Text(f"{place} {ended.point.name}: ")
    if ended.status == "done":
        value = figures(ended.summary).get(wanted.name)
        figure = f"{wanted.name} {value:.4f}" if value is not None else "done"
        return line.append(figure, style="green").append(f" ({ended.seconds:.1f} s)")
    return line.append(ended.error, style="red" if ended.status == "failed" else "yellow")


def _at_work(news: News, seconds: Sequence[float], elapsed: float) -> str:
    """What goes on, and how long all may take still."""
    names = ", ".join(f"{name} {spent:.0f} s" for name, spent in news.running[:3])
    more = f" and {len(news.running) - 3} more" if len(news.running) > 3 else ""
    left = ""
    if seconds:
        rest = elapsed / len(seconds) * (news.total - news.done)
        left = f"; about {rest:.0f} s left" if rest < _FEW_SECONDS else f"; about {rest / 60:.0f} min left"
    return f"{names}{more}{left}" if names else "starting"
