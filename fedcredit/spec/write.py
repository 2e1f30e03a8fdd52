"""A specification as TOML with every default written out, so that it can be read, kept and run again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomli_w

from fedcredit.spec.model import RunSpec

__all__ = ["absolute", "spec_toml"]

_SQLITE = re.compile(r"^(?P<head>sqlite(?:\+\w+)?:///)(?P<file>[^/:?$][^?]*)(?P<tail>\?.*)?$")


_PLACES = (
    ("split", "test_ids"),
    ("split", "test_source"),
    ("align", "registry"),
    ("privacy", "ledger_dir"),
    ("fedavg", "reference"),
)


def spec_toml(spec: RunSpec, *, base: Path | None = None) -> str:
    """Write a spec so that ``parse_toml`` gives an equal one back, with the same digest.

    Args:
        spec: What to write. Keys without a value (None) are left out, which means the same.
        base: If given, relative paths become absolute under it, so that the text can be run from anywhere;
            ``${VARIABLES}``, ``known:`` names and URLs of servers stay as they are.
    """
    content = spec.model_dump(mode="json", exclude_none=True)
    if base is not None:
        for party in content["party"]:
            for key in {"source", "catalog"} & party.keys():
                party[key] = absolute(party[key], base)
        for section, key in _PLACES:
            if key in content.get(section, {}):
                content[section][key] = absolute(content[section][key], base)
    return tomli_w.dumps(_without_empty(content))


def absolute(source: str, base: Path) -> str:
    """``source`` with a relative path made absolute under ``base``; a SQLite file counts as a path."""
    sqlite = _SQLITE.match(source)
    if sqlite and sqlite["file"] != ":memory:":
        return f"{sqlite['head']}{base.resolve() / sqlite['file']}{sqlite['tail'] or ''}"
    if source.startswith(("known:", "${")) or "://" in source:
        return source
    return str(base.resolve() / source)


def _without_empty(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out empty tables and lists of a party: they are the default and only take room."""
    parties = [{key: value for key, value in party.items() if value not in ([], {})} for party in content["party"]]
    return {**content, "party": parties}
