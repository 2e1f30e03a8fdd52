"""A worker with a place to stop at: ``faulty_worker.py MODULE HOME ACTION``; what is wrong with it is in FAULTS (JSON).

``hold``     "STAGE:N" or "kind=KIND:N": at the N-th message that leaves in a stage, or of a kind, the process stands
             still: the message has passed the gate, is charged and in the log, and not on its way. "closing:1": the
             end is signed and written, the folder not yet cleared and moved. The marker ``file`` says so; the process
             goes on when ``file`` + ".go" is there.
``address``  The exchange is reached there: a line of its own for this house.
``limit``    From the hold on, no file may grow beyond so many bytes (RLIMIT_FSIZE), as on a disk that is full.
``report``   The result's report is built, as a node does; left out otherwise, because it takes most of the time.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedcredit.runtime.exchange.types import LinkSettings
from fedcredit.runtime.party_end import PartyEnd
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.session import session

VARIABLE = "FAULTS"
_PATIENCE = 280.0


class Hold:
    """Stands still once."""

    def __init__(self, at: str, file: Path, limit: int | None) -> None:
        self.at, self.file, self.limit, self.seen, self.done = at, file, limit, Counter[str](), False

    def pass_by(self, place: str) -> None:
        self.seen[place] += 1
        if not self.done and f"{place}:{self.seen[place]}" == self.at:
            self.stand()

    def stand(self) -> None:
        self.done = True
        self.file.write_text(str(os.getpid()))
        end = time.monotonic() + _PATIENCE
        while not self.file.with_name(self.file.name + ".go").exists():
            if time.monotonic() > end:
                os._exit(9)
            time.sleep(0.005)
        if self.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))


def install(faults: dict[str, Any]) -> None:
    if "address" in faults:
        _patch(session, "LinkSettings", _elsewhere(faults["address"]))
    if "hold" in faults:
        _holding(Hold(faults["hold"], Path(faults["file"]), faults.get("limit")))
    if not faults.get("report"):
        _patch(importlib.import_module("nodes.worker"), "_report", lambda *_: None)


def _patch(where: Any, name: str, value: Any) -> None:
    setattr(where, name, value)


def _elsewhere(address: str) -> Callable[..., LinkSettings]:
    def made(**settings: Any) -> LinkSettings:
        return replace(LinkSettings(**settings), address=address)

    return made


def _holding(hold: Hold) -> None:
    release, end = PartyEnd.release, RunFiles.end

    def releasing(self: PartyEnd, to: Any, message: Any, spend: Any = None) -> Any:
        released = release(self, to, message, spend)
        hold.pass_by(self.stage)
        hold.pass_by(f"kind={released.kind}")
        return released

    def ending(self: RunFiles) -> None:
        hold.pass_by("closing")
        end(self)

    _patch(PartyEnd, "release", releasing)
    _patch(RunFiles, "end", ending)


def main(arguments: list[str]) -> int:
    install(json.loads(os.environ.get(VARIABLE, "{}")))
    return int(importlib.import_module(arguments[0]).main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
