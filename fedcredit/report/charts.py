"""The charts of a report, each a function from plain numbers to inline SVG. Measures come from the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcredit.kernels.metrics import CalibrationCurve, RocCurve, auc, ks, roc_curve
from fedcredit.kernels.stability import MOVED, MOVING
from fedcredit.report.read import Floats, Predictions
from fedcredit.report.svg import BAD, GOOD, INK, MUTED, TOGETHER, draw
from fedcredit.report.words import count, decimals, percent, size

__all__ = ["Bar", "bars", "calibration", "distribution", "iv_ranking", "roc", "separation", "stability", "traffic"]

_HALF = (4.6, 3.9)
"""Size in inches of a chart that shares its row with another."""

_ROW_HEIGHT = 0.27
_LONGEST = 30  # letters of a name on an axis; the tables give it in full
_HISTOGRAM_BINS = 36


@dataclass(frozen=True)
class Bar:
    """One bar: its name, length, text at its end, and colour."""

    name: str
    value: float
    text: str
    colour: str


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _percent_axes(axes: Axes, *, x: bool, y: bool) -> None:
    for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)):
        if wanted:
            axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def roc(held_out: Predictions) -> Markup:
    """ROC curves of the common score and of the label holder's own, with their areas written beside them."""
    together = roc_curve(held_out.bad, -held_out.score)
    alone = None if held_out.alone is None else roc_curve(held_out.bad, -held_out.alone)
    auc_together = auc(held_out.bad, -held_out.score)
    text = f"Together, AUC {decimals(auc_together)}"
    described = f"ROC curve on {count(held_out.bad.size)} held-out rows. {text}."
    auc_alone = None
    if held_out.alone is not None:
        auc_alone = auc(held_out.bad, -held_out.alone)
        described += f" Label holder alone, AUC {decimals(auc_alone)}."

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.plot([0, 1], [0, 1], color="#c3cad2", linewidth=0.9)
        if alone is not None:
            _between(axes, together, alone)
            axes.plot(alone.false_positive_rate, alone.true_positive_rate, color=MUTED, linestyle=(0, (4, 2)))
        axes.plot(together.false_positive_rate, together.true_positive_rate, color=TOGETHER, linewidth=2.1)
        axes.text(0.98, 0.30, text, color=TOGETHER, ha="right", weight="bold")
        if auc_alone is not None:
            axes.text(0.98, 0.22, f"Alone (dashed), AUC {decimals(auc_alone)}", color=MUTED, ha="right")
        axes.text(0.98, 0.14, "No discrimination, AUC 0.500", color="#8a95a1", ha="right")
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="Share of goods refused", ylabel="Share of bads refused")
        _percent_axes(axes, x=True, y=True)

    return draw("roc", "ROC curves", described, _HALF, paint)


def _between(axes: Axes, upper: RocCurve, lower: RocCurve) -> None:
    grid = np.linspace(0, 1, 201)
    above = np.interp(grid, upper.false_positive_rate, upper.true_positive_rate)
    below = np.interp(grid, lower.false_positive_rate, lower.true_positive_rate)
    axes.fill_between(grid, below, above, color=TOGETHER, alpha=0.10, linewidth=0)


def _cumulative(values: Floats, grid: Floats) -> Floats:
    return np.searchsorted(np.sort(values), grid, side="right") / values.size


def separation(held_out: Predictions) -> Markup:
    """Cumulative shares of goods and bads by score; the gap where it is widest is the KS distance."""
    distance = ks(held_out.bad, -held_out.score)
    grid = np.unique(held_out.score)
    bads = _cumulative(held_out.score[held_out.bad == 1], grid)
    goods = _cumulative(held_out.score[held_out.bad == 0], grid)
    widest = int(np.argmax(np.abs(bads - goods)))
    at = float(grid[widest])
    described = (
        f"Cumulative shares of bads and goods by score. Widest gap, KS {decimals(distance)}, at {count(at)} points."
    )

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.step(grid, bads, color=BAD, where="post")
        axes.step(grid, goods, color=GOOD, where="post")
        axes.plot([at, at], [goods[widest], bads[widest]], color=INK, linewidth=1.2, marker="_", markersize=9)
        axes.annotate(
            f"KS {decimals(distance)}\nat {count(at)} points",
            (at, min(goods[widest], bads[widest])),
            xytext=(9, -5),
            textcoords="offset points",
            va="top",
            weight="bold",
        )
        for shares, name, colour, level in ((bads, "Bads", BAD, 0.72), (goods, "Goods", GOOD, 0.66)):
            spot = int(np.searchsorted(shares, level))
            offset, side = ((-8, 4), "right") if name == "Bads" else ((10, -4), "left")
            axes.annotate(
                name,
                (grid[spot], shares[spot]),
                xytext=offset,
                textcoords="offset points",
                ha=side,
                color=colour,
                weight="bold",
            )
        axes.set(ylim=(0, 1.01), xlabel="Score, points (higher is safer)", ylabel="Share at or below the score")
        axes.margins(x=0.02)
        _percent_axes(axes, x=False, y=True)

    return draw("ks", "KS plot", described, _HALF, paint)


def distribution(held_out: Predictions) -> Markup:
    """How the scores of goods and of bads spread, each class as shares of itself."""
    low, high = float(held_out.score.min()), float(held_out.score.max())
    width = max(1.0, float(np.ceil((high - low) / _HISTOGRAM_BINS)))  # whole points, so that no bar counts one more
    edges = np.arange(np.floor(low) - 0.5, high + width + 0.5, width)
    shares, peaks = {}, {}
    for name, label in (("Goods", 0), ("Bads", 1)):
        chosen = held_out.score[held_out.bad == label]
        shares[name] = np.histogram(chosen, edges)[0] / chosen.size
        peaks[name] = float(np.median(chosen))
    described = (
        f"Distribution of scores. Median of goods {count(peaks['Goods'])} points, "
        f"of bads {count(peaks['Bads'])} points."
    )

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        top = max(float(part.max()) for part in shares.values())
        left = "Goods" if peaks["Goods"] < peaks["Bads"] else "Bads"
        for name, colour in (("Goods", GOOD), ("Bads", BAD)):
            axes.stairs(shares[name], edges, fill=True, color=colour, alpha=0.16)
            axes.stairs(shares[name], edges, color=colour, linewidth=1.5)
            axes.plot([peaks[name]] * 2, [0, 1.06 * top], color=colour, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                f"{name}\nmedian {count(peaks[name])}",
                (peaks[name], 1.07 * top),
                xytext=(-5 if name == left else 5, 0),
                textcoords="offset points",
                ha="right" if name == left else "left",
                va="center",
                color=colour,
                weight="bold",
            )
        axes.set(ylim=(0, 1.2 * top), xlabel="Score, points (higher is safer)", ylabel="Share of the class")
        axes.margins(x=0.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")

    return draw("distribution", "Score distribution by class", described, _HALF, paint)


def calibration(curve: CalibrationCurve, error: float) -> Markup:
    """Predicted against observed bad rate by group, the number of rows beside each point."""
    top = 1.12 * float(max(curve.mean_probability.max(), curve.bad_rate.max(), 0.01))
    described = (
        f"Predicted against observed bad rate in {curve.rows.size} groups of about {count(float(np.mean(curve.rows)))} "
        f"rows. Expected calibration error {percent(error, 2)}."
    )

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.plot([0, top], [0, top], color="#9aa5b1", linewidth=0.9)
        axes.text(0.62 * top, 0.54 * top, "predicted = observed", color=MUTED, ha="left", va="top")
        # One standard error of a share either side, drawn so that no one reads more into a point than its rows carry.
        spread = np.sqrt(curve.bad_rate * (1 - curve.bad_rate) / curve.rows)
        axes.errorbar(
            curve.mean_probability, curve.bad_rate, yerr=2 * spread, fmt="o", color=TOGETHER, markersize=5, elinewidth=1
        )
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="Predicted bad rate", ylabel="Observed bad rate")
        _percent_axes(axes, x=True, y=True)

    return draw("calibration", "Calibration plot", described, _HALF, paint)


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
    return draw(name, title, f"{title}. {described}.", (_HALF[0], height), paint)


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
