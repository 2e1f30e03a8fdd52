"""What every section of a catalogue is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from fedcredit.spec.model import Section

__all__ = ["NAME", "Names", "Number", "Section", "Text"]

NAME = r"^[a-z][a-z0-9_]{0,62}$"
"""Names of tables, features and labels: they are names of files, of SQL tables and of columns."""


def _tuple(value: object) -> object:
    """TOML arrays arrive as lists; frozen values hold tuples."""
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_tuple)]
