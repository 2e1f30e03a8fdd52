"""Unified Social Credit Codes: check characters and a canonical spelling, for whole columns at once.

A code has 18 characters of an alphabet of 31 (digits and upper-case letters without I, O, S, V and Z): registering
department (1), kind of organisation (1), administrative division (6), organisation code (9), check character (1).

Modulo the prime 31 the weights 3^i, and the 1 of the check character, are not zero and differ between neighbours, so
every substitution of one character and every swap of two different neighbours is detected. Other errors pass about
once in 31.

Source: GB 32100-2015, section 5 and annex A.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from fedcredit.errors import DataError

__all__ = ["ALPHABET", "LENGTH", "check_character", "check_characters", "normalise", "spell"]

ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters in the order of their values."""

LENGTH: Final = 18

_BODY = LENGTH - 1
_MODULUS = len(ALPHABET)
_WEIGHTS = np.array([pow(3, place, _MODULUS) for place in range(_BODY)], dtype=np.int32)
_WEIGHTS.setflags(write=False)
_LETTERS = np.frombuffer(ALPHABET.encode("ascii"), dtype=np.uint8)
_MISREAD = {"I": "1", "O": "0", "Z": "2", "S": "5"}
_UNKNOWN = 255


def _values() -> NDArray[np.uint8]:
    """Value of every byte; 255 where it is no character of a code. Misread letters have the value meant."""
    values = np.full(256, _UNKNOWN, dtype=np.uint8)
    values[_LETTERS] = np.arange(_MODULUS, dtype=np.uint8)
    for letter, meant in _MISREAD.items():
        values[ord(letter)] = ALPHABET.index(meant)
    values.setflags(write=False)
    return values


_VALUES = _values()
# Spaces, zero-width marks, hyphens and dashes, dots: what people and spreadsheets put between groups of characters.
_SEPARATORS = "[\\s\u200b-\u200d\u2060\ufeff\u2010-\u2015\u2212._\u00b7\u30fb\u3002-]"


def check_character(body: str) -> str:
    """The check character of one code.

    Args:
        body: The first 17 characters, of `ALPHABET`.

    Raises:
        DataError: another length, or a character that is not of the alphabet.
    """
    if len(body) != _BODY or any(letter not in ALPHABET for letter in body):
        raise DataError("data.uscc", f"the body of a code must be {_BODY} characters of {ALPHABET}")
    indices = np.array([[ALPHABET.index(letter) for letter in body]], dtype=np.uint8)
    return ALPHABET[int(check_characters(indices)[0])]


def check_characters(bodies: ArrayLike) -> NDArray[np.uint8]:
    """Check characters of many codes.

    Args:
        bodies: (n, 17) values in [0, 31) of the first 17 characters.

    Returns:
        uint8 (n,): values in [0, 31).

    Raises:
        DataError: another shape, or a value out of range.

    Source: GB 32100-2015, annex A: C18 = 31 - sum(C_i 3^(i-1)) mod 31, 31 written as 0.
    """
    given = np.asarray(bodies)
    if given.ndim != 2 or given.shape[1] != _BODY or given.dtype.kind not in "iu":
        raise DataError("data.uscc", f"bodies must be whole numbers of shape (n, {_BODY}), found {given.shape}")
    if given.size and (int(given.min()) < 0 or int(given.max()) >= _MODULUS):
        raise DataError("data.uscc", f"values of characters must lie in [0, {_MODULUS})")
    return np.asarray((-(given.astype(np.int32) @ _WEIGHTS)) % _MODULUS, dtype=np.uint8)


def spell(bodies: ArrayLike) -> pl.Series:
    """Codes as text, check character added.

    Args:
        bodies: As for `check_characters`.

    Returns:
        String (n,): codes of 18 characters.

    Raises:
        DataError: as for `check_characters`.
    """
    checks = check_characters(bodies)
    letters = _LETTERS[np.column_stack([np.asarray(bodies, dtype=np.uint8), checks])]
    return _text(letters)


def normalise(ids: pl.Series) -> pl.Series:
    """Codes in canonical spelling; null where no valid code can be read.

    Compatibility forms (full-width characters) become plain ones, spaces, hyphens and dots vanish, letters become
    upper case. I, O, Z and S, which no code contains, are read as 1, 0, 2 and 5. What then has not 18 characters of
    the alphabet, or a check character that does not fit, is null: a typing error is never guessed at.

    Args:
        ids: Text (n,), any spelling; numbers are read as their digits.

    Returns:
        String (n,) of the same name; valid codes or null.
    """
    text = ids.cast(pl.String)
    clean = text.str.normalize("NFKC").str.replace_all(_SEPARATORS, "").rename("clean")
    right = (clean.str.len_bytes() == LENGTH) & (clean.str.len_chars() == LENGTH)
    at = right.fill_null(value=False).to_numpy().nonzero()[0]
    result = pl.Series(ids.name, [None], dtype=pl.String).new_from_index(0, len(ids))
    if not len(at):
        return result
    joined = clean.gather(at).str.to_uppercase().str.join("").item()
    values = _VALUES[np.frombuffer(joined.encode("ascii"), dtype=np.uint8).reshape(-1, LENGTH)]
    known = (values != _UNKNOWN).all(axis=1)
    values, at = values[known], at[known]
    fits = check_characters(values[:, :_BODY]) == values[:, _BODY]
    return result.scatter(at[fits], _text(_LETTERS[values[fits]]))


def _text(letters: NDArray[np.uint8]) -> pl.Series:
    """Rows of 18 ASCII codes as text."""
    flat = np.ascontiguousarray(letters)
    return pl.Series("uscc", flat.view(f"S{LENGTH}").reshape(-1)).cast(pl.String)
