"""``fedcredit spec``: check a run configuration before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedcredit.cli.console import write_json, write_line, write_table, write_text
from fedcredit.data.load import load_tables
from fedcredit.data.table import HolderTable
from fedcredit.shipped import named_file
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.write import spec_toml
from fedcredit.types import PartyId

__all__ = ["Config", "Json", "Overrides", "register"]

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="Run configuration (TOML), or a shipped one's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key: section.key=value or party.NAME.key=value; may be repeated.",
    ),
]
WithData = Annotated[bool, typer.Option("--data", help="Also read and check every party's records (simulation).")]

_EXAMPLE = "configs/simulations/demo.toml"


def register(app: typer.Typer) -> None:
    """Add ``spec check``, ``spec show`` and ``spec digest`` to the program."""
    group = typer.Typer(no_args_is_help=True, help="Check a run configuration before anything runs.")
    group.command("check", epilog=f"Example: fedcredit spec check {_EXAMPLE} --data --set bin.max_bins=5")(_check)
    group.command("show", epilog=f"Example: fedcredit spec show {_EXAMPLE} --set crypto.profile=bfv-8192")(_show)
    group.command("digest", epilog=f"Example: fedcredit spec digest {_EXAMPLE}")(_digest)
    app.add_typer(group, name="spec")


def _check(
    config: Config,
    overrides: Overrides = None,
    data: WithData = False,  # noqa: FBT002 -- typer reads the default of a flag
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Say whether a configuration is right; exit 2 and one line if it is not."""
    loaded = load_spec(named_file("simulations", config), overrides or ())
    tables = load_tables(loaded) if data else None
    if json:
        write_json(_report(loaded, tables))
        return
    run = loaded.spec.run
    write_line(
        f"{config}: right ({run.name}: {run.model}, {run.mode}, {len(loaded.spec.party)} parties)", style="green"
    )
    if not loaded.spec.simulation:
        write_line("between houses: submit it with fedcredit run submit", style="yellow")
    if tables is not None:
        rows = [
            (name, str(table.rows), str(len(table.columns)), _share(table), table.digest[:16])
            for name, table in tables.items()
        ]
        write_table(("PARTY", "ROWS", "FEATURES", "BAD RATE", "DATA VERSION"), rows)


def _show(
    config: Config,
    overrides: Overrides = None,
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Print the configuration with every default written out."""
    loaded = load_spec(named_file("simulations", config), overrides or ())
    if json:
        write_json(loaded.spec.model_dump(mode="json"))
    else:
        write_text(spec_toml(loaded.spec))


def _digest(
    config: Config,
    overrides: Overrides = None,
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Print the digest that is the run's identity; the places of records are not part of it."""
    digest = spec_digest(load_spec(named_file("simulations", config), overrides or ()).spec)
    if json:
        write_json({"config": str(config), "spec_digest": digest})
    else:
        write_text(digest)


def _report(loaded: LoadedSpec, tables: dict[PartyId, HolderTable] | None) -> dict[str, Any]:
    spec = loaded.spec
    report: dict[str, Any] = {
        "config": str(loaded.path),
        "name": spec.run.name,
        "model": spec.run.model,
        "mode": spec.run.mode,
        "parties": {party.name: party.role.value for party in spec.party},
        "spec_digest": spec_digest(spec),
    }
    if tables is not None:
        report["data"] = {
            name: {"rows": table.rows, "features": list(table.columns), "data_version": table.digest}
            for name, table in tables.items()
        }
    return report


def _share(table: HolderTable) -> str:
    return "" if table.label is None else f"{100 * float(table.label.mean()):.1f} %"
