"""Turns a matplotlib figure into inline SVG: same bytes every time, text as text, no reference to anything outside."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["BAD", "GOOD", "HALF", "INK", "MUTED", "OWNERS", "RIVALS", "RULE", "TOGETHER", "draw"]

# Okabe & Ito, "Color Universal Design" (2008): told apart with every common kind of colour vision.
TOGETHER: Final = "#0072B2"
GOOD: Final = "#0072B2"
BAD: Final = "#D55E00"
OWNERS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK: Final = "#1d2733"
MUTED: Final = "#5b6775"
RULE: Final = "#dfe3e8"

RIVALS: Final = {"alone": "#6b7682", "together": TOGETHER, "same": "#56B4E9", "bare": "#009E73", "reference": "#B5478A"}
"""Colours of compared models, by kind."""

HALF: Final = (4.6, 3.9)
"""Size in inches of a chart that shares its row with another."""

# matplotlib measures with the font it ships; the page's own style sheet then sets the system font, which is narrower.
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9.5,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

_METADATA: Final = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_GLOBAL_STYLE: Final = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_ROOT: Final = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', re.DOTALL)
_IDENTIFIER: Final = re.compile(r' id="([^"]*)"')
_LINK: Final = re.compile(r'(?:xlink:)?href="#([^"]*)"')
_CLIP: Final = re.compile(r"url\(#([^)]*)\)")
_FAMILY: Final = re.compile(r"font-family: [^;\"<>]*;? ?")
_BREAK: Final = re.compile(r" ?\n(?=[A-Zz\"])")


def draw(
    name: str, title: str, description: str, size: tuple[float, float], paint: Callable[[Figure, list[Axes]], None]
) -> Markup:
    """Draw one chart.

    Args:
        name: Letters and hyphens, unlike any other chart's of the page; prefix of every id inside.
        title: Short title for those who cannot see the chart.
        description: What the chart shows, in a sentence with its figures.
        size: Width and height in inches; the page scales the drawing to its column.
        paint: Draws into the figure; the list holds its single axes.

    Returns:
        An ``<svg>`` element with no namespace declarations (HTML knows them), no metadata and no style sheet.
    """
    out = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # a reader's own matplotlibrc must not change the bytes
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["svg.hashsalt"] = name
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # the browser has it
        figure = Figure(figsize=size, layout="constrained")
        paint(figure, [figure.add_subplot()])
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _inline(name, title, description, out.getvalue())


def _inline(name: str, title: str, description: str, drawing: str) -> Markup:
    body = _GLOBAL_STYLE.sub("", _METADATA.sub("", drawing[drawing.index("<svg ") :]), count=1)
    used = set(_LINK.findall(body)) | set(_CLIP.findall(body))
    body = _IDENTIFIER.sub(lambda hit: f' id="{name}-{hit[1]}"' if hit[1] in used else "", body)
    body = _LINK.sub(lambda hit: f'href="#{name}-{hit[1]}"', body)
    body = _CLIP.sub(lambda hit: f"url(#{name}-{hit[1]})", body)
    body = _BREAK.sub(" ", _FAMILY.sub("", body))
    head = (
        f'<svg class="chart" role="img" aria-labelledby="{name}-title {name}-description" viewBox="\\1">'
        f'<title id="{name}-title">{_literal(title)}</title>'
        f'<desc id="{name}-description">{_literal(description)}</desc>'
    )
    return Markup(_ROOT.sub(head, body, count=1))  # noqa: S704  # every text in it was escaped here or by matplotlib


def _literal(text: str) -> str:
    """Text for an SVG element inside a replacement pattern."""
    return escape(text).replace("\\", "\\\\")
