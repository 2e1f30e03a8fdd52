"""Computations that several banks do in step: each stops where a total over all of them decides, and goes on with it.

Such a computation is a generator. It yields this bank's part of a sum and is sent the total; it neither knows nor cares
who adds. A run of one bank is the same computation, sent its own parts back.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError

__all__ = ["Part", "Summing", "alone", "joined"]

Ints = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Part:
    """What one bank adds to a total.

    Args:
        what: What is summed; the same at every bank, and in the same order.
        values: int64 (m,), m the same at every bank.
        bound: Largest absolute value that any bank may bring, the same at every bank, at most 2^62.
    """

    what: str
    values: Ints
    bound: int


Summing = Generator[Part, Ints, T]
"""A computation that yields parts, is sent totals, and returns a T."""


def alone(steps: Summing[T]) -> T:
    """Runs a computation in a pool of one: every total is its own part."""
    try:
        part = next(steps)
        while True:
            part = steps.send(part.values)
    except StopIteration as end:
        result: T = end.value
        return result


def joined(what: str, arrays: Sequence[NDArray[Any]], bound: int) -> Summing[list[Ints]]:
    """Sums several arrays in one vector; nothing is asked where all of them are empty.

    Args:
        what: What is summed.
        arrays: int64 arrays of any shape.
        bound: As in `Part`.

    Returns:
        The totals in the shapes of the arrays.

    Raises:
        DataError: The total is of another length.
    """
    vector = np.concatenate([np.zeros(0, dtype=np.int64), *(one.reshape(-1) for one in arrays)])
    if not vector.size:
        return [one.astype(np.int64) for one in arrays]
    total = yield Part(what, vector, bound)
    if total.shape != vector.shape:
        raise DataError("kernels.pooled-sum", f"the total of {what} is {total.shape}; {vector.shape} is needed")
    ends = np.cumsum([one.size for one in arrays])
    return [part.reshape(one.shape) for part, one in zip(np.split(total, ends[:-1]), arrays, strict=True)]
