"""Checks of what ``[data.NAME]`` names beside records: a catalogue and what it derives, and a register of public ids.

Numbers, names of files and digests are shown, never a value of a record.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fedcredit.catalog.load import load_catalog
from fedcredit.data.derive import derive_source
from fedcredit.data.places import expand
from fedcredit.errors import FedCreditError
from fedcredit.runtime.doctor.checks import Finding, Status, failed
from fedcredit.runtime.house.records import Register, named_register
from fedcredit.runtime.house.settings import DataSource
from fedcredit.shipped import known_file

__all__ = ["check_derived", "check_register"]

_SHOWN = 16  # hex digits of a digest
_FEW = 1000


def check_derived(check: str, source: DataSource, base: Path) -> Finding:
    """Derives every feature of a catalogue as of today, and counts.

    Args:
        check: Name of the check.
        source: With a catalogue.
        base: Folder that relative paths are relative to.
    """
    today, catalog_file = datetime.now(UTC).date(), source.catalog or ""
    try:
        catalog = load_catalog(known_file("catalog", expand(catalog_file, "catalog"), base))
        derived = derive_source(catalog, source.source, base, today, label=False, place="source")
    except FedCreditError as error:
        return failed(check, error)
    dropped = sum(one.rows for one in derived.dropped.values())
    absent = len(catalog.features) - len(derived.columns)
    shown = f"{len(derived.ids):,} enterprises, {len(derived.columns)} features of {Path(catalog_file).name}"
    shown += f" as of {today}"
    if absent:
        shown += f", {absent} features without their columns"
    if dropped:
        shown += f", {dropped:,} rows left out whose id is none"
    empty = sum(column.null_count() == len(column) for column in derived.columns.values())
    if 2 * empty > len(derived.columns):
        remedy = "look at the dates of the records: runs say their own as-of day"
        return Finding(check, Status.WARN, f"{shown}, {empty} of them without any value", remedy)
    return Finding(check, Status.OK, shown)


def check_register(check: str, place: str, base: Path) -> Finding:
    """Reads a register; the digest is to be compared with those of the other houses."""
    try:
        found, kind = _read(base, place)
    except FedCreditError as error:
        return failed(check, error)
    shown = f"{len(found.ids):,} {kind}, digest {found.digest[:_SHOWN]}…"
    if len(found.ids) < _FEW:
        remedy = "name the register of all enterprises: membership hides among the ids that are no customers"
        return Finding(check, Status.WARN, shown, remedy)
    return Finding(check, Status.OK, shown)


def _read(base: Path, place: str) -> tuple[Register, str]:
    """A register, as credit codes if all of it are some."""
    try:
        return named_register(base, place, codes=True), "Unified Social Credit Codes"
    except FedCreditError:
        return named_register(base, place, codes=False), "ids"
