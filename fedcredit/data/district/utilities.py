"""Electricity, water and gas: accounts, monthly use and how it is paid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fedcredit.data.district.activity import Activity, Payer, payments
from fedcredit.data.district.draws import Floats
from fedcredit.data.district.health import Health
from fedcredit.data.district.months import EARLIEST, WRITTEN
from fedcredit.data.district.noise import Holder, money
from fedcredit.data.district.population import TOWNS, Population

__all__ = ["GAS", "WATER", "Meter", "write_electricity", "write_metered"]

_PAYS = Payer(liquidity=0.80, compliance=0.25, noise=0.8, habit=0.5, patience=1.4, refusal=2.9)
_BREACHES = ("overdue", "overload", "tampering")
_POWER_OF_SALES: Final = 0.60
"""Elasticity of electricity to sales: machines and shops have a base load."""

_STREETS = ("人民路", "建设路", "解放路", "中山路", "工业路", "振兴街", "文化街", "和平街", "环城路", "创业路")
_WEATHER = (0.10, 0.06, -0.06, -0.10, -0.05, 0.05, 0.16, 0.18, 0.02, -0.10, -0.04, 0.08)


@dataclass(frozen=True)
class Meter:
    """Water or gas: price of a cubic metre, elasticity to sales, noise of a month, and how bills are paid."""

    field: str
    price: float
    elasticity: float
    noise: float
    payer: Payer


WATER = Meter("water", 4.6, 0.45, 0.22, Payer(0.60, 0.25, 1.0, 0.6, 1.7, 2.9))
GAS = Meter("gas", 3.9, 0.55, 0.25, Payer(0.65, 0.25, 1.0, 0.6, 1.7, 2.9))
_GAS_OVER_WATER: Final = 1.6


def _addresses(holder: Holder, population: Population) -> pl.Series:
    """Town, street and number, as each holder wrote them down."""
    draws = holder.draws.child("address")
    towns = pl.Series([one.name for one in TOWNS]).gather(pl.Series(population.town[holder.firms]))
    streets = pl.Series(_STREETS).gather(pl.Series(draws.whole("street", len(_STREETS), len(holder))))
    return towns + streets + pl.Series(1 + draws.whole("number", 400, len(holder))).cast(pl.String) + "号"


def write_electricity(holder: Holder, population: Population, activity: Activity, health: Health) -> None:
    """Write all tables of the electricity company."""
    firms, months, draws = holder.firms, holder.months, holder.draws
    size = len(holder)
    level = population.of_sector("power")[firms] + 0.85 * (population.staff[firms] - 1.2)
    level = level + 0.7 * draws.normal("level", size)
    habit = draws.normal("habit", size)
    # A company overwrites the state of an account: it is that of the day on which the source was written.
    strain = -0.7 * activity.liquidity[WRITTEN - 1, firms] + draws.normal("state", size)
    closed = ~activity.open_in(WRITTEN - 1)[firms]
    state = pl.Series(["active", "suspended", "closed"]).gather(
        pl.Series(np.where(closed, 2, strain > 3.0).astype(np.uint32))
    )
    # Rated in steps of a fifth, chosen for normal business: how far it is used tells of demand.
    capacity = np.exp(np.round(5 * (level - 4.4 + 0.30 * draws.normal("capacity", size))) / 5)
    holder.master(
        "accounts",
        {
            "name": population.name.gather(pl.Series(firms)),
            "address": _addresses(holder, population),
            "supplied_from": months.day_text(holder.known_since),
            "capacity_kva": np.round(np.clip(capacity, 3, 40_000).astype(np.float64)),
            "state": state,
        },
    )
    peak = np.clip(0.45 + 0.12 * draws.normal("peak", size), 0.1, 0.9)
    for month in range(WRITTEN):
        of_month = draws.child(f"usage-{month}")
        moved = activity.sales[month, firms] - population.sales[firms]
        kwh = np.exp(level + _POWER_OF_SALES * moved + _weather(holder, month) + 0.10 * of_month.normal("kwh", size))
        states = (activity.liquidity[month, firms], activity.compliance[month, firms])
        days, unpaid = payments(_PAYS, states, habit, of_month)
        bill = kwh * np.float32(0.72)
        day = months.first(month + 1) + 5 + of_month.whole("day", 15, size) + days
        columns = {
            "kwh": np.round(kwh.astype(np.float64), 1),
            "peak_kwh": np.round((kwh * np.clip(peak + 0.04 * of_month.normal("peak", size), 0.05, 0.95)), 1),
            "bill": money(bill),
            "paid": money(np.where(unpaid, 0.0, bill)),
            "paid_on": months.day_text(day, unpaid),
        }
        holder.series("usage", month, _doubles(columns), activity.open_in(month)[firms])
    _write_breaches(holder, health)


def _doubles(
    columns: dict[str, pl.Series | Floats],
) -> dict[str, pl.Series | np.ndarray[tuple[int], np.dtype[np.float64]]]:
    return {
        name: values if isinstance(values, pl.Series) else np.asarray(values, dtype=np.float64)
        for name, values in columns.items()
    }


def _weather(holder: Holder, month: int) -> np.float32:
    return np.float32(_WEATHER[holder.months.of_year(month) - 1])


def _write_breaches(holder: Holder, health: Health) -> None:
    """Breaches of contract in three years: the careless and those short of money more often."""
    rows, days, kinds = [], [], []
    for month in range(EARLIEST, WRITTEN):
        draws = holder.draws.child(f"breaches-{month}")
        _, liquidity, compliance = (state[holder.firms] for state in health.at(month))
        hit = draws.chance("hit", np.exp(-6.0 - 0.5 * liquidity - 0.5 * compliance), len(holder))
        at = np.flatnonzero(hit & (holder.known_since < holder.months.first(month)))
        rows.append(at)
        days.append(holder.months.first(month) + draws.whole("day", holder.months.days(month), len(at)))
        kinds.append(draws.pick("kind", (0.7, 0.2, 0.1), len(at)))
    day = np.concatenate(days)
    words = pl.Series(_BREACHES).gather(pl.Series(np.concatenate(kinds)))
    holder.events("breaches", np.concatenate(rows), day, {"on": holder.months.day_text(day), "kind": words})


def write_metered(holder: Holder, meter: Meter, population: Population, activity: Activity) -> None:
    """Write the tables of the water or the gas company; who prepays owes nothing."""
    firms, months, draws = holder.firms, holder.months, holder.draws
    size = len(holder)
    level = (
        population.of_sector("water")[firms] + 0.8 * (population.staff[firms] - 1.2) + 0.6 * draws.normal("level", size)
    )
    if meter.field == "gas":
        level = level + np.float32(_GAS_OVER_WATER)
    prepays = draws.chance("prepays", 0.25, size)
    held = np.where(prepays, np.exp(level) * meter.price * (0.3 + 2 * draws.uniform("held", size)), 0.0)
    holder.master(
        "accounts",
        {
            "name": population.name.gather(pl.Series(firms)),
            "opened_on": months.day_text(holder.known_since),
            "address": _addresses(holder, population),
            "prepaid": money(np.asarray(held, dtype=np.float32)),
            "own_meter": draws.chance("meter", 1 / (1 + np.exp(0.2 - 0.6 * population.staff[firms])), size).astype(
                np.int64
            ),
        },
    )
    habit = draws.normal("habit", size)
    owed = np.zeros(size, dtype=np.float32)
    for month in range(WRITTEN):
        of_month = draws.child(f"usage-{month}")
        moved = activity.sales[month, firms] - population.sales[firms]
        volume = np.exp(level + meter.elasticity * moved + meter.noise * of_month.normal("volume", size))
        bill = volume * np.float32(meter.price)
        states = (activity.liquidity[month, firms], activity.compliance[month, firms])
        days, unpaid = payments(meter.payer, states, habit, of_month)
        # A bill more than 20 days late is paid with the next; an unpaid one is carried on.
        behind = ~prepays & (unpaid | (days > 20))
        paid = np.where(behind, 0.0, bill + owed)
        owed = np.where(behind, owed + bill, 0.0).astype(np.float32)
        columns = {
            "volume_m3": np.round(volume.astype(np.float64), 1),
            "bill": money(bill),
            "paid": money(paid),
            "arrears": money(owed),
        }
        holder.series("usage", month, columns, activity.open_in(month)[firms])
