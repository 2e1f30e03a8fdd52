"""``fedcredit report``: make a run's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcredit.cli.console import write_json, write_line
from fedcredit.report.build import build_report

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the ``report`` command to the application."""
    app.command("report")(_report)


def _report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory, as written by a run.")],
    party: Annotated[
        str | None,
        typer.Option("--party", metavar="NAME", help="A feature holder's own report; left out: the label holder's."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Write report.html from a run directory: one page that needs no network, for reading and printing."""
    written = build_report(directory, party)
    if as_json:
        write_json({"report": str(written), "party": party})
    else:
        write_line(f"report written: {written}")
