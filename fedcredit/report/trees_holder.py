"""Boosted trees in a feature holder's report: its own columns and splits, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcredit.report.files import Settings
from fedcredit.report.read import damaged, read_own_trees
from fedcredit.report.sections import HolderPart, Tile
from fedcredit.report.words import amount, at_most, count
from fedcredit.runtime.boost.files import HeldFeature, HeldSplit

__all__ = ["holder_trees"]

_NAMED = 3  # categories that a split's own label names


@dataclass(frozen=True)
class _Split:
    """A split in words; ``categories`` names all that go left where the label leaves some out."""

    number: int
    label: str
    left: int
    categories: str


@dataclass(frozen=True)
class _Column:
    """A column with its splits."""

    name: str
    code: str
    kind: str
    bins: int
    reason_code: str
    reason: str
    splits: Sequence[_Split]


def holder_trees(run: Path, settings: Settings, party: str) -> HolderPart:
    """A feature holder's part of the trees.

    Raises:
        DataError: Its file is missing or damaged, or spec.toml says nothing of boosting.
    """
    file = read_own_trees(run, party)
    if settings.boost is None:
        raise damaged("spec.toml has no [boost]; that of a run of boosted trees does")
    columns = [_column(one, [split for split in file.splits if split.code == one.code]) for one in file.features]
    used = [one for one in columns if one.splits]
    cap, noise = settings.boost.holder_thresholds, settings.privacy.noise_rows
    splits = len(file.splits)
    return HolderPart(
        template="trees_holder.html.j2",
        values={
            "used": sorted(used, key=lambda one: one.splits[0].number),
            "unused": [one for one in columns if not one.splits],
            "columns": columns,
        },
        verdict=f"{len(used)} of {len(columns)} features of {party} {'is' if len(used) == 1 else 'are'} in the trees, "
        f"by {splits} threshold{'' if splits == 1 else 's'}.",
        tiles=(
            Tile("Features in use", count(len(used)), f"of {len(columns)} offered"),
            Tile("Thresholds in use", count(splits), f"at most {cap} a feature" if cap else "no cap"),
        ),
        disclosed=_bounds(noise, cap, party),
    )


def _bounds(noise: float, cap: int, party: str) -> str:
    added = (
        f"Each sum carried noise of {party}, as large as {amount(noise)} rows (standard deviation)"
        if noise
        else "No noise was added to sums"
    )
    limit = f"at most {cap} thresholds a feature may be disclosed" if cap else "thresholds have no cap"
    return f"{added}; by the specification {limit}."


def _column(feature: HeldFeature, splits: Sequence[HeldSplit]) -> _Column:
    return _Column(
        name=feature.name,
        code=feature.code,
        kind=feature.kind,
        bins=feature.cuts.bins,
        reason_code=feature.reason.code,
        reason=feature.reason.text,
        splits=[_split(feature, one) for one in splits],
    )


def _split(feature: HeldFeature, split: HeldSplit) -> _Split:
    cuts = feature.cuts
    groups = [cuts.categories[place] for place in split.left if place < len(cuts.categories)]
    names = [name for group in groups for name in group]
    more = ["other"] * (() in groups) + ["missing"] * (cuts.has_missing and cuts.bins - 1 in split.left)
    listed = ", ".join(names + more) if len(names) > _NAMED + 1 else ""
    return _Split(split.split, at_most(split.label, feature.name), len(split.left), listed)
