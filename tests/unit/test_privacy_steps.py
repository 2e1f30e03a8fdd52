"""Private gradient steps: clipping row by row, the sum before the noise, the noise, all kinds of networks."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from fedcredit.crypto.discrete_gaussian import NoiseSource
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.errors import BoundError
from fedcredit.kernels.nn import Network, NetworkShape, first_parameters
from fedcredit.kernels.nn_private import GRID_BITS, PrivateRules, PrivateSteps, _clipped

N = 300
Kind = Literal["logistic", "mlp", "monotone"]
KINDS: tuple[Kind, ...] = ("logistic", "mlp", "monotone")


class Silent:
    """Draws without noise and with all rows: what is left is the sum."""

    def noise(self, variance: Fraction, count: int) -> np.ndarray:
        return np.zeros(count, dtype=np.int64)

    def chosen(self, rows: int, rate: float) -> np.ndarray:
        return np.arange(rows, dtype=np.int64)


def source(label: str) -> NoiseSource:
    return NoiseSource(UnsafeSeededEntropy(bytes(32)).child(label))


def network(kind: Kind) -> Network:
    shape = NetworkShape(kind, 6, (3, 5), hidden=(8, 4), directions=(1, -1, 0, 0, 1, 0) if kind == "monotone" else ())
    made = Network(shape)
    values = first_parameters(shape, b"seed")
    made.set_parameters(values if kind != "logistic" else np.linspace(-1, 1, len(values)))
    return made


def rows(count: int = N) -> tuple[Tensor, Tensor, Tensor]:
    draw = np.random.default_rng(0)
    numbers = torch.from_numpy(draw.normal(size=(count, 6)).astype(np.float32))
    codes = torch.from_numpy(draw.integers(0, 3, size=(count, 2)))
    return numbers, codes, torch.from_numpy(draw.integers(0, 2, size=count).astype(np.float32))


def flat(parts: list[Tensor]) -> np.ndarray:
    return np.concatenate([one.numpy().ravel() for one in parts]).astype(np.float64)


def one_by_one(made: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> np.ndarray:
    """Gradient of each row by ordinary differentiation."""
    found = []
    for row in zip(*batch, strict=True):
        made.zero_grad()
        numbers, codes, bad = (one.unsqueeze(0) for one in row)
        torch.autograd.backward(functional.binary_cross_entropy_with_logits(made(numbers, codes), bad))
        found.append(flat([one.grad.clone() for one in made.parameters() if one.grad is not None]))
    made.zero_grad()
    return np.stack(found)


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_the_gradient_is_the_mean_of_clipped_rows(kind: Kind) -> None:
    made, batch = network(kind), rows(60)
    steps = PrivateSteps(made, PrivateRules(1.0, 0.7, 1.0, 1), Silent())
    (drawn,) = steps.batches(60)
    found = flat(steps.gradients(*(one[drawn] for one in batch)))
    each = one_by_one(made, batch)
    lengths = np.linalg.norm(each, axis=1)
    assert (lengths > 0.7).any()
    wanted = (each * np.minimum(1, 0.7 / lengths)[:, None]).mean(axis=0)
    assert np.abs(found - wanted).max() < 3 * 0.7 * 2.0**-GRID_BITS


def test_without_noise_and_clipping_it_is_the_ordinary_gradient() -> None:
    made, batch = network("mlp"), rows()
    steps = PrivateSteps(made, PrivateRules(1.0, 1000.0, 1.0, 1), Silent())
    list(steps.batches(N))
    found = steps.gradients(*batch)
    loss = functional.binary_cross_entropy_with_logits(made(*batch[:2]), batch[2])
    for one, other in zip(found, torch.autograd.grad(loss, list(made.parameters())), strict=True):
        assert torch.allclose(one, other, atol=3e-3)
        assert one.dtype == torch.float32


def test_rows_gradients_are_those_of_the_library_where_it_has_them() -> None:
    layers = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layers

        def forward(self, numbers: Tensor, _: Tensor) -> Tensor:
            found: Tensor = self.inner(numbers)[:, 0]
            return found

    batch = rows(40)
    steps = PrivateSteps(Wrapped(), PrivateRules(1.0, 0.5, 1.0, 1), Silent())
    list(steps.batches(40))
    ours = flat(steps.gradients(*batch))
    hooked = GradSampleModule(layers, loss_reduction="sum")
    margin = hooked(batch[0].requires_grad_())[:, 0]  # the library's hooks warn of inputs without a gradient
    torch.autograd.backward(functional.binary_cross_entropy_with_logits(margin, batch[2], reduction="sum"))
    each = np.concatenate([one.grad_sample.reshape(40, -1).numpy() for one in hooked.parameters()], axis=1)
    factor = np.minimum(1, 0.5 / np.linalg.norm(each, axis=1))
    assert np.abs(ours - (each * factor[:, None]).mean(axis=0)).max() < 1e-5


def test_one_row_moves_the_sum_by_no_more_than_the_norm() -> None:
    made, batch = network("mlp"), rows()
    batch[0][7] *= 1e6  # as far out as a row can be
    steps = PrivateSteps(made, PrivateRules(1.0, 0.25, 1.0, 1), Silent())
    list(steps.batches(N))
    whole = flat(steps.gradients(*batch)) * N
    rest = flat(steps.gradients(*(torch.cat([one[:7], one[8:]]) for one in batch))) * N
    assert 0.2 < np.linalg.norm(whole - rest) <= 0.25 * (1 + 1e-4)


def test_a_row_that_is_not_finite_counts_nothing() -> None:
    made, batch = network("logistic"), rows(20)
    steps = PrivateSteps(made, PrivateRules(1.0, 1.0, 1.0, 1), Silent())
    list(steps.batches(20))
    clean = flat(steps.gradients(*(one[1:] for one in batch)))
    batch[0][0, 0] = math.inf
    assert np.array_equal(flat(steps.gradients(*batch)), clean)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e30])
def test_clipped_rows_never_pass_the_norm_in_units(scale: float) -> None:
    units = _clipped(np.random.default_rng(1).normal(size=(500, 33)).astype(np.float32) * np.float32(scale), 0.3)
    lengths = [sum(int(unit) ** 2 for unit in row) for row in units]
    assert max(lengths) <= 2 ** (2 * GRID_BITS)
    assert scale == 1e-6 or min(lengths) > 0.999 * 2 ** (2 * GRID_BITS)


def test_noise_has_the_deviation_that_is_counted() -> None:
    made = network("mlp")
    empty = tuple(one[:0] for one in rows())
    steps = PrivateSteps(made, PrivateRules(1.3, 0.4, 0.1, 40), source("noise"))
    drawn = np.concatenate([flat(steps.gradients(*empty)) * 100 / (1.3 * 0.4) for _ in steps.batches(1000)])
    assert stats.kstest(drawn, "norm").pvalue > 1e-4


def test_the_same_stream_gives_the_same_training_and_another_does_not() -> None:
    def trained(label: str) -> np.ndarray:
        made = network("mlp")
        steps = PrivateSteps(made, PrivateRules(1.0, 1.0, 0.2, 3), source(label))
        batch = rows()
        return np.concatenate([flat(steps.gradients(*(one[drawn] for one in batch))) for drawn in steps.batches(N)])

    assert np.array_equal(trained("a"), trained("a"))
    assert not np.array_equal(trained("a"), trained("b"))


def test_batches_are_poisson_and_the_divisor_does_not_follow_them() -> None:
    steps = PrivateSteps(network("logistic"), PrivateRules(1.0, 1.0, 0.1, 200), source("batches"))
    sizes = [len(one) for one in steps.batches(N)]
    assert len(sizes) == 200
    assert abs(np.mean(sizes) - 30) < 2
    assert len(set(sizes)) > 10


def test_large_batches_are_taken_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = network("mlp"), rows()
    steps = PrivateSteps(made, PrivateRules(1.0, 1.0, 1.0, 1), Silent())
    list(steps.batches(N))
    whole = flat(steps.gradients(*batch))
    monkeypatch.setattr("fedcredit.kernels.nn_private._AT_ONCE", 5000)
    assert np.allclose(flat(steps.gradients(*batch)), whole, atol=1e-6)


def test_rules_that_cannot_be_kept_are_refused() -> None:
    for wrong in (
        (0.0, 1.0, 0.1, 1),
        (1.0, math.nan, 0.1, 1),
        (1.0, 1.0, 0.0, 1),
        (1.0, 1.0, 1.1, 1),
        (1.0, 1.0, 0.1, 0),
    ):
        with pytest.raises(BoundError):
            PrivateRules(*wrong)
    steps = PrivateSteps(network("logistic"), PrivateRules(1.0, 1.0, 0.1, 1), source("x"))
    with pytest.raises(BoundError, match="without rows"):
        steps.gradients(*rows())
