"""A party's records as its configuration describes them, checked and typed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fedcredit.data.columns import to_feature, to_ids, to_label, to_time
from fedcredit.data.derive import derived_table
from fedcredit.data.formats import SUFFIXES, RawTable, read_file
from fedcredit.data.known import KnownSet, find_known, read_known
from fedcredit.data.partition import partition_rows
from fedcredit.data.places import expand
from fedcredit.data.register import canonical_ids
from fedcredit.data.sql import read_sql
from fedcredit.data.table import HolderTable, table_digest
from fedcredit.errors import DataError
from fedcredit.spec.horizontal import PartitionSection
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.model import PartySection
from fedcredit.spec.rules import nearest
from fedcredit.types import PartyId

__all__ = ["ROW_NUMBER", "SourceCache", "load_table", "load_tables"]

ROW_NUMBER = "row_number"
"""As ``id``: the source has no id column, rows are 0 to n - 1."""

_KNOWN = "known:"


@dataclass(frozen=True, eq=False)
class _Whole:
    """All records of a source, checked and typed; several banks may have parts of them.

    Attributes:
        everything: All columns of the source, for the digest.
        parts: Rows of each bank; none where one party has all.
    """

    ids: pl.Series
    label: npt.NDArray[np.int8] | None
    columns: Mapping[str, pl.Series]
    time: pl.Series | None
    everything: Mapping[str, pl.Series]
    parts: Sequence[npt.NDArray[np.int64]] = ()

    def table(self, party: PartyId) -> HolderTable:
        """All records, as those of a party."""
        digest = table_digest(self.ids, None, self.everything)
        return HolderTable(party, self.ids, self.label, self.columns, digest, self.time)

    def part(self, number: int) -> _Whole:
        """The records of one bank, the first is 1."""
        rows = self.parts[number - 1]
        label = None if self.label is None else self.label[rows]
        if label is not None:
            label.setflags(write=False)
        return _Whole(
            self.ids.gather(rows),
            label,
            {name: column.gather(rows) for name, column in self.columns.items()},
            None if self.time is None else self.time.gather(rows),
            {name: column.gather(rows) for name, column in self.everything.items()},
        )


class SourceCache:
    """Sources already read, so that a file that serves several parties is parsed once. Keyed by unexpanded text."""

    def __init__(self) -> None:
        self._tables: dict[tuple[object, ...], RawTable] = {}
        self._wholes: dict[tuple[object, ...], _Whole] = {}

    def read(self, party: PartySection, base: Path) -> RawTable:
        """The source of ``party``, from memory if it was read before.

        Raises:
            DataError: it cannot be read.
        """
        derived = (party.catalog, party.as_of, party.id, party.label is None) if party.catalog is not None else ()
        key = (party.source, party.query, base.resolve(), *derived)
        if key not in self._tables:
            self._tables[key] = _read(party, base)
        return self._tables[key]

    def whole(self, key: tuple[object, ...], make: Callable[[], _Whole]) -> _Whole:
        """Checked records that several banks have parts of, from memory if they were made before."""
        if key not in self._wholes:
            self._wholes[key] = make()
        return self._wholes[key]


def load_tables(loaded: LoadedSpec) -> dict[PartyId, HolderTable]:
    """Tables of all parties of a simulation, in the order of the spec; each source is read once.

    Raises:
        DataError: as in ``load_table``.
    """
    cache, spec = SourceCache(), loaded.spec
    codes = spec.align.ids == "uscc"
    return {
        party.name: load_table(
            party,
            loaded.base,
            cache=cache,
            time=spec.split.time if party.label is not None else None,
            codes=codes,
            partition=spec.partition,
        )
        for party in spec.party
    }


def load_table(
    party: PartySection,
    base: Path,
    *,
    cache: SourceCache | None = None,
    time: str | None = None,
    codes: bool = False,
    partition: PartitionSection | None = None,
) -> HolderTable:
    """Read and check one party's records.

    A bank that has a part of a source is checked with all of it: a column may be constant in its own rows.

    Args:
        party: Its section of the spec.
        base: Folder that a relative source is relative to.
        cache: Shared between parties of one simulation.
        time: Column that splits train from test, at the label holder; it is no feature then.
        codes: Whether ids are Unified Social Credit Codes; rows with another id are left out.
        partition: How the source of a party with a ``part`` is taken apart.

    Raises:
        DataError: one line that names party and column, what was found and what would be right.
    """
    cache = cache or SourceCache()
    if party.part is None:
        return _whole(party, cache.read(party, base), time, codes=codes, partition=None).table(party.name)
    if partition is None or party.part > partition.banks:
        right = "its records are a part of a source, and [partition] does not say which"
        raise DataError("data.partition", f"party {party.name}: part: {right}")
    template = party.model_copy(update={"name": partition.party, "part": None})
    key = (template.model_dump_json(), base.resolve(), time, codes, partition.model_dump_json())
    whole = cache.whole(
        key, lambda: _whole(template, cache.read(template, base), time, codes=codes, partition=partition)
    )
    return whole.part(party.part).table(party.name)


def _whole(
    party: PartySection, raw: RawTable, time: str | None, *, codes: bool, partition: PartitionSection | None
) -> _Whole:
    place = f"party {party.name}"
    known = _known(party)
    if raw.frame.height == 0:
        raise DataError("data.empty", f"{place}: the source has no rows; at least one is needed")
    if codes:
        raw = replace(raw, frame=canonical_ids(raw.frame, _column(raw, party.id, "id", place).name, place))
    ids = _ids(party, raw, place)
    label = None
    if party.label is not None:
        words = known.words if known is not None and party.label == known.label else None
        label = to_label(_column(raw, party.label, "label", place), words, place)
    columns = {}
    divides = None if partition is None else partition.column
    for name in _feature_names(party, raw, known, {time, divides}):
        column = _column(raw, name, "columns", place)
        coded = name in party.categorical
        columns[name] = to_feature(column, text=name in raw.text, categorical=coded, place=place)
    _check_kinds(party, columns, place)
    when = None if time is None else _column(raw, time, "split.time", place)
    typed_time = None if when is None else to_time(when, text=when.name in raw.text, place=place)
    parts: Sequence[npt.NDArray[np.int64]] = ()
    if partition is not None and label is not None:
        named = None if divides is None else _column(raw, divides, "partition.column", place)
        parts = partition_rows(partition, ids, label, named, place)
    return _Whole(ids, label, columns, typed_time, _everything(raw), parts)


def _everything(raw: RawTable) -> dict[str, pl.Series]:
    """All columns of a source: choosing others must not make it "other data" with a fresh disclosure budget.

    Text that reads as numbers throughout is numbers, so that the file's format makes no difference either.
    """
    columns = {}
    for name in raw.frame.columns:
        column = raw.frame[name]
        if not column.dtype.is_numeric():
            column = column.cast(pl.String)
            column = column.set(column == "", None)
        numbers = column.cast(pl.Float64, strict=False)
        columns[name] = numbers if numbers.null_count() == column.null_count() else column
    return columns


def _read(party: PartySection, base: Path) -> RawTable:
    place = f"party {party.name}"
    if party.catalog is not None:
        return derived_table(party, base)
    known = _known(party)
    if known is not None:
        return read_known(known)
    if party.query is not None:
        return read_sql(party.source, party.query, base, place)
    source = expand(party.source, place)
    if "://" in source:
        right = 'source is a database URL but there is no query; add query = "select …"'
        raise DataError("data.sql", f"{place}: {right}")
    path = base / source
    if path.is_dir():
        right = f"source {path} is a folder; name one file ({', '.join(SUFFIXES)})"
        raise DataError("data.unreadable", f"{place}: {right}")
    return read_file(path, place)


def _known(party: PartySection) -> KnownSet | None:
    return find_known(party.source.removeprefix(_KNOWN)) if party.source.startswith(_KNOWN) else None


def _column(raw: RawTable, name: str, key: str, place: str) -> pl.Series:
    if name not in raw.frame.columns:
        hint = nearest(name, raw.frame.columns)
        raise DataError("data.unknown-column", f"{place}: {key}: the source has no column {name!r}; {hint}")
    return raw.frame[name]


def _ids(party: PartySection, raw: RawTable, place: str) -> pl.Series:
    if party.id == ROW_NUMBER and ROW_NUMBER not in raw.frame.columns:
        return pl.Series("id", range(raw.frame.height), dtype=pl.Int64).cast(pl.String)
    if party.id not in raw.frame.columns:
        hint = nearest(party.id, raw.frame.columns)
        right = f'id: the source has no column {party.id!r}; {hint} (id = "{ROW_NUMBER}" if it has none)'
        raise DataError("data.unknown-column", f"{place}: {right}")
    return to_ids(raw.frame[party.id], place)


def _feature_names(
    party: PartySection, raw: RawTable, known: KnownSet | None, others: Collection[str | None]
) -> Sequence[str]:
    if party.columns is not None:
        return party.columns
    apart = {party.id, party.label, *others}
    if known is not None:
        apart |= {known.id, known.label, *known.not_features}
    names = [name for name in raw.frame.columns if name not in apart]
    if not names:
        right = "the source has no feature column besides id and label; give a source with at least one"
        raise DataError("data.no-features", f"party {party.name}: {right}")
    return names


def _check_kinds(party: PartySection, columns: dict[str, pl.Series], place: str) -> None:
    """Keys that are about columns must name columns, and of the right kind."""
    for key in ("categorical", "special", "monotone"):
        for name in getattr(party, key):
            if name not in columns:
                raise DataError("data.unknown-column", f"{place}: {key}: no feature {name!r}; {nearest(name, columns)}")
            if key != "categorical" and columns[name].dtype == pl.String:
                right = f"{key}: column {name!r} holds text; this key is for numbers"
                raise DataError("data.type", f"{place}: {right}")
