"""From a TOML file to one checked, frozen catalogue."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedcredit.catalog.explain import explain
from fedcredit.catalog.model import Catalog
from fedcredit.catalog.rules import FUTURE
from fedcredit.errors import SpecError

__all__ = ["load_catalog", "parse_catalog"]

_MAX_BYTES = 1 << 20  # a catalogue is written by a person; a larger file is some other file
_AHEAD = ("ahead", "horizon", "horizon_months", "lead", "offset", "shift", "window_from", "window_to")


def load_catalog(path: Path | str) -> Catalog:
    """Read and check a catalogue file.

    Raises:
        SpecError: one line that says file, key, what was found and what would be right; ``catalog.future`` if a feature
            would look past the as-of day.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError("catalog.file", f"{path}: larger than 1 MiB; this is no catalogue")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise SpecError("catalog.file", f"{path}: no such file; give the path of a catalogue (TOML)") from None
    except UnicodeDecodeError:
        raise SpecError("catalog.file", f"{path}: not UTF-8 text; give a catalogue (TOML)") from None
    except OSError as error:
        raise SpecError("catalog.file", f"{path}: cannot be read ({error.strerror}); give a readable file") from None
    return parse_catalog(text, str(path))


def parse_catalog(text: str, file: str = "<text>") -> Catalog:
    """As ``load_catalog``, from text.

    Raises:
        SpecError: as in ``load_catalog``.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError("catalog.toml", f"{file}: not valid TOML: {error}") from None
    _refuse_ahead(raw, file)
    try:
        return Catalog.model_validate(raw)
    except ValidationError as error:
        raise explain(error, file) from None


def _refuse_ahead(raw: Mapping[str, Any], file: str) -> None:
    """Ways to ask for months after the as-of day get an error of their own, not that of an unknown key or a limit."""
    features = raw.get("features")
    for name, feature in features.items() if isinstance(features, Mapping) else ():
        if not isinstance(feature, Mapping):
            continue
        at = f"{file}: features.{name}"
        for key in _AHEAD:
            if key in feature:
                right = "a feature cannot look past the as-of day; windows are `months` and `skip`, both backwards"
                raise SpecError(FUTURE, f"{at}.{key}: {right}")
        for key, value in feature.items():
            if key in ("skip", "months", "recent", "earlier", "over") and isinstance(value, int) and value < 0:
                right = f"found {value}: the window would lie after the as-of day; use a whole number of months back"
                raise SpecError(FUTURE, f"{at}.{key}: {right}")
