"""What the check character detects, over all codes: one substitution and one swap of neighbours, always."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fedcredit.kernels.uscc import ALPHABET, LENGTH, check_character, normalise

bodies = st.text(ALPHABET, min_size=LENGTH - 1, max_size=LENGTH - 1)
MISREAD = {"I": "1", "O": "0", "Z": "2", "S": "5"}


@given(bodies)
def test_every_substitution_of_one_character_is_detected(body: str) -> None:
    code = body + check_character(body)
    changed = [
        code[:place] + letter + code[place + 1 :]
        for place in range(LENGTH)
        for letter in ALPHABET
        if letter != code[place]
    ]
    assert normalise(pl.Series(changed)).null_count() == len(changed)


@given(bodies)
def test_every_swap_of_different_neighbours_is_detected(body: str) -> None:
    code = body + check_character(body)
    swapped = [
        code[:place] + code[place + 1] + code[place] + code[place + 2 :]
        for place in range(LENGTH - 1)
        if code[place] != code[place + 1]
    ]
    assert normalise(pl.Series(swapped, dtype=pl.String)).null_count() == len(swapped)


@given(bodies, st.sampled_from(sorted(MISREAD)), st.integers(0, LENGTH - 1))
def test_a_misread_letter_gives_the_right_code_or_none(body: str, letter: str, place: int) -> None:
    code = body + check_character(body)
    read = normalise(pl.Series([code[:place] + letter + code[place + 1 :]])).to_list()
    assert read == [code if code[place] == MISREAD[letter] else None]


@given(st.lists(st.one_of(st.none(), st.text(max_size=24), bodies.map(lambda body: body + check_character(body)))))
def test_any_text_is_read_as_a_valid_code_or_null_and_reading_twice_changes_nothing(texts: list[str | None]) -> None:
    read = normalise(pl.Series("uscc", texts, dtype=pl.String))
    assert len(read) == len(texts)
    assert all(code is None or check_character(code[:-1]) == code[-1] for code in read)
    assert normalise(read).equals(read)


@given(bodies, st.data())
def test_separators_and_case_do_not_matter(body: str, data: st.DataObject) -> None:
    code = body + check_character(body)
    spelt = "".join(
        (letter.lower() if data.draw(st.booleans()) else letter)
        + data.draw(st.sampled_from(["", " ", "-", ".", "\u3000"]))
        for letter in code
    )
    assert normalise(pl.Series([spelt])).to_list() == [code]
