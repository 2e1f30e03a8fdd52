"""The process behind a made-up district: draws, health, defaults; sector and town are no shortcut."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from fedcredit.data.district.activity import act
from fedcredit.data.district.draws import Draws
from fedcredit.data.district.health import Health, live
from fedcredit.data.district.months import AS_OF, LATEST, WRITTEN, Months
from fedcredit.data.district.noise import covered, misspell
from fedcredit.data.district.population import SECTORS, TOWNS, Population, populate
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.uscc import normalise

MONTHS = Months(date(2025, 12, 31))
SIZE = 60_000
RATE = 0.032

World = tuple[Population, Health]


@pytest.fixture(scope="module")
def world() -> World:
    population = populate(SIZE, Draws(1).child("population"), MONTHS)
    return population, live(population, Draws(1).child("health"), MONTHS, RATE)


def of_year(
    health: Health,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], np.ndarray[tuple[int], np.dtype[np.int8]]]:
    """Who is not in default at the as-of date, and which of them default in the year after."""
    sound = health.default_month > AS_OF
    return sound, (health.default_month[sound] <= LATEST).astype(np.int8)


def test_draws_are_those_of_their_name_and_seed() -> None:
    draws = Draws(5).child("a")
    assert np.array_equal(draws.uniform("x", 10), Draws(5, "a/").uniform("x", 10))
    assert np.array_equal(draws.uniform("x", 10), draws.uniform("x", 20)[:10])
    for other in (draws.uniform("y", 10), Draws(6).child("a").uniform("x", 10), Draws(5).uniform("x", 10)):
        assert not np.array_equal(draws.uniform("x", 10), other)


def test_draws_are_pinned() -> None:
    # whoever changes the generator changes every district that was made with it
    assert Draws(1).uniform("pinned", 3).round(12).tolist() == [0.525182228652, 0.720565061434, 0.492514261161]


def test_draws_have_the_laws_they_are_named_after() -> None:
    draws = Draws(9)
    normal, exponential = draws.normal("n", 100_000), draws.exponential("e", 100_000)
    assert abs(normal.mean()) < 0.02
    assert normal.std() == pytest.approx(1.0, abs=0.02)
    assert exponential.mean() == pytest.approx(1.0, abs=0.02)
    assert exponential.min() > 0
    for mean in (0.5, 4.0, 60.0):
        counts = draws.count(f"c{mean}", np.full(100_000, mean, dtype=np.float32))
        assert counts.min() >= 0
        assert counts.mean() == pytest.approx(mean, rel=0.25, abs=0.1)
        assert counts.var() == pytest.approx(mean, rel=0.35)
    assert np.bincount(draws.pick("p", (1, 2, 1), 40_000)).tolist() == pytest.approx([10_000, 20_000, 10_000], rel=0.05)
    assert sorted(draws.order("o", 50)) == list(range(50))
    assert draws.chance("h", 0.25, 40_000).mean() == pytest.approx(0.25, abs=0.01)
    assert set(draws.whole("w", 3, 1000)) == {0, 1, 2}


def test_months_are_counted_from_the_first_of_24() -> None:
    assert MONTHS.text(0) == "2024-01-01"
    assert MONTHS.text(AS_OF) == "2025-12-01"
    assert MONTHS.text(LATEST) == "2026-12-01"
    assert MONTHS.days(1) == 29
    assert (MONTHS.of_year(-12), MONTHS.year(-12)) == (1, 2023)
    first = MONTHS.first(AS_OF + 1)
    assert first == MONTHS.as_of_day + 1
    days = MONTHS.day_text([first, first - 1, 0], np.array([False, False, True]))
    assert days.to_list() == ["2026-01-01", "2025-12-31", None]
    assert MONTHS.firsts([0, 5]).tolist() == [MONTHS.first(0), MONTHS.first(5)]


def test_population_has_the_shares_of_a_district(world: World) -> None:
    population, _ = world
    sizes = np.bincount(population.size, minlength=4) / SIZE
    assert 0.80 < sizes[0] < 0.90
    assert 0.10 < sizes[1] < 0.18
    assert 0 < sizes[3] < sizes[2] < 0.02
    assert population.uscc.n_unique() == SIZE
    assert normalise(population.uscc).equals(population.uscc)
    assert int(population.established.max()) <= MONTHS.as_of_day - 90
    for found, table in ((population.sector, SECTORS), (population.town, TOWNS)):
        wanted = np.array([one.share for one in table]) / sum(one.share for one in table)
        assert np.abs(np.bincount(found, minlength=len(table)) / SIZE - wanted).max() < 0.01


def test_levels_differ_much_between_sectors_and_towns(world: World) -> None:
    population, _ = world
    for groups in (population.sector, population.town):
        means = [float(population.sales[groups == group].mean()) for group in np.unique(groups)]
        assert max(means) - min(means) > 0.6
    electricity = [sector.power for sector in SECTORS]
    assert max(electricity) - min(electricity) > np.log(10)


def test_base_rate_is_the_one_asked_for(world: World) -> None:
    _, health = world
    _, bad = of_year(health)
    assert bad.mean() == pytest.approx(RATE, abs=3 * np.sqrt(RATE / SIZE) + 0.001)
    weight = health.default_month > AS_OF
    assert health.probability[weight].mean() == pytest.approx(RATE, abs=0.002)


def test_probability_is_that_of_the_defaults_that_happen(world: World) -> None:
    _, health = world
    sound, bad = of_year(health)
    probability = health.probability[sound]
    for low, high in ((0.0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 0.5)):
        at = (probability >= low) & (probability < high)
        expected = float(probability[at].sum())
        assert abs(float(bad[at].sum()) - expected) < 4.5 * np.sqrt(expected + 1)


@pytest.mark.parametrize("name", ["sector", "town", "size"])
def test_sector_town_or_size_alone_are_no_shortcut(world: World, name: str) -> None:
    population, health = world
    sound, bad = of_year(health)
    groups = getattr(population, name)[sound]
    half = np.arange(len(bad)) % 2 == 0
    rate = np.bincount(groups[half], bad[half], 20) / np.maximum(np.bincount(groups[half], minlength=20), 1)
    assert 0.45 <= auc(bad[~half], rate[groups[~half]]) <= 0.55


def test_each_state_tells_of_default_and_together_they_tell_more(world: World) -> None:
    _, health = world
    sound, bad = of_year(health)
    states = [-state[sound] for state in health.at(AS_OF)]
    alone = [auc(bad, state) for state in states]
    assert all(0.60 < value < 0.86 for value in alone)
    assert auc(bad, states[0] + states[1] + states[2]) > max(alone) + 0.03


def test_an_enterprise_outlives_the_window_unless_its_month_says_otherwise(world: World) -> None:
    population, health = world
    activity = act(population, health, Draws(1).child("activity"), MONTHS)
    assert activity.sales.shape == (WRITTEN, SIZE)
    gone = activity.closed_month <= LATEST
    assert np.array_equal(activity.closed_month[gone], health.default_month[gone] + 3)
    assert 0.25 < gone.sum() / (health.default_month <= LATEST).sum() < 0.45
    first, day = MONTHS.first(LATEST + 1), health.default_day[health.default_month <= LATEST]
    assert (day < first).all()
    fell = (health.default_month == 14) & ~gone
    drop = (activity.sales[14, fell] - activity.sales[17, fell]).mean()
    still = (activity.sales[14] - activity.sales[17])[health.default_month > LATEST].mean()
    assert drop - still > 0.3


def test_coverage_is_exact_and_leans_to_the_large() -> None:
    affinity = np.linspace(-2, 2, 5000, dtype=np.float32)
    known = covered(0.4, affinity, Draws(3))
    assert len(known) == len(set(known.tolist())) == 2000
    assert affinity[known].mean() > 0.2
    assert not np.array_equal(known, np.sort(known))


def test_misspelt_codes_are_read_right_or_not_at_all() -> None:
    codes = populate(4000, Draws(2), MONTHS).uscc
    wrong = misspell(codes, Draws(4))
    assert (wrong != codes).all()
    read = normalise(wrong)
    lost = read.is_null()
    assert 0.25 < lost.mean() < 0.35  # type: ignore[operator]
    assert read.filter(~lost).equals(codes.filter(~lost))
    assert pl.Series(wrong.filter(lost)).n_unique() > 1000
