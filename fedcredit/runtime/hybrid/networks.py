"""The networks of a hybrid run: one for each bank's part, one for the banks' sums; who is in each, and by what name.

Between houses each network is a run of its own at the exchange, with its own members, keys, gates, audit logs and
accounts in the ledger. Its name follows from that of the run, so that nobody has to be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import SpecError
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

__all__ = [
    "SUMS",
    "Network",
    "check_hybrid",
    "hybrid_words",
    "is_hybrid",
    "network_run",
    "networks_of",
    "part_digest",
    "part_secret",
    "roles_of",
]

SUMS: Final = PartyId("sums")
"""Name of the network in which banks add up; the others bear the names of banks."""

_MODELS: Final = ("scorecard", "boost")


@dataclass(frozen=True)
class Network:
    """One network of a hybrid run.

    Args:
        name: The bank whose part it is, or `SUMS`.
        run: Its own name of a run: 32 hex digits.
        roster: Role of every party in it, the coordinator last.
    """

    name: PartyId
    run: RunId
    roster: Mapping[PartyId, Role]


def network_run(run: RunId, name: str) -> RunId:
    """The name under which a network is a run of its own; nothing that is made for one run or network serves another.

    Args:
        run: The hybrid run.
        name: Of the network.
    """
    return RunId(hashlib.sha256(f"fedcredit/hybrid/{run}/{name}".encode()).hexdigest()[:32])


def part_secret(secret: bytes, run: RunId, name: str) -> bytes:
    """A party's run secret for one network, 32 bytes: nothing that is derived in one serves in another.

    Args:
        secret: Its secret of the whole run.
        run: The hybrid run.
        name: Of the network.
    """
    return RunSecret(secret).derive("hybrid/part", run.encode(), name.encode())


def part_digest(digest: str, run: RunId, name: str) -> str:
    """What reference strings of one network are bound to.

    Args:
        digest: Of the spec.
        run: The hybrid run.
        name: Of the network.
    """
    return hashlib.sha256(f"{digest}/{run}/{name}".encode()).hexdigest()


def is_hybrid(roles: Mapping[PartyId, Role]) -> bool:
    """Whether parties of these roles make a hybrid run: several banks, and feature holders."""
    found = list(roles.values())
    return found.count(Role.LABEL_HOLDER) > 1 and Role.FEATURE_HOLDER in found


def roles_of(spec: RunSpec) -> dict[PartyId, Role]:
    """Role of every party of a spec, without the coordinator."""
    return {party.name: party.role for party in spec.party}


def networks_of(run: RunId, roles: Mapping[PartyId, Role]) -> dict[PartyId, Network]:
    """All networks by name, those of the banks first.

    Args:
        run: The hybrid run.
        roles: Role of every party, in the order of the spec, without the coordinator.

    Raises:
        SpecError: a bank has the name of the sums.
    """
    banks = [party for party, role in roles.items() if role is Role.LABEL_HOLDER]
    if SUMS in banks:
        raise SpecError("hybrid.name", f'party "{SUMS}": the name of the banks\' sums in a run of several; rename it')
    end = {COORDINATOR: Role.COORDINATOR}
    found = {}
    for bank in banks:
        there = {party: role for party, role in roles.items() if party == bank or role is not Role.LABEL_HOLDER}
        found[bank] = Network(bank, network_run(run, bank), {**there, **end})
    found[SUMS] = Network(SUMS, network_run(run, SUMS), {**dict.fromkeys(banks, Role.LABEL_HOLDER), **end})
    return found


def hybrid_words(spec: RunSpec, party: PartyId) -> str:
    """What a run of several banks with feature holders asks of a party, in a line for people who decide on it.

    Args:
        spec: The run.
        party: Whose people decide.
    """
    banks = ", ".join(bank.name for bank in spec.banks)
    holders = ", ".join(holder.name for holder in spec.feature_holders)
    if party in {bank.name for bank in spec.banks}:
        return f"one of its own with {holders}; decides on sums over {banks}, which the coordinator relays"
    return f"answers each bank in a part of its own: {banks}; caps follow from the smallest of them"


def check_hybrid(spec: RunSpec) -> None:
    """Refuses what a run of several banks with feature holders cannot do; any other run passes.

    Raises:
        SpecError: another model, rows that are hidden, or a bank that is called as the sums are.
    """
    roles = roles_of(spec)
    if not is_hybrid(roles):
        return
    if spec.run.model not in _MODELS:
        known = " or ".join(f'"{name}"' for name in _MODELS)
        raise SpecError("hybrid.model", f"run.model: several banks with feature holders train {known} in this version")
    if spec.align.hidden:
        raise SpecError(
            "hybrid.align", 'align: hybrid runs know their rows; use mode = "plain", or "blind" with decoys = 0'
        )
    networks_of(RunId(""), roles)
