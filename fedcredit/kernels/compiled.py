"""Compilation of the loops that numpy has no vector form of."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import config, njit

from fedcredit.errors import IntegrityError
from fedcredit.kernels.loop_store import loop_store

__all__ = ["KEPT", "compiled"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

KEPT = ""
"""Folder of the compiled loops; "" where none can be used: a process then compiles what it needs, and keeps nothing."""

# A refusal is told by what makes the loops ready (`fedcredit.runtime.ready_loops`), not by an import.
with suppress(IntegrityError):
    KEPT = str(loop_store(os.environ))
    vars(config)["CACHE_DIR"] = KEPT  # the compiler reads it when a loop is declared


def compiled(function: _Function) -> _Function:
    """Compiles a loop, kept on disk; it runs with the interpreter's lock released, so threads share the cores.

    Floating point stays strict: no reordering of sums, no fused operations, so the same input gives the same bits.

    Hazard for developers: a file that holds loops, or that loops are made of, has to be in
    `fedcredit.kernels.loop_store.LOOP_SOURCES`, or what is kept stays as it was when the file changes.
    """
    return cast("_Function", njit(nogil=True, cache=bool(KEPT), error_model="numpy")(function))
