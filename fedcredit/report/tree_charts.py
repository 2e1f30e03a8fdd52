"""The learning curve of boosted trees."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcredit.report.files import Boost
from fedcredit.report.svg import BAD, MUTED, TOGETHER, draw
from fedcredit.report.words import decimals

__all__ = ["learning"]

_WIDE = (9.6, 3.3)


def learning(boost: Boost, held_out: float) -> Markup:
    """AUC after each tree: training rows, validation rows if there are, and held-out rows at the tree that was kept."""
    trees = [one.tree for one in boost.history]
    train = [one.train_auc for one in boost.history]
    pairs = [(one.tree, one.validation_auc) for one in boost.history if one.validation_auc is not None]
    at = min(max(boost.trees, 1), trees[-1])
    stopped = f"kept: {boost.trees} of {boost.trees_grown} trees" if pairs else f"{boost.trees} trees"
    described = (
        f"AUC after each tree. Training rows {decimals(train[0], 4)} after tree 1, {decimals(train[at - 1], 4)} after "
        f"tree {at}. Held-out rows {decimals(held_out, 4)} after tree {at}."
    )
    if pairs:
        described += f" Validation rows {decimals(pairs[min(at, len(pairs)) - 1][1], 4)} after tree {at}."

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.axvline(at, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.plot(trees, train, color=TOGETHER, marker="o", markersize=3.2)
        ends = [(trees[-1], train[-1], "Training rows", TOGETHER)]
        if pairs:
            axes.plot([tree for tree, _ in pairs], [value for _, value in pairs], color=BAD, marker="s", markersize=3.2)
            ends.append((pairs[-1][0], pairs[-1][1], "Validation rows", BAD))
        axes.plot([at], [held_out], marker="D", markersize=7, color="#1d2733", linestyle="none")
        axes.annotate(
            f"Held-out rows {decimals(held_out, 4)}",
            (at, held_out),
            xytext=(-9, -13),
            textcoords="offset points",
            ha="right",
            weight="bold",
        )
        for x, y, text, colour in ends:
            axes.annotate(
                text, (x, y), xytext=(9, 0), textcoords="offset points", va="center", color=colour, weight="bold"
            )
        low = min([*train, *(value for _, value in pairs), held_out])
        high = max([*train, *(value for _, value in pairs), held_out])
        pad = max(0.004, 0.08 * (high - low))
        axes.set(ylim=(low - pad, high + 2.2 * pad), xlim=(0.4, trees[-1] * 1.19 + 0.5), xlabel="Tree", ylabel="AUC")
        axes.annotate(
            stopped, (at, high + 2.1 * pad), xytext=(-5, 0), textcoords="offset points", ha="right", va="top", color=MUTED
        )
        axes.set_xticks(_ticks(trees[-1]))
        axes.yaxis.set_major_formatter(lambda value, _: decimals(value, 2 if high - low > 0.05 else 3))

    return draw("learning", "Learning curve", described, _WIDE, paint)


def _ticks(last: int) -> list[int]:
    step = next((size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500) if last / size <= 12), 1000)
    return sorted({1, *range(step, last + 1, step)})
