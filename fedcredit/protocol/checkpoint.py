"""Where a role keeps what it needs to go on after its process has died."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Checkpoints"]


class Checkpoints(Protocol):
    """One party's latest state of one run, in its own house."""

    def load(self) -> bytes | None:
        """The state saved last, or None in a run that has saved none."""
        ...

    def save(self, state: bytes) -> None:
        """Replaces the state; durable, and old or new as a whole, when this returns."""
        ...
