"""The charts of a sweep over two keys, and of what combinations cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedcredit.report.svg import HALF, INK, MUTED, TOGETHER, draw
from fedcredit.report.sweep_charts import Grid, number, short
from fedcredit.report.words import decimals

__all__ = ["over", "price"]

_MOST_NUMBERS: Final = 60  # cells of a map in which numbers can be read
_SHADES: Final = LinearSegmentedColormap.from_list("shades", ["#eef4f9", "#9fc8e6", "#3f93c8", "#00568a"])
_DARK: Final = 0.5
_FRAME: Final = "#E69F00"
_FEW: Final = 4  # rows of a map that is lower than the charts beside it


def over(name: str, grid: Grid, across: int, down: int) -> Markup:
    """The figure over two keys, the best over the others in each cell; the best of all is framed.

    Args:
        name: Unique name of the chart in the page.
        grid: The combinations.
        across: Place of the key of the columns.
        down: Place of the key of the rows.
    """
    columns, rows = grid.orders[across], grid.orders[down]
    found: dict[tuple[int, int], list[float]] = {}
    for values, value in grid.points:
        found.setdefault((rows.index(values[down]), columns.index(values[across])), []).append(value)
    cells = {place: grid.pick(several) for place, several in found.items()}
    low, high = min(cells.values()), max(cells.values())
    values, _ = grid.points[grid.best]
    best = rows.index(values[down]), columns.index(values[across])

    def shade(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.0
        return share if grid.higher else 1.0 - share

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for place in np.ndindex(len(rows), len(columns)):
            value, frame = cells.get(place), place == best
            share = 0.0 if value is None else shade(value)
            axes.add_patch(_cell(place, "#ffffff" if value is None else to_hex(_SHADES(share)), frame=frame))
            if len(rows) * len(columns) <= _MOST_NUMBERS:
                text = "–" if value is None else number(value, max(high - low, 1e-3), 3)
                ink = "#ffffff" if share > _DARK else INK
                weight = "bold" if frame else "normal"
                axes.text(place[1], place[0], text, ha="center", va="center", color=ink, weight=weight, zorder=4)
        axes.set_xticks(range(len(columns)), [short(one) for one in columns])
        axes.set_yticks(range(len(rows)), [short(one) for one in rows])
        axes.set(xlim=(-0.53, len(columns) - 0.47), ylim=(len(rows) - 0.47, -0.53))
        axes.set(xlabel=grid.labels[across], ylabel=grid.labels[down])

    told = "; ".join(
        f"{rows[row]}, {columns[column]}: {decimals(cells[row, column], 4)}" for row, column in sorted(cells)
    )
    title = f"{grid.metric} by {grid.labels[down]} and {grid.labels[across]}"
    size = (HALF[0], HALF[1] if len(rows) > _FEW else max(2.4, 1.3 + 0.6 * len(rows)))
    return draw(name, title, f"{title}. {told}.", size, paint)


def _cell(place: tuple[int, int], fill: str, *, frame: bool) -> Rectangle:
    row, column = place
    edge, width = (_FRAME, 3.2) if frame else ("#ffffff", 1.2)
    corner = (column - 0.5, row - 0.5)
    return Rectangle(corner, 1, 1, facecolor=fill, edgecolor=edge, linewidth=width, zorder=3 if frame else 1)


def price(
    name: str, grid: Grid, costs: Sequence[float], cost: str, written: Callable[[float], str]
) -> tuple[Markup, list[int]]:
    """The figure of each combination by what it costs, and a line through those that nothing cheaper reaches.

    Args:
        name: Unique name of the chart in the page.
        grid: The combinations.
        costs: Of each combination, >= 0.
        cost: The cost in words.
        written: A cost as people read it.

    Returns:
        The chart, and the places of the combinations on the line, the cheapest first.
    """
    frontier: list[int] = []
    for place in sorted(range(len(costs)), key=lambda one: (costs[one], one)):
        value = grid.points[place][1]
        if not frontier or grid.pick([value, grid.points[frontier[-1]][1]]) != grid.points[frontier[-1]][1]:
            frontier.append(place)
    low, high = grid.span
    edge = [(costs[place], grid.points[place][1]) for place in frontier]

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        top = max(costs)
        line = [*edge, (top, edge[-1][1])]
        axes.step([x for x, _ in line], [y for _, y in line], where="post", color=TOGETHER, linewidth=1.4)
        axes.plot(costs, [value for _, value in grid.points], linestyle="none", marker="o", color=MUTED, alpha=0.6)
        axes.plot([x for x, _ in edge], [y for _, y in edge], linestyle="none", marker="o", color=TOGETHER)
        best = costs[grid.best], grid.points[grid.best][1]
        axes.plot([best[0]], [best[1]], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK)
        axes.set_ylim(low - 0.08 * (high - low) - 1e-5, high + 0.08 * (high - low) + 1e-5)
        axes.set_xlim(0 if min(costs) < 0.5 * top else None, None)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: written(value))
        axes.yaxis.set_major_formatter(lambda value, _: number(value, high - low or 1e-3))
        axes.set(xlabel=cost, ylabel=grid.metric)

    told = "; ".join(
        f"{', '.join(grid.points[one][0])}: {decimals(grid.points[one][1], 4)} for {written(costs[one])}"
        for one in frontier
    )
    title = f"{grid.metric} by {cost}"
    return draw(name, title, f"{title}. Reached by nothing cheaper: {told}.", HALF, paint), frontier
