"""Places of records: environment variables in paths, and files as bytes with errors that name them."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path

from fedcredit.errors import DataError

__all__ = ["expand", "gunzip", "read_bytes", "read_raw"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(text: str, place: str) -> str:
    """Replace every ``${NAME}`` by the environment variable of that name.

    Raises:
        DataError: a variable is not set, or empty; ``place`` is named.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if not os.environ.get(name):
            right = f"{place}: the environment variable {name} is not set; set it, e.g. `export {name}=…`"
            raise DataError("data.environment", right)
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def read_bytes(path: Path, place: str) -> bytes:
    """Content of a file, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: the file is missing, unreadable or a corrupt archive.
    """
    return gunzip(read_raw(path, place), path, place)


def read_raw(path: Path, place: str) -> bytes:
    """Content of a file as it is.

    Raises:
        DataError: the file is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("data.no-file", f"{place}: no such file: {path}") from None
    except OSError as error:
        raise DataError("data.unreadable", f"{place}: {path} cannot be read ({error.strerror})") from None


def gunzip(content: bytes, path: Path, place: str) -> bytes:
    """``content`` of ``path``, decompressed if the name ends in ``.gz``.

    Raises:
        DataError: it is no whole archive.
    """
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        right = f"{place}: {path} is no whole gzip file; fetch or write it again"
        raise DataError("data.corrupt", right) from None
