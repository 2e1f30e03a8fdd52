"""What is told of a run while it goes on."""

from __future__ import annotations

import time

import pytest

from fedcredit.runtime.model_run import Report
from fedcredit.runtime.progress import Progress, StageClock
from fedcredit.types import PartyId

BANK, TAX = PartyId("bank"), PartyId("tax")
KEYS = {"start": "align", "align": "align", "boost": "train"}


def test_stages_and_steps_of_the_label_holder_are_told() -> None:
    told: list[Progress] = []
    clock = StageClock(BANK, KEYS, told.append)
    report: Report = clock.report
    clock(TAX, "align")
    clock(BANK, "align")
    clock(BANK, "boost")
    report(7, 20, "AUC .7812")
    assert told == [Progress("align"), Progress("boost"), Progress("boost", 7, 20, "AUC .7812")]


def test_seconds_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 13.0, 20.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = StageClock(BANK, KEYS, lambda _: None)
    clock(BANK, "align")
    clock(BANK, "boost")
    assert clock.finish() == {"align": 3.0, "train": 7.0}
