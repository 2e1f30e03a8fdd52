"""``fedcredit audit``: check a run's audit logs, and read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from fedcredit.errors import FedCreditError, IntegrityError
from fedcredit.governance.audit import read_entries, verify_directory

__all__ = ["register"]

_Directory = Annotated[Path, typer.Argument(help="Run directory, with its audit/ folder.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def register(app: typer.Typer) -> None:
    """Adds the ``audit`` commands to the application."""
    audit = typer.Typer(help="Check and read the audit logs of a run.", no_args_is_help=True)
    audit.command("verify")(_verify)
    audit.command("show")(_show)
    app.add_typer(audit, name="audit")


def _verify(directory: _Directory, *, as_json: _AsJson = False) -> None:
    """Check every party's audit log against its published head; exit 3 at the first problem."""
    try:
        verified = verify_directory(directory / "audit")
    except FedCreditError as error:
        _fail(error, as_json=as_json)
    if as_json:
        logs = {party: {"entries": one.entries, "head": one.head} for party, one in verified.items()}
        typer.echo(json.dumps({"ok": True, "logs": logs}, indent=2))
        return
    for party, one in verified.items():
        typer.echo(f"{party}: {one.entries} entries hold, head {one.head}")


def _show(
    directory: _Directory,
    party: Annotated[str | None, typer.Option("--party", help="One party's log only.")] = None,
    *,
    as_json: _AsJson = False,
) -> None:
    """Print the entries of the audit logs."""
    try:
        logs = _read(directory / "audit", party)
    except FedCreditError as error:
        _fail(error, as_json=as_json)
    if as_json:
        typer.echo(json.dumps(logs, indent=2))
        return
    console = Console()
    for name, entries in logs.items():
        table = Table("line", "time", "event", "kind", "peer", "stage", "bytes", "more", title=f"audit log of {name}")
        for entry in entries:
            table.add_row(*_cells(entry))
        console.print(table)


def _read(folder: Path, party: str | None) -> dict[str, list[dict[str, Any]]]:
    """Entries of the logs asked for, by party."""
    logs = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    if party is not None and party not in logs:
        raise IntegrityError("audit.missing", f"no log of {party}; there are logs of: {', '.join(logs) or 'nobody'}")
    if not logs:
        raise IntegrityError("audit.missing", f"{folder.name}: no audit log in the run directory")
    return {name: list(read_entries(path)) for name, path in logs.items() if party in (None, name)}


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One entry as the columns of the table."""
    peer = entry.get("recipient") or entry.get("sender") or entry.get("counterparty") or ""
    if "spend" in entry:
        more = "; ".join(f"{amount:g} {kind} {feature}".strip() for kind, feature, amount in entry["spend"])
    else:
        more = str(entry.get("code") or entry.get("purpose") or entry.get("count") or "")
    columns = (entry["line"], entry.get("time", ""), entry["event"], entry.get("kind", ""), peer)
    return tuple(str(one) for one in (*columns, entry.get("stage", ""), entry.get("bytes", ""), more))


def _fail(error: FedCreditError, *, as_json: bool) -> NoReturn:
    """Says what is wrong and ends."""
    if as_json:
        typer.echo(json.dumps({"ok": False, "code": error.code, "error": error.public}, indent=2))
    else:
        typer.echo(str(error), err=True)
    raise typer.Exit(error.exit_code)
