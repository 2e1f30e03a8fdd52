"""Looks at a capture of one's own lines: is it TLS 1.3 throughout, and is nothing of one's own records in it.

    python -m fedcredit.runtime.wire_proof.check CAPTURE [RECORDS.csv …]

``CAPTURE`` is what ``tcpdump -i any -s 0 -w CAPTURE`` wrote before the first connection was made. Every value of the
tables, and every column's name, is looked for as text and, where it is a number, as 64-bit integer and floating point;
those shorter than six bytes are not. Ends with 0 if nothing is wrong, else with 1, or with 2 where it cannot look. No
value is ever shown, only its column.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from fedcredit.errors import DataError
from fedcredit.runtime.wire_proof.capture import Capture, read_capture
from fedcredit.runtime.wire_proof.needles import LEAST_BYTES, Needles, file_pieces, forms

__all__ = ["main", "words_of"]

_USAGE = "usage: python -m fedcredit.runtime.wire_proof.check CAPTURE [RECORDS.csv ...]"


def words_of(tables: Sequence[Path]) -> dict[bytes, str]:
    """What to look for of some tables, each with "column of file".

    Raises:
        DataError: a table cannot be read.
    """
    words: dict[bytes, str] = {}
    for table in tables:
        try:
            frame = pl.read_csv(table, infer_schema_length=None)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError("wire.table", f"{table}: cannot be read as CSV ({type(error).__name__})") from None
        for column in frame.columns:
            what = f"{column} of {table.name}"
            if len(column.encode()) >= LEAST_BYTES:
                words[column.encode()] = f"the name of {what}"
            for value in frame[column].drop_nulls().unique().to_list():
                if isinstance(value, (str, int, float)):
                    words.update(dict.fromkeys(forms(value), what))
    return words


def _lines(capture: Capture, found: Sequence[str], looked: int) -> list[str]:
    carried = [one for one in capture.streams if one.carried]
    servers = Counter(one.server for one in carried)
    size, records = sum(one.carried for one in carried), sum(one.records for one in carried)
    lines = [
        f"packets            {capture.packets}",
        f"connections        {len(carried)} with {size} bytes in {records} TLS records",
        *(f"  to {server}  {count}" for server, count in sorted(servers.items())),
        *(f"not TCP            {count} {name}" for name, count in sorted(capture.other.items())),
        f"looked for         {looked} strings",
    ]
    lines += [f"NOT TLS 1.3        {fault}" for fault in capture.faults]
    return lines + [f"FOUND IN THE CLEAR {what}" for what in found]


def main(arguments: Sequence[str]) -> int:
    """The command.

    Returns:
        0, 1 or 2.
    """
    if not arguments or arguments[0].startswith("-"):
        sys.stderr.write(_USAGE + "\n")
        return 2
    try:
        path, words = Path(arguments[0]), words_of([Path(one) for one in arguments[1:]])
        streams: dict[str, list[bytes]] = {}
        capture = read_capture(path, lambda name, data: streams.setdefault(name, []).append(data))
        needles = Needles(words)
        hits = {**needles.find(file_pieces(path)), **needles.find(chain.from_iterable(streams.values()))}
    except (DataError, OSError) as error:
        sys.stderr.write(f"error: {error.public if isinstance(error, DataError) else error}\n")
        return 2
    found = sorted({words[word] for word in hits})
    sys.stdout.write("\n".join(_lines(capture, found, len(words))) + "\n")
    return 1 if found or capture.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
