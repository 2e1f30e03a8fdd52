"""Files that come with the program and are found by name from anywhere: catalogues, configurations, consortia.

In the source tree they are links into ``configs``; a wheel has the files themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedcredit.errors import SpecError
from fedcredit.spec.rules import nearest

__all__ = ["KNOWN", "Kind", "known_file", "named_file", "shipped_files"]

Kind = Literal["catalog", "simulations", "consortium"]

KNOWN = "known:"
"""What a name that comes with the program begins with, where a path could stand too."""

_WORDS: dict[Kind, tuple[str, str]] = {
    "catalog": ("catalogue", "catalog.file"),
    "simulations": ("configuration", "spec.file"),
    "consortium": ("consortium", "settings.file"),
}  # what a file is, and the code of its absence


def shipped_files(kind: Kind) -> dict[str, Path]:
    """The files of a kind by name, in the order of their names."""
    return {path.stem: path for path in sorted((Path(__file__).parent / kind).glob("*.toml"))}


def named_file(kind: Kind, name: str | Path) -> Path:
    """The file that a word of a command line means: a path, or the name of a shipped file where no file is called so.

    Raises:
        SpecError: a bare name that is neither.
    """
    path = Path(name)
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    return _shipped(kind, path.name, f'no {_WORDS[kind][0]} "{path.name}"')


def known_file(kind: Kind, place: str, base: Path) -> Path:
    """The file that a key of a configuration means: ``known:NAME``, or a path relative to ``base``.

    Raises:
        SpecError: no shipped file has that name.
    """
    if not place.startswith(KNOWN):
        return base / place
    return _shipped(kind, place.removeprefix(KNOWN), f"{place}: no shipped {_WORDS[kind][0]}")


def _shipped(kind: Kind, name: str, wrong: str) -> Path:
    found = shipped_files(kind)
    if name not in found:
        hint = nearest(name, found) if found else "none came with this installation"
        raise SpecError(_WORDS[kind][1], f"{wrong}; {hint}; or give the path of a TOML file")
    return found[name]
