"""Training on one bank's own rows, from parameters that all banks share.

Source: McMahan et al., AISTATS 2017 (averaging); Li et al., MLSys 2020 (FedProx); Karimireddy et al., ICML 2020
(SCAFFOLD, option II).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedcredit.errors import BoundError
from fedcredit.kernels.nn import Network, NetworkShape, Rows, one_thread, uniform_draws

__all__ = ["LocalRules", "Pull", "steps_of", "train_local"]

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
    """

    epochs: int = 1
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0


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


def train_local(
    shape: NetworkShape, parameters: Floats, rows: Rows, rules: LocalRules, seed: bytes, pull: Pull | None = None
) -> Floats:
    """Trains from shared parameters on own rows, by stochastic gradient steps.

    Args:
        shape: The network.
        parameters: float64 (m,), where to start.
        rows: Own rows, at least one.
        rules: How.
        seed: Of the order of the rows; the same seed gives the same result to the bit, on one machine.
        pull: Added to each gradient.

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
    optimiser = torch.optim.SGD(held, lr=rules.learning_rate, momentum=rules.momentum, weight_decay=rules.weight_decay)
    numbers, codes, bad = (torch.from_numpy(one) for one in (rows.numbers, rows.codes, rows.bad))
    with one_thread():
        for batch in _batches(len(rows), rules, seed):
            margin = network(numbers[batch], codes[batch])
            loss = functional.binary_cross_entropy_with_logits(margin, bad[batch])
            for at, (one, slope) in enumerate(zip(held, torch.autograd.grad(loss, held), strict=True)):
                pulled = slope if fixed is None else slope + rules.proximal * (one.detach() - fixed[at])
                one.grad = pulled if drift is None else pulled + drift[at]
            optimiser.step()
    found = network.vector()
    if not np.isfinite(found).all():
        right = "training ran away to numbers that are not finite; lower fedavg.learning_rate"
        raise BoundError("nn.diverged", right)
    return found


def _batches(rows: int, rules: LocalRules, seed: bytes) -> Iterator[Tensor]:
    """Rows of each step: every pass takes all rows in an order of its own."""
    for epoch in range(rules.epochs):
        order = torch.from_numpy(np.argsort(uniform_draws(seed, f"order/{epoch}", rows), kind="stable"))
        for start in range(0, rows, rules.batch_size):
            yield order[start : start + rules.batch_size]


def _parts(vector: Floats, held: list[torch.nn.Parameter]) -> list[Tensor]:
    """A vector of parameters in the shapes of the tensors."""
    whole = torch.from_numpy(vector.astype(np.float32))
    ends = list(itertools.accumulate(one.numel() for one in held))
    return [whole[end - one.numel() : end].reshape(one.shape) for end, one in zip(ends, held, strict=True)]
