"""Writes a district: one source per holder, the public register, the truth for researchers, and a page of facts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from fedcredit.data.district.activity import Activity, act
from fedcredit.data.district.banks import BANKS, clientele, keep_books, opened, wallets, write_bank
from fedcredit.data.district.draws import Bools, Draws, Floats, Ints
from fedcredit.data.district.health import Health, live
from fedcredit.data.district.market import write_market_regulation
from fedcredit.data.district.months import AS_OF, HORIZON, LATEST, SERIES, WRITTEN, Months
from fedcredit.data.district.noise import Holder, covered
from fedcredit.data.district.population import SECTORS, SIZES, TOWNS, Population, populate
from fedcredit.data.district.social import write_social_insurance
from fedcredit.data.district.tax import write_tax_office
from fedcredit.data.district.utilities import GAS, WATER, write_electricity, write_metered
from fedcredit.data.district.write import ParquetSink, SqliteSink, digest_of, read_back
from fedcredit.errors import DataError

__all__ = ["COVERAGE", "DistrictReport", "DistrictSettings", "build_district", "content_digests"]

FEWEST, MOST = 500, 2_000_000
"""Enterprises of a district; fewer leave a bank without customers, more leave a machine without memory."""

COVERAGE: Final = {
    "tax_office": 0.92,
    "electricity": 0.85,
    "water": 0.80,
    "gas": 0.35,
    "social_insurance": 0.75,
    "market_regulation": 0.99,
}
"""Share of the enterprises that each holder of features knows."""

_SIZE_AFFINITY: Final = {"tax_office": 0.6, "electricity": 0.4, "water": 0.4, "gas": 0.5, "social_insurance": 0.8}
"""Of the log odds to be known, to ln persons employed: the larger are known to more."""

_FORMAT: Final = 1


@dataclass(frozen=True)
class DistrictSettings:
    """What district.

    Attributes:
        enterprises: In [500, 2,000,000].
        seed: The same seed gives the same records; 0 to 2^63 - 1.
        as_of: Last day of a month.
        default_rate: Mean probability of a default in the year after it, of those not in default; in [0.002, 0.3].

    Raises:
        DataError: a value out of range.
    """

    enterprises: int = 210_000
    seed: int = 1
    as_of: date = date(2025, 12, 31)
    default_rate: float = 0.032

    def __post_init__(self) -> None:
        if not FEWEST <= self.enterprises <= MOST:
            right = f"{self.enterprises} enterprises: give a number from {FEWEST} to {MOST}"
            raise DataError("district.enterprises", right)
        if not 0 <= self.seed < 1 << 63:
            raise DataError("district.seed", f"seed {self.seed}: give a whole number from 0 to 2^63 - 1")
        if not 0.002 <= self.default_rate <= 0.3:
            raise DataError("district.rate", f"default rate {self.default_rate}: give a share from 0.002 to 0.3")
        Months(self.as_of)


@dataclass(frozen=True)
class DistrictReport:
    """What was written.

    Attributes:
        folder: Where.
        facts: As in district.json.
    """

    folder: Path
    facts: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _World:
    """Everything that is so, whoever knows it."""

    population: Population
    health: Health
    activity: Activity
    draws: Draws
    months: Months


def build_district(
    settings: DistrictSettings, folder: Path, say: Callable[[str], None] | None = None
) -> DistrictReport:
    """Write a district into a new or empty folder.

    The same settings give the same content, table by table; the digests of it stand in district.json. Nothing in it is
    secret, and nobody in it exists.

    Args:
        settings: What district.
        folder: Where; made if it is not there.
        say: Told what is written next, for a person who waits.

    Raises:
        DataError: the folder holds something.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError("district.exists", f"{folder} is not empty; name a new folder or empty this one")
    tell = say or (lambda _: None)
    tell("enterprises and their health")
    world = _world(settings)
    holders: dict[str, Any] = {}
    clients = [clientele(bank, world.population, world.draws.child(bank.name)) for bank in BANKS]
    shares, mains = wallets(clients, len(world.population), world.draws.child("wallets"))
    for bank, firms, share, main in zip(BANKS, clients, shares, mains, strict=True):
        tell(bank.name)
        holders[bank.name] = _bank(world, folder, bank.name, (firms, share, main))
    for name in COVERAGE:
        tell(name)
        holders[name] = _feature_holder(world, folder, name)
    tell("register and truth")
    truth = _truth(world, clients)
    truth.write_parquet(folder / "truth.parquet")
    register = world.population.uscc.sort().alias("uscc").to_frame()
    _write_register(register, folder / "register.csv.gz")
    facts = {
        "format": _FORMAT,
        "settings": {**asdict(settings), "as_of": settings.as_of.isoformat()},
        "months": {"series": SERIES, "written": WRITTEN, "horizon": HORIZON},
        "base_log_hazard": round(world.health.base, 6),
        "holders": holders,
        "register": {"rows": len(register), "content_sha256": digest_of(register)},
        "truth": {"rows": len(truth), "content_sha256": digest_of(truth)},
    }
    (folder / "district.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    return DistrictReport(folder, facts)


def _world(settings: DistrictSettings) -> _World:
    draws, months = Draws(settings.seed), Months(settings.as_of)
    population = populate(settings.enterprises, draws.child("population"), months)
    health = live(population, draws.child("health"), months, settings.default_rate)
    return _World(population, health, act(population, health, draws.child("activity"), months), draws, months)


def _bank(world: _World, folder: Path, name: str, served: tuple[Ints, Floats, Bools]) -> dict[str, Any]:
    firms, share, main = served
    bank = next(one for one in BANKS if one.name == name)
    draws = world.draws.child(name)
    since = opened(firms, world.population, world.months.as_of_day, draws)
    with SqliteSink(folder / f"{name}.sqlite") as sink:
        holder = Holder.open(name, firms, world.population.uscc, since, (draws, world.months, sink))
        books = keep_books(bank, holder, (world.population, world.activity), share, main)
        write_bank(books)
        default = world.health.default_month[firms]
        open_for_run = books.borrows & (default > AS_OF)
        coming = int((open_for_run & (default <= LATEST)).sum())
        facts = _facts(sink, len(firms), f"{name}.sqlite")
    rows = int(open_for_run.sum())
    return {**facts, "borrowers": rows, "defaults_to_come": coming, "default_rate": round(coming / max(rows, 1), 5)}


def _feature_holder(world: _World, folder: Path, name: str) -> dict[str, Any]:
    population, draws = world.population, world.draws.child(name)
    affinity = np.float32(_SIZE_AFFINITY.get(name, 0.0)) * population.staff
    if name == "gas":
        affinity = affinity + population.of_sector("gas")
    firms = covered(COVERAGE[name], affinity, draws)
    delay = np.minimum(draws.exponential("since", len(firms)) * 60, 400).astype(np.int64)
    since = population.established[firms] + delay
    place = f"{name}.sqlite" if name in {"tax_office", "social_insurance", "market_regulation"} else name
    sink: SqliteSink | ParquetSink
    sink = SqliteSink(folder / place) if place.endswith(".sqlite") else ParquetSink(folder / place)
    opened_sink: AbstractContextManager[SqliteSink | ParquetSink] = sink
    with opened_sink:
        holder = Holder.open(name, firms, population.uscc, since, (draws, world.months, sink))
        _write(world, name, holder)
        return _facts(sink, len(firms), place)


def _write(world: _World, name: str, holder: Holder) -> None:
    population, activity, health = world.population, world.activity, world.health
    if name == "tax_office":
        write_tax_office(holder, population, activity, health)
    elif name == "electricity":
        write_electricity(holder, population, activity, health)
    elif name == "social_insurance":
        write_social_insurance(holder, population, activity)
    elif name == "market_regulation":
        write_market_regulation(holder, population, health)
    else:
        write_metered(holder, WATER if name == "water" else GAS, population, activity)


def _facts(sink: SqliteSink | ParquetSink, enterprises: int, place: str) -> dict[str, Any]:
    tables = {
        name: {"rows": digest.rows, "content_sha256": digest.hexdigest()} for name, digest in sink.digests.items()
    }
    return {"source": place, "enterprises": enterprises, "tables": tables}


def _truth(world: _World, clients: list[Ints]) -> pl.DataFrame:
    """What nobody knows: for research about a method, never an input of a run."""
    population, health, months = world.population, world.health, world.months
    demand, liquidity, compliance = health.at(AS_OF)
    known = {}
    for bank, firms in zip(BANKS, clients, strict=True):
        at = np.zeros(len(population), dtype=np.int64)
        at[firms] = 1
        known[bank.name] = at
    defaults = health.default_month <= LATEST
    columns = {
        "uscc": population.uscc,
        "sector": pl.Series([one.code for one in SECTORS]).gather(pl.Series(population.sector)),
        "town": pl.Series([one.name for one in TOWNS]).gather(pl.Series(population.town)),
        "firm_size": pl.Series(SIZES).gather(pl.Series(population.size)),
        "established_on": months.day_text(population.established),
        **{name: getattr(population, name).astype(np.float64) for name in ("leverage", "concentration", "volatility")},
        "frailty": population.frailty.astype(np.float64),
        "demand": demand.astype(np.float64),
        "liquidity": liquidity.astype(np.float64),
        "compliance": compliance.astype(np.float64),
        "probability": health.probability,
        "defaulted_on": months.day_text(health.default_day, ~defaults),
        **known,
    }
    return pl.DataFrame(columns).sort("uscc")


def _write_register(register: pl.DataFrame, path: Path) -> None:
    # No time and no name in the header of the file: the same register is the same bytes.
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
        packed.write(register.write_csv().encode("ascii"))


def content_digests(folder: Path) -> dict[str, str]:
    """Digests of all tables as they stand in the sources now, by ``holder/table``, to compare with district.json.

    Raises:
        DataError: a source is missing.
    """
    facts = json.loads((folder / "district.json").read_text("utf-8"))
    found = {}
    for name, holder in facts["holders"].items():
        for table in holder["tables"]:
            found[f"{name}/{table}"] = digest_of(read_back(folder / holder["source"], table))
    return found
