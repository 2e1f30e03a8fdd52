"""``fedcredit catalog``: what an institution's tables and derived features are, and whether its tables fit."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedcredit.catalog.check import TableFindings
from fedcredit.catalog.derive import as_of_day
from fedcredit.catalog.load import load_catalog
from fedcredit.catalog.model import Catalog, Column, Computed, Table
from fedcredit.catalog.words import formula, source_of
from fedcredit.cli.console import write_json, write_line, write_table
from fedcredit.data.derive_check import SourceFindings, check_source
from fedcredit.errors import DataError
from fedcredit.shipped import named_file, shipped_files

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str | None, typer.Argument(help="Name of a shipped catalogue, or a file. Without: list them.")]
File = Annotated[str, typer.Argument(help="Name of a shipped catalogue, or a file.")]
Source = Annotated[str, typer.Argument(help="Folder of TABLE.parquet or TABLE.csv, SQLite file, or database URL.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="As-of day, YYYY-MM-DD.  [default: today]")]


def register(app: typer.Typer) -> None:
    """Add ``catalog show`` and ``catalog check`` to the program."""
    group = typer.Typer(no_args_is_help=True, help="Catalogues: an institution's raw tables and the features of them.")
    group.command("show", epilog="Example: fedcredit catalog show electricity")(_show)
    epilog = "Example: fedcredit catalog check bank /srv/records/bank.sqlite --as-of 2025-12-31"
    group.command("check", epilog=epilog)(_check)
    app.add_typer(group, name="catalog")


def _show(name: Name = None, json: Json = False) -> None:  # noqa: FBT002 -- typer reads the default of a flag
    """Show a catalogue: tables, columns and derived features; or list those that come with the program."""
    if name is None:
        _list(json=json)
        return
    catalog = load_catalog(named_file("catalog", name))
    if json:
        write_json(catalog.model_dump(mode="json"))
        return
    write_line(f"{catalog.title} ({catalog.holder})", style="bold")
    write_line(catalog.about)
    if catalog.source:
        write_line(f"Columns after: {catalog.source}")
    for table_name, table in catalog.tables.items():
        write_line("")
        _show_table(table_name, table)
    if catalog.label is not None:
        write_line("")
        write_line(f"label {catalog.label.name}", style="bold")
        write_line(f"{catalog.label.about}; the only part that looks past the as-of day")
    write_line("")
    write_line(f"{len(catalog.features)} derived features", style="bold")
    rows = [
        (feature, source_of(catalog, feature), formula(about), about.unit, about.monotone or "", about.about)
        for feature, about in catalog.features.items()
    ]
    write_table(("FEATURE", "OF", "OPERATOR", "UNIT", "RISK", "MEANING"), rows)


def _show_table(name: str, table: Table) -> None:
    facts = [table.period, f"duplicates: {table.duplicates}"]
    facts += [f"{table.lag} months late"] if table.lag else []
    facts += [] if table.required else ["optional"]
    write_line(f"table {name} ({', '.join(facts)})", style="bold")
    write_line(table.about)
    rows: list[tuple[str, ...]] = []
    for column, about in table.columns.items():
        rows.append((column, about.type, about.unit, about.sensitivity, _notes(table, column, about), about.about))
    for made, how in table.computed.items():
        rows.append((made, "computed", how.unit, "", _sum(how), how.about))
    write_table(("COLUMN", "TYPE", "UNIT", "SENSITIVITY", "NOTE", "MEANING"), rows)


def _sum(made: Computed) -> str:
    return " - ".join((" + ".join(made.plus), *made.minus))


def _notes(table: Table, name: str, about: Column) -> str:
    notes = ["dates the row"] if name == table.time else []
    notes += [] if about.required else ["optional"]
    notes += [f"known by {about.known}"] if about.known is not None else []
    notes += ["label only"] if about.label_only else []
    notes += ["overwritten: no feature"] if about.overwritten else []
    return ", ".join(notes)


def _list(*, json: bool) -> None:
    found = {name: load_catalog(path) for name, path in shipped_files("catalog").items()}
    if json:
        write_json([_summary(name, catalog) for name, catalog in found.items()])
        return
    rows = [(n, str(len(c.tables)), str(len(c.features)), c.title, c.about) for n, c in found.items()]
    write_table(("NAME", "TABLES", "FEATURES", "HOLDER", "WHAT IT HOLDS"), rows)
    write_line("")
    write_line('Show one: fedcredit catalog show NAME. Use one: catalog = "known:NAME", in a run or in node.toml.')


def _summary(name: str, catalog: Catalog) -> dict[str, object]:
    return {
        "name": name,
        "holder": catalog.holder,
        "title": catalog.title,
        "about": catalog.about,
        "tables": list(catalog.tables),
        "features": list(catalog.features),
    }


def _check(file: File, source: Source, as_of: AsOf = None, json: Json = False) -> None:  # noqa: FBT002 -- as above
    """Compare a holder's tables with a catalogue. Prints numbers of rows only: never a value, never an id."""
    catalog = load_catalog(named_file("catalog", file))
    day = dt.datetime.now(dt.UTC).date() if as_of is None else as_of_day(as_of, "--as-of")
    found = check_source(catalog, source, Path(), day, "catalog check")
    if json:
        write_json({"holder": catalog.holder, "as_of": day.isoformat(), **_plain(found)})
    else:
        _print(catalog, found, day)
    if found.errors:
        more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
        raise DataError("catalog.check", f"catalog check: {found.errors[0]}{more}")


def _plain(found: SourceFindings) -> dict[str, object]:
    return {
        "missing": list(found.presence.missing),
        "absent": list(found.presence.absent),
        "unknown": list(found.presence.unknown),
        "errors": list(found.errors),
        "tables": [dataclasses.asdict(table) for table in found.tables],
    }


def _print(catalog: Catalog, found: SourceFindings, day: dt.date) -> None:
    write_line(f"{catalog.title}: tables as of {day.isoformat()}, in rows", style="bold")
    heads = ("TABLE", "PERIOD", "ROWS", "FIRMS", "BAD ID", "RESPELT", "AFTER", "UNDATED", "REPEATS", "MONTHS", "GAPS")
    if found.tables:
        _write_counts(heads, [_row(table) for table in found.tables], text=2)
    odd = [
        (f"{table.name}.{column.name}", column.type, _count(column.wrong), _count(column.empty), _count(column.outside))
        for table in found.tables
        for column in table.columns
        if column.wrong or column.empty or column.outside
    ]
    if odd:
        write_line("")
        _write_counts(("COLUMN", "TYPE", "WRONG TYPE", "EMPTY", "OUT OF RANGE"), odd, text=2)
    write_line("")
    for title, names in (
        ("missing, required", found.presence.missing),
        ("absent, optional", found.presence.absent),
        ("unknown, not read", found.presence.unknown),
    ):
        if names:
            write_line(f"{title}: {', '.join(names)}")
    write_line("No feature sees rows with a bad id, after the as-of day, or (monthly and event tables) undated.")
    if not found.errors:
        write_line("The tables fit the catalogue.", style="green")


def _write_counts(heads: Sequence[str], rows: Sequence[Sequence[str]], *, text: int) -> None:
    """A table whose columns are right-aligned after the first ``text``."""
    widths = [max(len(cells[i]) for cells in (heads, *rows)) for i in range(len(heads))]

    def aligned(cells: Sequence[str]) -> list[str]:
        return [cell if i < text else cell.rjust(widths[i]) for i, cell in enumerate(cells)]

    write_table(aligned(heads), [aligned(row) for row in rows])


def _row(table: TableFindings) -> tuple[str, ...]:
    monthly = bool(table.expected)
    return (
        table.name,
        table.period,
        str(table.rows),
        str(table.enterprises),
        _count(table.invalid),
        _count(table.respelt),
        _count(table.after),
        _count(table.undated),
        _count(table.repeats),
        f"{table.months}/{table.expected}" if monthly else "",
        _count(table.gaps) if monthly else "",
    )


def _count(number: int) -> str:
    return str(number) if number else "-"
