"""Compilation of the loops that numpy has no vector form of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compiles a loop, kept on disk; it runs with the interpreter's lock released.

    Floating point stays strict: no reordering of sums, no fused operations, so the same input gives the same bits.

    Hazard for developers: what is kept is made anew when the loop's own file changes, not when a file changes that it
    calls into; keep loops that call each other in one file.
    """
    return cast("_Function", njit(nogil=True, cache=True, error_model="numpy")(function))
