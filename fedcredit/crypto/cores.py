"""Work on every core: the kernels run with the interpreter's lock released."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["cores", "on_cores"]

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_cores(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Results in the order of the items; one item needs no thread."""
    jobs = list(items)
    workers = min(cores(), len(jobs))
    if workers <= 1:
        return [function(job) for job in jobs]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, jobs))
