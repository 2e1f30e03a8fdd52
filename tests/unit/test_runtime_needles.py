"""What is looked for is found, wherever it stands; what is not there is not."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.errors import SpecError
from fedcredit.runtime.wire_proof import needles
from fedcredit.runtime.wire_proof.needles import Needles, file_pieces, forms, memory_pieces


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(st.binary(min_size=6, max_size=40).filter(lambda one: any(one[:6])), min_size=1, max_size=5),
    around=st.lists(st.binary(max_size=30), min_size=6, max_size=6),
    cuts=st.lists(st.integers(0, 300), max_size=4),
)
def test_every_word_is_found_however_the_data_is_cut(words: list[bytes], around: list[bytes], cuts: list[int]) -> None:
    data = around[-1] + b"".join(before + word for before, word in zip(around, words, strict=False))
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    found = Needles(dict.fromkeys(words, "word")).find(pieces)
    assert found == {word: data.find(word) for word in words}


def test_nothing_else_is_found() -> None:
    assert Needles({b"needle": "", b"needles": ""}).find([b"needl", b"in the hay: need", b" le"]) == {}


def test_more_candidates_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needles, "_CANDIDATES", 4)
    data = b"needleX" * 50 + b"needle!"
    assert Needles({b"needle!": ""}).find([data]) == {b"needle!": 350}


def test_short_words_are_refused() -> None:
    with pytest.raises(SpecError, match="short: at least 6 bytes"):
        Needles({b"12345": "short"})


def test_forms_of_values() -> None:
    assert forms("bakery") == [b"bakery"]
    assert forms("cafe") == []
    number = 123456789012345
    for found in (forms(number), forms(float(number))):
        assert set(found) >= {b"123456789012345", struct.pack("<q", number), struct.pack(">d", float(number))}
    assert forms(0.0) == []  # eight zeros are everywhere


@pytest.mark.slow
def test_files_and_memory(tmp_path: Path) -> None:
    secret = os.urandom(24)
    (tmp_path / "file").write_bytes(bytes(10_000_000) + secret)
    search = Needles({secret: "secret", os.urandom(24): "stranger"})
    assert search.find(file_pieces(tmp_path / "file")) == {secret: 10_000_000}
    found = [search.find(pieces) for pieces in memory_pieces(os.getpid())]
    assert secret in {word for one in found for word in one}
