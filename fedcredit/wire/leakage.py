"""Reads a protocol's LEAKAGE.md and holds it against the messages the protocol really has.

The table has the columns ``| Receiver | Message | Field | What it learns | Bound |``. A field inside a nested struct is
written ``outer.inner``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcredit.errors import SpecError
from fedcredit.types import Role
from fedcredit.wire.schema import ProtocolSchema, leaf_fields

__all__ = ["LeakageRow", "check_leakage", "parse_leakage"]

_HEADER = ("receiver", "message", "field", "what it learns", "bound")


@dataclass(frozen=True)
class LeakageRow:
    """What one role learns from one field.

    Args:
        receiver: Role that receives it.
        message: Kind of the message.
        field: Name of the field, nested ones with dots.
        learns: In words.
        bound: What limits it, in words.
    """

    receiver: Role
    message: str
    field: str
    learns: str
    bound: str


def parse_leakage(text: str) -> tuple[LeakageRow, ...]:
    """Rows of all leakage tables of a page, in order.

    Raises:
        SpecError: no table, or a row with a wrong number of cells, an empty cell or an unknown role.
    """
    rows: list[LeakageRow] = []
    inside = found = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip().startswith("|"):
            inside = False
            continue
        cells = _cells(line)
        if tuple(cell.lower() for cell in cells) == _HEADER:
            inside = found = True
        elif inside and not all(set(cell) <= set("-: ") for cell in cells):
            rows.append(_row(cells, number))
    if not found:
        raise SpecError(
            "leakage.table", "LEAKAGE.md has no table | Receiver | Message | Field | What it learns | Bound |"
        )
    return tuple(rows)


def check_leakage(rows: Sequence[LeakageRow], schema: ProtocolSchema) -> None:
    """Compares the page with the messages.

    Raises:
        SpecError: naming the first field without a row, row without a field, or row given twice.
    """
    wanted = {
        (role, declared.kind, field)
        for declared in schema.messages
        for role in declared.receivers
        for field in leaf_fields(declared.message)
    }
    seen: set[tuple[Role, str, str]] = set()
    for row in rows:
        key = (row.receiver, row.message, row.field)
        where = f"protocol {schema.name}: LEAKAGE.md row {row.receiver} | {row.message} | {row.field}"
        if key not in wanted:
            raise SpecError("leakage.unknown", f"{where} names no field that this role receives")
        if key in seen:
            raise SpecError("leakage.duplicate", f"{where} is there twice")
        seen.add(key)
    missing = sorted(wanted - seen)
    if missing:
        listed = "; ".join(" | ".join(key) for key in missing)
        raise SpecError("leakage.missing", f"protocol {schema.name}: LEAKAGE.md lacks rows for {listed}")


def _cells(line: str) -> list[str]:
    """Cells of a table line, without surrounding blanks and code marks; an escaped bar stays inside its cell."""
    inner = line.strip().removeprefix("|").removesuffix("|").replace("\\|", "\x00")
    return [cell.strip().replace("\x00", "|") for cell in inner.split("|")]


def _row(cells: list[str], number: int) -> LeakageRow:
    """One data row."""
    where = f"LEAKAGE.md line {number}"
    if len(cells) != len(_HEADER):
        raise SpecError("leakage.cells", f"{where} has {len(cells)} cells, {len(_HEADER)} are needed")
    receiver, message, field = (cell.strip("`") for cell in cells[:3])
    if not all((receiver, message, field, cells[3], cells[4])):
        raise SpecError("leakage.cells", f"{where} has an empty cell")
    try:
        role = Role(receiver)
    except ValueError:
        raise SpecError(
            "leakage.role", f"{where} names role {receiver!r}, one of {', '.join(Role)} is needed"
        ) from None
    return LeakageRow(role, message, field, cells[3], cells[4])
