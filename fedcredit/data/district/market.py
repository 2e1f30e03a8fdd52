"""Market regulation with the courts: registrations, penalties, judgments, patents of three years."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import polars as pl

from fedcredit.data.district.draws import Bools, Draws, Floats, Ints
from fedcredit.data.district.health import Health
from fedcredit.data.district.months import EARLIEST, WRITTEN
from fedcredit.data.district.noise import Columns, Holder, money
from fedcredit.data.district.population import SECTORS, SIZES, TOWNS, Population

__all__ = ["write_market_regulation"]

_PENALTIES = ("tax", "environment", "safety", "quality", "advertising")
_PENALTY_SHARES = (0.25, 0.15, 0.2, 0.25, 0.15)
_PENALTY_BASE, _SUED_BASE, _SUES_BASE, _PATENT_BASE = -5.3, -5.1, -6.2, -6.5
"""ln of the monthly rate of an average enterprise: 6 %, 7 %, 2.4 % and 1.8 % a year."""

_INVENTIVE: Final = ("C34", "C41", "I65")


def write_market_regulation(holder: Holder, population: Population, health: Health) -> None:
    """Write all tables of the office of market regulation and the courts."""
    firms, months, draws = holder.firms, holder.months, holder.draws
    size = len(holder)
    words = {
        "industry": pl.Series([one.code for one in SECTORS]).gather(pl.Series(population.sector[firms])),
        "town": pl.Series([one.name for one in TOWNS]).gather(pl.Series(population.town[firms])),
        "firm_size": pl.Series(SIZES).gather(pl.Series(population.size[firms])),
    }
    capital = np.exp(12.2 + 0.7 * (population.staff[firms] - 1.2) + 1.0 * draws.normal("capital", size))
    years = 24 + 42 * draws.uniform("born", size)
    # Nobody is registered as legal person before the age of 18.
    born = np.minimum(months.as_of_day - years * 365.25, population.established[firms] - 18 * 365.25)
    holder.master(
        "firms",
        {
            "name": population.name.gather(pl.Series(firms)),
            "established_on": months.day_text(population.established[firms]),
            "industry": words["industry"],
            "town": words["town"],
            "registered_capital": np.maximum(np.round(capital.astype(np.float64), -4), 10_000.0),
            "legal_person_born": months.day_text(born.astype(np.int64)),
            "firm_size": words["firm_size"],
        },
    )
    _write_penalties(holder, population, health)
    _write_judgments(holder, population, health)
    codes = [at for at, one in enumerate(SECTORS) if one.code in _INVENTIVE]
    inventive = 1.6 * np.isin(population.sector[firms], codes) + 0.5 * (population.staff[firms] - 1.2)
    rows, days, _ = _drawn(holder, population, draws.child("patents"), lambda _: np.exp(_PATENT_BASE + inventive))
    holder.events("patents", rows, days, {"on": months.day_text(days)})


def _drawn(
    holder: Holder, population: Population, draws: Draws, rate: Callable[[int], Floats]
) -> tuple[Ints, Ints, Ints]:
    """Events of months EARLIEST to WRITTEN - 1, month by month: rows, days, months."""
    rows, days, when = [], [], []
    for month in range(EARLIEST, WRITTEN):
        start = holder.months.first(month)
        exists: Bools = population.established[holder.firms] < start
        at = np.flatnonzero(draws.chance(f"hit-{month}", rate(month), len(holder)) & exists)
        rows.append(at)
        days.append(start + draws.whole(f"day-{month}", holder.months.days(month), len(at)))
        when.append(np.full(len(at), month, dtype=np.int64))
    return np.concatenate(rows), np.concatenate(days), np.concatenate(when)


def _write_penalties(holder: Holder, population: Population, health: Health) -> None:
    firms, draws = holder.firms, holder.draws.child("penalties")
    larger = 0.25 * (population.staff[firms] - 1.2)
    rows, days, _ = _drawn(
        holder,
        population,
        draws,
        lambda month: np.exp(np.minimum(_PENALTY_BASE + larger - 0.8 * health.at(month)[2][firms], -0.5)),
    )
    kinds = draws.pick("kind", _PENALTY_SHARES, len(rows))
    amount = np.exp(8.6 + larger[rows] + 1.0 * draws.normal("amount", len(rows)))
    columns: Columns = {
        "on": holder.months.day_text(days),
        "kind": pl.Series(_PENALTIES).gather(pl.Series(kinds)),
        "amount": money(amount),
    }
    holder.events("penalties", rows, days, columns)


def _write_judgments(holder: Holder, population: Population, health: Health) -> None:
    """Judgments against an enterprise follow its illiquidity; those in its favour follow its size."""
    firms, draws, months = holder.firms, holder.draws.child("judgments"), holder.months
    larger = 0.5 * (population.staff[firms] - 1.2)

    def sued(month: int) -> Floats:
        _, liquidity, compliance = (state[firms] for state in health.at(month))
        return np.asarray(np.exp(np.minimum(_SUED_BASE + 0.5 * larger - 0.9 * liquidity - 0.4 * compliance, -0.5)))

    lost = _drawn(holder, population, draws.child("lost"), sued)
    won = _drawn(holder, population, draws.child("won"), lambda _: np.exp(_SUES_BASE + larger))
    rows, days, when = (np.concatenate(pair) for pair in zip(lost, won, strict=True))
    defends = np.arange(len(rows)) < len(lost[0])
    ill = -health.liquidity[when - EARLIEST, firms[rows]]
    enforced = defends & draws.chance("enforced", 1 / (1 + np.exp(1.0 - 0.6 * ill)), len(rows))
    amount = np.exp(0.6 * population.sales[firms[rows]] + 3.5 + 1.1 * draws.normal("amount", len(rows)))
    columns: Columns = {
        "on": months.day_text(days),
        "amount": money(amount),
        "role": pl.Series(["plaintiff", "defendant"]).gather(pl.Series(defends.astype(np.uint32))),
        "enforced": enforced.astype(np.int64),
    }
    holder.events("judgments", rows, days, columns)
