"""What a library draws and nobody can draw again: made once, and the same bytes whenever it is asked for.

SEAL takes its randomness from the operating system and from nowhere else. A key or ciphertext made in a second process
is therefore another one: a second encryption of one vector, a second answer under a second flood. Whoever makes one
takes a `Once`, which has it on its owner's disk before it is used (`fedcredit.runtime.kept.KeptFiles`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Once", "afresh"]


class Once(Protocol):
    """Makes bytes the first time, and gives back the same ones afterwards."""

    def __call__(self, name: str, about: bytes, make: Callable[[], bytes]) -> bytes:
        """The bytes of a name.

        Args:
            name: What they are; unique in the run.
            about: Names all that they are made from but the library's randomness.
            make: Makes them.

        Raises:
            IntegrityError: they were made from something else before, or what was kept is damaged.
        """
        ...


def afresh(name: str, about: bytes, make: Callable[[], bytes]) -> bytes:
    """Keeps nothing: for a process that sends what it makes once, and no process after it."""
    del name, about
    return make()
