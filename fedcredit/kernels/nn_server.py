"""What becomes of the shared parameters when an average of the banks' updates is known.

Every bank computes this for itself from the same opened total. All of it is additions, products, quotients and square
roots of doubles, one number at a time, which IEEE 754 rounds the same everywhere: banks on different machines have the
same parameters to the bit.

Source: McMahan et al., AISTATS 2017; Reddi et al., ICLR 2021, algorithm 2 (FedAdam, FedYogi); Karimireddy et al.,
ICML 2020, algorithm 1 (SCAFFOLD).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError

__all__ = ["ServerRules", "ServerState", "norm"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ServerRules:
    """How averaged updates are taken.

    Args:
        algorithm: ``mean`` adds the average; ``adam`` and ``yogi`` scale it number by number.
        rate: Step size, > 0.
        beta1: Momentum, in [0, 1).
        beta2: Decay of second moments, in [0, 1).
        tau: Degree of adaptivity, > 0.
    """

    algorithm: Literal["mean", "adam", "yogi"] = "mean"
    rate: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


@dataclass(frozen=True, eq=False)
class ServerState:
    """Shared parameters, and what the next step depends on besides.

    Args:
        parameters: float64 (m,), each a float32.
        first: float64 (m,), first moments; zeros where not used.
        second: float64 (m,), second moments; zeros where not used.
    """

    parameters: Floats
    first: Floats
    second: Floats

    @classmethod
    def start(cls, parameters: Floats, rules: ServerRules) -> ServerState:
        """Before the first average; second moments start at tau squared, as in the paper."""
        return cls(parameters, np.zeros_like(parameters), np.full_like(parameters, rules.tau**2))

    def step(self, update: Floats, rules: ServerRules) -> ServerState:
        """The state after one averaged update.

        Args:
            update: float64 (m,).
            rules: The same in all rounds.

        Raises:
            BoundError: lengths differ, or a parameter would not be finite.
        """
        if update.shape != self.parameters.shape:
            raise BoundError("nn.update", f"an update of {update.shape} for parameters of {self.parameters.shape}")
        first, second = self.first, self.second
        if rules.algorithm == "mean":
            change = rules.rate * update
        else:
            squares = update * update
            first = rules.beta1 * first + (1.0 - rules.beta1) * update
            if rules.algorithm == "adam":
                second = rules.beta2 * second + (1.0 - rules.beta2) * squares
            else:
                second = second - (1.0 - rules.beta2) * squares * np.sign(second - squares)
            change = rules.rate * first / (np.sqrt(second) + rules.tau)
        moved = self.parameters + change
        if not (np.abs(moved) < float(np.finfo(np.float32).max)).all():
            raise BoundError("nn.diverged", "the averaged parameters are not finite; lower fedavg.server_rate")
        return ServerState(moved.astype(np.float32).astype(np.float64), first, second)


def norm(vector: Floats) -> float:
    """L2 norm, correctly rounded up to the square root, so that it is the same whatever the order of adding."""
    return math.sqrt(math.fsum((vector * vector).tolist()))
