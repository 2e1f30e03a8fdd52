"""``fedcredit data district``: a made-up district, one source per institution, for trials of a whole deployment."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from fedcredit.cli.console import stderr, write_json, write_line, write_table
from fedcredit.data.district import DistrictReport, DistrictSettings, build_district
from fedcredit.errors import DataError

__all__ = ["register"]

Out = Annotated[Path, typer.Option("--out", help="New or empty folder; 210,000 enterprises take about 1.2 GB.")]
Enterprises = Annotated[int, typer.Option("--enterprises", help="How many, 500 to 2,000,000.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same records.")]
AsOf = Annotated[str, typer.Option("--as-of", help="Last day of a month, YYYY-MM-DD.")]
Rate = Annotated[float, typer.Option("--default-rate", help="Share that defaults in the year after.")]
Json = Annotated[bool, typer.Option("--json", help="Print district.json.")]


def register(group: typer.Typer) -> None:
    """Add ``district`` to the group ``data``."""
    group.command("district", epilog="Example: fedcredit data district --enterprises 210000 --seed 1 --out district")(
        _district
    )


def _district(
    out: Out,
    enterprises: Enterprises = 210_000,
    seed: Seed = 1,
    as_of: AsOf = "2025-12-31",
    default_rate: Rate = 0.032,
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Make up a district: enterprises, and what each institution knows of them. Nobody in it exists."""
    settings = DistrictSettings(enterprises=enterprises, seed=seed, as_of=_day(as_of), default_rate=default_rate)
    with stderr().status("district") as status:
        report = build_district(settings, out, lambda what: status.update(f"district: {what}"))
    if json:
        write_json(report.facts)
    else:
        _show(report)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DataError("district.as-of", f"--as-of {text}: give a day as YYYY-MM-DD") from None


def _show(report: DistrictReport) -> None:
    rows = [
        (
            name,
            f"{holder['enterprises']:,}",
            f"{sum(table['rows'] for table in holder['tables'].values()):,}",
            f"{holder['borrowers']:,}" if "borrowers" in holder else "",
            f"{100 * holder['default_rate']:.1f} %" if "borrowers" in holder else "",
            str(report.folder / holder["source"]),
        )
        for name, holder in report.facts["holders"].items()
    ]
    write_table(("HOLDER", "ENTERPRISES", "RECORDS", "BORROWERS", "DEFAULT", "SOURCE"), rows)
    write_line("")
    write_line(f"Parameters, counts and checksums stand in {report.folder / 'district.json'}.")
