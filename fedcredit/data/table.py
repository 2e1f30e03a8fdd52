"""One party's records in memory, and the digest that names their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fedcredit.types import PartyId

__all__ = ["HolderTable", "table_digest"]

_FORMAT = b"fedcredit.table.1\n"  # part of the digest; raise when the canonical form changes


@dataclass(frozen=True, eq=False)
class HolderTable:
    """What one party holds, checked and typed; rows in the order of the source.

    Attributes:
        party: The holder.
        ids: Text ids, unique, none missing, length n.
        label: int8, 1 = defaulted, shape (n,); None at a feature holder. Read-only.
        columns: Feature columns by name, each of length n: Float64, or String for categories; null = missing.
        digest: Hex SHA-256 of the whole source, columns that are not used included: the ledger's data version. The same
            for the same records in any order of rows or columns.
        time: The column that splits train from test by time (Float64, or String that sorts by time), if asked for.
    """

    party: PartyId
    ids: pl.Series
    label: npt.NDArray[np.int8] | None
    columns: Mapping[str, pl.Series]
    digest: str
    time: pl.Series | None = None

    @property
    def rows(self) -> int:
        """Number of rows n."""
        return len(self.ids)


def table_digest(ids: pl.Series, label: npt.NDArray[np.int8] | None, columns: Mapping[str, pl.Series]) -> str:
    """Digest of a table's content, independent of the order of rows and columns and of the file format.

    Rows are sorted by id, so that shuffling a file does not make it "other data" with a fresh disclosure budget.
    Every part is preceded by its kind and length, so that two different tables cannot have the same bytes.

    Args:
        ids: String series (n,), unique.
        label: int8 (n,) or None.
        columns: Float64 or String series (n,).

    Returns:
        64 hex digits.
    """
    order = ids.to_frame("id").with_row_index("row").sort("id")["row"]
    digest = hashlib.sha256(_FORMAT)
    _text(digest, "ids", ids.gather(order))
    if label is not None:
        _part(digest, "label", "label", np.ascontiguousarray(label[order.to_numpy()], dtype=np.int8).tobytes())
    for name in sorted(columns):
        column = columns[name].gather(order)
        if column.dtype == pl.String:
            _text(digest, name, column)
        else:
            # one zero and one not-a-number, whatever the source wrote; null is not-a-number here
            values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy() + 0.0
            values = np.where(np.isnan(values), np.nan, values).astype("<f8")
            _part(digest, "number", name, values.tobytes())
    return digest.hexdigest()


def _text(digest: hashlib._Hash, name: str, column: pl.Series) -> None:
    """Lengths in bytes (-1 = missing), then all texts."""
    lengths = column.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy().astype("<i8")
    _part(digest, "lengths", name, lengths.tobytes())
    _part(digest, "text", name, "".join(column.drop_nulls().to_list()).encode())


def _part(digest: hashlib._Hash, kind: str, name: str, content: bytes) -> None:
    encoded = name.encode()
    digest.update(f"{kind} {len(encoded)} {len(content)}\n".encode())
    digest.update(encoded)
    digest.update(content)
