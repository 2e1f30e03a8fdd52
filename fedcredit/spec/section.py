"""What every section of a specification is made of: strict frozen models, and the types of their keys."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = [
    "NAME_PATTERN",
    "AutoOrCount",
    "Codes",
    "Columns",
    "NotNegative",
    "Number",
    "Positive",
    "Section",
    "Seed",
    "Share",
    "Text",
    "as_tuple",
    "number_or_text",
    "refuse",
]

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Run and party names become file names, certificate names and ledger keys on every operating system."""

_MAX_SEED = 2**63 - 1  # TOML integers are 64-bit signed


def refuse(key: str, right: str) -> NoReturn:
    """Ends a validation with the dotted path of a key, and what was found and would be right."""
    raise PydanticCustomError("fedcredit", "{right}", {"key": key, "right": right})


def as_tuple(value: object) -> object:
    """TOML arrays arrive as lists; frozen values hold tuples."""
    return tuple(value) if isinstance(value, list) else value


def _auto_or_count(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise PydanticCustomError("fedcredit", "{right}", {"right": 'use "auto" or a whole number of at least 1'})


def number_or_text(value: object) -> object:
    """A finite number, a text, or nothing."""
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is None or finite or (isinstance(value, str) and value != ""):
        return value
    raise PydanticCustomError("fedcredit", "{right}", {"right": "use a number or a text such as 2006 or a date"})


Text = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=_MAX_SEED)]
AutoOrCount = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_count)]
Columns = Annotated[tuple[Text, ...], BeforeValidator(as_tuple)]
Codes = Annotated[tuple[Number, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class Section(BaseModel):
    """Base of all sections: strict types, frozen, unknown keys refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)
