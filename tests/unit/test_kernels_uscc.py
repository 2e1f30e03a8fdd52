"""Codes read as people write them; what cannot be read is null, never guessed."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from fedcredit.errors import DataError
from fedcredit.kernels.uscc import ALPHABET, LENGTH, check_character, check_characters, normalise, spell

CODE = "91110000600037341L"
SPELLINGS = {
    "lower case": "91110000600037341l",
    "groups": "9111 0000 6000 37341L",
    "hyphens": "911100006-00037341-L",
    "dots": " 91.110000.600037341.L\t",
    "long dashes": "911100006\u2013000373\u201441\u2212L",
    "full width": CODE.translate({letter: letter + 0xFEE0 for letter in range(33, 127)}),
    "full-width letters and space": "91110000600037341\uff4c\u3000",
    "zero-width": "\ufeff91110000\u200b600037341L",
    "I for 1": "9III0000600037341L",
    "O for 0": "9111OOOO60oo37341L",
}


def rows(*texts: str | None) -> list[str | None]:
    return normalise(pl.Series("uscc", texts, dtype=pl.String)).to_list()


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_spellings_of_one_code_are_one(name: str) -> None:
    assert rows(SPELLINGS[name]) == [CODE]


def test_z_and_s_are_read_as_2_and_5() -> None:
    code = "91310115" + "MA1K2550X"
    code += check_character(code)
    assert rows(code.replace("2", "z"), code.replace("5", "S")) == [code, code]


def test_what_is_no_code_is_null() -> None:
    wrong = [
        "",
        " ",
        "n/a",
        CODE[:-1],
        CODE + "1",
        "7" + CODE[1:],
        "\u00e9" * 9,
        "\u00e9" * 18,
        "\U00020000" * 18,
        "V" * 18,
        None,
    ]
    assert rows(*wrong) == [None] * len(wrong)


def test_a_misread_letter_is_repaired_only_where_the_check_character_then_fits() -> None:
    assert rows("I" + CODE[1:]) == [None]  # 9 stood there, not 1
    assert rows(CODE[:-1] + "I") == [None]


def test_name_order_and_length_stay() -> None:
    read = normalise(pl.Series("code", ["x", CODE, None, CODE.lower()]))
    assert read.name == "code"
    assert read.to_list() == [None, CODE, None, CODE]
    assert normalise(pl.Series("code", [], dtype=pl.String)).to_list() == []
    assert normalise(pl.Series("code", [None])).dtype == pl.String


def test_numbers_are_read_as_their_digits() -> None:
    assert normalise(pl.Series("uscc", [914403001922038216, 1])).to_list() == ["914403001922038216", None]


def test_the_same_text_twice_gives_the_same_code_twice() -> None:
    assert rows(CODE, CODE) == [CODE, CODE]


def test_many_check_characters_are_those_of_one_by_one() -> None:
    bodies = np.random.default_rng(3).integers(0, len(ALPHABET), (50, LENGTH - 1))
    texts = ["".join(ALPHABET[value] for value in body) for body in bodies]
    assert [ALPHABET[value] for value in check_characters(bodies)] == [check_character(text) for text in texts]
    assert spell(bodies).to_list() == [text + check_character(text) for text in texts]
    assert check_characters(np.empty((0, 17), dtype=np.uint8)).shape == (0,)


@pytest.mark.parametrize("body", ["", "1" * 16, "1" * 18, "I" * 17, "a" * 17])
def test_a_body_must_be_17_characters_of_the_alphabet(body: str) -> None:
    with pytest.raises(DataError, match="17 characters"):
        check_character(body)


@pytest.mark.parametrize(
    "bodies",
    [
        np.zeros(17, np.uint8),
        np.zeros((2, 18), np.uint8),
        np.zeros((2, 17)),
        np.full((1, 17), 31),
        np.full((1, 17), -1),
    ],
    ids=["flat", "wide", "floats", "31", "negative"],
)
def test_bodies_must_be_values_of_characters(bodies: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    with pytest.raises(DataError):
        check_characters(bodies)


@pytest.mark.slow
def test_a_province_of_codes_takes_seconds() -> None:
    bodies = np.random.default_rng(5).integers(0, len(ALPHABET), (1_800_000, LENGTH - 1), dtype=np.uint8)
    codes = spell(bodies)
    started = time.process_time()
    read = normalise(codes)
    assert time.process_time() - started < 10.0  # 1.6 s alone on one core
    assert read.equals(codes)
