"""The charts of a sweep: a figure along each key that varies, and over pairs of keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fedcredit.report.svg import HALF, INK, MUTED, OWNERS, TOGETHER, draw
from fedcredit.report.words import decimals, figures

__all__ = ["MOST_LINES", "Grid", "along", "over"]

MOST_LINES: Final = 6
"""More lines than this in one chart can not be told apart."""

_WIDE_RANGE: Final = 25.0  # from here on, equal factors get equal room
_LABEL_GAP: Final = 0.062  # of the height of a chart: a line of text
_LONGEST: Final = 22
_MOST_NUMBERS: Final = 60  # cells of a map in which numbers can be read
_SHADES: Final = LinearSegmentedColormap.from_list("shades", ["#f3f7fb", "#9fc8e6", TOGETHER, "#003d63"])
_DARK: Final = 0.55


@dataclass(frozen=True)
class Grid:
    """The combinations of a sweep that have the figure.

    Args:
        labels: The keys that vary.
        points: Values of each combination, as people read them, and its figure.
        spreads: Standard deviation over the seeds of each; None without.
        orders: Every value of each key in the order given.
        metric: Name of the figure.
        higher: Whether more is better.
        best: Place of the best combination.
        levels: Lines to hold the figure against: a name and its height.
    """

    labels: Sequence[str]
    points: Sequence[tuple[tuple[str, ...], float]]
    spreads: Sequence[float | None]
    orders: Sequence[Sequence[str]]
    metric: str
    higher: bool
    best: int
    levels: Sequence[tuple[str, float]] = ()

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest of the figure."""
        values = [value for _, value in self.points]
        return min(values), max(values)

    def pick(self, values: Sequence[float]) -> float:
        """The best of some values."""
        return max(values) if self.higher else min(values)


def number(value: float, span: float) -> str:
    """With as many digits as the span of a chart needs."""
    if span >= 10 or abs(value) >= 1000:
        return figures(value, 4)
    return decimals(value, min(6, max(2, 1 - math.floor(math.log10(max(span, 1e-9))))))


def along(grid: Grid, key: int) -> Markup:
    """The figure by the values of one key: a line for each value of the other key if there is one with few values.

    With more keys every combination is a dot, and a line joins the means.
    """
    label, places, ticks = grid.labels[key], *_places(grid.orders[key])
    low, high = grid.span
    lines = _lines(grid, key)

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        if _logarithmic(grid.orders[key]):
            axes.set_xscale("log")
            axes.minorticks_off()
        shown = _levels(axes, grid)
        if len(lines) == 1 and len(grid.labels) > 1:
            axes.plot(
                [places[values[key]] for values, _ in grid.points],
                [value for _, value in grid.points],
                linestyle="none",
                marker="o",
                markersize=4,
                color=MUTED,
                alpha=0.45,
            )
        ends = []
        for colour, (name, line) in zip(OWNERS, lines, strict=False):
            xs = [places[value] for value, *_ in line]
            ys = [mean for _, mean, _ in line]
            errors = [spread or 0.0 for *_, spread in line]
            style = "-" if _numeric(grid.orders[key]) else (0, (1.5, 2))
            axes.errorbar(
                xs,
                ys,
                yerr=errors if any(errors) else None,
                color=colour,
                marker="o",
                markersize=5,
                linestyle=style,
                elinewidth=1,
                capsize=2.5,
            )
            ends.append((name, colour, ys[-1]))
        values, top = grid.points[grid.best]
        axes.plot([places[values[key]]], [top], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK)
        axes.set_xticks(list(places.values()), ticks)
        pad = max(0.07 * (high - low), 1e-4 * max(abs(high), 1e-9), max(_errors(grid), default=0.0))
        axes.set_ylim(min([low, *shown]) - pad, max([high, *shown]) + pad)
        _name_lines(axes, ends if len(lines) > 1 else [])
        axes.set(xlabel=label, ylabel=grid.metric)
        axes.margins(x=0.05)
        axes.yaxis.set_major_formatter(lambda value, _: number(value, high - low or 1e-3))

    told = "; ".join(
        f"{name + ': ' if name else ''}" + ", ".join(f"{value} {decimals(mean, 4)}" for value, mean, _ in line)
        for name, line in lines
    )
    return draw(f"along-{key}", f"{grid.metric} by {label}", f"{grid.metric} by {label}. {told}.", HALF, paint)


def over(grid: Grid, across: int, down: int) -> Markup:
    """The figure over two keys, the best over the others in each cell; the best of all is framed."""
    columns, rows = grid.orders[across], grid.orders[down]
    cells = np.full((len(rows), len(columns)), np.nan)
    found: dict[tuple[int, int], list[float]] = {}
    for values, value in grid.points:
        found.setdefault((rows.index(values[down]), columns.index(values[across])), []).append(value)
    for place, several in found.items():
        cells[place] = grid.pick(several)
    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    shares = (cells - low) / (high - low) if high > low else np.where(np.isnan(cells), np.nan, 1.0)
    shares = shares if grid.higher else 1.0 - shares
    values, _ = grid.points[grid.best]
    best = rows.index(values[down]), columns.index(values[across])

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for (row, column), share in np.ndenumerate(shares):
            missing = bool(np.isnan(share))
            frame = (row, column) == best
            axes.add_patch(
                _cell(column, row, "#ffffff" if missing else _SHADES(float(share)), INK if frame else "#ffffff", frame)
            )
            if cells.size <= _MOST_NUMBERS:
                text = "–" if missing else number(float(cells[row, column]), max(high - low, 1e-4))
                ink = "#ffffff" if not missing and share > _DARK else INK
                axes.text(column, row, text, ha="center", va="center", color=ink, weight="bold" if frame else "normal")
        axes.set_xticks(range(len(columns)), [_short(one) for one in columns])
        axes.set_yticks(range(len(rows)), [_short(one) for one in rows])
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.set(xlabel=grid.labels[across], ylabel=grid.labels[down])

    told = "; ".join(
        f"{rows[row]}, {columns[column]}: {decimals(float(cells[row, column]), 4)}" for row, column in sorted(found)
    )
    name = f"{grid.labels[down]} and {grid.labels[across]}"
    height = min(6.0, max(2.2, 1.3 + 0.52 * len(rows)))
    size = (HALF[0], max(height, HALF[1]) if len(rows) > 4 else height)
    return draw(f"over-{across}-{down}", f"{grid.metric} by {name}", f"{grid.metric} by {name}. {told}.", size, paint)


def _cell(column: int, row: int, fill: object, edge: str, frame: bool) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (column - 0.5, row - 0.5),
        1,
        1,
        facecolor=fill,
        edgecolor=edge,
        linewidth=2.2 if frame else 1.2,
        zorder=3 if frame else 1,
    )


Line = tuple[str, list[tuple[str, float, float | None]]]


def _lines(grid: Grid, key: int) -> list[Line]:
    """Value, mean and spread along a key, line by line; one line without a name where others can not be told apart."""
    others = [place for place in range(len(grid.labels)) if place != key]
    if len(others) == 1 and 1 < len(grid.orders[others[0]]) <= MOST_LINES:
        other = others[0]
        named = [(f"{grid.labels[other]} {_short(value)}", (other, value)) for value in grid.orders[other]]
    else:
        named = [("", None)]
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
    return {one: float(place) for place, one in enumerate(order)}, [_short(one) for one in order]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _errors(grid: Grid) -> list[float]:
    return [spread for spread in grid.spreads if spread is not None]


def _levels(axes: Axes, grid: Grid) -> list[float]:
    """Draws the lines to hold against that are near enough not to flatten the rest; their heights."""
    low, high = grid.span
    room = 1.5 * (high - low) + 1e-9
    near = [(name, height) for name, height in grid.levels if low - room <= height <= high + room]
    for name, height in near:
        axes.axhline(height, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            name,
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(3, 3),
            textcoords="offset points",
            color=MUTED,
            fontsize=8.5,
        )
    return [height for _, height in near]


def _name_lines(axes: Axes, ends: Sequence[tuple[str, str, float]]) -> None:
    """Writes the name of each line at its right end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = _LABEL_GAP * (high - low)
    heights: list[float] = []
    for _, _, height in sorted(ends, key=lambda one: one[2]):
        heights.append(max(height, heights[-1] + gap) if heights else height)
    over = max(0.0, (heights[-1] if heights else high) - high)
    for (name, colour, _), height in zip(sorted(ends, key=lambda one: one[2]), heights, strict=True):
        axes.annotate(
            name,
            (1.0, height - over),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
            annotation_clip=False,
        )
