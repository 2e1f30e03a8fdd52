"""What banks learn from the totals of a hybrid run, from the tables of its ``LEAKAGE.md``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final

from fedcredit.errors import SpecError
from fedcredit.types import Role

__all__ = ["hybrid_steps"]

_SECTIONS: Final[Mapping[str, str]] = MappingProxyType({"scorecard": "## Scorecard", "boost": "## Trees"})
_HEAD: Final = "| Sum | Who learns it | What it tells | Bound |"
_OPENED: Final = "secure_sum.opening"  # the message in which a total arrives


def hybrid_steps(model: str, text: str | None = None) -> list[dict[str, str]]:
    """Steps for ``leakage.json``: one for each kind of total that the banks decide on.

    Args:
        model: ``run.model``.
        text: The document; None = the one that is installed.

    Raises:
        SpecError: the document has no table for the model.
    """
    if text is None:
        folder = resources.files("fedcredit.protocol") / "hybrid"
        text = (folder / "LEAKAGE.md").read_text(encoding="utf-8")
    section = _SECTIONS.get(model, "")
    _, found, rest = text.partition(f"{section}\n")
    if not section or not found or _HEAD not in rest:
        raise SpecError("leakage.hybrid", f"LEAKAGE.md of hybrid runs has no table of totals for {model}")
    lines = rest[rest.index(_HEAD) :].splitlines()[2:]
    steps = []
    for line in lines:
        if not line.startswith("|"):
            break
        name, who, tells, bound = (cell.strip() for cell in line.strip("|").split("|"))
        steps.append(
            {
                "protocol": "hybrid",
                "receiver": Role.LABEL_HOLDER.value,
                "message": _OPENED,
                "field": name,
                "learns": f"{tells} ({who})",
                "bound": bound,
            }
        )
    return steps
