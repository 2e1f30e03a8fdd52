"""From pydantic's error about a catalogue to one line: file, key, what was found, what would be right."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedcredit.catalog.features import Feature
from fedcredit.catalog.model import Catalog, Column, Computed, LabelSection, Table
from fedcredit.errors import SpecError
from fedcredit.spec.explain import unknown_key

__all__ = ["KINDS", "explain"]

KINDS: Mapping[str, type[BaseModel]] = types.MappingProxyType(
    {get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in get_args(get_args(Feature)[0])}
)
"""Every kind of feature by the name it has in a file."""

_WANTED = types.MappingProxyType(
    {
        "string_type": "a text in quotes",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "tuple_type": 'a list such as ["a", "b"]',
        "mapping_type": "a table of keys",
        "dict_type": "a table of keys",
        "model_type": "a table of keys",
        "string_too_short": "a text that is not empty",
        "too_short": "a list that is not empty",
        "string_pattern_mismatch": "1 to 63 of the characters a-z 0-9 _ that start with a letter",
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


def explain(error: ValidationError, file: str) -> SpecError:
    """Turn the first fault of ``error`` into a ``SpecError``; unknown keys come first, as they explain missing ones.

    Args:
        error: What pydantic found.
        file: Name shown as the place.
    """
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return SpecError(_code(faults[0]), f"{file}: {_line(faults[0])}{more}")


def _code(fault: ErrorDetails) -> str:
    known = {"extra_forbidden": "catalog.unknown-key", "missing": "catalog.missing-key"}
    return str(fault.get("ctx", {}).get("code") or known.get(fault["type"], "catalog.value"))


def _line(fault: ErrorDetails) -> str:
    context = fault.get("ctx", {})
    kind, loc = fault["type"], _places(fault["loc"])
    path = str(context.get("key") or ".".join(loc))
    if kind == "extra_forbidden":
        return unknown_key(path, loc[-1], _siblings(fault["loc"]))
    if kind == "missing":
        return f"{path}: missing; add it"
    if kind == "fedcredit":
        return f"{path}: {context['right']}"
    if kind == "union_tag_not_found":
        return f"{path}.kind: missing; name one of {', '.join(KINDS)}"
    if kind == "union_tag_invalid":
        return unknown_key(f"{path}.kind", str(context["tag"]), dict(KINDS)).replace("unknown key", "unknown kind")
    return f"{path}: found {_found(fault['input'])}; use {_right(fault)}"


def _right(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{words} {context[key]:g}"
    if kind in ("literal_error", "enum"):
        return f"one of {str(context['expected']).replace(' or ', ', ')}".replace("'", '"')
    return _WANTED.get(kind, fault["msg"])


def _found(value: object) -> str:
    """What stands there: a short scalar as written, else its kind alone."""
    if isinstance(value, (bool, int, float, str)):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else text[:57] + '…"'
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return "a table" if isinstance(value, Mapping) else "a value of another kind"


def _places(loc: tuple[int | str, ...]) -> list[str]:
    """Keys as they stand in the file: the kind of a feature, which pydantic puts after its name, is left out."""
    parts = [str(part) for part in loc if part != "[key]"]
    if parts[:1] == ["features"] and len(parts) > 3:
        del parts[2]
    return parts


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand beside the one at ``loc``."""
    model: type[BaseModel] = Catalog
    if loc[0] == "features" and len(loc) > 3:
        model = KINDS[str(loc[2])]
    elif loc[0] == "label" and len(loc) > 1:
        model = LabelSection
    elif loc[0] == "tables" and len(loc) > 2:
        inner: Mapping[str, type[BaseModel]] = {"columns": Column, "computed": Computed}
        model = inner.get(str(loc[2]), Table) if len(loc) > 4 else Table
    return list(model.model_fields)
