"""From a TOML file and ``--set`` overrides to one checked, frozen specification."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedcredit.errors import SpecError
from fedcredit.spec.explain import explain, unknown_key
from fedcredit.spec.model import RunSpec
from fedcredit.spec.rules import HOUSE_DATA, nearest

__all__ = ["LoadedSpec", "load_spec", "parse_spec", "parse_toml"]

_MAX_BYTES = 1 << 20  # a configuration is written by a person; a larger file is some other file
_MOVED = ("gradient_bits", "row_sampling", "early_stopping")


@dataclass(frozen=True)
class LoadedSpec:
    """A specification and where it came from.

    Attributes:
        spec: The checked specification.
        base: Folder that relative paths in it are relative to.
        path: The file.
    """

    spec: RunSpec
    base: Path
    path: Path


def load_spec(path: Path | str, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Read, override and check a configuration file.

    Args:
        path: TOML file.
        overrides: ``section.key=value`` or ``party.NAME.key=value``; values in TOML syntax, bare text tolerated.

    Raises:
        SpecError: one line that says file, key, what was found and what would be right.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError("spec.file", f"{path}: larger than 1 MiB; this is no run configuration")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise SpecError("spec.file", f"{path}: no such file; give the path of a run configuration (TOML)") from None
    except UnicodeDecodeError:
        raise SpecError("spec.file", f"{path}: not UTF-8 text; give a run configuration (TOML)") from None
    except OSError as error:
        raise SpecError("spec.file", f"{path}: cannot be read ({error.strerror}); give a readable TOML file") from None
    return LoadedSpec(parse_toml(text, str(path), overrides), path.resolve().parent, path)


def parse_toml(text: str, file: str = "<text>", overrides: Sequence[str] = ()) -> RunSpec:
    """As ``load_spec``, from text.

    Raises:
        SpecError: as in ``load_spec``.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError("spec.toml", f"{file}: not valid TOML: {error}") from None
    for override in overrides:
        _apply(raw, override)
    _leave_places_to_houses(raw)
    return parse_spec(raw, file if not overrides else f"{file} with --set")


def parse_spec(raw: Mapping[str, Any], file: str = "<spec>") -> RunSpec:
    """Check a configuration that is already a mapping.

    Raises:
        SpecError: as in ``load_spec``.
    """
    plain = _plain(raw)
    _move_privacy_keys(plain, file)
    try:
        return RunSpec.model_validate(plain)
    except ValidationError as error:
        # "from None": pydantic's own text repeats inputs, which may be a URL with its password
        raise explain(error, plain, file) from None


def _plain(value: Any) -> Any:
    """Copy; TOML dates become ISO text, which sorts as dates do."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else value


def _move_privacy_keys(raw: dict[str, Any], file: str) -> None:
    """Three keys of boosting belong to ``[privacy]``, but are looked for in ``[boost]`` too."""
    boost = raw.get("boost")
    privacy = raw.setdefault("privacy", {})
    if not isinstance(boost, dict) or not isinstance(privacy, dict):
        return
    for key in _MOVED:
        if key not in boost:
            continue
        value = boost.pop(key)
        if privacy.setdefault(key, value) != value:
            raise SpecError("spec.value", f"{file}: boost.{key}: differs from privacy.{key}; give it once")


def _leave_places_to_houses(raw: dict[str, Any]) -> None:
    """Between houses a file needs no places of records: each house has its own, by the name that the run is given."""
    run, parties = raw.get("run"), raw.get("party")
    if not isinstance(run, dict) or run.get("mode") != "production" or not isinstance(parties, list):
        return
    theirs = f"{HOUSE_DATA}of-each-house"
    left = [one for one in parties if isinstance(one, dict) and not {"source", "query"} & one.keys()]
    for party in left:
        party["source"] = theirs
        if "as_of" in party:
            party.setdefault("catalog", theirs)
    align = raw.setdefault("align", {}) if left else None
    if isinstance(align, dict):
        mode = align.get("mode", "blind")
        if mode == "registry" or (mode == "blind" and align.get("decoys", 1.0) != 0):
            align.setdefault("registry", theirs)


def _apply(raw: dict[str, Any], override: str) -> None:
    """Write one override into ``raw``."""
    place = f"--set {override.split('=', 1)[0]}"
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.strip().split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise SpecError("spec.override", f"{place}: not of the form section.key=value or party.NAME.key=value")
    if keys[0] not in RunSpec.model_fields:
        raise SpecError("spec.unknown-key", f"--set {unknown_key(keys[0], keys[0], list(RunSpec.model_fields))}")
    target: Any = raw
    if keys[0] == "party":
        parties = {str(p.get("name")): p for p in raw.get("party", ()) if isinstance(p, dict)}
        if len(keys) < 3 or keys[1] not in parties:
            raise SpecError("spec.override", f"{place}: no such party; {nearest(keys[1], parties)}")
        target, keys = parties[keys[1]], keys[2:]
        # column names may hold dots
        keys = [keys[0]] if len(keys) == 1 else [keys[0], ".".join(keys[1:])]
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise SpecError("spec.override", f"{place}: {key} is no table of keys")
    target[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """A TOML value; text that is none stands for itself, so that quotes need not be escaped in a shell."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if set(parsed) == {"value"} else text
