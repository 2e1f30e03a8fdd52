"""Text of others made harmless before a person reads it: no character that moves, hides, turns or colours other text.

Names of columns, reasons and errors come from other houses. A terminal would obey what they hold, and who decides on a
run would read what a stranger wants them to.

Source: Unicode Standard Annex 9 (controls that turn text); ECMA-48 (controls of terminals).
"""

from __future__ import annotations

import unicodedata

__all__ = ["is_plain", "plain"]

_TURNS = frozenset("\u061c\u200e\u200f\u2028\u2029\ufeff") | {
    chr(one) for start, end in ((0x202A, 0x202F), (0x2060, 0x2070), (0xFFF9, 0xFFFC)) for one in range(start, end)
}
_NEVER = frozenset({"Cc", "Cs"})


def _harmful(one: str) -> bool:
    return one in _TURNS or unicodedata.category(one) in _NEVER


def is_plain(text: str) -> bool:
    """Whether a text holds no control character and none that turns or hides text."""
    return (text.isascii() and text.isprintable()) or not any(map(_harmful, text))


def plain(text: str) -> str:
    """The text with every such character written out in hexadecimal; another text is given back as it is."""
    if is_plain(text):
        return text
    return "".join(one.encode("unicode_escape").decode() if _harmful(one) else one for one in text)
