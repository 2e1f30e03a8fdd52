"""Gradient steps that hide each row: clipped example by example, rows drawn at random, exact noise.

DP-SGD (Abadi et al. 2016) on Opacus' optimiser, with three of its parts done otherwise:

- Gradients of single rows come from ``torch.func``, the way Opacus offers for networks whose layers it does not know:
  the monotone network takes absolute values of its weights, which hooks on layers do not see.
- Opacus' secure mode needs a generator that is no longer built for current torch, and its noise is a float. Here each
  row's clipped gradient is cut towards zero to whole units of ``clip_norm / 2^20``, its norm is checked in integers,
  and the noise is an exact discrete Gaussian from the caller's secret source; floats begin after the noise.
- Rows are drawn from the same source, each by itself (Poisson), and the sum is divided by the number expected, so that
  the number drawn is not shown.

Not covered: the number of all rows is taken as known; time and memory depend on how many rows are drawn.

Source: Abadi et al., CCS 2016, algorithm 1; Opacus, arXiv 2109.12298; Mironov, CCS 2012 (floating-point noise).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedcredit.errors import BoundError

__all__ = ["GRID_BITS", "Draws", "PrivateRules", "PrivateSteps"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

GRID_BITS = 20
"""A clipped gradient has at most 2^20 units: cutting loses a millionth of the norm a value, far below the noise."""

_LIMIT = 1 << GRID_BITS
_LEAST, _MOST = 1e-9, 1e9
_SHRINK = 1 - 2.0**-30
_AT_ONCE = 1 << 22  # values of single rows' gradients; bounds the memory of a step
_NEAR = 1 << 16  # of these are clipped together: they fit into a processor's own memory


class Draws(Protocol):
    """Secret randomness: `fedcredit.crypto.discrete_gaussian.NoiseSource`."""

    def noise(self, variance: Fraction, count: int) -> I64:
        """Independent draws of discrete Gaussian noise."""
        ...

    def chosen(self, rows: int, rate: float) -> I64:
        """Numbers of rows, each drawn by itself with probability ``rate``."""
        ...


@dataclass(frozen=True)
class PrivateRules:
    """How steps are made private.

    Args:
        noise_multiplier: Standard deviation of the noise over the clipping norm, 1e-9 to 1e9.
        clip_norm: Largest L2 norm of one row's gradient, 1e-9 to 1e9.
        rate: Probability with which a row takes part in a step, in (0, 1].
        steps: Steps of one training.

    Raises:
        BoundError: naming what is out of range.
    """

    noise_multiplier: float
    clip_norm: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        for name, value in (("noise_multiplier", self.noise_multiplier), ("clip_norm", self.clip_norm)):
            if not _LEAST <= value <= _MOST:
                raise BoundError("dp.rules", f"differential_privacy.{name} is {value}, 1e-9 to 1e9 is possible")
        if not 0 < self.rate <= 1 or self.steps < 1:
            raise BoundError("dp.rules", f"{self.steps} steps with rate {self.rate}; 1 or more, above 0 to 1 are right")

    @property
    def variance(self) -> Fraction:
        """Of the noise, in units of the grid squared."""
        return (Fraction(self.noise_multiplier) * _LIMIT) ** 2


class PrivateSteps:
    """Batches and gradients of one training; in place of ordinary ones, all else stays (pulls, momentum, decay).

    Args:
        network: Called with (numbers, codes) it gives log-odds, float32 (n,); no layer may mix rows.
        rules: Noise, norm, batches.
        draws: Secret randomness for this training of these rows from these parameters, and nothing else.
    """

    def __init__(self, network: nn.Module, rules: PrivateRules, draws: Draws) -> None:
        self._network, self._rules, self._draws = network, rules, draws
        self._held = list(network.parameters())
        self._names = [name for name, _ in network.named_parameters()]
        self._size = sum(one.numel() for one in self._held)
        # The step size is of no use: gradients are taken off, steps are the caller's.
        self._optimiser = _ExactOptimiser(torch.optim.SGD(self._held, lr=1.0), rules, draws)
        self._slopes = vmap(grad(self._loss), in_dims=(None, 0, 0, 0))

    def batches(self, rows: int) -> Iterator[Tensor]:
        """Rows of every step, int64; a batch may be empty and has to be passed to `gradients` all the same.

        Args:
            rows: Number of training rows.
        """
        self._optimiser.expected_rows = self._rules.rate * rows
        for _ in range(self._rules.steps):
            yield torch.from_numpy(self._draws.chosen(rows, self._rules.rate))

    def gradients(self, numbers: Tensor, codes: Tensor, bad: Tensor) -> list[Tensor]:
        """Private gradient of the mean loss, at the network's present parameters.

        Args:
            numbers: float32 (b, p), of the rows of a batch.
            codes: int64 (b, c).
            bad: float32 (b,).

        Returns:
            float32, one tensor for each of the network's parameters, in their order.

        Raises:
            BoundError: no batch was drawn.
        """
        held = {name: one.detach() for name, one in zip(self._names, self._held, strict=True)}
        at_once = max(1, _AT_ONCE // self._size)
        for start in range(0, max(1, len(bad)), at_once):
            part = slice(start, start + at_once)
            self._take(held, (numbers[part], codes[part], bad[part]))
        self._optimiser.add_noise()
        self._optimiser.scale_grad()
        found = [one.grad.detach().clone() for one in self._held if one.grad is not None]
        self._optimiser.zero_grad()
        return found

    def _take(self, held: dict[str, Tensor], rows: tuple[Tensor, Tensor, Tensor]) -> None:
        """Adds the clipped gradients of some rows."""
        slopes = self._slopes(held, *rows) if len(rows[2]) else {}
        for name, one in zip(self._names, self._held, strict=True):
            sample: Any = one  # the attribute under which Opacus keeps gradients of single rows
            sample.grad_sample = slopes[name] if slopes else torch.zeros((0, *one.shape))
        self._optimiser.clip_and_accumulate()

    def _loss(self, held: dict[str, Tensor], numbers: Tensor, codes: Tensor, bad: Tensor) -> Tensor:
        """Loss of one row."""
        margin: Tensor = functional_call(self._network, held, (numbers.unsqueeze(0), codes.unsqueeze(0)))
        return functional.binary_cross_entropy_with_logits(margin, bad.unsqueeze(0))


class _ExactOptimiser(DPOptimizer):  # type: ignore[misc]  # the library has no types
    """Opacus' optimiser with clipping, sum and noise in integers."""

    def __init__(self, optimiser: torch.optim.Optimizer, rules: PrivateRules, draws: Draws) -> None:
        super().__init__(
            optimiser,
            noise_multiplier=rules.noise_multiplier,
            max_grad_norm=rules.clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._rules, self._draws = rules, draws
        self._total: F64 | None = None  # whole numbers below 2^53
        self.expected_rows = 0.0

    def clip_and_accumulate(self) -> None:
        """Adds the rows' gradients, each no longer than the norm, in units of the grid."""
        rows = np.concatenate([sample.detach().flatten(1).numpy() for sample in self.grad_samples], axis=1)
        total = np.zeros(rows.shape[1]) if self._total is None else self._total
        block = max(1, _NEAR // rows.shape[1])
        for start in range(0, len(rows), block):
            total = total + _clipped(rows[start : start + block], self._rules.clip_norm).sum(axis=0)
        self._total = total
        for one in self.params:
            one.grad_sample = None

    def add_noise(self) -> None:
        """Adds the noise and only then goes back to floats."""
        if self._total is None or not self.expected_rows:
            raise BoundError("dp.batch", "a private gradient was asked for without rows that were drawn for it")
        noisy = self._total.astype(np.int64) + self._draws.noise(self._rules.variance, len(self._total))
        self._total = None
        whole = torch.from_numpy(np.ldexp(noisy.astype(np.float64), -GRID_BITS) * self._rules.clip_norm)
        start = 0
        for one in self.params:
            one.grad = whole[start : start + one.numel()].reshape(one.shape).to(one.dtype)
            start += one.numel()

    def scale_grad(self) -> None:
        """Divides by the number of rows expected, never by the number drawn."""
        for one in self.params:
            one.grad /= self.expected_rows


def _clipped(rows: NDArray[np.float32], norm: float) -> F64:
    """Rows shrunk to a norm, in units of ``norm / 2^20``, none longer than 2^20; what is not finite counts nothing.

    Args:
        rows: float32 (b, d).
        norm: Largest L2 norm.

    Returns:
        float64 (b, d), whole numbers: sums of them and of their squares are exact, being far below 2^53.
    """
    wide = rows.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    broken = ~np.isfinite(lengths)
    if broken.any():  # an error instead would show that there is such a row
        wide[broken], lengths[broken] = 0.0, 0.0
    factors = _LIMIT / np.maximum(lengths, norm)
    while True:
        units: F64 = wide * factors[:, None]
        np.trunc(units, out=units)
        over = np.einsum("ij,ij->i", units, units) > _LIMIT**2
        if not over.any():
            return units
        factors[over] *= _SHRINK
