"""What a proposed run asks of a house and what the house would bring, in words for the people who decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcredit.catalog.load import load_catalog
from fedcredit.data.places import expand
from fedcredit.errors import FedCreditError
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.needs import alignment_warning, alignment_words
from fedcredit.runtime.house.records import catalog_digest, house_register
from fedcredit.runtime.hybrid.networks import hybrid_words, is_hybrid, roles_of
from fedcredit.shipped import known_file
from fedcredit.spec.model import PartySection, RunSpec
from fedcredit.types import PartyId

__all__ = ["Fact", "house_facts"]

_SHOWN = 16  # hex digits of a digest


@dataclass(frozen=True)
class Fact:
    """One line of what people read before they decide.

    Args:
        name: What it is about.
        text: In plain words; numbers, names of features and digests, no value of a record.
        loud: Whether it is a warning.
    """

    name: str
    text: str
    loud: bool = False


def house_facts(home: Home, spec: RunSpec, data: str) -> list[Fact]:
    """How rows of a run are found, by which register, and what this house would derive for it.

    Args:
        home: The house's.
        spec: The run.
        data: Name of the records.
    """
    facts = [Fact("rows by", alignment_words(spec.align), alignment_warning(spec.align))]
    if spec.several_banks:
        facts = [*_sums(spec), _noise(spec)] if spec.run.model == "fedavg" else [*facts, *_sums(spec)]
    if is_hybrid(roles_of(spec)):
        facts.append(Fact("parts", hybrid_words(spec, home.party)))
    mine = next((party for party in spec.party if party.name == home.party), None)
    if PartyId(data) not in home.node.data or mine is None:
        return facts
    if spec.align.registry is not None:
        facts.append(_register(home, spec, data))
    if mine.as_of is not None:
        facts.append(_derived(home, mine, data))
    return facts


def _sums(spec: RunSpec) -> list[Fact]:
    """What the sums between banks hide from whom."""
    sums, banks = spec.secure_sum, len(spec.banks)
    shown = sums.profile == "masked"
    learns = "THE COORDINATOR LEARNS EVERY TOTAL" if shown else "the coordinator learns no total"
    least = max(sums.min_banks, sums.colluding + 2, 3)
    safe = f"safe where up to {sums.colluding} of them work with the coordinator"
    return [
        Fact("sums", f"{sums.profile}: {learns}", loud=shown),
        Fact("banks", f"{banks}; a total holds {least} or more; {safe}"),
    ]


def _noise(spec: RunSpec) -> Fact:
    """Differential privacy of a run that averages."""
    privacy = spec.differential_privacy
    if privacy.unit == "none":
        return Fact("noise", "NONE: averaged updates tell of single rows", loud=True)
    limit = "no limit" if privacy.max_epsilon is None else f"at most {privacy.max_epsilon:g}"
    text = f"protects one {privacy.unit}; multiplier {privacy.noise_multiplier:g}, epsilon {limit}"
    return Fact("noise", f"{text} at delta {privacy.delta:g}")


def _register(home: Home, spec: RunSpec, data: str) -> Fact:
    try:
        found = house_register(home, spec, data)
    except FedCreditError as error:
        return Fact("register", f"CANNOT BE READ: {error.public}", loud=True)
    if not found.digest:
        return Fact("register", f"none: data.{data}.registry is missing in node.toml", spec.align.mode == "registry")
    return Fact("register", f"{len(found.ids):,} ids of this house's file, digest {found.digest[:_SHOWN]}…")


def _derived(home: Home, mine: PartySection, data: str) -> Fact:
    place = home.node.data[PartyId(data)].catalog
    if place is None:
        return Fact("derived", f"none: data.{data}.catalog is missing in node.toml", loud=True)
    try:
        path = known_file("catalog", expand(place, "catalog"), home.folder)
        catalog, digest = load_catalog(path), catalog_digest(home, data)
    except FedCreditError as error:
        return Fact("derived", f"CANNOT BE READ: {error.public}", loud=True)
    count = len(mine.columns or catalog.features)
    text = f"{count} features of catalogue {Path(place).name} ({digest[:_SHOWN]}…), as of {mine.as_of}"
    return Fact("derived", f"{text}; nothing after that day is used")
