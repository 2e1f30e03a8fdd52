"""A bank's records in a run of rounds: its own, those held out, the public ones; and a copy that is read in no time.

The copy is for simulations, where a bank is opened anew for every visit and its source may be a part of a large file.
It stands in the unfinished folder of the run and is gone when the run ends.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.data.load import SourceCache, load_table
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import IntegrityError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.spec.model import PartySection, RunSpec
from fedcredit.types import PartyId

__all__ = ["BankTables", "bank_tables", "keep_tables", "kept_tables"]

_ID, _LABEL, _TIME, _MASK = ":id", ":label", ":time", ":held_out"
_ABOUT, _OWN, _TEST, _PUBLIC = "about.json", "own.arrow", "test.arrow", "public.arrow"


@dataclass(frozen=True, eq=False)
class BankTables:
    """All records of a bank.

    Args:
        own: Its own.
        held_out: bool (n,), which of them are held out, or the table of ``split.test_source``.
        reference: Public records on which rounds are judged; None = the run has none.
    """

    own: HolderTable
    held_out: NDArray[np.bool_] | HolderTable
    reference: HolderTable | None = None

    @property
    def rows_train(self) -> int:
        """Own rows that are not held out."""
        return self.own.rows if isinstance(self.held_out, HolderTable) else int((~self.held_out).sum())

    @property
    def test(self) -> HolderTable:
        """The held-out rows, in their order."""
        if isinstance(self.held_out, HolderTable):
            return self.held_out
        rows, own = pl.Series(self.held_out), self.own
        return HolderTable(
            party=own.party,
            ids=own.ids.filter(rows),
            label=None if own.label is None else own.label[self.held_out],
            columns={name: column.filter(rows) for name, column in own.columns.items()},
            digest=own.digest,
        )


def bank_tables(
    spec: RunSpec, party: PartyId, base: Path, own: HolderTable, cache: SourceCache | None = None
) -> BankTables:
    """A bank's records from its own table and the places that the spec names besides.

    Args:
        spec: The run, with this house's places.
        party: The bank.
        base: Folder that relative places are relative to.
        own: Its table.
        cache: Shared between the banks of one simulation.

    Raises:
        DataError: a file does not carry the run.
    """
    section = next(one for one in spec.party if one.name == party)

    def other(source: str) -> HolderTable:
        return load_table(_elsewhere(section, source), base, cache=cache)

    test, public = spec.split.test_source, None if spec.fedavg is None else spec.fedavg.reference
    held_out = held_out_rows(own, spec.split, base) if test is None else other(test)
    return BankTables(own, held_out, None if public is None else other(public))


def _elsewhere(section: PartySection, source: str) -> PartySection:
    """The same columns of another source."""
    return section.model_copy(update={"source": source, "query": None, "part": None, "catalog": None, "as_of": None})


def keep_tables(folder: Path, tables: BankTables) -> None:
    """Writes the copy."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = _frame(tables.own)
    if not isinstance(tables.held_out, HolderTable):
        own = own.with_columns(pl.Series(_MASK, tables.held_out))
    kept = {_OWN: (tables.own, own)}
    for name, table in ((_TEST, tables.held_out), (_PUBLIC, tables.reference)):
        if isinstance(table, HolderTable):
            kept[name] = (table, _frame(table))
    for name, (_, frame) in kept.items():
        content = io.BytesIO()
        frame.write_ipc(content)
        replace_file(folder / name, content.getvalue())
    about = {name: {"party": table.party, "digest": table.digest} for name, (table, _) in kept.items()}
    replace_file(folder / _ABOUT, json.dumps(about).encode())  # last: it says that all of them are there


def kept_tables(folder: Path) -> BankTables:
    """Reads the copy.

    Raises:
        IntegrityError: it is not there or damaged.
    """
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
        own = pl.read_ipc((folder / _OWN).read_bytes())
        mask = own[_MASK].to_numpy() if _MASK in own.columns else None
        own = own.drop(_MASK, strict=False)
        held_out = _table(folder, _TEST, about) if mask is None else mask
        public = _table(folder, _PUBLIC, about) if _PUBLIC in about else None
        if held_out is None:
            raise IntegrityError("rounds.records", "the copy of a bank's records has no held-out rows")
        return BankTables(_read(own, about[_OWN]), held_out, public)
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        text = "the copy of a bank's records is damaged; the run cannot go on"
        raise IntegrityError("rounds.records", text, type(error).__name__) from None


def _frame(table: HolderTable) -> pl.DataFrame:
    columns = {_ID: table.ids, **table.columns}
    if table.label is not None:
        columns[_LABEL] = pl.Series(table.label)
    if table.time is not None:
        columns[_TIME] = table.time
    return pl.DataFrame({name: column.rename(name) for name, column in columns.items()})


def _table(folder: Path, name: str, about: dict[str, dict[str, str]]) -> HolderTable:
    return _read(pl.read_ipc((folder / name).read_bytes()), about[name])


def _read(frame: pl.DataFrame, about: dict[str, str]) -> HolderTable:
    own = {_ID, _LABEL, _TIME}
    return HolderTable(
        party=PartyId(about["party"]),
        ids=frame[_ID].rename("id"),
        label=frame[_LABEL].to_numpy().astype(np.int8) if _LABEL in frame.columns else None,
        columns={name: frame[name] for name in frame.columns if name not in own},
        digest=about["digest"],
        time=frame[_TIME] if _TIME in frame.columns else None,
    )
