"""What noisy sums by bin say once all that is known exactly is put to use.

Source: James & Stein, Berkeley Symposium 4 (1961); Morris, JASA 78 (1983) (empirical Bayes with unequal variances).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.compiled import compiled

__all__ = ["fit_to_cells", "shrink_to_cells"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def fit_to_cells(sums: Floats, cells: Ints, exact: Ints) -> None:
    """Moves noisy sums, all bins of a cell alike, to the cell's exact sum.

    That is the least-squares estimate. What is left of the noise in a sum over s of a cell's B bins has variance
    s (B - s) / B of one bin's.

    Args:
        sums: float64 (bins,), changed in place.
        cells: int64 (bins,), the cell of each bin.
        exact: int64 (cells,), exact sum of each cell.
    """
    off, sizes = exact.astype(np.float64), np.zeros(exact.size)
    for place in range(sums.size):
        off[cells[place]] -= sums[place]
        sizes[cells[place]] += 1.0
    for place in range(sums.size):
        sums[place] += off[cells[place]] / sizes[cells[place]]


@compiled
def shrink_to_cells(g: Floats, h: Floats, cells: Ints, variance: float) -> None:
    """Draws categories towards their cell's common ratio g / h, each as far as noise explains how far off it is.

    The best partition of noisy categories fits the noise; that of their posterior means does not. Ratios of the
    categories of a cell are taken as normal about the cell's ratio, with a variance estimated from all categories.

    Args:
        g: float64 (bins,), sums that agree with the cells' exact ones; changed in place.
        h: float64 (bins,), likewise.
        cells: int64 (bins,), the cell of each bin.
        variance: Variance of the noise in each sum.
    """
    count = cells.max() + 1
    g_cell, h_cell, sizes = np.zeros(count), np.zeros(count), np.zeros(count)
    for place in range(g.size):
        g_cell[cells[place]] += g[place]
        h_cell[cells[place]] += max(h[place], 0.0)
        sizes[cells[place]] += 1.0
    excess, weight = 0.0, 0.0
    off, noise = np.zeros(g.size), np.zeros(g.size)
    for place in range(g.size):
        cell = cells[place]
        ratio = g_cell[cell] / h_cell[cell] if h_cell[cell] > 0.0 else 0.0
        off[place] = g[place] - ratio * max(h[place], 0.0)
        noise[place] = variance * (1.0 + ratio * ratio)
        excess += off[place] * off[place] - noise[place] * (1.0 - 1.0 / sizes[cell])
        weight += max(h[place], 0.0) * max(h[place], 0.0)
    spread = max(excess, 0.0) / weight if weight > 0.0 else 0.0
    rest = np.zeros(count)
    for place in range(g.size):
        signal = spread * max(h[place], 0.0) * max(h[place], 0.0)
        kept = off[place] * signal / (signal + noise[place])
        g[place] += kept - off[place]
        off[place] = kept
        rest[cells[place]] += kept
    for place in range(g.size):
        cell = cells[place]
        if h_cell[cell] > 0.0:
            g[place] -= rest[cell] * max(h[place], 0.0) / h_cell[cell]
