"""What a house brings to a run: records, catalogue and register, from the places that its ``node.toml`` names.

A run says which of them it needs and never where they are. A register is public, so that approvals name its digest and
every house sees that all index the same one; a catalogue is the house's own affair, and its digest stays here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcredit.data.load import load_table
from fedcredit.data.places import expand, read_bytes
from fedcredit.data.register import read_register
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, SpecError
from fedcredit.protocol.align.registry import register_digest
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.runs.proposal import Checked
from fedcredit.shipped import known_file
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["Register", "catalog_digest", "house_register", "house_table", "named_register", "own_spec"]


@dataclass(frozen=True)
class Register:
    """A register of public ids.

    Args:
        ids: Each once, in the order of the file.
        digest: 64 hex digits that name the ids, whatever their order; "" for none.
    """

    ids: Sequence[str] = ()
    digest: str = ""


def own_spec(home: Home, checked: Checked) -> RunSpec:
    """The spec with this house's own places of records."""
    records, spec = home.node.data[checked.data], checked.spec
    own = {"source": records.source, "query": records.query, "catalog": records.catalog}
    sections = [party.model_copy(update=own) if party.name == home.party else party for party in spec.party]
    split, align = spec.split, spec.align
    if split.test_ids is not None:
        split = split.model_copy(update={"test_ids": records.test_ids})
    if align.registry is not None:
        align = align.model_copy(update={"registry": records.registry})
    return spec.model_copy(update={"party": tuple(sections), "split": split, "align": align})


def house_table(home: Home, checked: Checked) -> HolderTable:
    """The house's records as the spec wants them.

    Raises:
        DataError: they do not carry the run.
    """
    spec = own_spec(home, checked)
    mine = next(party for party in spec.party if party.name == home.party)
    time = spec.split.time if mine.label is not None else None
    try:
        return load_table(mine, home.folder, time=time, codes=spec.align.ids == "uscc", partition=spec.partition)
    except SpecError as error:  # about the house's own catalogue, whose place and content are nobody else's
        raise DataError(error.code, error.public, error.detail) from None


def house_register(home: Home, spec: RunSpec, data: str) -> Register:
    """The house's register, if the run is to use it and the house has one.

    Args:
        home: The house's.
        spec: The run.
        data: Name of the records.

    Raises:
        DataError: it cannot be read.
    """
    align, place = spec.align, home.node.data[PartyId(data)].registry
    if align.registry is None or place is None:
        return Register()
    return named_register(home.folder, place, codes=align.ids == "uscc")


def named_register(base: Path, place: str, *, codes: bool) -> Register:
    """A register with the digest that names it.

    Args:
        base: Folder that a relative path is relative to.
        place: The file, as ``node.toml`` has it.
        codes: Whether its ids are Unified Social Credit Codes.

    Raises:
        DataError: it cannot be read.
    """
    ids = read_register(base / expand(place, "registry"), codes=codes)
    return Register(ids, register_digest(sorted(ids)).hex())


def catalog_digest(home: Home, data: str) -> str:
    """Digest of the bytes of the house's catalogue for some records, 64 hex digits; "" where it has none.

    Raises:
        DataError: it cannot be read.
    """
    place = home.node.data[PartyId(data)].catalog
    if place is None:
        return ""
    return hashlib.sha256(
        read_bytes(known_file("catalog", expand(place, "catalog"), home.folder), "catalog")
    ).hexdigest()
