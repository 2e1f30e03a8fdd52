"""A grid of runs: which keys vary over which values, and the run of each combination, checked before any starts."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedcredit.errors import SpecError
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.model import RunSpec
from fedcredit.spec.write import spec_toml

__all__ = ["MAX_RUNS", "Point", "SweepPlan", "Varied", "identity_of", "plan_sweep", "shown", "split_values", "typed"]

MAX_RUNS = 10_000
"""More runs than this are a slip of the keyboard."""

_SEEDS = ("run.seed", "split.seed", "partition.seed")
_ALWAYS = frozenset({"spec.unknown-key", "spec.override", "spec.toml", "spec.file"})
_LONGEST = 120  # characters of a folder's name, well below the 255 that file systems take
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_OPENING, _CLOSING, _QUOTES = "[{", "]}", "\"'"


@dataclass(frozen=True)
class Varied:
    """A key of the configuration that takes several values.

    Args:
        key: Such as ``boost.depth``.
        label: Its last part, or all of it where two keys share that.
        values: The values in TOML syntax, bare text tolerated, as they were given.
    """

    key: str
    label: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Args:
        name: Name of its run directory.
        values: Its values of the varied keys, in their order, in TOML syntax.
        seed: Of ``--seeds``; None without.
        overrides: ``KEY=VALUE`` of every key that is not as in the configuration file.
        loaded: The checked specification; None where the combination is refused.
        refusal: Why it is refused, in one line; else empty.
    """

    name: str
    values: tuple[str, ...]
    seed: int | None
    overrides: tuple[str, ...]
    loaded: LoadedSpec | None
    refusal: str = ""

    @property
    def digest(self) -> str:
        """Digest of its specification; empty where it is refused."""
        return "" if self.loaded is None else spec_digest(self.loaded.spec)


@dataclass(frozen=True)
class SweepPlan:
    """All runs of a sweep.

    Args:
        config: The configuration file.
        fixed: ``KEY=VALUE`` of keys that are replaced in every run alike.
        varied: The keys that vary.
        seeds: Repetitions of each combination; none = one run with the seeds of the file.
        seeded: The keys that take the seed.
        points: The runs, the last key varying fastest, seeds fastest of all.
    """

    config: Path
    fixed: tuple[str, ...]
    varied: tuple[Varied, ...]
    seeds: tuple[int, ...]
    seeded: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """Name of the configuration's run."""
        found = next((one.loaded.spec.run.name for one in self.points if one.loaded is not None), self.config.stem)
        return str(found)


def split_values(text: str, key: str) -> tuple[str, ...]:
    """Values between commas that stand outside brackets and quotes: ``1,2`` is two, ``[1,2],[3]`` too, ``[1,2]`` one.

    Raises:
        SpecError: one is empty, or a bracket or quote is not closed.
    """
    values, start, depth, quote = [], 0, 0, ""
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in _QUOTES:
            quote = sign
        elif sign in _OPENING + _CLOSING:
            depth += 1 if sign in _OPENING else -1
        elif sign == "," and depth == 0:
            values.append(text[start:place].strip())
            start = place + 1
    values.append(text[start:].strip())
    if quote or depth:
        raise SpecError("sweep.values", f"--set {key}: a bracket or quote is not closed; write lists as [1,2],[3]")
    if not all(values):
        raise SpecError("sweep.values", f"--set {key}: a value is missing between commas; write KEY=A,B,C")
    return tuple(values)


def typed(text: str) -> Any:
    """A value in TOML syntax; text that is none stands for itself, as in ``--set`` of other commands."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def shown(text: str) -> str:
    """A value as people read it: text without quotes, lists without spaces, numbers as given."""
    value = typed(text)
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        return json.dumps(value, separators=(",", ":"), default=str, ensure_ascii=False).replace('"', "")
    return text


def plan_sweep(config: Path, overrides: Sequence[str], seeds: Sequence[int] = ()) -> SweepPlan:
    """The runs of a grid, each checked against the configuration's rules.

    Args:
        config: Configuration file.
        overrides: ``KEY=VALUE,VALUE,…``; one with a single value replaces a key in every run.
        seeds: Values of ``run.seed``, of ``split.seed`` where rows are held out by it, and of ``partition.seed`` where
            there is a partition, all three alike; a key that is also in ``overrides`` is left to those.

    Raises:
        SpecError: a key is unknown, a value or a seed is given twice, or no combination passes the rules.
    """
    given = dict(_parsed(one) for one in _once(overrides))
    several = {key: values for key, values in given.items() if len(values) > 1}
    fixed = tuple(f"{key}={values[0]}" for key, values in given.items() if len(values) == 1)
    varied = tuple(Varied(key, label, several[key]) for key, label in zip(several, _labels(list(several)), strict=True))
    if len(set(seeds)) < len(seeds):
        raise SpecError("sweep.seeds", "--seeds: a seed is given twice; give each once")
    runs = max(1, len(seeds))
    for one in varied:
        runs *= len(one.values)
    if runs > MAX_RUNS:
        raise SpecError("sweep.runs", f"--set: {runs:,} runs; at most {MAX_RUNS:,} are allowed, so give fewer values")
    seeded = _seeded(config, fixed, varied, seeds)
    points = [
        _point(config, fixed, varied, values, (seed, seeded))
        for values in itertools.product(*(one.values for one in varied))
        for seed in (seeds or (None,))
    ]
    if all(point.loaded is None for point in points):
        raise SpecError("sweep.refused", points[0].refusal.rpartition(" [")[0])
    return SweepPlan(config, fixed, varied, tuple(seeds), seeded, _distinct(points))


def identity_of(spec: RunSpec, base: Path) -> str:
    """Name of what a run computes and on which sources: 64 hex digits, the same for a run directory's ``spec.toml``."""
    return hashlib.sha256(spec_toml(spec, base=base).encode()).hexdigest()


def _once(overrides: Sequence[str]) -> Sequence[str]:
    keys = [one.partition("=")[0].strip() for one in overrides]
    for key in keys:
        if keys.count(key) > 1:
            raise SpecError("sweep.key", f"--set {key}: given twice; write its values once, with commas between them")
    return overrides


def _parsed(override: str) -> tuple[str, tuple[str, ...]]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals:
        raise SpecError("spec.override", f"--set {key}: not of the form section.key=value or party.NAME.key=value")
    values = split_values(text, key)
    known: list[Any] = []
    for value in values:
        if typed(value) in known:
            raise SpecError("sweep.values", f"--set {key}: {shown(value)} is given twice; give each value once")
        known.append(typed(value))
    return key, values


def _labels(keys: Sequence[str]) -> list[str]:
    """Last parts, or whole keys where those would be the same or a column of every sweep."""
    short = [key.rpartition(".")[2] for key in keys]
    return [key if short.count(last) > 1 or last == "seed" else last for key, last in zip(keys, short, strict=True)]


def _seeded(config: Path, fixed: Sequence[str], varied: Sequence[Varied], seeds: Sequence[int]) -> tuple[str, ...]:
    """The keys that a seed of ``--seeds`` replaces."""
    if not seeds:
        return ()
    apart = {one.partition("=")[0] for one in fixed} | {one.key for one in varied}
    spec = load_spec(config).spec
    hashed = spec.split.time is None and spec.split.test_ids is None and spec.split.test_source is None
    meant = [
        key
        for key, there in zip(_SEEDS, (True, hashed, spec.partition is not None), strict=True)
        if there and key not in apart
    ]
    if not meant:
        raise SpecError("sweep.seeds", "--seeds: every seed of this run is given by --set; remove one of the two")
    return tuple(meant)


def _point(
    config: Path,
    fixed: Sequence[str],
    varied: Sequence[Varied],
    values: tuple[str, ...],
    repetition: tuple[int | None, Sequence[str]],
) -> Point:
    seed, seeded = repetition
    settings = [(one.label, shown(value)) for one, value in zip(varied, values, strict=True)]
    settings += [] if seed is None else [("seed", str(seed))]
    overrides = (
        *fixed,
        *(f"{one.key}={value}" for one, value in zip(varied, values, strict=True)),
        *(f"{key}={seed}" for key in seeded),
    )
    loaded, refusal = None, ""
    try:
        loaded = load_spec(config, overrides)
    except SpecError as error:
        if error.code in _ALWAYS:
            raise
        refusal = str(error)
    if loaded is not None and not loaded.spec.simulation:
        raise SpecError("spec.simulate", f'{config}: run.mode: a sweep runs mode = "simulation"')
    return Point(_name(settings), values, seed, overrides, loaded, refusal)


def _name(settings: Sequence[tuple[str, str]]) -> str:
    """Name of a folder that says the values; cut and told apart by a digest where it would be too long."""
    whole = ",".join(f"{label}={value}" for label, value in settings) or "run"
    parts = (f"{_UNSAFE.sub('-', label)}={_UNSAFE.sub('-', value).strip('-')}" for label, value in settings)
    safe = ",".join(parts) or "run"
    return safe if len(safe) <= _LONGEST else f"{safe[: _LONGEST - 9]}-{_short(whole)}"


def _distinct(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, those whose values differ only in signs that a folder's name cannot have told apart by a digest."""
    names = [point.name.casefold() for point in points]
    return tuple(
        point
        if names.count(point.name.casefold()) == 1
        else replace(point, name=f"{point.name}-{_short(repr(point.overrides))}")
        for point in points
    )


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
