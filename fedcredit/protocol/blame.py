"""Says whose bytes were wrong, where the code that read them knows of no parties."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedcredit.errors import PeerError

__all__ = ["blaming"]


@contextmanager
def blaming(party: str) -> Iterator[None]:
    """Names the sender in errors about its bytes.

    Raises:
        PeerError: that of the block, its text led by the party's name.
    """
    try:
        yield
    except PeerError as error:
        raise PeerError(error.code, f"{party}: {error.public}", error.detail) from error
