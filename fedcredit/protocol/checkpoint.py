"""Where a role keeps what it needs to go on after its process has died."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fedcredit.crypto.kept import afresh

__all__ = ["Checkpoints", "Kept", "NothingKept"]


class Checkpoints(Protocol):
    """One party's latest state of one run, in its own house."""

    def load(self) -> bytes | None:
        """The state saved last, or None in a run that has saved none."""
        ...

    def save(self, state: bytes) -> None:
        """Replaces the state; durable, and old or new as a whole, when this returns."""
        ...


class Kept(Protocol):
    """What one party cannot draw again, in its own house: keys and ciphertexts of the library, by name."""

    def once(self, name: str, about: bytes, make: Callable[[], bytes]) -> bytes:
        """The bytes kept under a name, else those made now, which are durable when this returns.

        Args:
            name: What they are; unique in the run.
            about: Names all that they are made from but the library's randomness.
            make: Makes them.

        Raises:
            IntegrityError: what is kept was made from something else, or is damaged.
        """
        ...

    def drop(self, prefix: str) -> None:
        """Removes all whose name begins so: nobody will ask for it again."""
        ...


class NothingKept:
    """Makes everything afresh: for roles that are played once, and by one process."""

    def once(self, name: str, about: bytes, make: Callable[[], bytes]) -> bytes:
        """See `Kept.once`."""
        return afresh(name, about, make)

    def drop(self, prefix: str) -> None:
        """Drops nothing, for there is nothing."""
