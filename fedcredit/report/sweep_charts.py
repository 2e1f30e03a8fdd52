"""The line charts of a sweep: a figure along each key that varies; and what every chart of a sweep needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcredit.report.svg import HALF, INK, MUTED, OWNERS, RIVALS, draw
from fedcredit.report.words import decimals, figures

__all__ = ["MOST_LINES", "Grid", "along", "number", "short"]

MOST_LINES: Final = 6
"""More lines than this in one chart cannot be told apart."""

_WIDE_RANGE: Final = 25.0  # from here on, equal factors get equal room
_LABEL_GAP: Final = 0.062  # of the height of a chart: a line of text
_LONGEST: Final = 22
_APART: Final = 0.018  # of the width of a chart
_FAR, _NEAR = 2.0, 0.03  # of the span of a chart, and of the figure


@dataclass(frozen=True)
class End:
    """The right end of a line: what to call it, its colour and height, and how far down and up the line goes."""

    name: str
    colour: str
    height: float
    reach: tuple[float, ...] = ()


Line = tuple[str, list[tuple[str, float, float | None]]]
"""Name, and along the key each value, mean and spread."""


@dataclass(frozen=True)
class Grid:
    """The combinations of a sweep that have the figure.

    Args:
        labels: The keys that vary.
        points: Values of each combination, as people read them, and its figure.
        spreads: Standard deviation over the seeds of each; None without.
        orders: Every value of each key in the order given.
        metric: The figure in words.
        higher: Whether more is better.
        best: Place of the best combination.
        rivals: Other models to hold the figure against: a name, and the figure of each combination.
    """

    labels: Sequence[str]
    points: Sequence[tuple[tuple[str, ...], float]]
    spreads: Sequence[float | None]
    orders: Sequence[Sequence[str]]
    metric: str
    higher: bool
    best: int
    rivals: Sequence[tuple[str, Sequence[float]]] = ()

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest of the figure."""
        values = [value for _, value in self.points]
        return min(values), max(values)

    def pick(self, values: Sequence[float]) -> float:
        """The best of some values."""
        return max(values) if self.higher else min(values)


def number(value: float, span: float, digits: int = 2) -> str:
    """A value with so many figures as tell it from others within a span."""
    if span >= 10 or abs(value) >= 1000:
        return figures(value, 4)
    return decimals(value, min(6, max(2, digits - 1 - math.floor(math.log10(max(span, 1e-9))))))


def along(name: str, grid: Grid, key: int) -> Markup:
    """The figure by the values of one key: a line for each value of the other key if there is one with few values.

    With more keys every combination is a dot, and a line joins the means.

    Args:
        name: Unique name of the chart in the page.
        grid: The combinations.
        key: Place of the key.
    """
    label, (places, ticks) = grid.labels[key], _places(grid.orders[key])
    lines, logarithmic = _lines(grid, key), _logarithmic(grid.orders[key])

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        if logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        rivals = _rivals(axes, grid, [places[values[key]] for values, _ in grid.points])
        if len(lines) == 1 and len(grid.labels) > 1:
            xs = [places[values[key]] for values, _ in grid.points]
            ys = [value for _, value in grid.points]
            axes.plot(xs, ys, linestyle="none", marker="o", markersize=4, color=MUTED, alpha=0.45)
        joined = "-" if _numeric(grid.orders[key]) else (0, (1.5, 2))
        for beside, (colour, (_name, line)) in enumerate(zip(OWNERS, lines, strict=False)):
            errors = [spread or 0.0 for *_, spread in line]
            apart = _apart(places, beside - (len(lines) - 1) / 2, logarithmic) if any(errors) else places
            axes.errorbar(
                [apart[value] for value, *_ in line],
                [mean for _, mean, _ in line],
                yerr=errors if any(errors) else None,
                color=colour,
                marker="o",
                markersize=5,
                linestyle=joined,
                elinewidth=0.9,
                capsize=2.5,
            )
        values, top = grid.points[grid.best]
        axes.plot([places[values[key]]], [top], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK)
        _finish(axes, grid, rivals, lines)
        axes.set_xticks(list(places.values()), ticks)
        axes.set(xlabel=label, ylabel=grid.metric)

    told = "; ".join(
        (f"{called}: " if called else "") + ", ".join(f"{value} {decimals(mean, 4)}" for value, mean, _ in line)
        for called, line in lines
    )
    return draw(name, f"{grid.metric} by {label}", f"{grid.metric} by {label}. {told}.", HALF, paint)


def _finish(axes: Axes, grid: Grid, rivals: Sequence[End], lines: Sequence[Line]) -> None:
    """Limits, ticks, and the names of the lines."""
    low, high = grid.span
    errors = [spread for spread in grid.spreads if spread is not None]
    pad = max(0.07 * (high - low), 1e-4 * max(abs(high), 1e-9), max(errors, default=0.0))
    shown = [value for end in rivals for value in end.reach]
    axes.set_ylim(min([low, *shown]) - pad, max([high, *shown]) + pad)
    own = [End(name, colour, line[-1][1]) for (name, line), colour in zip(lines, OWNERS, strict=False)]
    if len(own) == 1 and rivals:
        own = [replace(own[0], name="federated")]
    if len(own) > 1 or rivals:
        _name_lines(axes, [*own, *rivals])
    axes.margins(x=0.05)
    axes.yaxis.set_major_formatter(lambda value, _: number(value, high - low or 1e-3))


def _lines(grid: Grid, key: int) -> list[Line]:
    """Value, mean and spread along a key, line by line; one line without a name where others cannot be told apart."""
    others = [place for place in range(len(grid.labels)) if place != key]
    named: list[tuple[str, tuple[int, str] | None]] = [("", None)]
    if len(others) == 1 and 1 < len(grid.orders[others[0]]) <= MOST_LINES:
        other = others[0]
        named = [(f"{grid.labels[other]} {short(value)}", (other, value)) for value in grid.orders[other]]
    lines: list[Line] = []
    for name, fixed in named:
        line = []
        for value in grid.orders[key]:
            chosen = [
                (mean, spread)
                for (values, mean), spread in zip(grid.points, grid.spreads, strict=True)
                if values[key] == value and (fixed is None or values[fixed[0]] == fixed[1])
            ]
            if chosen:
                line.append((value, fmean(mean for mean, _ in chosen), chosen[0][1] if len(chosen) == 1 else None))
        if line:
            lines.append((name, line))
    return lines


def _numeric(order: Sequence[str]) -> bool:
    return all(_number_of(one) is not None for one in order)


def _number_of(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _logarithmic(order: Sequence[str]) -> bool:
    values = [_number_of(one) for one in order]
    if any(value is None or value <= 0 for value in values):
        return False
    numbers = [value for value in values if value is not None]
    return len(numbers) > 2 and max(numbers) / min(numbers) >= _WIDE_RANGE


def _places(order: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Where each value stands on the axis, and what is written there."""
    if _numeric(order):
        return {one: _number_of(one) or 0.0 for one in order}, list(order)
    return {one: float(place) for place, one in enumerate(order)}, [short(one) for one in order]


def short(text: str) -> str:
    """A value that fits on an axis."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _apart(places: Mapping[str, float], step: float, logarithmic: bool) -> dict[str, float]:  # noqa: FBT001 -- a kind
    """Places a little to a side, so that the bars of several lines do not hide each other."""
    low, high = min(places.values()), max(places.values())
    if logarithmic:
        factor = (high / low) ** (_APART * step)
        return {value: place * factor for value, place in places.items()}
    return {value: place + _APART * step * (high - low) for value, place in places.items()}


def _rivals(axes: Axes, grid: Grid, places: Sequence[float]) -> list[End]:
    """Draws the other models: with one key a line along it, with more only what is the same for all combinations.

    What is so far away that it would flatten the rest is left out.
    """
    low, high = grid.span
    room = max(_FAR * (high - low), _NEAR)
    ends = []
    for (name, values), colour in zip(grid.rivals, (RIVALS["alone"], RIVALS["reference"]), strict=False):
        same = max(values) == min(values)
        if min(values) < low - room or max(values) > high + room or not (same or len(grid.labels) == 1):
            continue
        pairs = sorted(zip(places, values, strict=True))
        axes.plot([x for x, _ in pairs], [y for _, y in pairs], color=colour, linewidth=1.3, linestyle=(0, (4, 2.5)))
        ends.append(End(name, colour, pairs[-1][1], (min(values), max(values))))
    return ends


def _name_lines(axes: Axes, ends: Sequence[End]) -> None:
    """Writes the name of each line at its right end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = _LABEL_GAP * (high - low)
    heights: list[float] = []
    ends = sorted(ends, key=lambda one: one.height)
    for end in ends:
        heights.append(max(end.height, heights[-1] + gap) if heights else end.height)
    over = max(0.0, heights[-1] - high)
    for end, height in zip(ends, heights, strict=True):
        axes.annotate(
            end.name,
            (1.0, height - over),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=end.colour,
            weight="bold",
            annotation_clip=False,
        )
