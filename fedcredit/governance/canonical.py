"""One JSON text for one value: sorted keys, no blanks, ASCII only, no NaN."""

from __future__ import annotations

import json

__all__ = ["Json", "canonical_json"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def canonical_json(value: object) -> str:
    """Canonical text of a JSON value.

    Source: the rules of RFC 8785 that matter for the values used here (string keys, finite numbers).

    Raises:
        ValueError: the value holds NaN or infinity.
        TypeError: the value is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
