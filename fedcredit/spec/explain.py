"""From pydantic's error to one line: file, key, what was found, what would be right."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedcredit.errors import SpecError
from fedcredit.spec.model import PartySection, RunSpec
from fedcredit.spec.rules import nearest

__all__ = ["explain", "unknown_key"]

_SECRET = frozenset({"source", "query"})  # a URL may hold a password, a query may hold a value
_WANTED = types.MappingProxyType(
    {
        "string_type": "a text in quotes",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "tuple_type": "a list such as [1, 2]",
        "mapping_type": "a table such as { column = 1 }",
        "model_type": "a table of keys",
        "string_too_short": "a text that is not empty",
        "too_short": "a list that is not empty",
        "string_pattern_mismatch": "1 to 64 of the characters a-z 0-9 _ - that start with a letter or digit",
    }
)
_LIMITS = types.MappingProxyType(
    {
        "greater_than": ("gt", "a number above"),
        "greater_than_equal": ("ge", "a number of at least"),
        "less_than": ("lt", "a number below"),
        "less_than_equal": ("le", "a number of at most"),
    }
)


def explain(error: ValidationError, raw: Mapping[str, Any], file: str) -> SpecError:
    """Turn the first fault of ``error`` into a ``SpecError``; unknown keys come first, as they explain missing ones.

    Args:
        error: What pydantic found.
        raw: The configuration as read, for the names of parties.
        file: Name shown as the place.
    """
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    text = _line(faults[0], raw)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return SpecError(_code(faults[0]), f"{file}: {text}{more}")


def unknown_key(path: str, name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Text for a key that does not exist."""
    return f"{path}: unknown key; {nearest(name, known)}"


def _code(fault: ErrorDetails) -> str:
    return {"extra_forbidden": "spec.unknown-key", "missing": "spec.missing-key"}.get(fault["type"], "spec.value")


def _line(fault: ErrorDetails, raw: Mapping[str, Any]) -> str:
    context = fault.get("ctx", {})
    path = str(context.get("key") or _path(fault["loc"], raw))
    kind = fault["type"]
    if kind == "extra_forbidden":
        return unknown_key(path, str(fault["loc"][-1]), _siblings(fault["loc"]))
    if kind == "missing":
        return f"{path}: missing; {_expected(fault['loc'])}"
    if kind == "fedcredit":
        found = "" if "key" in context else f"found {_found(fault)}; "
        return f"{path}: {found}{context['right']}"
    return f"{path}: found {_found(fault)}; use {_right(fault)}"


def _right(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if fault["loc"] == ("party",):
        return "one [[party]] section (two brackets) per party"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{words} {context[key]:g}"
    if kind in ("literal_error", "enum"):
        return f"one of {str(context['expected']).replace(' or ', ', ')}".replace("'", '"')
    return _WANTED.get(kind, fault["msg"])


def _found(fault: ErrorDetails) -> str:
    """What stands there: a short scalar as written, else its kind alone."""
    value = fault["input"]
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and not _SECRET & set(fault["loc"])):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else text[:57] + '…"'
    if isinstance(value, str):
        return "a text" if value else "an empty text"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return "a table" if isinstance(value, Mapping) else "a value of another kind"


def _path(loc: tuple[int | str, ...], raw: Mapping[str, Any]) -> str:
    """Dotted key; a party is named if it has a name, else counted from 1."""
    parts = [str(part) for part in loc]
    if len(loc) > 1 and loc[0] == "party" and isinstance(loc[1], int):
        party = raw["party"][loc[1]]
        name = party.get("name") if isinstance(party, Mapping) else None
        parts[1] = name if isinstance(name, str) and loc[-1] != "name" else f"{loc[1] + 1}"
    return ".".join(parts)


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The section that holds the key at ``loc``."""
    if len(loc) == 1:
        return RunSpec
    if loc[0] == "party":
        return PartySection
    annotation = RunSpec.model_fields[str(loc[0])].annotation
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    model = _model_at(loc)
    return [] if model is None else list(model.model_fields)


def _expected(loc: tuple[int | str, ...]) -> str:
    examples = {
        "run": '[run] with name = "…" and mode = "simulation"',
        "party": "one [[party]] section per party",
        "mode": 'mode = "simulation" or mode = "production"',
        "role": 'role = "label_holder" or role = "feature_holder"',
        "source": 'source = a path, "known:NAME" or a database URL',
        "name": 'name = "…" of the characters a-z 0-9 _ -',
    }
    return f"add {examples.get(str(loc[-1]), str(loc[-1]))}"
