"""``fedcredit simulate``: a whole run on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stderr, stdout, write_json
from fedcredit.report.build import build_report
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import LoadedSpec, load_spec

__all__ = ["register"]

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
        _show(simulation)


def _free(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _with_progress(loaded: LoadedSpec, out: Path) -> Simulation:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=len(_STAGES))

        def tell(stage: str) -> None:
            bar.update(task, advance=1, description=_STAGES.get(stage, stage))

        def report(folder: Path) -> None:
            tell("report")
            build_report(folder)
            for party in loaded.spec.feature_holders:
                build_report(folder, party.name)

        return simulate(loaded, out, progress=tell, finish=report)


def _show(simulation: Simulation) -> None:
    summary, console = simulation.summary, stdout()
    table = Table(title=f"{summary['name']}: {summary['rows_test']:,} held-out rows, {summary['positives_test']:,} bad")
    for name in ("scorecard", "AUC", "KS"):
        table.add_column(name, justify="left" if name == "scorecard" else "right")
    names = ", ".join(party for party, role in summary["parties"].items() if role != "label_holder")
    for label, key in (
        (f"{summary['bank']} alone", "alone"),
        (f"federated with {names}", "federated"),
        ("pooled plaintext, the same steps", "pooled_plaintext"),
        ("pooled plaintext, scikit-learn", "reference"),
    ):
        measures: Mapping[str, float] | None = summary["metrics"][key]
        style = "bold" if key == "federated" else ""
        cells = ("—", "—") if measures is None else (f"{measures['auc']:.4f}", f"{measures['ks']:.4f}")
        table.add_row(label, *cells, style=style)
    console.print(table)
    console.print(_encryption_line(summary["encryption"]))
    spent = summary["disclosure"]
    console.print(
        f"Disclosed at most: {_of(spent['equations_per_feature'], spent['cap'])} equations a feature, "
        f"{_of(spent['bits_per_row'], spent['bits_per_row_cap'])} bits a row, "
        f"{_of(spent['bins_returned'], spent['bins_returned_cap'])} bins returned",
        soft_wrap=True,
    )
    left_out = summary["fit"]["features_beyond_ledgers"]
    if left_out:
        text = f"{left_out} features were left out because the ledgers allow no more; the report names them"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    console.print(f"{summary['seconds']['total']:.1f} s, {summary['max_rss_mb']:.0f} MB", soft_wrap=True)
    console.print(f"Report: {simulation.out / 'report.html'}", soft_wrap=True)


def _encryption_line(encryption: Mapping[str, Any]) -> Text:
    if not encryption["enabled"]:
        return Text("NOT ENCRYPTED: every value crossed in the clear", style="bold white on red")
    text = f"Encrypted: {encryption['scheme']} ({encryption['profile']}), {encryption['security_bits']}-bit security"
    return Text(text, style="green")


def _of(spent: float, cap: float | None) -> str:
    return f"{spent:.0f} (caps off)" if cap is None else f"{spent:.0f} of {cap:.0f}"
