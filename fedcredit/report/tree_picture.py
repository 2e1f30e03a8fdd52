"""A tree as inline SVG: the root on top, what holds goes left, lines as wide as rows are many."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from markupsafe import Markup

from fedcredit.report.svg import BAD, INK, MUTED, TOGETHER
from fedcredit.report.tree_names import TreeNames
from fedcredit.report.words import count, decimals, figures
from fedcredit.runtime.boost.files import LabelFile, PartNode

__all__ = ["LEVELS", "Shown", "picture"]

LEVELS: Final = 3
"""Levels of splits drawn; below them a node says how many more follow."""

_WIDTH: Final = 1016
_SLOT: Final = 124  # least width of a leaf
_WIDEST: Final = 246
_GAP: Final = 46  # between the levels
_LINE: Final = 15.5
_LETTER: Final = 7.0  # mean width of a letter of a label, in px
_THICKEST: Final = 16.0


@dataclass(frozen=True)
class Shown:
    """What a picture needs to know of the model.

    Args:
        file: The label holder's file.
        names: Names as it may see them.
        colours: Colour of each owner.
    """

    file: LabelFile
    names: TreeNames
    colours: Mapping[str, str]


@dataclass(frozen=True)
class _Box:
    node: PartNode
    level: int
    x: float
    width: float
    lines: tuple[tuple[str, str], ...]  # class and text
    colour: str
    fill: str
    title: str
    parent: int | None

    @property
    def height(self) -> float:
        return 14 + _LINE * len(self.lines)


class _Drawing:
    """Boxes of a tree in the order of its nodes, each in the middle of the leaves below it."""

    def __init__(self, nodes: Sequence[PartNode], shown: Shown) -> None:
        self._nodes, self._shown = nodes, shown
        self._leaves = 0
        self._slots = self._drawn_leaves(0, 0)
        self.width = max(_WIDTH, _SLOT * self._slots)
        self.boxes: dict[int, _Box] = {}
        self._place(0, 0, None)

    def _children(self, place: int, level: int) -> tuple[int, int] | None:
        node = self._nodes[place]
        return None if node.left is None or node.right is None or level >= LEVELS else (node.left, node.right)

    def _drawn_leaves(self, place: int, level: int) -> int:
        below = self._children(place, level)
        return sum(self._drawn_leaves(child, level + 1) for child in below) if below else 1

    def _below(self, place: int) -> int:
        node = self._nodes[place]
        return 0 if node.left is None or node.right is None else 1 + self._below(node.left) + self._below(node.right)

    def _place(self, place: int, level: int, parent: int | None) -> float:
        slot, start = self.width / self._slots, self._leaves
        below = self._children(place, level)
        if below:
            x = sum(self._place(child, level + 1, place) for child in below) / 2
        else:
            x = (start + 0.5) * slot
            self._leaves += 1
        room = (self._leaves - start) * slot - 10
        self.boxes[place] = self._box(place, level, (x, min(room, _WIDEST)), parent)
        return x

    def _box(self, place: int, level: int, at: tuple[float, float], parent: int | None) -> _Box:
        node, (x, width) = self._nodes[place], at
        rows, weight = f"{count(node.rows)} rows", f"weight {figures(node.weight)}"
        if node.value is not None:
            sign = "+" if node.value > 0 else ""
            colour, fill = (BAD, "#fdf0e7") if node.value > 0 else (TOGETHER, "#eaf3f9")
            value = f"{sign}{decimals(node.value, 4)}"
            lines = (("value", value), ("fact", rows), ("fact", weight))
            return _Box(node, level, x, min(width, 150), lines, colour, fill, f"Leaf, value {value}", parent)
        split = self._shown.file.splits[node.split or 0]
        label, colour = self._shown.names.split(split), self._shown.colours[split.owner]
        wrapped = textwrap.wrap(label, max(8, int((width - 16) / _LETTER)), max_lines=2, placeholder=" …")
        facts = [f"{rows}, {weight}"] if width > 200 else [rows, weight]
        facts.append(f"gain {figures(node.gain)}")
        if self._children(place, level) is None:
            more = self._below(place) - 1
            facts.append(f"{more} more split{'s' * (more > 1)} below" if more else "2 leaves below")
        told = (*(("label", line) for line in wrapped), *(("fact", fact) for fact in facts))
        return _Box(node, level, x, width, told, colour, "#fff", f"{split.owner}: {label}", parent)


def picture(number: int, shown: Shown) -> Markup:
    """One tree, its first `LEVELS` levels of splits.

    Args:
        number: Which, from 0.
        shown: The model.
    """
    nodes = shown.file.trees[number].nodes
    drawing = _Drawing(nodes, shown)
    boxes = drawing.boxes
    tops, y = {}, 4.0
    for level in range(max(box.level for box in boxes.values()) + 1):
        tops[level] = y
        y += max(box.height for box in boxes.values() if box.level == level) + _GAP
    parts = [
        _line(box, boxes[box.parent], tops, nodes[0].rows or 1) for box in boxes.values() if box.parent is not None
    ]
    parts += [_draw(box, tops[box.level]) for _, box in sorted(boxes.items())]
    name = f"tree-{number + 1}"
    leaves = sum(node.value is not None for node in nodes)
    described = f"Tree {number + 1}: {leaves} leaves. " + ". ".join(
        f"{box.title}, {count(box.node.rows)} rows" for _, box in sorted(boxes.items())
    )
    head = (
        f'<svg class="chart tree" role="img" aria-labelledby="{name}-title {name}-description" '
        f'viewBox="0 0 {drawing.width} {y - _GAP + 4:.0f}" style="min-width:{round(0.85 * drawing.width)}px">'
        f'<title id="{name}-title">Tree {number + 1}</title><desc id="{name}-description">{escape(described)}.</desc>'
    )
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704  # every text in it was escaped here


def _line(box: _Box, parent: _Box, tops: Mapping[int, float], rows: int) -> str:
    start, end = tops[parent.level] + parent.height, tops[box.level]
    middle, thick = (start + end) / 2, max(1.2, _THICKEST * box.node.rows / rows)
    path = f"M{parent.x:.1f},{start:.1f}C{parent.x:.1f},{middle:.1f} {box.x:.1f},{middle:.1f} {box.x:.1f},{end:.1f}"
    says = "yes" if box.x < parent.x else "no"
    return (
        f'<path d="{path}" fill="none" stroke="#d3dae1" stroke-width="{thick:.1f}"/>'
        f'<text class="says" x="{(parent.x + 3 * box.x) / 4:.1f}" y="{middle + 13:.1f}">{says}</text>'
    )


def _draw(box: _Box, top: float) -> str:
    left = box.x - box.width / 2
    leaf, first = box.node.value is not None, 19.0 if box.node.value is not None else 21.0
    stripe = f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="5" fill="{box.colour}"/>'
    lines = "".join(
        f'<text class="{kind}" x="{box.x:.1f}" y="{top + first + _LINE * place:.1f}"'
        f' fill="{_text_colour(kind, box)}">{escape(text)}</text>'
        for place, (kind, text) in enumerate(box.lines)
    )
    return (
        f"<g><title>{escape(box.title)}</title>"
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="3" '
        f'fill="{box.fill}" stroke="{box.colour if leaf else "#9aa5b1"}"/>{"" if leaf else stripe}{lines}</g>'
    )


def _text_colour(kind: str, box: _Box) -> str:
    if kind == "fact":
        return MUTED
    return INK if kind == "label" else "#a04400" if box.colour == BAD else "#005a8f"
