"""Who exists: 210,000 made-up enterprises with codes, sectors, towns, sizes, ages and lasting traits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from fedcredit.data.district.draws import Draws, Floats, Ints
from fedcredit.data.district.months import Months
from fedcredit.kernels.uscc import ALPHABET, spell

__all__ = ["SECTORS", "SIZES", "TOWNS", "Population", "Sector", "Town", "populate"]

DIVISION = "379901"
"""An administrative division that is not assigned, so that no code is that of a real enterprise."""

SIZES = ("micro", "small", "medium", "large")
_SIZE_EDGES = (10.0, 100.0, 300.0)  # persons employed

_MA_SINCE = 16_709  # 2015-10-01: codes given out since the reform begin with MA, older ones are eight digits
_OLD_CODES, _NEW_CODES = 10**8, 31**6
_CHECK_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True)
class Sector:
    """One industry.

    Attributes:
        code: Of GB/T 4754.
        noun: In names of enterprises.
        share: Of the enterprises.
        staff: Shift of ln persons employed.
        sales: ln monthly sales per person, yuan.
        wage: Monthly, yuan.
        cost: Purchases over sales.
        power: ln kWh at mean sales.
        water: ln cubic metres at mean sales.
        gas: Affinity to having gas.
        season: Amplitude of the year's course.
        risk: Effect on the log hazard; small on purpose.
    """

    code: str
    noun: str
    share: float
    staff: float
    sales: float
    wage: float
    cost: float
    power: float
    water: float
    gas: float
    season: float
    risk: float


@dataclass(frozen=True)
class Town:
    """One town: share of the enterprises, how urban, ln level of sales and wages, effect on the log hazard."""

    name: str
    share: float
    urban: float
    level: float
    risk: float


SECTORS = (
    Sector("A01", "农业", 0.05, 0.0, 9.5, 4200, 0.62, 7.2, 5.4, -1.5, 0.30, 0.03),
    Sector("C13", "食品", 0.04, 0.6, 10.4, 4900, 0.72, 9.2, 5.6, 1.0, 0.15, -0.02),
    Sector("C17", "纺织", 0.03, 0.8, 10.1, 4800, 0.74, 9.7, 5.8, 0.6, 0.12, 0.06),
    Sector("C34", "机械", 0.06, 0.7, 10.4, 5900, 0.70, 9.4, 4.3, 0.7, 0.08, -0.03),
    Sector("C41", "制造", 0.05, 0.5, 10.2, 5200, 0.70, 9.0, 4.1, 0.4, 0.10, 0.02),
    Sector("E48", "建筑", 0.07, 0.4, 10.6, 6100, 0.76, 7.6, 4.6, -1.0, 0.28, 0.07),
    Sector("F51", "贸易", 0.20, -0.3, 11.5, 5000, 0.88, 6.2, 2.8, -1.2, 0.12, 0.02),
    Sector("F52", "商行", 0.22, -0.4, 10.4, 4300, 0.82, 6.8, 3.0, -1.0, 0.14, -0.02),
    Sector("G54", "运输", 0.05, 0.1, 10.3, 5700, 0.66, 6.5, 3.6, -0.8, 0.10, 0.05),
    Sector("H62", "餐饮", 0.07, 0.0, 9.3, 4000, 0.58, 8.3, 5.5, 2.2, 0.16, 0.05),
    Sector("I65", "科技", 0.05, 0.1, 10.0, 8300, 0.42, 6.6, 2.9, -1.6, 0.06, -0.06),
    Sector("L72", "商务", 0.07, 0.0, 9.8, 6200, 0.46, 6.0, 2.8, -1.6, 0.08, -0.05),
    Sector("O80", "服务", 0.04, -0.2, 9.0, 4100, 0.40, 6.9, 4.2, 0.2, 0.10, 0.0),
)
"""Levels differ by factors of ten and more, risk by a tenth: a level tells the sector, the sector tells no risk."""

TOWNS = (
    Town("东城", 0.17, 1.0, 0.30, -0.03),
    Town("南城", 0.14, 1.0, 0.25, 0.02),
    Town("西城", 0.11, 0.9, 0.20, -0.02),
    Town("北港", 0.09, 0.7, 0.35, 0.04),
    Town("柳湾", 0.08, 0.6, 0.10, 0.0),
    Town("石桥", 0.07, 0.5, 0.05, 0.03),
    Town("清河", 0.06, 0.2, -0.15, -0.04),
    Town("平安", 0.06, 0.3, -0.05, 0.02),
    Town("双泉", 0.05, 0.4, 0.15, 0.0),
    Town("白云", 0.04, 0.1, -0.30, -0.02),
    Town("长岭", 0.04, 0.1, -0.20, 0.04),
    Town("青山", 0.04, 0.2, -0.10, 0.0),
    Town("黄花", 0.03, 0.1, -0.25, -0.04),
    Town("龙潭", 0.02, 0.0, -0.35, 0.01),
)

_BRANDS = "宏达鑫源华泰瑞丰恒信德隆盛昌永和吉祥嘉诚博远天成润通顺发金城立新明光同创海川东升佳美安康福兴万众"


@dataclass(frozen=True, eq=False)
class Population:
    """Enterprises on the register at the as-of date, n of them; lasting traits are standard normal.

    Attributes:
        uscc: String (n,), valid codes, distinct.
        name: String (n,).
        sector: int64 (n,), position in `SECTORS`.
        town: int64 (n,), position in `TOWNS`.
        staff: float32 (n,), ln persons employed in a normal month.
        established: int64 (n,), day.
        sales: float32 (n,), ln yuan of sales in a normal month.
        leverage: float32 (n,), debt for its size.
        concentration: float32 (n,), dependence on a few customers.
        volatility: float32 (n,), unrest of its sales.
        frailty: float32 (n,), risk that no record shows.
    """

    uscc: pl.Series
    name: pl.Series
    sector: Ints
    town: Ints
    staff: Floats
    established: Ints
    sales: Floats
    leverage: Floats
    concentration: Floats
    volatility: Floats
    frailty: Floats

    def __len__(self) -> int:
        return len(self.sector)

    @property
    def size(self) -> Ints:
        """int64 (n,), position in `SIZES`."""
        return np.searchsorted(np.array(_SIZE_EDGES), np.exp(self.staff), side="right").astype(np.int64)

    def of_sector(self, field: str) -> Floats:
        """float32 (n,), a number of each enterprise's sector."""
        return np.array([getattr(sector, field) for sector in SECTORS], dtype=np.float32)[self.sector]

    def of_town(self, field: str) -> Floats:
        """float32 (n,), a number of each enterprise's town."""
        return np.array([getattr(town, field) for town in TOWNS], dtype=np.float32)[self.town]


def populate(size: int, draws: Draws, months: Months) -> Population:
    """Draw the enterprises of a district.

    Args:
        size: How many.
        draws: Family of streams.
        months: Calendar; nobody is younger than three months at its as-of date.
    """
    sector = draws.pick("sector", [one.share for one in SECTORS], size)
    town = draws.pick("town", [one.share for one in TOWNS], size)
    # About 84 % micro, 15 % small, 1 % medium and large; the second part of the mixture is the heavy tail.
    larger = draws.chance("larger", 0.04, size)
    staff = np.where(larger, 3.3, 1.05) + np.where(larger, 1.1, 0.95) * draws.normal("staff", size)
    staff = staff + np.array([one.staff for one in SECTORS])[sector]
    staff = np.clip(staff, 0.0, 8.5).astype(np.float32)
    # Mean age 6.5 years; larger enterprises are older.
    years = 0.25 + draws.exponential("age", size) * 6.2 * np.exp(0.12 * (staff - 1.2))
    established = months.as_of_day - np.asarray(np.minimum(years, 45.0) * 365.25, dtype=np.int64)
    level = np.array([one.sales for one in SECTORS])[sector] + np.array([one.level for one in TOWNS])[town]
    traits = {name: draws.normal(name, size) for name in ("leverage", "concentration", "volatility", "frailty")}
    return Population(
        uscc=_codes(established, draws),
        name=_names(sector, town, draws),
        sector=sector,
        town=town,
        staff=staff,
        established=established,
        sales=np.asarray(level + staff + 0.6 * draws.normal("productivity", size), dtype=np.float32),
        **traits,
    )


def _codes(established: Ints, draws: Draws) -> pl.Series:
    """Distinct codes: department 9, kind 1, the district's division, a body with its own check digit.

    Source: GB 11714 (check digit of the organisation code); GB 32100-2015.
    """
    size = len(established)
    new = established >= _MA_SINCE
    old_numbers = _distinct("old", _OLD_CODES, size, draws)
    new_numbers = _distinct("new", _NEW_CODES, size, draws)
    body = np.empty((size, 8), dtype=np.uint8)
    for place in range(8):
        body[:, 7 - place] = old_numbers // 10**place % 10
    made = np.empty((size, 8), dtype=np.uint8)
    made[:, 0], made[:, 1] = ALPHABET.index("M"), ALPHABET.index("A")
    for place in range(6):
        made[:, 7 - place] = new_numbers // 31**place % 31
    body[new] = made[new]
    # In GB 11714 a letter counts 10 for A to 35 for Z: the alphabet of the 18 characters leaves out I, O, S, V and Z.
    worth = np.array([int(letter, 36) for letter in ALPHABET], dtype=np.int64)
    digit = (11 - worth[body] @ np.array(_CHECK_WEIGHTS) % 11) % 11
    check = np.where(digit == 10, ALPHABET.index("X"), digit).astype(np.uint8)
    prefix = np.array([ALPHABET.index(letter) for letter in "91" + DIVISION], dtype=np.uint8)
    return spell(np.column_stack([np.tile(prefix, (size, 1)), body, check]))


def _distinct(name: str, below: int, size: int, draws: Draws) -> Ints:
    """``size`` different numbers below ``below``, in no order."""
    found: Ints = np.unique(draws.whole(name, below, size + size // 50 + 50))
    return found[draws.order(f"{name}-order", len(found))][:size]


def _names(sector: Ints, town: Ints, draws: Draws) -> pl.Series:
    brands = pl.Series([first + second for first in _BRANDS for second in _BRANDS])
    towns = pl.Series([one.name for one in TOWNS])
    nouns = pl.Series([f"{one.noun}有限公司" for one in SECTORS])
    return towns.gather(town) + brands.gather(draws.whole("brand", len(brands), len(sector))) + nouns.gather(sector)
