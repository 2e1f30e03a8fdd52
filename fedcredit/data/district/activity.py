"""What enterprises do each month: sales and staff, the same for every holder that sees a part of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcredit.data.district.draws import Bools, Draws, Floats, Ints
from fedcredit.data.district.health import Health
from fedcredit.data.district.months import LATEST, WRITTEN, Months
from fedcredit.data.district.population import Population

__all__ = ["Activity", "Payer", "act", "payments"]

_DEMAND_IN_SALES: Final = 0.35
"""Fall of ln sales for one standard deviation of demand."""

_GROWTH: Final = 0.006
"""Standard deviation over enterprises of the monthly growth of ln sales that has nothing to do with health."""

_STAFF_FOLLOWS: Final = 0.80
"""Weight of last month's staff in this month's: people are hired and dismissed with a delay."""

_AFTER_DEFAULT = {"demand": -1.5, "liquidity": -2.0}
_CLOSES: Final = 0.35
"""Share of the defaulted that stop three months after."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What happens in months [0, WRITTEN).

    Attributes:
        demand: float32 (months, n), after what a default does to it.
        liquidity: float32 (months, n), likewise.
        compliance: float32 (months, n).
        sales: float32 (months, n), ln yuan, season in it.
        staff: float32 (months, n), ln persons.
        warning: float32 (months, n): 1 in the two months before a default that announces itself, else 0.
        default_month: int64 (n,).
        default_day: int64 (n,).
        closed_month: int64 (n,), from which nothing happens.
    """

    demand: Floats
    liquidity: Floats
    compliance: Floats
    sales: Floats
    staff: Floats
    warning: Floats
    default_month: Ints
    default_day: Ints
    closed_month: Ints

    def open_in(self, month: int) -> Bools:
        """Which of the n still work in a month."""
        return np.asarray(month < self.closed_month)


def act(population: Population, health: Health, draws: Draws, months: Months) -> Activity:
    """Draw sales and staff from health; a default shows in what follows it."""
    size = len(population)
    names = ("demand", "liquidity", "compliance", "sales", "staff", "warning")
    tables = {name: np.empty((WRITTEN, size), dtype=np.float32) for name in names}
    growth = _GROWTH * draws.normal("growth", size)
    unrest = 0.13 * np.exp(0.45 * population.volatility)
    amplitude = population.of_sector("season")
    announced = draws.chance("announced", 0.5, size)
    staff_gap = np.zeros(size, dtype=np.float32)
    for month in range(WRITTEN):
        demand, liquidity, compliance = health.at(month)
        fallen = (health.default_month < month).astype(np.float32)
        demand = demand + _AFTER_DEFAULT["demand"] * fallen
        liquidity = liquidity + _AFTER_DEFAULT["liquidity"] * fallen
        staff_gap = _STAFF_FOLLOWS * staff_gap + (1 - _STAFF_FOLLOWS) * 0.35 * demand
        year = _season(months.of_year(month))
        sales = population.sales + growth * (month - 12) + _DEMAND_IN_SALES * demand + amplitude * year
        tables["sales"][month] = sales + unrest * draws.normal(f"sales-{month}", size)
        tables["staff"][month] = population.staff + 0.5 * growth * (month - 12) + staff_gap
        tables["demand"][month], tables["liquidity"][month] = demand, liquidity
        tables["compliance"][month] = compliance
        until = health.default_month - month
        tables["warning"][month] = announced & (until >= 0) & (until <= 2)
    closes = draws.chance("closes", _CLOSES, size) & (health.default_month <= LATEST)
    closed = np.where(closes, health.default_month + 3, LATEST + 1)
    return Activity(**tables, default_month=health.default_month, default_day=health.default_day, closed_month=closed)


def _season(month_of_year: int) -> float:
    """The year's course: low in the month of the Spring Festival, high before the year ends."""
    course = (-0.6, -2.0, 0.3, 0.2, 0.3, 0.3, -0.1, 0.0, 0.5, 0.2, 0.4, 0.6)
    return course[month_of_year - 1]


@dataclass(frozen=True)
class Payer:
    """How enterprises pay one kind of bill: late where strain exceeds ``patience``, not at all where far beyond.

    Attributes:
        liquidity: Weight of illiquidity in the strain.
        compliance: Weight of carelessness.
        noise: Standard deviation of what changes monthly.
        habit: Standard deviation of what differs between enterprises for ever.
        patience: Strain beyond which a bill is late.
        refusal: Strain beyond which it stays unpaid.
    """

    liquidity: float
    compliance: float
    noise: float
    habit: float
    patience: float
    refusal: float


def payments(payer: Payer, states: tuple[Floats, Floats], habit: Floats, draws: Draws) -> tuple[Ints, Bools]:
    """Days late and whether unpaid, for one month's bills.

    Args:
        payer: The kind of bill.
        states: Liquidity and compliance, float32 (m,) each.
        habit: float32 (m,), standard normal, the same every month.
        draws: Family of streams of this month.

    Returns:
        int64 (m,) days late, 0 = in time; bool (m,) unpaid.
    """
    liquidity, compliance = states
    strain = -payer.liquidity * liquidity - payer.compliance * compliance + payer.habit * habit
    strain = strain + payer.noise * draws.normal("strain", len(habit))
    late = strain > payer.patience
    days = 1 + draws.exponential("days", len(habit)) * 9 * np.exp(0.35 * np.clip(strain - payer.patience, 0, 6))
    return np.where(late, np.minimum(days, 89), 0).astype(np.int64), np.asarray(strain > payer.refusal)
