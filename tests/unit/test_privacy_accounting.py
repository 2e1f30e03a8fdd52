"""Epsilon: dp-accounting's own figure on the same events, what a run plans, and how many rounds fit."""

from __future__ import annotations

import math
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.special import logsumexp

from fedcredit.crypto.noise_plan import noise_sources, releases, sum_noise
from fedcredit.errors import BoundError, DisclosureRefused, IntegrityError, SpecError
from fedcredit.governance.privacy_accounting import ORDERS, Event, epsilon_of, fitting, plan, read_event
from fedcredit.spec.horizontal import SecureSumSection
from fedcredit.spec.load import parse_toml
from fedcredit.spec.model import RunSpec

BANKS = "".join(
    f'[[party]]\nname = "bank{i}"\nrole = "label_holder"\nsource = "bank{i}.csv"\nlabel = "y"\n' for i in range(5)
)


def spec_of(privacy: str, fedavg: str = "rounds = 20\nbatch_size = 256\n", model: str = "fedavg") -> RunSpec:
    sections = f"[fedavg]\n{fedavg}[differential_privacy]\n{privacy}" if model == "fedavg" else ""
    return parse_toml(f'[run]\nname = "r"\nmode = "simulation"\nmodel = "{model}"\n{sections}{BANKS}')


def library(*events: dp_accounting.DpEvent, delta: float = 1e-5) -> float:
    accountant = RdpAccountant(orders=list(ORDERS))
    for event in events:
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def test_a_record_run_costs_what_the_library_says_of_the_same_events() -> None:
    planned = plan(spec_of('unit = "record"\nnoise_multiplier = 1.1\n'), rows=6000, banks=5)
    step = dp_accounting.PoissonSampledDpEvent(256 / 6000, dp_accounting.GaussianDpEvent(1.1))
    columns = dp_accounting.GaussianDpEvent(10.0)
    updates = dp_accounting.SelfComposedDpEvent(step, 20 * math.ceil(6000 / 256))
    assert planned.epsilon == pytest.approx(library(columns, columns, updates), rel=1e-12)
    assert 5 < planned.epsilon < 7
    assert [event.release for event in planned.events] == ["columns", "update"]


def test_a_bank_run_costs_what_the_library_says_of_plain_gaussians() -> None:
    planned = plan(spec_of('unit = "bank"\nnoise_multiplier = 4.0\ndelta = 1e-6\n'), rows=0, banks=5)
    same = library(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(4.0), 22), delta=1e-6)
    assert planned.epsilon == pytest.approx(same, rel=1e-12)


@pytest.mark.parametrize(("multiplier", "rate", "steps"), [(1.0, 0.04, 100), (0.8, 0.01, 200), (4.0, 1.0, 20)])
def test_figures_are_above_a_tighter_accountant(multiplier: float, rate: float, steps: int) -> None:
    event = Event("update", "sampled_gaussian", multiplier, rate, steps)
    accountant = PLDAccountant()
    accountant.compose(event.cost())
    tight = float(accountant.get_epsilon(1e-5))
    assert tight < epsilon_of([event], 1e-5) < 1.5 * tight


@pytest.mark.parametrize("order", [2, 3, 8])
@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_discrete_noise_has_the_moments_that_are_counted(order: int, rate: float) -> None:
    """Rényi divergence of the sampled discrete mechanism by direct sums, either way round."""
    variance, shift = 9.0, 2  # multiplier 1.5
    grid = np.arange(-200.0, 201.0)
    without = -(grid**2) / (2 * variance)
    without -= logsumexp(without)
    shifted = without + (2 * shift * grid - shift**2) / (2 * variance)  # a whole shift keeps the sum of all weights
    mixed = np.logaddexp(shifted + math.log(rate), without + (math.log1p(-rate) if rate < 1 else -math.inf))
    there, back = (
        float(logsumexp(order * p + (1 - order) * q)) / (order - 1) for p, q in ((mixed, without), (without, mixed))
    )
    accountant = RdpAccountant(orders=[order])
    accountant.compose(Event("update", "sampled_gaussian", 1.5, rate).cost())
    assert there == pytest.approx(float(accountant.rdp[0]), rel=1e-9)
    assert back <= float(accountant.rdp[0]) * (1 + 1e-9)


def test_a_run_without_noise_has_no_finite_cost() -> None:
    planned = plan(spec_of('unit = "none"\n'), rows=100, banks=5)
    assert math.isinf(planned.epsilon)
    assert math.isinf(epsilon_of(planned.events, 1e-5))
    assert epsilon_of([], 1e-5) == 0


def test_a_run_above_its_own_limit_is_refused_with_the_rounds_that_fit() -> None:
    text = 'unit = "record"\nnoise_multiplier = 1.0\nmax_epsilon = 4.0\n'
    with pytest.raises(DisclosureRefused, match=r"20 rounds cost epsilon 6\.9.*max_epsilon is 4: 5 rounds would fit"):
        plan(spec_of(text), 6000, 5)
    fits = "rounds = 5\nbatch_size = 256\n"
    assert plan(spec_of(text, fits), 6000, 5).epsilon <= 4.0
    with pytest.raises(DisclosureRefused):
        plan(spec_of(text, fits.replace("5", "6", 1)), 6000, 5)
    with pytest.raises(DisclosureRefused, match="not one round would fit"):
        plan(spec_of(text.replace("4.0", "0.4")), 6000, 5)


def test_fitting_counts_what_is_spent() -> None:
    events = (Event("columns", "discrete_sum", 10.0, times=2), Event("update", "discrete_sum", 4.0, times=30))
    alone = fitting(events, (), 4.0, 1e-5)
    beside = fitting(events, (Event("update", "discrete_sum", 4.0, times=5),), 4.0, 1e-5)
    assert alone == beside + 5
    assert fitting(events, (), 100.0, 1e-5) == 30


def test_what_is_released_follows_from_rows_and_sections() -> None:
    spec = spec_of('unit = "record"\nnoise_multiplier = 2.0\n', "rounds = 7\nlocal_epochs = 3\nbatch_size = 100\n")
    update = releases(spec, 950)["update"]
    assert (update.times, update.steps, update.rate, update.summed) == (7, 30, 100 / 950, False)
    small = releases(spec, 40)["update"]
    assert (small.steps, small.rate) == (3, 1.0)
    with pytest.raises(BoundError, match="training rows"):
        releases(spec, 0)
    with pytest.raises(BoundError, match="local steps"):
        sum_noise(update, 1000, 5, spec.secure_sum)


def test_noise_is_counted_on_of_the_fewest_that_may_open_a_sum() -> None:
    assert noise_sources(3, SecureSumSection()) == 2
    assert noise_sources(98, SecureSumSection()) == 2
    assert noise_sources(98, SecureSumSection(min_banks=50)) == 49
    assert noise_sources(98, SecureSumSection(min_banks=80, colluding=4)) == 76
    with pytest.raises(BoundError, match="no noise is left"):
        noise_sources(2, SecureSumSection())
    noise = sum_noise(
        releases(spec_of('unit = "bank"\nnoise_multiplier = 2.0\n'), 0)["update"], 1000, 3, SecureSumSection()
    )
    assert noise.variance == Fraction(2000**2, 2)


def test_events_are_read_as_they_were_recorded_and_nothing_else_is() -> None:
    event = Event("update", "sampled_gaussian", 1.25, 0.1, 3, 4)
    assert read_event(event.record()) == event
    for wrong in (
        {"mechanism": "laplace"},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"rate": 0.0},
        {"rate": 1.5},
        {"steps": 0},
        {"times": 1.5},
        {"release": ""},
        {"mechanism": "none"},
        {"mechanism": "discrete_sum"},
        {"more": 1},
    ):
        with pytest.raises(IntegrityError):
            read_event({**event.record(), **wrong})


def test_other_models_are_not_accounted() -> None:
    text = '[run]\nname = "r"\nmode = "simulation"\nmodel = "scorecard"\n' + BANKS.split("[[party]]\n")[0]
    one = '[[party]]\nname = "bank"\nrole = "label_holder"\nsource = "b.csv"\nlabel = "y"\n'
    holder = '[[party]]\nname = "tax"\nrole = "feature_holder"\nsource = "t.csv"\n'
    with pytest.raises(SpecError, match="is for model"):
        plan(parse_toml(text + one + holder), 100, 3)
