"""The learning curve of boosted trees."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcredit.report.files import Boost
from fedcredit.report.svg import BAD, INK, MUTED, TOGETHER, draw
from fedcredit.report.words import decimals

__all__ = ["learning"]

_WIDE: Final = (9.6, 3.3)
_COARSE: Final = 0.05  # a span of AUC that two decimals tell


def learning(boost: Boost, held_out: float) -> Markup:
    """AUC after each tree: training rows, validation rows if there are, and held-out rows at the tree that was kept."""
    at = min(max(boost.trees, 1), boost.history[-1].tree)
    lines = [("Training rows", TOGETHER, "o", [(one.tree, one.train_auc) for one in boost.history])]
    judged = [(one.tree, one.validation_auc) for one in boost.history if one.validation_auc is not None]
    if judged:
        lines.append(("Validation rows", BAD, "s", judged))
    kept = f"kept: {boost.trees} of {boost.trees_grown} trees" if judged else f"{boost.trees} trees"
    values = [value for *_, line in lines for _, value in line] + [held_out]
    low, high = min(values), max(values)
    pad, last = max(0.004, 0.08 * (high - low)), boost.history[-1].tree

    def paint(_: Figure, panes: list[Axes]) -> None:
        axes = panes[0]
        axes.axvline(at, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        for name, colour, marker, line in lines:
            axes.plot([x for x, _ in line], [y for _, y in line], color=colour, marker=marker, markersize=3.2)
            _note(axes, name, line[-1], (9, 0), {"va": "center", "color": colour, "weight": "bold"})
        axes.plot([at], [held_out], marker="D", markersize=7, color=INK, linestyle="none")
        told = f"Held-out rows {decimals(held_out, 4)}"
        _note(axes, told, (at, held_out), (-9, -13), {"ha": "right", "weight": "bold"})
        _note(axes, kept, (at, high + 2.1 * pad), (-5, 0), {"ha": "right", "va": "top", "color": MUTED})
        axes.set(ylim=(low - pad, high + 2.2 * pad), xlim=(0.4, last * 1.19 + 0.5), xlabel="Tree", ylabel="AUC")
        axes.set_xticks(_ticks(last))
        axes.yaxis.set_major_formatter(lambda value, _: decimals(value, 2 if high - low > _COARSE else 3))

    ends = "; ".join(f"{name} {decimals(dict(line)[at], 4)}" for name, *_, line in lines if at in dict(line))
    described = f"AUC after each tree. After tree {at}: {ends}; held-out rows {decimals(held_out, 4)}."
    return draw("learning", "Learning curve", described, _WIDE, paint)


def _note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[int, int], style: dict[str, str]) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **style)  # type: ignore[arg-type]


def _ticks(last: int) -> list[int]:
    step = next((size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500) if last / size <= 12), 1000)
    return sorted({1, *range(step, last + 1, step)})
