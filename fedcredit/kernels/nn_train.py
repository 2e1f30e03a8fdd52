"""Training on one bank's own rows, from parameters that all banks share.

Steps are written out: loading the library's optimisers takes seconds, and a bank may start a process for every round.

Source: McMahan et al., AISTATS 2017 (averaging); Li et al., MLSys 2020 (FedProx); Karimireddy et al., ICML 2020
(SCAFFOLD, option II).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedcredit.errors import BoundError
from fedcredit.kernels.nn import Network, NetworkShape, Rows, one_thread, uniform_draws

__all__ = ["LocalRules", "Pull", "Steps", "steps_of", "train_local"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LocalRules:
    """How a bank trains between two averages.

    Args:
        epochs: Passes over its rows, >= 1.
        batch_size: Rows of a step; the last step of a pass may have fewer.
        learning_rate: > 0.
        momentum: In [0, 1).
        weight_decay: Penalty on squared parameters, >= 0.
        proximal: Pull towards the shared parameters, >= 0.
        seed: Of the order of the rows; the same seed gives the same result to the bit, on one machine.
    """

    epochs: int = 1
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    seed: bytes = b""


@dataclass(frozen=True, eq=False)
class Pull:
    """What is added to every gradient of a bank.

    Args:
        drift: float64 (m,), the shared control variate less the bank's own (SCAFFOLD); None = nothing.
    """

    drift: Floats | None = None


def steps_of(rows: int, rules: LocalRules) -> int:
    """Steps of one training."""
    return rules.epochs * -(-rows // rules.batch_size)


class Steps(Protocol):
    """Batches and gradients of one training; `fedcredit.kernels.nn_private.PrivateSteps` hides single rows."""

    def batches(self, rows: int) -> Iterator[Tensor]:
        """Numbers of the rows of every step, int64."""
        ...

    def gradients(self, numbers: Tensor, codes: Tensor, bad: Tensor) -> list[Tensor]:
        """Gradient of a batch's mean loss for each parameter of the network, in their order."""
        ...


def train_local(
    shape: NetworkShape,
    parameters: Floats,
    rows: Rows,
    rules: LocalRules,
    pull: Pull | None = None,
    steps: Callable[[Network], Steps] | None = None,
) -> Floats:
    """Trains from shared parameters on own rows, by stochastic gradient steps.

    Args:
        shape: The network.
        parameters: float64 (m,), where to start.
        rows: Own rows, at least one.
        rules: How.
        pull: Added to each gradient.
        steps: Makes the batches and gradients for a network; None = those of ``rules``.

    Returns:
        float64 (m,), each a float32.

    Raises:
        BoundError: there is no row, or training ran away to numbers that are not finite.
    """
    if not len(rows):
        raise BoundError("nn.no-rows", "there is no row to train on")
    network = Network(shape)
    network.set_parameters(parameters)
    held = list(network.parameters())
    fixed = [one.detach().clone() for one in held] if rules.proximal else None
    drift = _parts(pull.drift, held) if pull is not None and pull.drift is not None else None
    numbers, codes, bad = (torch.from_numpy(one) for one in (rows.numbers, rows.codes, rows.bad))
    made: Steps = _PlainSteps(network, rules) if steps is None else steps(network)
    speed = [torch.zeros_like(one) for one in held] if rules.momentum else None
    with one_thread():
        for batch in made.batches(len(rows)):
            slopes = made.gradients(numbers[batch], codes[batch], bad[batch])
            with torch.no_grad():
                for at, (one, slope) in enumerate(zip(held, slopes, strict=True)):
                    step = slope + rules.weight_decay * one if rules.weight_decay else slope
                    step = step if fixed is None else step + rules.proximal * (one - fixed[at])
                    step = step if drift is None else step + drift[at]
                    step = step if speed is None else speed[at].mul_(rules.momentum).add_(step)
                    one.sub_(step, alpha=rules.learning_rate)
    found = network.vector()
    if not np.isfinite(found).all():
        right = "training ran away to numbers that are not finite; lower fedavg.learning_rate"
        raise BoundError("nn.diverged", right)
    return found


class _PlainSteps:
    """Every pass takes all rows in an order of its own."""

    def __init__(self, network: Network, rules: LocalRules) -> None:
        self._network, self._rules = network, rules
        self._held = list(network.parameters())

    def batches(self, rows: int) -> Iterator[Tensor]:
        rules = self._rules
        for epoch in range(rules.epochs):
            order = torch.from_numpy(np.argsort(uniform_draws(rules.seed, f"order/{epoch}", rows), kind="stable"))
            for start in range(0, rows, rules.batch_size):
                yield order[start : start + rules.batch_size]

    def gradients(self, numbers: Tensor, codes: Tensor, bad: Tensor) -> list[Tensor]:
        loss = functional.binary_cross_entropy_with_logits(self._network(numbers, codes), bad)
        return list(torch.autograd.grad(loss, self._held))


def _parts(vector: Floats, held: list[torch.nn.Parameter]) -> list[Tensor]:
    """A vector of parameters in the shapes of the tensors."""
    whole = torch.from_numpy(vector.astype(np.float32))
    ends = list(itertools.accumulate(one.numel() for one in held))
    return [whole[end - one.numel() : end].reshape(one.shape) for end, one in zip(ends, held, strict=True)]
