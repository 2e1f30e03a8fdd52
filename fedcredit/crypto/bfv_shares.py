"""How an answerer of profile bfv-8192 shares its outputs out among processes."""

from __future__ import annotations

import itertools
import os

import numpy as np

from fedcredit.crypto.bfv_shard import BLOCK_ROWS, PLACES, ShardTask
from fedcredit.crypto.group_sum import Grouping

__all__ = ["shares_of", "task_of"]

_SHARE_PRODUCTS = 512  # fewer products than this (0.1 s) do not repay a further process
_MAX_WORKERS = 4


def shares_of(grouping: Grouping, workers: int | None) -> list[tuple[int, int]]:
    """First and last output (exclusive) of each process; None chooses their number by size and processors."""
    runs = -(-grouping.outputs // PLACES)
    if workers is None:
        products = runs * -(-grouping.rows // BLOCK_ROWS)
        workers = min(os.cpu_count() or 1, _MAX_WORKERS, products // _SHARE_PRODUCTS)
    workers = max(1, min(workers, runs))
    cuts = [runs * share // workers * PLACES for share in range(workers + 1)]
    return [(first, min(last, grouping.outputs)) for first, last in itertools.pairwise(cuts)]


def task_of(plain_bits: int, setup: bytes, grouping: Grouping, share: tuple[int, int], memory_bytes: int) -> ShardTask:
    """What the process of one share needs to know: of the grouping, only what its outputs sum."""
    first, last = share
    starts = np.concatenate([[0], np.cumsum(grouping.bins)]).astype(int).tolist()
    features = [f for f, start in enumerate(starts[:-1]) if start < last and starts[f + 1] > first]
    columns = range(max(first, starts[-1]), last)
    chosen = [] if grouping.weights is None else [grouping.weights[:, column - starts[-1]] for column in columns]
    return ShardTask(
        plain_bits=plain_bits,
        public=setup,
        rows=grouping.rows,
        first=first,
        outputs=last - first,
        codes=b"".join(grouping.codes[:, f].astype("<i4").tobytes() for f in features),
        offsets=tuple(starts[f] for f in features),
        weights=b"".join(column.astype("<i4").tobytes() for column in chosen),
        columns=tuple(columns),
        memory_bytes=memory_bytes,
    )
