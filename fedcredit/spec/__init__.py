"""The run's specification: from TOML to one frozen value with one digest."""

from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec, load_spec, parse_spec, parse_toml
from fedcredit.spec.model import PartySection, RunSpec
from fedcredit.spec.write import spec_toml

__all__ = [
    "LoadedSpec",
    "PartySection",
    "RunSpec",
    "load_spec",
    "parse_spec",
    "parse_toml",
    "spec_digest",
    "spec_toml",
]
