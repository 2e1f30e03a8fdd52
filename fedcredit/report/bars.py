"""Horizontal bars with their values: features by strength, parties by bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcredit.kernels.stability import MOVED, MOVING
from fedcredit.report.svg import HALF, INK, MUTED, draw
from fedcredit.report.words import decimals, size

__all__ = ["Bar", "bars", "iv_ranking", "stability", "traffic"]

_ROW_HEIGHT = 0.27
_LONGEST = 30  # letters of a name on an axis; the tables give it in full


@dataclass(frozen=True)
class Bar:
    """One bar: its name, length, text at its end, and colour."""

    name: str
    value: float
    text: str
    colour: str


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def bars(name: str, title: str, entries: Sequence[Bar], limits: Mapping[float, str] | None = None) -> Markup:
    """Horizontal bars with their values written at their ends, and vertical limits where given.

    Args:
        name: Unique name of the chart in the page.
        title: Its title.
        entries: Bars from top to bottom, at least one; values >= 0.
        limits: Text of each vertical line by its place on the axis.
    """
    lines = dict(limits or {})
    longest = max([entry.value for entry in entries] + [1.12 * place for place in lines] + [1e-9])

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        places = np.arange(len(entries))[::-1]
        axes.barh(places, [bar.value for bar in entries], color=[bar.colour for bar in entries], height=0.62)
        for place, bar in zip(places.tolist(), entries, strict=True):
            axes.annotate(
                bar.text,
                (bar.value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=9,
            )
        for place, text in lines.items():
            axes.axvline(place, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
            axes.text(place, len(entries) - 0.42, text, color=MUTED, fontsize=8.5, ha="center", va="bottom")
        axes.set_yticks(places, [_short(bar.name) for bar in entries], color=INK)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set(xlim=(0, 1.25 * longest), ylim=(-0.6, len(entries) - 0.35))

    described = "; ".join(f"{bar.name}: {bar.text}" for bar in entries)
    height = _ROW_HEIGHT * len(entries) + (0.55 if lines else 0.3)
    return draw(name, title, f"{title}. {described}.", (HALF[0], height), paint)


def iv_ranking(entries: Sequence[tuple[str, str, float]], colours: Mapping[str, str]) -> Markup:
    """Features by information value, in the colour of their owner.

    Args:
        entries: (feature, owner, information value), strongest first.
        colours: Colour of each owner.
    """
    drawn = [Bar(name, value, decimals(value), colours[owner]) for name, owner, value in entries]
    return bars("iv", "Information value by feature", drawn)


def stability(entries: Sequence[tuple[str, str, float]], colours: Mapping[str, str]) -> Markup:
    """Population stability of each feature against the limits 0.10 and 0.25."""
    drawn = [Bar(name, max(value, 0.0), decimals(value), colours[owner]) for name, owner, value in entries]
    limits = {MOVING: f"{decimals(MOVING, 2)} watch", MOVED: f"{decimals(MOVED, 2)} shifted"}
    return bars("stability", "Population stability by feature", drawn, limits)


def traffic(sent: Sequence[tuple[str, int]], colours: Mapping[str, str]) -> Markup:
    """Bytes sent by each party."""
    drawn = [Bar(party, float(total), size(total), colours.get(party, MUTED)) for party, total in sent]
    return bars("bytes", "Bytes sent by party", drawn)
