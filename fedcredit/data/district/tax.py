"""The tax office: registrations, monthly returns, grades of payers, arrears."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from fedcredit.data.district.activity import Activity, Payer, payments
from fedcredit.data.district.draws import Floats
from fedcredit.data.district.health import Health
from fedcredit.data.district.months import AS_OF, WRITTEN
from fedcredit.data.district.noise import Columns, Holder, money
from fedcredit.data.district.population import SECTORS, Population

__all__ = ["write_tax_office"]

_PAYS = Payer(liquidity=0.70, compliance=0.75, noise=0.8, habit=0.5, patience=1.4, refusal=2.8)
_SMALL_SCALE_BELOW: Final = np.log(5_000_000 / 12)
"""ln yuan a month: up to 5 million a year an enterprise may be a small-scale payer of VAT."""

_EXEMPT_BELOW: Final = 100_000
"""Yuan a month up to which a small-scale payer owes no VAT."""

_GRADES = ("D", "C", "B", "A")
_GRADE_EDGES = (-2.1, -1.1, 1.4)
"""About 5 % D, 13 % C, 70 % B, 12 % A of those that are graded; M is given to the newly registered."""


def write_tax_office(holder: Holder, population: Population, activity: Activity, health: Health) -> None:
    """Write all tables of the tax office."""
    firms, months = holder.firms, holder.months
    general = population.sales[firms] + 0.3 * holder.draws.normal("kind", len(holder)) > _SMALL_SCALE_BELOW
    codes = pl.Series([one.code for one in SECTORS])
    holder.master(
        "taxpayers",
        {
            "name": population.name.gather(pl.Series(firms)),
            "registered_on": months.day_text(holder.known_since),
            "industry": codes.gather(pl.Series(population.sector[firms])),
            "vat_kind": pl.Series(["small_scale", "general"]).gather(pl.Series(general.astype(np.uint32))),
        },
    )
    habits = {name: holder.draws.normal(name, len(holder)) for name in ("habit", "margin", "shape")}
    exports = holder.draws.chance("exports", 0.12 * (np.isin(population.sector[firms], (1, 2, 3, 4))), len(holder))
    arrears: list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats, int]] = []
    for month in range(WRITTEN):
        owed = _write_returns(holder, (population, activity), month, (general, exports), habits)
        arrears.append((np.flatnonzero(owed > 0), owed[owed > 0], month))
    _write_grades(holder, health)
    _write_arrears(holder, arrears)


def _write_returns(
    holder: Holder,
    world: tuple[Population, Activity],
    month: int,
    kinds: tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], np.ndarray[tuple[int], np.dtype[np.bool_]]],
    habits: dict[str, Floats],
) -> Floats:
    """Write one month's returns; gives the tax that stays unpaid, yuan (m,)."""
    population, activity = world
    general, exports = kinds
    firms, size, draws = holder.firms, len(holder), holder.draws.child(f"returns-{month}")
    demand, liquidity, compliance = (
        table[month, firms] for table in (activity.demand, activity.liquidity, activity.compliance)
    )
    reported = 1 / (1 + np.exp(-(2.2 + 0.5 * compliance)))
    sales = np.exp(activity.sales[month, firms] + 0.10 * draws.normal("sales", size)) * reported
    # Who sells little sells cheaply: value added falls with demand.
    margin = 0.03 * np.exp(0.12 * demand + 0.30 * habits["margin"] + 0.3 * draws.normal("margin", size))
    due = np.where(general, sales * margin, np.where(sales > _EXEMPT_BELOW, sales * 0.01, 0.0))
    days, unpaid = payments(_PAYS, (liquidity, compliance), habits["habit"], draws)
    unpaid &= due > 0
    day = holder.months.first(month + 1) + 4 + draws.whole("day", 11, size) + days
    concentration = population.concentration[firms]
    busy = np.sqrt(sales / 1e5) * np.exp(0.25 * habits["shape"])
    buyers = draws.count("buyers", 8 * busy * np.exp(-0.3 * concentration + 0.06 * demand)) + 1
    top = 1 / (1 + np.exp(-(-1.0 + 0.8 * concentration - 0.12 * demand + 0.35 * draws.normal("top", size))))
    rebate = np.where(exports, sales * 0.05 * np.exp(0.5 * draws.normal("rebate", size)), 0.0)
    columns: Columns = {
        "vat_sales": money(sales),
        "tax_due": money(due),
        "tax_paid": money(np.where(unpaid, 0.0, due)),
        "paid_on": holder.months.day_text(day, np.asarray(unpaid | (due <= 0))),
        "buyers": buyers,
        "sellers": draws.count("sellers", 6 * busy) + 1,
        "top_buyer_share": np.round(np.maximum(top, 1 / buyers).astype(np.float64), 4),
        "export_rebate": money(rebate),
    }
    filed = ~draws.chance("unfiled", 1 / (1 + np.exp(4.6 + 0.8 * compliance + 0.2 * liquidity)), size)
    holder.series("returns", month, columns, filed & activity.open_in(month)[firms])
    return np.asarray(np.where(unpaid, due, 0.0), dtype=np.float32)


def _write_grades(holder: Holder, health: Health) -> None:
    """Grades of the two years before that of the as-of date, each published in April of the year after."""
    months, firms = holder.months, holder.firms
    rows, years, days, grades = [], [], [], []
    for back in (2, 1):
        year = months.year(AS_OF) - back
        draws = holder.draws.child(f"grades-{back}")
        december = AS_OF - 12 * back + (12 - months.of_year(AS_OF))
        _, liquidity, compliance = health.at(min(december, AS_OF))
        score = 1.0 * compliance[firms] + 0.3 * liquidity[firms] + 0.6 * draws.normal("score", len(holder))
        grade = np.searchsorted(np.array(_GRADE_EDGES), score)
        end = months.first(december + 1)
        grade = np.where(holder.known_since > end - 730, len(_GRADES), grade)
        graded = np.flatnonzero(holder.known_since < end)
        published = months.first(december + 4) + 9 + draws.whole("day", 12, len(graded))
        known = published <= months.first(WRITTEN)
        rows.append(graded[known])
        years.append(np.full(int(known.sum()), year, dtype=np.int64))
        days.append(published[known])
        grades.append(grade[graded][known])
    day = np.concatenate(days)
    words = pl.Series([*_GRADES, "M"]).gather(pl.Series(np.concatenate(grades)))
    columns: Columns = {"year": np.concatenate(years), "graded_on": months.day_text(day), "grade": words}
    holder.events("grades", np.concatenate(rows), day, columns)


def _write_arrears(holder: Holder, found: list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats, int]]) -> None:
    """Tax that was not paid within 30 days; most is cleared within months, the date is null while it is open."""
    rows = np.concatenate([one for one, _, _ in found])
    amount = np.concatenate([one for _, one, _ in found])
    month = np.concatenate([np.full(len(one), at, dtype=np.int64) for one, _, at in found])
    draws, months = holder.draws.child("arrears"), holder.months
    since = months.firsts(month + 1) + 15
    cleared = since + 20 + (draws.exponential("cleared", len(rows)) * 120).astype(np.int64)
    still_open = cleared >= months.first(WRITTEN)
    known = since < months.first(WRITTEN)
    columns: Columns = {
        "since": months.day_text(since[known]),
        "cleared_on": months.day_text(cleared[known], still_open[known]),
        "amount": money(amount[known]),
    }
    holder.events("arrears", rows[known], since[known], columns)
