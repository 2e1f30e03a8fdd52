"""The charts of a report, each a function from plain numbers to inline SVG. Measures come from the kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcredit.kernels.metrics import CalibrationCurve, RocCurve, roc_curve
from fedcredit.report.compare import Figures, Rival
from fedcredit.report.svg import BAD, GOOD, HALF, INK, MUTED, RIVALS, TOGETHER, draw
from fedcredit.report.tables import Floats, Predictions
from fedcredit.report.words import count, decimals, percent

__all__ = ["calibration", "compared", "distribution", "roc", "separation"]

_HISTOGRAM_BINS = 36


def _percent_axes(axes: Axes, *, x: bool, y: bool) -> None:
    for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)):
        if wanted:
            axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def roc(held_out: Predictions, figures: Figures) -> Markup:
    """ROC curves of the common score and of the label holder's own, with their areas written beside them."""
    together = roc_curve(held_out.bad, held_out.risk)
    alone = None if held_out.alone is None else roc_curve(held_out.bad, -held_out.alone)
    text = f"Together, AUC {decimals(figures.auc, 4)}"
    described = f"ROC curve on {count(held_out.bad.size)} held-out rows. {text}."
    if figures.alone is not None:
        described += f" Label holder alone, AUC {decimals(figures.alone, 4)}."

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.plot([0, 1], [0, 1], color="#c3cad2", linewidth=0.9)
        if alone is not None:
            _between(axes, together, alone)
            axes.plot(alone.false_positive_rate, alone.true_positive_rate, color=MUTED, linestyle=(0, (4, 2)))
        axes.plot(together.false_positive_rate, together.true_positive_rate, color=TOGETHER, linewidth=2.1)
        axes.text(0.98, 0.30, text, color=TOGETHER, ha="right", weight="bold")
        if figures.alone is not None:
            axes.text(0.98, 0.22, f"Alone (dashed), AUC {decimals(figures.alone, 4)}", color=MUTED, ha="right")
        axes.text(0.98, 0.14, "No discrimination, AUC 0.5", color="#8a95a1", ha="right")
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="Share of goods refused", ylabel="Share of bads refused")
        _percent_axes(axes, x=True, y=True)

    return draw("roc", "ROC curves", described, HALF, paint)


def _between(axes: Axes, upper: RocCurve, lower: RocCurve) -> None:
    grid = np.linspace(0, 1, 201)
    above = np.interp(grid, upper.false_positive_rate, upper.true_positive_rate)
    below = np.interp(grid, lower.false_positive_rate, lower.true_positive_rate)
    axes.fill_between(grid, below, above, color=TOGETHER, alpha=0.10, linewidth=0)


def _cumulative(values: Floats, grid: Floats) -> Floats:
    return np.searchsorted(np.sort(values), grid, side="right") / values.size


def separation(held_out: Predictions, distance: float) -> Markup:
    """Cumulative shares of goods and bads by score; the gap where it is widest is the KS distance.

    Args:
        held_out: The predictions.
        distance: KS of the unrounded scores.
    """
    grid = np.unique(held_out.score)
    bads = _cumulative(held_out.score[held_out.bad == 1], grid)
    goods = _cumulative(held_out.score[held_out.bad == 0], grid)
    widest = int(np.argmax(np.abs(bads - goods)))
    at = float(grid[widest])
    described = (
        f"Cumulative shares of bads and goods by score. Widest gap, KS {decimals(distance, 4)}, at {count(at)} points."
    )

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.step(grid, bads, color=BAD, where="post")
        axes.step(grid, goods, color=GOOD, where="post")
        axes.plot([at, at], [goods[widest], bads[widest]], color=INK, linewidth=1.2, marker="_", markersize=9)
        axes.annotate(
            f"KS {decimals(distance, 4)}\nat {count(at)} points",
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

    return draw("ks", "KS plot", described, HALF, paint)


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
        room = 0.3 * (high - low)  # for the words beside a median near an end
        axes.set_xlim(min(edges[0], min(peaks.values()) - room), max(edges[-1], max(peaks.values()) + room))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")

    return draw("distribution", "Score distribution by class", described, HALF, paint)


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

    return draw("calibration", "Calibration plot", described, HALF, paint)


def compared(rivals: Sequence[Rival]) -> Markup:
    """AUC of each model on an axis that shows the differences, each told against the federated one."""
    ours = next((one.auc for one in rivals if one.kind == "together"), rivals[0].auc)
    values = [one.auc for one in rivals]
    span = max(max(values) - min(values), 0.004)

    def text(one: Rival) -> str:
        return decimals(one.auc, 4) + ("" if one.kind == "together" else f" ({one.against(ours)})")

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.axvline(ours, color=TOGETHER, linewidth=0.9, linestyle=(0, (3, 2)))
        for place, one in enumerate(reversed(rivals)):
            colour = RIVALS[one.kind]
            axes.plot([ours, one.auc], [place, place], color=colour, linewidth=3, alpha=0.35)
            axes.plot([one.auc], [place], marker="o", markersize=8.5, color=colour)
            axes.annotate(
                text(one),
                (one.auc, place),
                xytext=(0, 12),
                textcoords="offset points",
                ha="center",
                weight="bold" if one.kind == "together" else "normal",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
        axes.set_yticks(range(len(rivals)), [one.name.replace(", ", ",\n") for one in reversed(rivals)], color=INK)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: decimals(value, 3))
        axes.locator_params(axis="x", nbins=4)
        axes.set(
            xlim=(min(values) - 0.36 * span, max(values) + 0.36 * span),
            ylim=(-0.5, len(rivals) - 0.35),
            xlabel="AUC, held-out rows (not from 0.5)",
        )

    described = "; ".join(f"{one.name}: {text(one)}" for one in rivals)
    return draw("compared", "AUC of each model", f"AUC of each model. {described}.", HALF, paint)
