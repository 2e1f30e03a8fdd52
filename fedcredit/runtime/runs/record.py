"""What a member takes home of a run: an operator the coordinator's record, a node its own finished run directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fedcredit.errors import DataError, SpecError
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.runs.proposal import Finished, check_finished
from fedcredit.types import PartyId, RunId

if TYPE_CHECKING:
    from fedcredit.runtime.runs.operator_api import EventView, Record

__all__ = ["copy_finished", "write_record"]


def write_record(home: Home, record: Record, events: Sequence[EventView], out: Path) -> str:
    """Writes the coordinator's record of a run; every outcome is checked against its party's key first.

    ``record.json`` (the run, outcomes, audit heads), ``spec.json``, ``events.jsonl``, ``shared/<party>.json`` (figures
    that a party publishes), ``outcomes/<party>.bin`` (as it was signed).

    Args:
        home: The operator's.
        record: From the coordinator.
        events: All events of the run.
        out: Folder to create.

    Returns:
        The run.

    Raises:
        SpecError: ``out`` is there already, or cannot be written.
        PeerError: an outcome is not its party's.
    """
    run = RunId(record.run.run)
    parties = {*record.run.parties, "coordinator"}
    finished: dict[str, Finished] = {}
    for one in record.outcomes:
        if one.party not in parties:
            raise DataError("fetch.party", f"run {run}: an outcome of {one.party[:80]!r}, who is not in the run")
        finished[one.party] = check_finished(one.finished, PartyId(one.party), run, home.roster)
    staging = _staging(out)
    try:
        _json(staging / "record.json", _summary(record, finished))
        (staging / "spec.json").write_text(record.spec + "\n", encoding="utf-8")
        lines = [msgspec.json.encode(one) + b"\n" for one in events]
        (staging / "events.jsonl").write_bytes(b"".join(lines))
        for folder in ("outcomes", "shared"):
            (staging / folder).mkdir()
        for one in record.outcomes:
            (staging / "outcomes" / f"{one.party}.bin").write_bytes(one.finished)
            if finished[one.party].shared:
                (staging / "shared" / f"{one.party}.json").write_bytes(finished[one.party].shared)
        staging.rename(out)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise SpecError("fetch.out", f"{out}: cannot be written ({error.strerror})") from None
    return run


def _summary(record: Record, finished: dict[str, Finished]) -> dict[str, Any]:
    run = msgspec.to_builtins(record.run)
    outcomes = {
        party: {
            "ok": one.ok,
            "code": one.code,
            "text": one.text,
            "culprit": one.culprit,
            "audit_head": one.audit_head,
            "attempts": one.attempts,
            "messages": one.messages,
            "bytes_sent": one.bytes_sent,
            "shared": bool(one.shared),
        }
        for party, one in sorted(finished.items())
    }
    return {**run, "outcomes": outcomes}


def copy_finished(home: Home, which: str, out: Path) -> str:
    """Copies a node's own finished run directory.

    Args:
        home: The node's.
        which: The run, or the beginning of its name.
        out: Folder to create.

    Returns:
        The run.

    Raises:
        SpecError: there is no such finished run, or ``out`` is there already or cannot be written.
    """
    names = sorted(one.name for one in home.runs.iterdir() if one.is_dir() and not one.name.startswith("."))
    found = [one for one in names if which and one.startswith(which)]
    if len(found) != 1:
        what = f"{len(found)} finished runs begin so" if found else "no such run has finished in this house"
        raise SpecError("fetch.run", f"run {which[:80]}: {what}; `fedcredit-node status` shows them")
    staging = _staging(out)
    try:
        shutil.copytree(home.runs / found[0], staging, dirs_exist_ok=True)
        staging.rename(out)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise SpecError("fetch.out", f"{out}: cannot be written ({error.strerror or error})") from None
    return found[0]


def _staging(out: Path) -> Path:
    """A fresh folder beside ``out``, which takes its name when it is complete."""
    if out.exists():
        raise SpecError("fetch.out", f"{out}: there already; give a folder that does not exist yet")
    staging = out.with_name(f".{out.name}.new")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise SpecError("fetch.out", f"{out}: cannot be written ({error.strerror})") from None
    return staging


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
