"""What one kind of model adds to the pages that all kinds share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedcredit.report.compare import Figures, Rival
from fedcredit.report.files import Settings, Summary
from fedcredit.report.parts import Meter
from fedcredit.report.tables import Predictions

__all__ = ["Contents", "Evidence", "HolderPart", "LabelPart", "Tile"]

Contents = Sequence[tuple[str, str]]
"""Anchor and short title of each section."""


@dataclass(frozen=True)
class Tile:
    """A number at the head of a page, with a word on it."""

    title: str
    value: str
    note: str


@dataclass(frozen=True)
class Evidence:
    """What is read and measured whatever the model is.

    Args:
        run: Run directory.
        summary: Its summary.
        settings: What the specification says of protection.
        held_out: The predictions.
        figures: Measures of these.
        meters: Disclosure ledgers.
        colours: Colour of each party.
    """

    run: Path
    summary: Summary
    settings: Settings
    held_out: Predictions
    figures: Figures
    meters: Sequence[Meter]
    colours: Mapping[str, str]


@dataclass(frozen=True)
class LabelPart:
    """A model in the label holder's report.

    Args:
        template: Its sections.
        contents: Anchors and short titles of these.
        values: What they print, as ``part.values``.
        about: A few words after the kind of model.
        tile: How many features it has.
        lift_title: Heading of the section that compares models.
        rivals: The models compared.
        statements: Short heading and text: what the comparison says.
        sentences: The run in sentences; may be empty.
        attention: What lies outside its limits.
        calm: What to say if nothing does.
        terms: Words that its sections use, explained.
        disclosed: Template of what was disclosed for its sake, if more than the ledgers.
        cost: A sentence on cost.
    """

    template: str
    contents: Contents
    values: Mapping[str, object]
    about: str
    tile: Tile
    lift_title: str
    rivals: Sequence[Rival]
    statements: Sequence[tuple[str, str]]
    calm: str
    terms: Sequence[tuple[str, str]]
    sentences: Sequence[str] = ()
    attention: Sequence[str] = field(default_factory=list)
    disclosed: str = ""
    cost: str = ""


@dataclass(frozen=True)
class HolderPart:
    """A model in a feature holder's report.

    Args:
        template: Its section.
        values: What it prints, as ``part.values``.
        verdict: The party's part in a line.
        tiles: Numbers of it.
        disclosed: A sentence on what bounds the party's answers.
    """

    template: str
    values: Mapping[str, object]
    verdict: str
    tiles: Sequence[Tile]
    disclosed: str = ""
