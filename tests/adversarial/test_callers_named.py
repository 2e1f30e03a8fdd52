"""Who is refused at the coordinator's port stands in its log of refusals: by name or key, with its address, bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedcredit.runtime import refusals
from fedcredit.runtime.refusals import REFUSALS_FILE, CallerNotes


class _Home:
    def __init__(self, logs: Path) -> None:
        self.logs = logs


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in (folder / REFUSALS_FILE).read_text("utf-8").splitlines()]


def notes(folder: Path) -> CallerNotes:
    home: Any = _Home(folder)
    return CallerNotes(home, "exchange refused")


def test_nobody_hides_behind_what_another_has_filled(tmp_path: Path) -> None:
    note = notes(tmp_path)
    for _ in range(1000):
        note("exchange.malformed", "bank: a frame with a malformed header", "ipv4:10.0.0.1:5")
    note("exchange.malformed", "tax: a frame with a malformed header", "ipv4:10.0.0.2:6")
    note("exchange.unknown-key", "TLS key 0123… belongs to no member of this consortium", "ipv4:10.0.0.3:7")
    found = lines(tmp_path)
    assert [one["times"] for one in found[:-2]] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert [(one["code"], one["text"][:7], one["caller"]) for one in found[-2:]] == [
        ("exchange.malformed", "tax: a ", "ipv4:10.0.0.2:6"),
        ("exchange.unknown-key", "TLS key", "ipv4:10.0.0.3:7"),
    ]
    assert all(one["event"] == "exchange refused" for one in found)
    assert (tmp_path / REFUSALS_FILE).stat().st_mode & 0o777 == 0o600


def test_texts_without_end_fill_neither_memory_nor_log(tmp_path: Path) -> None:
    note = notes(tmp_path)
    for number in range(5000):
        note("exchange.malformed", f"{number} raw bytes", "x" * 1000)
    assert len(lines(tmp_path)) < refusals._MOST_SAID + 20
    assert len(note._said) <= refusals._MOST_SAID + 1
    assert all(len(one["caller"]) <= 128 for one in lines(tmp_path))
