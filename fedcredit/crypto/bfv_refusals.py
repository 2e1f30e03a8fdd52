"""What the cipher library refuses becomes a named error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedcredit.errors import PeerError

__all__ = ["refusing"]


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns every refusal into a `PeerError`.

    SEAL reports through std::exception alone, so every kind pybind11 maps them to is taken for a refusal.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:
        raise PeerError("bfv.refused", f"SEAL refused {what}", str(error)) from None
