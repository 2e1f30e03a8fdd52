"""Six banks: whom each serves, what runs through its accounts, its loans, repayments and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fedcredit.data.district.activity import Activity, Payer, payments
from fedcredit.data.district.draws import Bools, Draws, Floats, Ints
from fedcredit.data.district.months import AS_OF, HORIZON, LATEST, WRITTEN
from fedcredit.data.district.noise import Holder, covered, money
from fedcredit.data.district.population import SECTORS, TOWNS, Population

__all__ = ["BANKS", "Bank", "Books", "clientele", "keep_books", "opened", "wallets", "write_bank"]


@dataclass(frozen=True)
class Bank:
    """One bank.

    Attributes:
        name: Of its file.
        share: Customers over the enterprises of the district.
        size: Affinity to ln persons employed.
        urban: Affinity to urban towns.
        sectors: Codes of industries it likes.
        towns: How many of the smallest towns it serves alone; 0 = the whole district.
        borrowers: Share of the customers with a loan.
    """

    name: str
    share: float
    size: float
    urban: float
    sectors: tuple[str, ...]
    towns: int
    borrowers: float


BANKS = (
    Bank("bank_1", 60 / 210, 0.10, -0.6, ("A01", "C13", "F52", "E48"), 0, 0.75),
    Bank("bank_2", 38 / 210, 0.35, 1.2, ("L72", "H62", "O80"), 0, 0.60),
    Bank("bank_3", 30 / 210, 0.80, 0.4, ("C17", "C34", "C41", "G54"), 0, 0.55),
    Bank("bank_4", 18 / 210, -0.20, -1.4, ("A01", "F52", "F51"), 0, 0.65),
    Bank("bank_5", 9 / 210, 0.90, 1.6, ("I65", "F51", "C34"), 0, 0.60),
    Bank("bank_6", 3 / 210, -0.10, -0.5, ("A01", "H62", "F52"), 5, 0.80),
)
"""A rural commercial, a city, a state, a savings, a joint-stock and a village bank."""

_SECTOR_AFFINITY: Final = 0.7
_COLLATERAL = ("mortgage", "guarantee", "pledge", "unsecured")
_TERMS = (12, 24, 36)

_REPAYS = Payer(liquidity=0.75, compliance=0.15, noise=1.0, habit=0.5, patience=3.1, refusal=5.0)
"""A bank is paid before others: lateness is rare and comes late."""

_WALLET_KEEPS, _WALLET_NOISE = 0.90, 0.45
"""Share of the sales that runs through one account wanders: an account is moved, a terminal changed."""

_RECEIPTS_NOISE: Final = 0.40


def clientele(bank: Bank, population: Population, draws: Draws) -> Ints:
    """Positions of the enterprises a bank serves, in the order of its files."""
    likes = [one.code in bank.sectors for one in SECTORS]
    affinity = bank.size * population.staff + bank.urban * population.of_town("urban")
    affinity = affinity + _SECTOR_AFFINITY * np.array(likes, dtype=np.float32)[population.sector]
    if bank.towns:
        affinity = affinity - 30.0 * (population.town < len(TOWNS) - bank.towns)
    return covered(bank.share, np.asarray(affinity, dtype=np.float32), draws)


def opened(firms: Ints, population: Population, as_of: int, draws: Draws) -> Ints:
    """Day from which each enterprise is a customer: some years ago, not before it was established."""
    ago = np.minimum(30 + draws.exponential("opened", len(firms)) * 5 * 365, 9000).astype(np.int64)
    return np.asarray(np.maximum(population.established[firms] + 20, as_of - ago), dtype=np.int64)


def wallets(clients: list[Ints], size: int, draws: Draws) -> tuple[list[Floats], list[Bools]]:
    """For each bank and customer: share of its sales that runs through this bank, and whether it is its main bank.

    Accounts with others (banks elsewhere, payment firms, cash) take a part as well, so shares add up to less than 1.
    """
    weights = np.zeros((len(clients), size), dtype=np.float32)
    for at, firms in enumerate(clients):
        weights[at, firms] = np.exp(0.9 * draws.normal(f"weight-{at}", len(firms)))
    elsewhere = np.exp(0.8 * draws.normal("elsewhere", size) - 0.3)
    shares = weights / (weights.sum(axis=0) + elsewhere)
    main = weights.argmax(axis=0)
    return (
        [np.asarray(shares[at, firms], dtype=np.float32) for at, firms in enumerate(clients)],
        [np.asarray(main[firms] == at) for at, firms in enumerate(clients)],
    )


@dataclass(frozen=True, eq=False)
class Books:
    """One bank's customers while its tables are written; vectors are (m,).

    Attributes:
        holder: The bank.
        population: Everybody.
        activity: What everybody does.
        wallet: Mean share of the sales that runs through this bank.
        main: Whether payroll and taxes are paid from here.
        borrows: Who has a loan.
        debt: Yuan lent, at least 10,000.
    """

    holder: Holder
    population: Population
    activity: Activity
    wallet: Floats
    main: Bools
    borrows: Bools
    debt: Floats


def keep_books(bank: Bank, holder: Holder, world: tuple[Population, Activity], wallet: Floats, main: Bools) -> Books:
    """Choose who borrows: the larger, the older, and not the careless; a bank looks before it lends."""
    population, activity = world
    firms, draws = holder.firms, holder.draws
    years = (holder.months.as_of_day - population.established[firms]) / 365.25
    affinity = 0.4 * population.staff[firms] + 0.3 * np.log(years) + 0.25 * activity.compliance[0, firms] + 0.8 * main
    chosen = covered(bank.borrowers, np.asarray(affinity, dtype=np.float32), draws.child("borrowers"))
    borrows = np.zeros(len(firms), dtype=np.bool_)
    borrows[chosen] = True
    level = population.sales[firms] + 0.7 + 0.55 * population.leverage[firms] + 0.4 * draws.normal("debt", len(firms))
    debt = np.clip(np.exp(level) // 1000 * 1000, 10_000, 50_000_000)
    return Books(holder, population, activity, wallet, main, borrows, np.asarray(debt, dtype=np.float32))


def write_bank(books: Books) -> None:
    """Write all tables of one bank."""
    holder = books.holder
    kinds = pl.Series(["general", "basic"]).gather(pl.Series(books.main.astype(np.uint32)))
    names = books.population.name.gather(pl.Series(holder.firms))
    since = holder.months.day_text(holder.known_since)
    holder.master("customers", {"name": names, "opened_on": since, "account_kind": kinds})
    granted = _write_loans(books)
    habits = {name: holder.draws.normal(f"habit-{name}", len(holder)) for name in ("repays", "balance", "busy")}
    drift = _WALLET_NOISE * holder.draws.normal("drift", len(holder))
    for month in range(WRITTEN):
        draws = holder.draws.child(f"month-{month}")
        step = np.float32(_WALLET_NOISE * np.sqrt(1 - _WALLET_KEEPS**2))
        drift = _WALLET_KEEPS * drift + step * draws.normal("drift", len(holder))
        _write_flows(books, month, drift, habits)
        _write_repayments(books, month, habits["repays"], granted)
    _write_defaults(books)


def _write_flows(books: Books, month: int, drift: Floats, habits: dict[str, Floats]) -> None:
    holder, activity, population = books.holder, books.activity, books.population
    firms, size, draws = holder.firms, len(holder), holder.draws.child(f"flows-{month}")
    demand, liquidity = activity.demand[month, firms], activity.liquidity[month, firms]
    through = np.exp(activity.sales[month, firms] + np.log(books.wallet) + drift)
    receipts = through * np.exp(_RECEIPTS_NOISE * draws.normal("receipts", size) - _RECEIPTS_NOISE**2 / 2)
    wages = np.exp(activity.staff[month, firms]) * population.of_sector("wage")[firms]
    leverage = population.leverage[firms]
    # Who is short of money borrows more often and rolls over what it owes.
    borrowing = draws.chance("borrowing", 0.06 + 0.05 / (1 + np.exp(1.2 * liquidity + 1.0)), size)
    loans = borrowing * through * np.exp(0.6 + 0.4 * leverage + 0.6 * draws.normal("loans", size))
    service = through * np.exp(-3.0 + 0.5 * leverage + 0.5 * draws.normal("service", size))
    dependence = -0.9 + 0.8 * population.concentration[firms] - 0.10 * demand
    top = 1 / (1 + np.exp(-(dependence + 0.45 * draws.normal("top", size))))
    busy = np.sqrt(receipts / 1e5) * np.exp(0.35 * habits["busy"])
    payers = draws.count("payers", 5 * busy * np.exp(-0.3 * population.concentration[firms] + 0.04 * demand)) + 1
    payees = draws.count("payees", 4 * busy) + 1
    cover = np.exp(-0.5 + 0.18 * liquidity + 0.8 * habits["balance"] + 0.6 * draws.normal("balance", size))
    columns = {
        "sales_receipts": money(receipts),
        "purchases": money(through * population.of_sector("cost")[firms] * np.exp(0.3 * draws.normal("bought", size))),
        "payroll": money(np.where(books.main, wages * np.exp(0.08 * draws.normal("payroll", size)), 0.0)),
        "taxes": money(np.where(books.main, through * np.exp(-3.6 + 0.4 * draws.normal("taxes", size)), 0.0)),
        "financing_in": money(loans),
        "financing_out": money(service),
        "transactions": payers + payees + draws.count("transactions", 12 * busy),
        "payers": payers,
        "payees": payees,
        "top_payer_share": np.round(np.maximum(top, 1 / payers).astype(np.float64), 4),
        "balance_end": money(through * cover),
    }
    holder.series("flows", month, columns, activity.open_in(month)[firms])


def _write_loans(books: Books) -> Ints:
    """Loans of today, of the past, and granted after the as-of date; gives each customer's first month of repayment."""
    holder = books.holder
    draws, months = holder.draws.child("loans"), holder.months
    rows = np.flatnonzero(books.borrows)
    size = len(rows)
    term = np.array(_TERMS)[draws.pick("term", (0.6, 0.15, 0.25), size)]
    ago = (draws.uniform("ago", size) * (term * 30.4 - 10)).astype(np.int64) + 1
    granted = np.maximum(months.as_of_day - ago, holder.known_since[rows] + 5)
    past = np.flatnonzero(draws.chance("past", 0.4, size) & (granted - 380 > holder.known_since[rows]))
    coming = np.flatnonzero(
        draws.chance("coming", 0.05, size) & (books.activity.default_month[holder.firms[rows]] > LATEST)
    )
    at = np.concatenate([np.arange(size), past, coming])
    day = np.concatenate([granted, granted[past] - 370, months.as_of_day + 1 + draws.whole("later", 85, len(coming))])
    firms = holder.firms[rows[at]]
    factor = np.concatenate([np.ones(size), np.full(len(past), 0.8), np.full(len(coming), 0.4)])
    amount = np.maximum(books.debt[rows[at]] * factor // 1000 * 1000, 10_000).astype(np.float32)
    view = 0.0465 - 0.0015 * books.activity.compliance[0, firms] - 0.002 * (books.population.staff[firms] - 1.2)
    rate = np.clip(view + 0.005 * draws.normal("rate", len(at)), 0.028, 0.12)
    secured = draws.pick("collateral", (0.35, 0.30, 0.10, 0.25), len(at))
    columns = {
        "loan_id": pl.Series("loan_id", [f"{holder.name[-1]}{number:07d}" for number in range(len(at))]),
        "granted_on": months.day_text(day),
        "amount": money(amount),
        "rate": np.round(rate.astype(np.float64), 4),
        "term_months": np.concatenate([term, np.full(len(past), 12), np.full(len(coming), 12)]).astype(np.int64),
        "collateral": pl.Series(_COLLATERAL).gather(pl.Series(secured)),
    }
    holder.events("loans", rows[at], day, columns)
    first = np.full(len(holder), LATEST + 1, dtype=np.int64)
    starts = months.firsts(np.arange(0, WRITTEN + 1))
    begins = granted.copy()
    begins[past] -= 370
    first[rows] = np.searchsorted(starts, begins, side="left")
    return first


def _write_repayments(books: Books, month: int, habit: Floats, granted: Ints) -> None:
    holder, activity = books.holder, books.activity
    firms, draws = holder.firms, holder.draws.child(f"repayments-{month}")
    liquidity = activity.liquidity[month, firms] - 2.5 * activity.warning[month, firms]
    days, unpaid = payments(_REPAYS, (liquidity, activity.compliance[month, firms]), habit, draws)
    since = month - activity.default_month[firms]
    broken = since >= 0
    days = np.where(broken, np.minimum(90 + 30 * since, 999), np.where(unpaid, 60, days))
    due = books.debt * np.float32(0.009)  # interest of a month and a part of the principal
    columns = {
        "due": money(due),
        "paid": money(np.where(broken | unpaid, 0.0, due)),
        "days_late": days.astype(np.int64),
    }
    holder.series("repayments", month, columns, books.borrows & (granted <= month))


def _write_defaults(books: Books) -> None:
    """Each bank books a default some days after it happened, but on the same side of the as-of date."""
    holder = books.holder
    months, draws = holder.months, holder.draws.child("defaults")
    rows = np.flatnonzero(books.borrows & (books.activity.default_month[holder.firms] <= LATEST))
    happened = books.activity.default_day[holder.firms[rows]]
    booked = happened + (12 * draws.exponential("delay", len(rows))).astype(np.int64)
    last = np.where(happened <= months.as_of_day, months.as_of_day, months.first(AS_OF + HORIZON + 1) - 1)
    booked = np.minimum(booked, last)
    holder.events("defaults", rows, booked, {"defaulted_on": months.day_text(booked)})
