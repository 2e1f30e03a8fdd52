"""What a holder knows and how badly it is kept: coverage, misspelt codes, gaps, rows booked late, corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from fedcredit.data.district.draws import Bools, Draws, Floats, Ints
from fedcredit.data.district.months import WRITTEN, Months
from fedcredit.data.district.write import Sink

__all__ = ["Columns", "Holder", "covered", "misspell", "money"]

Columns = Mapping[str, pl.Series | np.ndarray[Any, np.dtype[Any]]]

_MISSPELT_FIRM: Final = 0.006
"""Share of enterprises whose code a holder has always had wrong."""

_MISSPELT_ROW: Final = 0.003
"""Share of rows of a series with a code misspelt in that row alone."""

_HOPELESS: Final = 0.3
"""Share of misspellings that no rule can repair: a wrong, lost or swapped character."""

_GAP: Final = 0.06
"""Share of enterprises with one gap of two to five months in a holder's series."""

_LOST, _LATE, _CORRECTED = 0.010, 0.015, 0.007
"""Shares of single rows that are never booked, booked a month later, and booked wrongly first."""

_MISREAD: Final = (("1", "I"), ("0", "O"), ("2", "Z"), ("5", "S"))


def covered(share: float, affinity: Floats, draws: Draws) -> Ints:
    """Which enterprises a holder knows: exactly that share of all, those of high affinity more often.

    Args:
        share: In (0, 1].
        affinity: float32 (n,), log odds up to a constant.
        draws: Family of streams.

    Returns:
        int64: positions, in the holder's own order.
    """
    size = len(affinity)
    # Gumbel noise: taking the top is drawing without replacement with weights exp(affinity).
    score = affinity - np.log(draws.exponential("covered", size))
    known = np.argsort(-score, kind="stable")[: max(1, round(share * size))]
    return np.asarray(known[draws.order("file-order", len(known))], dtype=np.int64)


def misspell(ids: pl.Series, draws: Draws) -> pl.Series:
    """Every code of the series misspelt in some way; three in ten beyond repair. Never another valid code.

    Args:
        ids: Valid codes.
        draws: Family of streams.
    """
    kind = draws.uniform("kind", len(ids))
    place = draws.whole("place", 17, len(ids))
    return pl.Series(
        ids.name,
        [_misspelt(code, float(how), int(at)) for code, how, at in zip(ids, kind, place, strict=True)],
        dtype=pl.String,
    )


def _misspelt(code: str, how: float, place: int) -> str:
    if how < _HOPELESS:
        return _beyond_repair(code, int(how / _HOPELESS * 3), place)
    repairable = int((how - _HOPELESS) / (1 - _HOPELESS) * 6)
    right, wrong = _MISREAD[place % len(_MISREAD)]
    forms = (
        code.lower(),
        f"{code[:8]}-{code[8:17]}-{code[17:]}",
        f" {code} ",
        code.translate({ord(letter): ord(letter) + 0xFEE0 for letter in code}),
        code.replace(right, wrong),
        f"{code[:2]} {code[2:8]} {code[8:]}",
    )
    # A code without that digit, or without a letter, cannot be misspelt so.
    return forms[repairable] if forms[repairable] != code else forms[1]


def _beyond_repair(code: str, how: int, place: int) -> str:
    if how == 0:
        return code[:place] + code[place + 1 :]
    if how == 1 and code[place] != code[place + 1]:
        return code[:place] + code[place + 1] + code[place] + code[place + 2 :]
    return code[:place] + ("7" if code[place] != "7" else "4") + code[place + 1 :]


def money(amount: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Yuan with two decimals, float64; never negative zero."""
    return np.asarray(np.round(amount.astype(np.float64), 2) + 0.0)


@dataclass(frozen=True, eq=False)
class Holder:
    """One institution while its tables are written.

    Attributes:
        name: As in the names of files.
        firms: int64 (m,), positions of the enterprises it knows, in its own order.
        ids: String (m,), their codes as it spells them.
        known_since: int64 (m,), day from which it has records of each.
        draws: Its family of streams.
        months: Calendar.
        sink: Where its tables go.
    """

    name: str
    firms: Ints
    ids: pl.Series
    known_since: Ints
    draws: Draws
    months: Months
    sink: Sink
    _pending: dict[str, pl.DataFrame]
    _gap_from: Ints
    _gap_length: Ints

    @classmethod
    def open(cls, name: str, firms: Ints, codes: pl.Series, since: Ints, place: tuple[Draws, Months, Sink]) -> Holder:
        """A holder of ``firms``.

        Args:
            name: Its name.
            firms: Positions.
            codes: Valid codes of the whole population.
            since: Days, one for each of ``firms``.
            place: Its streams, the calendar, its sink.
        """
        draws, months, sink = place
        ids = codes.gather(pl.Series(firms)).rename("uscc")
        wrong = np.flatnonzero(draws.chance("misspelt", _MISSPELT_FIRM, len(firms)))
        ids = ids.scatter(wrong, misspell(ids.gather(wrong), draws.child("spelling")))
        gap = draws.chance("gap", _GAP, len(firms))
        length = np.where(gap, 2 + draws.whole("gap-length", 4, len(firms)), 0)
        start = draws.whole("gap-from", WRITTEN, len(firms))
        return cls(name, firms, ids, since, draws, months, sink, {}, start, length)

    def __len__(self) -> int:
        return len(self.firms)

    def master(self, table: str, columns: Columns, rows: Ints | None = None) -> None:
        """Write a table with one row an enterprise, or for ``rows`` alone."""
        self.sink.append(table, pl.DataFrame({"uscc": self._spelt(rows), **columns}))

    def events(self, table: str, rows: Ints, days: Ints, columns: Columns) -> None:
        """Write a table of events in the order of ``days``.

        Args:
            table: Its name.
            rows: Positions in ``firms``, one an event.
            days: Day of each, by which the file is ordered.
            columns: One value an event.
        """
        frame = pl.DataFrame({"uscc": self._spelt(rows), **columns})
        order = np.argsort(days, kind="stable")
        self.sink.append(table, frame[order])

    def series(self, table: str, month: int, columns: Columns, present: Bools | None = None) -> None:
        """Write one month of a series, with its faults; what was booked late is written with the next.

        Args:
            table: Its name.
            month: In [0, WRITTEN), in order.
            columns: (m,) each; the first number is what a first booking gets wrong.
            present: bool (m,), False where the holder has no record of this month.
        """
        draws = self.draws.child(f"{table}/{month}")
        size = len(self)
        kept = self.known_since < self.months.first(month)
        kept &= (month < self._gap_from) | (month >= self._gap_from + self._gap_length)
        kept &= ~draws.chance("lost", _LOST, size)
        if present is not None:
            kept &= present
        ids = self.ids
        wrong = np.flatnonzero(draws.chance("misspelt", _MISSPELT_ROW, size) & kept)
        # A code is misspelt from its right form, which a holder that never had it right does not know.
        wrong = wrong[(ids.gather(wrong).str.len_bytes() == 18).to_numpy()]
        # scatter works in place: what is wrong in this month alone is written into a copy
        ids = ids.clone().scatter(wrong, misspell(ids.gather(wrong), draws.child("spelling")))
        months = pl.Series([self.months.text(month)]).new_from_index(0, size)
        frame = pl.DataFrame({"uscc": ids, "month": months, **columns})
        self._book(table, frame, kept, draws)
        if month == WRITTEN - 1 and table in self._pending:
            self.sink.append(table, self._pending.pop(table))

    def _book(self, table: str, frame: pl.DataFrame, kept: Bools, draws: Draws) -> None:
        fate = draws.uniform("fate", len(frame))
        late, corrected = kept & (fate < _LATE), kept & (fate > 1 - _CORRECTED)
        now = frame.filter(pl.Series(kept & ~late))
        spoilt = next(column.name for column in frame.iter_columns() if column.dtype.is_numeric())
        at_fault = pl.Series(corrected[kept & ~late])
        first = pl.when(at_fault).then((pl.col(spoilt) / 10).cast(frame[spoilt].dtype)).otherwise(pl.col(spoilt))
        now = now.with_columns(first.alias(spoilt))
        waiting = self._pending.get(table)
        self.sink.append(table, now if waiting is None else pl.concat([now, waiting]))
        self._pending[table] = frame.filter(pl.Series(late | corrected))

    def _spelt(self, rows: Ints | None) -> pl.Series:
        return self.ids if rows is None else self.ids.gather(pl.Series(rows))
