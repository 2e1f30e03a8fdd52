"""Networks, their parameters as one vector, local training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fedcredit.errors import BoundError, DataError
from fedcredit.kernels.nn import (
    Network,
    NetworkShape,
    Rows,
    first_parameters,
    logits,
    one_thread,
    parameter_count,
    row_losses,
    uniform_draws,
)
from fedcredit.kernels.nn_train import LocalRules, Pull, steps_of, train_local

KINDS = ("logistic", "mlp", "monotone")


def shape(kind: str, **more: Any) -> NetworkShape:
    directions = (1, -1, 0) if kind == "monotone" else ()
    usual: dict[str, Any] = {"numbers": 3, "categories": (4, 2), "hidden": (5, 3), "directions": directions}
    return NetworkShape(**{"kind": kind, **usual, **more})


def rows(n: int = 200, seed: int = 0) -> Rows:
    source = np.random.default_rng(seed)
    numbers = source.normal(size=(n, 3)).astype(np.float32)
    codes = np.column_stack([source.integers(0, 4, n), source.integers(0, 2, n)]).astype(np.int64)
    bad = (numbers[:, 0] - numbers[:, 1] + codes[:, 0] + source.normal(size=n) > 1.5).astype(np.float32)
    return Rows(numbers, codes, bad)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_go_in_and_come_out(kind: str) -> None:
    network, size = Network(shape(kind)), parameter_count(shape(kind))
    vector = np.arange(size, dtype=np.float64) / 8
    network.set_parameters(vector)
    assert np.array_equal(network.vector(), vector)
    assert size == sum(one.numel() for one in network.parameters())


def test_parameters_are_counted_as_the_shape_says() -> None:
    assert parameter_count(shape("logistic")) == 3 + 1 + 4 + 2
    widths = shape("mlp").widths
    assert widths == (2, 1)
    assert parameter_count(shape("mlp")) == 4 * 2 + 2 * 1 + (3 + 3) * 5 + 5 + 5 * 3 + 3 + 3 + 1


def test_a_logistic_network_is_a_logistic_regression() -> None:
    data, size = rows(), parameter_count(shape("logistic"))
    vector = np.linspace(-1, 1, size).astype(np.float32).astype(np.float64)
    tables, weights, bias = (vector[:4], vector[4:6]), vector[6:9], vector[9]
    expected = data.numbers @ weights + bias + tables[0][data.codes[:, 0]] + tables[1][data.codes[:, 1]]
    assert np.allclose(logits(shape("logistic"), vector, data), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), step=st.floats(0.01, 5))
def test_a_monotone_network_never_turns_whatever_its_parameters(seed: int, step: float) -> None:
    one = shape("monotone")
    vector = np.random.default_rng(seed).normal(size=parameter_count(one))
    data = rows(30, seed)
    for column, sign in ((0, 1), (1, -1)):
        moved = data.numbers.copy()
        moved[:, column] += np.float32(step)
        change = logits(one, vector, Rows(moved, data.codes, data.bad)) - logits(one, vector, data)
        assert (sign * change >= -1e-4).all()


def test_without_directions_it_does_turn() -> None:
    one, data = shape("monotone", directions=()), rows(100)
    moved = data.numbers.copy()
    moved[:, 0] += 1
    least = []
    for seed in range(5):
        vector = np.random.default_rng(seed).normal(size=parameter_count(one))
        least.append((logits(one, vector, Rows(moved, data.codes, data.bad)) - logits(one, vector, data)).min())
    assert min(least) < -0.01


def test_first_parameters_are_the_same_everywhere() -> None:
    """Pinned: another library, processor or version must not change them."""
    found = first_parameters(shape("mlp"), b"seed")
    again = first_parameters(shape("mlp"), b"seed")
    assert np.array_equal(found, again)
    assert not np.array_equal(found, first_parameters(shape("mlp"), b"else"))
    assert np.array_equal(found, found.astype(np.float32))
    assert uniform_draws(b"seed", "parameters", 1)[0] == np.uint64(PINNED)
    assert not first_parameters(shape("logistic"), b"seed").any()


PINNED = 6327217177440128617


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_repeats_to_the_bit(kind: str) -> None:
    one, data = shape(kind), rows(600)
    start = first_parameters(one, b"s")
    rules = LocalRules(epochs=8, batch_size=50, learning_rate=0.1, momentum=0.5, seed=b"order")
    found, again = (train_local(one, start, data, rules) for _ in range(2))
    assert np.array_equal(found, again)
    before, after = (row_losses(logits(one, vector, data), data.bad).mean() for vector in (start, found))
    assert after < 0.8 * before
    other = train_local(one, start, data, LocalRules(epochs=8, batch_size=50, learning_rate=0.1, seed=b"other"))
    assert not np.array_equal(found, other)


def test_a_step_is_the_gradient_and_what_pulls() -> None:
    """One full batch by hand: FedProx pulls nothing at the start, control variates shift every step."""
    one, data = shape("logistic"), rows(40)
    start = np.linspace(-0.2, 0.2, parameter_count(one)).astype(np.float32).astype(np.float64)
    rules = LocalRules(epochs=1, batch_size=40, learning_rate=0.5)
    plain = train_local(one, start, data, rules)
    assert np.array_equal(train_local(one, start, data, LocalRules(1, 40, 0.5, proximal=3.0)), plain)
    drift = np.linspace(1, 2, len(start))
    pulled = train_local(one, start, data, rules, Pull(drift))
    assert np.allclose(pulled, plain - 0.5 * drift, atol=1e-6)
    margin = logits(one, start, data)
    slope = (1 / (1 + np.exp(-margin)) - data.bad)[:, None] * data.numbers
    assert np.allclose(plain[6:9], start[6:9] - 0.5 * slope.mean(axis=0), atol=1e-6)


def test_a_proximal_term_keeps_parameters_near() -> None:
    one, data = shape("mlp"), rows(400)
    start = first_parameters(one, b"s")
    free, held = (train_local(one, start, data, LocalRules(5, 50, 0.1, proximal=mu)) for mu in (0.0, 5.0))
    assert np.linalg.norm(held - start) < 0.5 * np.linalg.norm(free - start)


def test_steps_are_counted() -> None:
    assert steps_of(101, LocalRules(epochs=3, batch_size=50)) == 9


def test_training_that_runs_away_is_refused() -> None:
    one = shape("mlp")
    data = rows(100)
    wild = Rows(data.numbers * np.float32(1e15), data.codes, data.bad)
    with pytest.raises(BoundError, match=r"lower fedavg\.learning_rate"):
        train_local(one, first_parameters(one, b"s"), wild, LocalRules(epochs=5, learning_rate=1e20))


def test_what_makes_no_network_is_refused() -> None:
    for wrong in (
        {"numbers": 0, "categories": (), "directions": ()},
        {"hidden": ()},
        {"hidden": (0,)},
        {"hidden": (10_000, 10_000)},
    ):
        with pytest.raises(BoundError):
            shape("mlp", **wrong)
    with pytest.raises(BoundError, match="directions"):
        shape("mlp", directions=(1, 0, 0))
    with pytest.raises(BoundError, match="directions"):
        shape("monotone", directions=(1,))


def test_rows_that_do_not_fit_are_refused() -> None:
    data = rows(3)
    with pytest.raises(DataError, match="not finite"):
        Rows(np.full((3, 3), np.nan, dtype=np.float32), data.codes, data.bad)
    with pytest.raises(DataError, match="label"):
        Rows(data.numbers, data.codes, data.bad + 2)
    with pytest.raises(DataError, match="one number of rows"):
        Rows(data.numbers[:2], data.codes, data.bad)


def test_parameters_that_do_not_fit_are_refused() -> None:
    size = parameter_count(shape("mlp"))
    for wrong in (np.zeros(size + 1), np.full(size, np.nan)):
        with pytest.raises(BoundError, match="parameters"):
            logits(shape("mlp"), wrong, rows(2))
    with pytest.raises(BoundError, match="no row"):
        train_local(shape("mlp"), np.zeros(size), rows(4).take(np.zeros(4, dtype=np.bool_)), LocalRules())


def test_one_thread_inside_and_as_many_as_before_after() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_losses_do_not_overflow() -> None:
    found = row_losses(np.array([1000.0, -1000.0, 0.0]), np.array([1, 1, 0], dtype=np.float32))
    assert np.allclose(found, [0.0, 1000.0, np.log(2)])


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.6, 0.05)])
def test_steps_are_those_of_the_librarys_optimiser(momentum: float, decay: float) -> None:
    one, data = shape("mlp"), rows(90)
    start = first_parameters(one, b"s")
    rules = LocalRules(3, 30, 0.2, momentum, decay, seed=b"order")
    network = Network(one)
    network.set_parameters(start)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.2, momentum=momentum, weight_decay=decay)
    for epoch in range(3):
        order = np.argsort(uniform_draws(b"order", f"order/{epoch}", 90), kind="stable")
        for batch in np.split(order, 3):
            optimiser.zero_grad()
            margin = network(torch.from_numpy(data.numbers[batch]), torch.from_numpy(data.codes[batch]))
            loss = functional.binary_cross_entropy_with_logits(margin, torch.from_numpy(data.bad[batch]))
            for parameter, slope in zip(
                network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True
            ):
                parameter.grad = slope
            optimiser.step()
    assert np.allclose(train_local(one, start, data, rules), network.vector(), atol=1e-6)
