"""What `fedcredit.runtime.model_run` promises to a new model: checkpoints, reports, secrets, files, summary."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fedcredit.protocol.align.messages import SCHEMA as ALIGN
from fedcredit.protocol.bin.conversation import bin_conversation
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import Session
from fedcredit.runtime import simulate as module
from fedcredit.runtime.model_run import HeldOutRows, ModelRun, Outcome, Seat, Written
from fedcredit.runtime.progress import Progress
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

Make = Callable[..., Path]
STEPS = 5


class Counting:
    """A model that counts to five, a checkpoint a step; it is interrupted once after some step."""

    def __init__(self, interrupted_after: int) -> None:
        self.interrupted_after = interrupted_after
        self.steps: dict[str, list[int]] = {}
        self.seen: list[Outcome] = []
        self.derived: list[bytes] = []

    @property
    def model(self) -> ModelRun:
        seconds = {"start": "align", "count": "train"}
        return ModelRun((ALIGN,), seconds, self.role, self.coordinate, self.own, self.write)

    def role(self, spec: RunSpec, seat: Seat, held_out: HeldOutRows) -> Coroutine[Any, Any, Any]:
        return self.count(seat)

    async def coordinate(self, channel: Channel, spec: RunSpec) -> None:
        channel.stage("count")

    async def count(self, seat: Seat) -> int:
        party = seat.channel.party
        seat.channel.stage("count")
        if seat.holding.leads:
            self.derived.append(seat.holding.keep.secret.derive("x"))
        done = int(seat.checkpoints.load() or b"0")
        while done < STEPS:
            done += 1
            seat.checkpoints.save(str(done).encode())
            self.steps.setdefault(party, []).append(done)
            seat.report(done, STEPS, f"of {party}")
            if done == self.interrupted_after and seat.holding.leads:
                self.interrupted_after = 0
                os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
        return done

    def own(self, files: RunFiles, outcome: Outcome, party: PartyId) -> Written:
        return self.write(files, outcome)

    def write(self, files: RunFiles, outcome: Outcome) -> Written:
        self.seen.append(outcome)
        files.parts({party: {"steps": outcome.results[party]} for party in outcome.spec.parties}, "counts.json")
        found = bin_conversation(Session("", outcome.spec.crypto.profile, {}), 100)
        return Written({"counted": outcome.results[outcome.leader]}, [(found, 1, 100)])


def test_a_model_goes_on_from_its_checkpoints(
    tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, counting = consortium(tmp_path / "c", rows=300), tmp_path / "o", Counting(3)
    monkeypatch.setattr(module, "MODEL_RUNS", {"scorecard": counting.model})
    told: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        simulate(load_spec(config), out, progress=told.append)
    assert told[-1] == Progress("count", 3, STEPS, "of bank")
    assert counting.seen == []
    (folder,) = tmp_path.glob(".o.*")
    assert {one.name for one in (folder / "checkpoints").iterdir()} >= {"bank", "tax_office"}
    told.clear()
    summary = simulate(load_spec(config), out, progress=told.append, resume=True).summary
    assert [one.done for one in told if one.done is not None] == [4, 5]
    assert {one.note for one in told} == {"", "of bank"}  # the label holder alone is heard
    assert counting.steps["bank"] == [1, 2, 3, 4, 5]
    assert all(sorted(set(steps)) == [1, 2, 3, 4, 5] for steps in counting.steps.values())
    assert len(set(counting.derived)) == 1
    assert counting.seen[0].keep[PartyId("bank")].secret.derive("x") == counting.derived[0]
    assert (summary["counted"], summary["restarts"], summary["protocol"]) == (5, 1, ["align"])
    assert set(summary["seconds"]) == {"align", "train", "total"}
    assert json.loads((out / "model" / "customs" / "counts.json").read_text()) == {"steps": 5}
    assert {one.name for one in out.iterdir()} == {
        "audit",
        "escrow",
        "leakage.json",
        "ledger",
        "model",
        "spec.toml",
        "summary.json",
        "transcript.jsonl",
    }


def test_the_next_run_starts_from_nothing(tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, counting = consortium(tmp_path / "c", rows=300), Counting(0)
    monkeypatch.setattr(module, "MODEL_RUNS", {"scorecard": counting.model})
    for name in ("a", "b"):
        simulate(load_spec(config), tmp_path / name)
    assert counting.steps["customs"] == 2 * [1, 2, 3, 4, 5]
    assert len(set(counting.derived)) == 2
