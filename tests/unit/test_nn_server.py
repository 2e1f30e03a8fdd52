"""What becomes of an averaged update, against the papers' formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedcredit.errors import BoundError
from fedcredit.kernels.nn_server import ServerRules, ServerState, norm

START = np.array([1.0, -2.0, 0.5])
UPDATES = [np.array([0.5, -0.25, 0.0]), np.array([-0.125, 1.0, 0.0])]


def stepped(rules: ServerRules) -> ServerState:
    state = ServerState.start(START, rules)
    for update in UPDATES:
        state = state.step(update, rules)
    return state


def test_a_mean_is_added() -> None:
    assert stepped(ServerRules(rate=1.0)).parameters.tolist() == [1.375, -1.25, 0.5]
    assert stepped(ServerRules(rate=0.5)).parameters.tolist() == [1.1875, -1.625, 0.5]


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_adaptive_steps_are_those_of_the_paper(name: str) -> None:
    rules = ServerRules("adam" if name == "adam" else "yogi", 0.1, 0.9, 0.99, 0.01)
    found = stepped(rules)
    for at in range(3):
        x, m, v = START[at], 0.0, 0.01**2
        for update in UPDATES:
            d = update[at]
            m = 0.9 * m + 0.1 * d
            v = 0.99 * v + 0.01 * d**2 if name == "adam" else v - 0.01 * d**2 * math.copysign(1, v - d**2) * (v != d**2)
            x = float(np.float32(x + 0.1 * m / (math.sqrt(v) + 0.01)))
        assert found.parameters[at] == pytest.approx(x, abs=1e-7)
        assert found.second[at] == pytest.approx(v, rel=1e-12)


def test_parameters_stay_what_they_are_saved_as() -> None:
    found = stepped(ServerRules("adam", 0.3)).parameters
    assert np.array_equal(found, found.astype(np.float32))


def test_steps_out_of_range_are_refused() -> None:
    state = ServerState.start(START, ServerRules())
    with pytest.raises(BoundError, match="not finite"):
        state.step(np.full(3, 1e39), ServerRules())
    with pytest.raises(BoundError, match="not finite"):
        state.step(np.array([0.0, math.nan, 0.0]), ServerRules())
    with pytest.raises(BoundError, match="update"):
        state.step(np.zeros(4), ServerRules())


def test_a_norm_does_not_depend_on_the_order() -> None:
    values = np.random.default_rng(0).normal(size=1001) * 10.0 ** np.random.default_rng(1).integers(-8, 8, 1001)
    assert norm(values) == norm(values[::-1].copy()) == norm(np.sort(values))
    assert norm(np.array([3.0, 4.0])) == 5.0
