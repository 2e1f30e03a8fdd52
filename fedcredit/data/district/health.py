"""Latent health of enterprises month by month, the business cycle, and when they default.

Three states, none of which anybody observes: demand D, liquidity L, compliance C. All are about standard normal with a
tail of bad news. docs/district.md gives the formulas and the reason of each constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedcredit.data.district.draws import Draws, Floats, Ints
from fedcredit.data.district.months import AS_OF, EARLIEST, LATEST, Months
from fedcredit.data.district.population import SECTORS, TOWNS, Population

__all__ = ["Health", "live"]

_BURN_IN: Final = 24
_CYCLE_KEEPS, _SECTOR_KEEPS, _TOWN_KEEPS = 0.95, 0.92, 0.90
_CYCLE_LOAD, _SECTOR_LOAD, _TOWN_LOAD = 0.25, 0.06, 0.05
_HISTORY: Final = 12
"""Defaults happen from this month on; who defaulted before and is still on the register has recovered."""


@dataclass(frozen=True)
class _Process:
    """x' = keeps x + noise e - jump + mean jump; a jump comes with a probability and has an exponential size."""

    keeps: float
    noise: float
    jumps: float
    size: float


_DEMAND = _Process(keeps=0.955, noise=0.23, jumps=0.012, size=1.4)
_LIQUIDITY = _Process(keeps=0.95, noise=0.22, jumps=0.006, size=1.5)
_COMPLIANCE = _Process(keeps=0.985, noise=0.17, jumps=0.0, size=0.0)
_DEMAND_FEEDS_LIQUIDITY: Final = 0.05

# Effects on the monthly log hazard of one standard deviation.
_HAZARD = {
    "demand": -1.45,
    "liquidity": -1.50,
    "compliance": -1.40,
    "leverage": 0.30,
    "concentration": 0.15,
    "volatility": 0.20,
    "frailty": 0.40,
}
_STRAIN_KEEPS: Final = 0.85
"""Weight of last month's strain in this month's: reserves last for half a year, a default is 90 days past due."""

_AGE_EFFECT, _SIZE_EFFECT = -0.12, -0.08  # of ln years and of ln persons employed


@dataclass(frozen=True, eq=False)
class Health:
    """Latent states of n enterprises, months EARLIEST to LATEST.

    Attributes:
        demand: float32 (months, n); cycle and sector are in it.
        liquidity: float32 (months, n).
        compliance: float32 (months, n).
        default_month: int64 (n,), month of the default; LATEST + 1 = none.
        default_day: int64 (n,), its day; meaningless where there is none.
        probability: float64 (n,), of a default in the 12 months after the as-of month given the whole latent path.
        base: ln of the monthly hazard of an average enterprise.
    """

    demand: Floats
    liquidity: Floats
    compliance: Floats
    default_month: Ints
    default_day: Ints
    probability: NDArray[np.float64]
    base: float

    def at(self, month: int) -> tuple[Floats, Floats, Floats]:
        """Demand, liquidity and compliance of a month, each float32 (n,)."""
        row = month - EARLIEST
        return self.demand[row], self.liquidity[row], self.compliance[row]


def live(population: Population, draws: Draws, months: Months, rate: float) -> Health:
    """Draw the latent paths and the defaults.

    Args:
        population: The enterprises.
        draws: Family of streams.
        months: Calendar.
        rate: Probability of a default in the 12 months after the as-of date, the mean over enterprises that have not
            defaulted by then; in (0, 1).
    """
    demand, liquidity, compliance = _paths(len(population), draws)
    _add_common(demand, population, draws)
    risk = _risk(population)
    hazards = np.empty_like(demand)
    strain = np.zeros(len(population), dtype=np.float32)
    for row in range(len(demand)):
        state = (
            _HAZARD["demand"] * demand[row]
            + _HAZARD["liquidity"] * liquidity[row]
            + _HAZARD["compliance"] * compliance[row]
        )
        strain = state if row == 0 else _STRAIN_KEEPS * strain + (1 - _STRAIN_KEEPS) * state
        hazards[row] = np.exp(np.minimum(strain + risk, 8.0))
    history = hazards[_HISTORY - EARLIEST : AS_OF + 1 - EARLIEST].sum(axis=0, dtype=np.float64)
    coming = hazards[AS_OF + 1 - EARLIEST :].sum(axis=0, dtype=np.float64)
    base = _base(history, coming, rate)
    hazards *= np.float32(np.exp(base))
    month = _first_default(hazards, draws)
    return Health(
        demand=demand,
        liquidity=liquidity,
        compliance=compliance,
        default_month=month,
        default_day=_day_in(month, draws, months),
        probability=-np.expm1(-np.exp(base) * coming),
        base=base,
    )


def _paths(size: int, draws: Draws) -> tuple[Floats, Floats, Floats]:
    span = LATEST - EARLIEST + 1
    kept = tuple(np.empty((span, size), dtype=np.float32) for _ in range(3))
    demand, liquidity, compliance = (draws.normal(f"{name}-start", size) for name in ("demand", "liquidity", "own"))
    for step in range(-_BURN_IN, span):
        liquidity = _next(_LIQUIDITY, liquidity, draws.child("liquidity"), step)
        liquidity += np.float32(_DEMAND_FEEDS_LIQUIDITY) * demand
        demand = _next(_DEMAND, demand, draws.child("demand"), step)
        compliance = _next(_COMPLIANCE, compliance, draws.child("compliance"), step)
        if step >= 0:
            kept[0][step], kept[1][step], kept[2][step] = demand, liquidity, compliance
    return kept[0], kept[1], kept[2]


def _next(process: _Process, state: Floats, draws: Draws, step: int) -> Floats:
    size = len(state)
    moved = process.keeps * state + process.noise * draws.normal(f"{step}", size)
    if process.jumps:
        jump = draws.chance(f"{step}-jump", process.jumps, size)
        moved[jump] -= process.size * draws.exponential(f"{step}-size", int(jump.sum()))
        moved += process.jumps * process.size  # the mean stays zero
    return np.asarray(moved, dtype=np.float32)


def _add_common(demand: Floats, population: Population, draws: Draws) -> None:
    """Add the district's cycle, the sectors' and the towns' own to demand, in place."""
    cycle = _common("cycle", 1, _CYCLE_KEEPS, draws)
    sectors = _common("sectors", len(SECTORS), _SECTOR_KEEPS, draws)
    towns = _common("towns", len(TOWNS), _TOWN_KEEPS, draws)
    for row in range(len(demand)):
        demand[row] += _CYCLE_LOAD * cycle[row, 0]
        demand[row] += (_SECTOR_LOAD * sectors[row]).astype(np.float32)[population.sector]
        demand[row] += (_TOWN_LOAD * towns[row]).astype(np.float32)[population.town]


def _common(name: str, groups: int, keeps: float, draws: Draws) -> Floats:
    """Stationary AR(1) paths of variance 1, float32 (months, groups)."""
    span = LATEST - EARLIEST + 1
    path = np.empty((span, groups), dtype=np.float32)
    state = draws.normal(f"{name}-start", groups)
    for row in range(span):
        state = keeps * state + np.float32(np.sqrt(1 - keeps**2)) * draws.normal(f"{name}-{row}", groups)
        path[row] = state
    return path


def _risk(population: Population) -> Floats:
    """Lasting part of the log hazard, float32 (n,)."""
    total = population.of_sector("risk") + population.of_town("risk")
    for name in ("leverage", "concentration", "volatility", "frailty"):
        total = total + _HAZARD[name] * getattr(population, name)
    days = population.established.max() - population.established + 90.0
    total = total + _AGE_EFFECT * np.log(days / (6.5 * 365.25)) + _SIZE_EFFECT * (population.staff - 1.2)
    return np.asarray(total, dtype=np.float32)


def _base(history: NDArray[np.float64], coming: NDArray[np.float64], rate: float) -> float:
    """The base at which the mean probability of survivors is ``rate``, by bisection; exact to 1e-9."""
    low, high = -30.0, 5.0
    while high - low > 1e-9:
        base = (low + high) / 2
        weight = np.exp(-np.exp(base) * history)
        mean = float(-(weight * np.expm1(-np.exp(base) * coming)).sum() / weight.sum())
        low, high = (base, high) if mean < rate else (low, base)
    return low


def _first_default(hazards: Floats, draws: Draws) -> Ints:
    """Month in which the summed hazard passes an exponential threshold."""
    threshold = draws.exponential("default", hazards.shape[1])
    summed = np.zeros_like(threshold)
    month = np.full(len(threshold), LATEST + 1, dtype=np.int64)
    for row in range(_HISTORY - EARLIEST, len(hazards)):
        before = summed < threshold
        summed = summed + hazards[row]
        month[before & (summed >= threshold)] = row + EARLIEST
    return month


def _day_in(month: Ints, draws: Draws, months: Months) -> Ints:
    first, after = months.firsts(np.minimum(month, LATEST)), months.firsts(np.minimum(month, LATEST) + 1)
    return np.asarray(first + (draws.uniform("default-day", len(month)) * (after - first)), dtype=np.int64)
