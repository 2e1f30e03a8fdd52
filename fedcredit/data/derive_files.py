"""Raw tables in a folder: one file a table, named after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fedcredit.errors import DataError

__all__ = ["TABLE_SUFFIXES", "FolderTables"]

TABLE_SUFFIXES = (".parquet", ".csv", ".csv.gz")


class FolderTables:
    """The tables of one folder.

    Args:
        folder: Holds ``TABLE.parquet``, ``TABLE.csv`` or ``TABLE.csv.gz``.
        place: Named in errors.

    Raises:
        DataError: there is no such folder, or two files for one table.
    """

    def __init__(self, folder: Path, place: str) -> None:
        self._place = place
        self._files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            suffix = next((suffix for suffix in TABLE_SUFFIXES if path.name.endswith(suffix)), None)
            if suffix is None or not path.is_file():
                continue
            name = path.name.removesuffix(suffix)
            if name in self._files:
                right = f"{self._files[name].name} and {path.name} are files of one table; keep one of them"
                raise DataError("data.format", f"{place}: {right}")
            self._files[name] = path

    def columns(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Columns of those tables that the folder has; every other table with none named."""
        return {name: tuple(self._schema(name)) if name in names else () for name in self._files}

    def scan(self, name: str) -> pl.LazyFrame:
        """A table, not yet read; of a CSV every column is text."""
        path = self._files[name]
        if path.suffix == ".parquet":
            return pl.scan_parquet(path)
        return pl.scan_csv(path, infer_schema=False)

    def _schema(self, name: str) -> list[str]:
        try:
            return self.scan(name).collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            path = self._files[name]
            right = f"{path} cannot be read ({type(error).__name__}); write it again"
            raise DataError("data.corrupt", f"{self._place}: {right}") from None
