"""How far a run is: told stage by stage, and within a stage step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedcredit.types import PartyId

__all__ = ["Listener", "Progress", "StageClock"]


@dataclass(frozen=True)
class Progress:
    """A moment of a run.

    Args:
        stage: Stage that goes on.
        done: Steps of it that are done; None at its beginning, and in stages that are not counted.
        total: Steps in all; None as above.
        note: A few words on the last step, such as a figure of quality.
    """

    stage: str
    done: int | None = None
    total: int | None = None
    note: str = ""


Listener = Callable[[Progress], None]


class StageClock:
    """Seconds of each stage as the label holder goes through them; tells each stage, and the steps in it.

    Args:
        leader: The label holder.
        keys: Key under ``seconds`` of the summary for each stage.
        tell: Listens.
    """

    def __init__(self, leader: PartyId, keys: Mapping[str, str], tell: Listener) -> None:
        self._leader, self._keys, self._tell = leader, keys, tell
        self._stage, self._since = "start", time.perf_counter()
        self._seconds: dict[str, float] = dict.fromkeys(keys.values(), 0.0)

    def __call__(self, party: PartyId, stage: str) -> None:
        """Notes that a party goes on to another stage."""
        if party != self._leader:
            return
        self._close()
        self._stage = stage
        self._tell(Progress(stage))

    def report(self, done: int, total: int, note: str) -> None:
        """Tells a step of the stage the label holder is in; see `fedcredit.protocol.checkpoint.Report`."""
        self._tell(Progress(self._stage, done, total, note))

    def _close(self) -> None:
        now = time.perf_counter()
        self._seconds[self._keys[self._stage]] += now - self._since
        self._since = now

    def finish(self) -> Mapping[str, float]:
        """Seconds by key of the summary."""
        self._close()
        return dict(self._seconds)
