"""Medical and social insurance: employers, monthly contributions, deferrals."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from fedcredit.data.district.activity import Activity, Payer, payments
from fedcredit.data.district.months import WRITTEN
from fedcredit.data.district.noise import Holder, money
from fedcredit.data.district.population import Population

__all__ = ["write_social_insurance"]

_PAYS = Payer(liquidity=0.80, compliance=0.50, noise=0.8, habit=0.45, patience=1.4, refusal=2.8)
_RATE: Final = 0.245
"""Employer's contribution over the wage: pension 16 %, medical 7 %, unemployment and injury 1.5 %."""


def write_social_insurance(holder: Holder, population: Population, activity: Activity) -> None:
    """Write all tables of the office that collects medical and social insurance."""
    firms, months, draws = holder.firms, holder.months, holder.draws
    size = len(holder)
    names = population.name.gather(pl.Series(firms))
    holder.master("employers", {"name": names, "registered_on": months.day_text(holder.known_since)})
    # Not everybody employed is insured; where the rules are kept, more are.
    insured_share = 1 / (1 + np.exp(-(1.2 + 0.5 * activity.compliance[0, firms] + 0.5 * draws.normal("share", size))))
    wage = population.of_sector("wage")[firms] * np.exp(0.2 * draws.normal("wage", size)) * np.float32(0.8)
    habit = draws.normal("habit", size)
    deferred: list[
        tuple[np.ndarray[tuple[int], np.dtype[np.int64]], pl.Series, np.ndarray[tuple[int], np.dtype[np.float64]]]
    ] = []
    for month in range(WRITTEN):
        of_month = draws.child(f"contributions-{month}")
        people = np.exp(activity.staff[month, firms]) * insured_share
        insured = np.maximum(np.floor(people + 0.35 * of_month.normal("people", size) + 0.5), 1).astype(np.int64)
        owed = insured * wage * np.float32(_RATE)
        liquidity = activity.liquidity[month, firms]
        days, unpaid = payments(_PAYS, (liquidity, activity.compliance[month, firms]), habit, of_month)
        asks = of_month.chance("asks", np.exp(np.minimum(-5.0 - 0.7 * liquidity, -1.0)), size)
        day = months.first(month + 1) + 3 + of_month.whole("day", 12, size) + days
        columns = {
            "insured": insured,
            "contribution": money(owed),
            "paid_on": months.day_text(day, np.asarray(unpaid | asks)),
        }
        # Who does not pay at all often does not report either.
        reported = ~(unpaid & of_month.chance("silent", 0.3, size))
        working = activity.open_in(month)[firms] & (holder.known_since < months.first(month))
        holder.series("contributions", month, columns, reported & working)
        at = np.flatnonzero(asks & reported & working)
        deferred.append((at, pl.Series([months.text(month)]).new_from_index(0, len(at)), money(owed[at])))
    rows = np.concatenate([at for at, _, _ in deferred])
    month_of = pl.concat([names for _, names, _ in deferred])
    amount = np.concatenate([owed for _, _, owed in deferred])
    holder.events("deferrals", rows, np.arange(len(rows)), {"month": month_of, "amount": amount})
