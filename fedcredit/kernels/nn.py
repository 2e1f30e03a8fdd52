"""Networks of a risk score over one bank's columns: logistic, multi-layer with embeddings, and monotone.

A network's parameters are one vector in a fixed order. They are float32 numbers throughout: a vector of float64 that is
given has been rounded to them, so that what is averaged, saved and digested is what scores.

The first parameters are drawn with SHAKE-256 rather than with a generator of a library, so that every bank has the same
ones whatever its processor and the version of its libraries.

Source: Guo & Berkhahn, arXiv 1604.06737 (embeddings of categories); Runje & Shankaranarayana, ICML 2023 (monotone).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedcredit.errors import BoundError, DataError

__all__ = [
    "Network",
    "NetworkShape",
    "Rows",
    "first_parameters",
    "logits",
    "one_thread",
    "parameter_count",
    "row_losses",
    "uniform_draws",
]

Floats = NDArray[np.float64]

_MAX_PARAMETERS = 10_000_000  # a bank's update of as many is 80 MB; a network over a bank's columns has thousands
_SCORED_AT_ONCE = 65_536  # rows; bounds the memory of scoring


@dataclass(frozen=True)
class NetworkShape:
    """All that the number and the order of parameters follow from.

    Args:
        kind: ``logistic``, ``mlp`` or ``monotone``.
        numbers: Numeric inputs, p.
        categories: Codes of each categorical input, >= 1 each.
        hidden: Units of the hidden layers; of no meaning to ``logistic``.
        embedding: Most dimensions of a category's embedding.
        directions: For each numeric input 1 (risk never falls with it), -1 (never rises) or 0; empty = all 0. Only
            ``monotone`` takes others than 0.

    Raises:
        BoundError: sizes that make no network, or more than ten million parameters.
    """

    kind: Literal["logistic", "mlp", "monotone"]
    numbers: int
    categories: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (32, 16)
    embedding: int = 8
    directions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.numbers + len(self.categories) < 1 or self.numbers < 0 or min(self.categories, default=1) < 1:
            raise BoundError("nn.shape", f"a network over {self.numbers} numbers and {len(self.categories)} categories")
        if self.kind != "logistic" and min(self.hidden, default=0) < 1:
            raise BoundError("nn.shape", f"hidden layers of {self.hidden} units; each needs at least 1, and one layer")
        if self.directions and len(self.directions) != self.numbers:
            raise BoundError("nn.shape", f"{len(self.directions)} directions for {self.numbers} numeric inputs")
        if any(self.directions) and self.kind != "monotone":
            raise BoundError("nn.shape", f"directions are for the monotone network, the network is {self.kind}")
        if sum(_sizes(self)) > _MAX_PARAMETERS:
            raise BoundError("nn.shape", f"{sum(_sizes(self))} parameters; at most {_MAX_PARAMETERS} are possible")

    @property
    def widths(self) -> tuple[int, ...]:
        """Dimensions of each category's embedding: fewer than its codes, one in a logistic network."""
        if self.kind == "logistic":
            return (1,) * len(self.categories)
        return tuple(min(self.embedding, (codes + 1) // 2) for codes in self.categories)

    @property
    def signs(self) -> tuple[int, ...]:
        """Direction of each numeric input."""
        return self.directions or (0,) * self.numbers


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as a network takes them.

    Args:
        numbers: float32 (n, p), finite.
        codes: int64 (n, c), code of each category.
        bad: float32 (n,), 1 = default.

    Raises:
        DataError: shapes differ, a number is not finite, or a label is not 0 or 1.
    """

    numbers: NDArray[np.float32]
    codes: NDArray[np.int64]
    bad: NDArray[np.float32]

    def __post_init__(self) -> None:
        shapes = (self.numbers.ndim, self.codes.ndim, self.bad.ndim)
        if shapes != (2, 2, 1) or len({len(self.numbers), len(self.codes), len(self.bad)}) != 1:
            raise DataError("nn.rows", "numbers, codes and labels must be of one number of rows")
        if not np.isfinite(self.numbers).all():
            raise DataError("nn.rows", "an input of the network is not finite")
        if not np.isin(self.bad, (0, 1)).all():
            raise DataError("nn.rows", "a label is not 0 or 1")

    def __len__(self) -> int:
        return len(self.bad)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Rows:
        """Some of the rows."""
        return Rows(self.numbers[rows], self.codes[rows], self.bad[rows])


class Network(nn.Module):
    """A network of a shape; parameters are 0 until they are set.

    Args:
        shape: Its shape.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = nn.ModuleList(
            nn.Embedding(codes, width, _weight=torch.zeros(codes, width))
            for codes, width in zip(shape.categories, shape.widths, strict=True)
        )
        self._layers = [_Linear(rows, columns) for rows, columns in _layers(shape)]
        self.layers = nn.ModuleList(self._layers)
        self.register_buffer("_signs", torch.tensor(shape.signs, dtype=torch.float32), persistent=False)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Log-odds of default.

        Args:
            numbers: float32 (n, p).
            codes: int64 (n, c).

        Returns:
            float32 (n,).
        """
        embedded = [one(codes[:, at]) for at, one in enumerate(self.embeddings)]
        if self.shape.kind == "logistic":
            total: Tensor = self._layers[0](numbers)[:, 0]
            for one in embedded:
                total = total + one[:, 0]
            return total
        inputs = torch.cat([numbers, *embedded], dim=1)
        if self.shape.kind == "monotone":
            return self._monotone(inputs)
        for layer in self._layers[:-1]:
            inputs = functional.relu(layer(inputs))
        found: Tensor = self._layers[-1](inputs)[:, 0]
        return found

    def _monotone(self, inputs: Tensor) -> Tensor:
        """Weights from inputs with a direction on are of its sign; units are convex and concave in turn.

        A composition of functions that do not fall does not fall; units of both kinds can follow any shape, which
        convex ones alone cannot.
        """
        first, *rest = self._layers
        signs: Tensor = self.get_buffer("_signs")
        free = torch.zeros(inputs.shape[1] - signs.shape[0])
        held = torch.cat([signs, free])
        weight = torch.where(held == 0, first.weight, first.weight.abs() * held)
        hidden = functional.linear(inputs, weight, first.bias)
        for layer in rest:
            convex, concave = functional.elu(hidden[:, ::2]), -functional.elu(-hidden[:, 1::2])
            hidden = functional.linear(torch.cat([convex, concave], dim=1), layer.weight.abs(), layer.bias)
        return hidden[:, 0]

    def set_parameters(self, vector: Floats) -> None:
        """Puts a vector of parameters in.

        Raises:
            BoundError: it is of another length, or not finite.
        """
        if vector.shape != (sum(_sizes(self.shape)),) or not np.isfinite(vector).all():
            raise BoundError("nn.parameters", f"{vector.shape} parameters for a network of {sum(_sizes(self.shape))}")
        start = 0
        with torch.no_grad():
            for one in self.parameters():
                part = vector[start : start + one.numel()].astype(np.float32)
                one.copy_(torch.from_numpy(part).reshape(one.shape))
                start += one.numel()

    def vector(self) -> Floats:
        """Its parameters, float64 (m,), each of which is a float32."""
        parts = [one.detach().numpy().astype(np.float64).ravel() for one in self.parameters()]
        return np.concatenate(parts)


class _Linear(nn.Linear):
    """A linear layer that draws nothing when it is made."""

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def _layers(shape: NetworkShape) -> list[tuple[int, int]]:
    """Inputs and outputs of each linear layer."""
    if shape.kind == "logistic":
        return [(shape.numbers, 1)]
    sizes = [shape.numbers + sum(shape.widths), *shape.hidden, 1]
    return list(itertools.pairwise(sizes))


def _sizes(shape: NetworkShape) -> list[int]:
    """Number of parameters of each tensor, in the order of the vector."""
    tables = [codes * width for codes, width in zip(shape.categories, shape.widths, strict=True)]
    return tables + [size for rows, columns in _layers(shape) for size in (rows * columns, columns)]


def parameter_count(shape: NetworkShape) -> int:
    """Length of the vector of parameters, m."""
    return sum(_sizes(shape))


def uniform_draws(seed: bytes, label: str, count: int) -> NDArray[np.uint64]:
    """Uniform 64-bit words of a seed, the same on every machine.

    Args:
        seed: Any bytes.
        label: Separates the uses of one seed.
        count: How many.

    Source: FIPS 202 (SHAKE-256).
    """
    name = label.encode()
    stream = hashlib.shake_256(len(name).to_bytes(8, "little") + name + seed).digest(8 * count)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def first_parameters(shape: NetworkShape, seed: bytes) -> Floats:
    """Parameters before the first round: the same at everyone with the seed.

    A logistic network starts at 0. Weights of the others are uniform with He's variance (in the monotone network, which
    takes their absolute values, a fourth of it); embeddings with a tenth of it; biases are 0.

    Args:
        shape: The network.
        seed: Known to all banks.

    Returns:
        float64 (m,), each a float32.

    Source: He et al., ICCV 2015, equation 10.
    """
    total = parameter_count(shape)
    if shape.kind == "logistic":
        return np.zeros(total)
    unit = (uniform_draws(seed, "parameters", total) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    limits = [np.full(c * w, 0.1) for c, w in zip(shape.categories, shape.widths, strict=True)]
    for rows, columns in _layers(shape):
        limit = math.sqrt(6.0 / rows) / (2.0 if shape.kind == "monotone" else 1.0)
        limits += [np.full(rows * columns, limit), np.zeros(columns)]
    found: Floats = (unit * np.concatenate(limits)).astype(np.float32).astype(np.float64)
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """One processor inside: the order of a sum over several would differ from run to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def logits(shape: NetworkShape, parameters: Floats, rows: Rows) -> Floats:
    """Log-odds of default of each row.

    Args:
        shape: The network.
        parameters: float64 (m,).
        rows: n rows.

    Returns:
        float64 (n,).

    Raises:
        BoundError: parameters of another length or not finite.
    """
    network = Network(shape)
    network.set_parameters(parameters)
    found = np.zeros(len(rows), dtype=np.float64)
    with one_thread(), torch.no_grad():
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            part = slice(start, start + _SCORED_AT_ONCE)
            numbers, codes = torch.from_numpy(rows.numbers[part]), torch.from_numpy(rows.codes[part])
            found[part] = network(numbers, codes).numpy()
    return found


def row_losses(margin: Floats, bad: NDArray[np.float32]) -> Floats:
    """Logistic loss of each row in nats, float64 (n,): softplus of the log-odds, less the log-odds of a bad."""
    losses: Floats = np.logaddexp(0.0, margin) - margin * bad.astype(np.float64)
    return losses
