"""``consortium.toml``: who takes part, and where the coordinator is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fedcredit.errors import SpecError
from fedcredit.runtime.house.roster import MemberKind, split_address
from fedcredit.runtime.house.settings import (
    Address,
    DataSource,
    HolderRole,
    MemberName,
    SettingsSection,
    read_settings,
)
from fedcredit.runtime.provision.certificates import check_names
from fedcredit.types import COORDINATOR, PartyId

__all__ = [
    "AUTHORITY_FOLDER",
    "CertificateSection",
    "ConsortiumSpec",
    "CoordinatorSection",
    "LocalSection",
    "MemberSection",
    "load_consortium",
]

AUTHORITY_FOLDER = "authority"
"""Folder of the consortium's own keys beside the members' bundles; no member may have this name."""

_NOWHERE = "nowhere:1"  # in a file that is refused anyway


def _kind(value: object) -> object:
    kinds = {kind.value: kind for kind in (MemberKind.NODE, MemberKind.OPERATOR)}
    if isinstance(value, str) and value in kinds:
        return kinds[value]
    raise PydanticCustomError("fedcredit", "{right}", {"right": '"node" or "operator"'})


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _refuse(key: str, right: str) -> PydanticCustomError:
    return PydanticCustomError("fedcredit", "{right}", {"key": key, "right": right})


class CoordinatorSection(SettingsSection):
    """``[coordinator]``: the one machine that members connect to, at one address unless two are asked for.

    Attributes:
        address: Public "host:port" of everything: the proxy there tells exchange and fleet interface apart.
        exchange: In place of ``address``, with ``fleet``: "host:port" of the exchange and the operators' interface.
        fleet: "host:port" of Flower's fleet interface, at the proxy.
        names: Further DNS names or IP addresses of its certificate; the hosts of all addresses are always in it.
    """

    address: Address | None = None
    exchange: Address
    fleet: Address
    names: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, raw: object) -> object:
        """One address stands for both."""
        if not isinstance(raw, Mapping):
            return raw
        two = [key for key in ("exchange", "fleet") if key in raw]
        if "address" not in raw:
            if two or set(raw) - {"names"}:
                return raw
            raise _refuse("coordinator.address", 'missing; add it: "host:port" that all members reach')
        if two:
            why = "stands beside address; write address alone, or exchange and fleet without it"
            raise _refuse(f"coordinator.{two[0]}", why)
        try:
            split_address(str(raw["address"]))
            both = raw["address"] if isinstance(raw["address"], str) else _NOWHERE
        except SpecError:
            both = _NOWHERE  # what is wrong is said of the key that was written
        return {**raw, "exchange": both, "fleet": both}

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names and addresses of its certificate, each once."""
        given = (split_address(self.exchange)[0], split_address(self.fleet)[0], *self.names)
        return tuple(dict.fromkeys(given))


class MemberSection(SettingsSection):
    """One ``[[member]]``.

    Attributes:
        name: ``[a-z0-9_-]``, at most 64 characters.
        kind: ``node`` holds records, ``operator`` submits runs.
        role: Role the house takes; only checked.
        admin: Of an operator: may stop, resume and fetch the runs of others too.
        data: Records of its node, for ``--local`` alone: an institution writes its own.
    """

    name: MemberName
    kind: Annotated[MemberKind, BeforeValidator(_kind)] = MemberKind.NODE
    role: HolderRole | None = None
    admin: bool = False
    data: Mapping[MemberName, DataSource] = Field(default_factory=dict)


class CertificateSection(SettingsSection):
    """``[certificates]``.

    Attributes:
        days: Validity of members' certificates.
        renew_days: Certificates with fewer days left are renewed by the next ``fedcredit provision``.
        authority_days: Validity of the authority's certificate.
    """

    days: Annotated[int, Field(ge=1, le=825)] = 365
    renew_days: Annotated[int, Field(ge=0, le=400)] = 30
    authority_days: Annotated[int, Field(ge=2, le=7300)] = 3650


class LocalSection(SettingsSection):
    """``[local]``: for ``--local``, where all members share one machine.

    Attributes:
        first_port: The first of two loopback ports per member, besides those of the coordinator's addresses.
        mode: Runs that the policies of a trial are for: ``simulation`` allows everything, ``production`` what hides who
            is a customer, once each house's people have approved it.
    """

    first_port: Annotated[int, Field(ge=1, le=64000)] = 18600
    mode: Literal["simulation", "production"] = "simulation"


class ConsortiumSpec(SettingsSection):
    """``consortium.toml``.

    Attributes:
        name: ``[a-z0-9-]``; part of every certificate.
        trial: Whether keys may be made in one place; never with real records.
        coordinator: Where it is reached.
        certificates: Validity.
        local: Ports of a trial on one machine.
        member: Everyone but the coordinator.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    trial: bool = False
    coordinator: CoordinatorSection
    certificates: CertificateSection = CertificateSection()
    local: LocalSection = LocalSection()
    member: Annotated[tuple[MemberSection, ...], BeforeValidator(_tuple), Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuses what no key can tell alone."""
        for name, count in Counter(one.name for one in self.member).items():
            if count > 1:
                raise _refuse("member.name", f'"{name}" names {count} members; give each a name of its own')
        for member in self.member:
            if member.name in {COORDINATOR, AUTHORITY_FOLDER}:
                raise _refuse("member.name", f'"{member.name}" is reserved; choose another name')
            if member.kind is MemberKind.OPERATOR and (member.role or member.data):
                raise _refuse(f"member.{member.name}", "an operator has neither role nor data; remove them")
            if member.kind is not MemberKind.OPERATOR and member.admin:
                raise _refuse(f"member.{member.name}", "a node has no runs of its own; admin is for operators")
        try:
            check_names(self.coordinator.hosts)
        except SpecError as error:
            raise _refuse("coordinator", error.public) from None
        if self.certificates.renew_days >= self.certificates.days:
            raise _refuse("certificates.renew_days", "not below certificates.days: every run would renew; lower it")
        return self

    @property
    def kinds(self) -> dict[PartyId, MemberKind]:
        """Kind of every member by name, the coordinator first."""
        return {COORDINATOR: MemberKind.COORDINATOR} | {one.name: one.kind for one in self.member}

    @property
    def admins(self) -> frozenset[PartyId]:
        """Operators who may stop, resume and fetch the runs of others."""
        return frozenset(one.name for one in self.member if one.admin)

    def section(self, name: PartyId) -> MemberSection | None:
        """The section of a member; None = the coordinator."""
        return next((one for one in self.member if one.name == name), None)


def load_consortium(path: Path) -> ConsortiumSpec:
    """Reads a consortium; relative paths of records become absolute, as homes are elsewhere.

    Raises:
        SpecError: one line that says file, key, what was found and what would be right.
    """
    spec = read_settings(ConsortiumSpec, path)
    base = path.resolve().parent
    members = tuple(
        one.model_copy(update={"data": {name: _absolute(source, base) for name, source in one.data.items()}})
        for one in spec.member
    )
    return spec.model_copy(update={"member": members})


def _absolute(data: DataSource, base: Path) -> DataSource:
    places = {}
    for key in ("source", "test_ids", "catalog", "registry"):
        text = getattr(data, key)
        apart = text is None or "://" in text or text.startswith(("known:", "${"))
        places[key] = text if apart else str(base / text)
    return data.model_copy(update=places)
