"""Which rooms a run has at the exchange, from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fedcredit.errors import SpecError
from fedcredit.runtime.hybrid.networks import is_hybrid, networks_of
from fedcredit.runtime.runs.registry import RunRecord
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

__all__ = ["MOST_ROOMS", "check_rooms", "rooms_of"]

MOST_ROOMS: Final = 16
"""Most rooms of one run: half of those that an exchange has open at once."""


class _Party(msgspec.Struct):
    name: str
    role: Role


class _Spec(msgspec.Struct):
    party: list[_Party]


def rooms_of(record: RunRecord) -> Mapping[RunId, tuple[PartyId, ...]]:
    """The members of each room: one for the run; of a run of several banks with feature holders, one a network.

    In the room of a bank's part no other bank is a member, so that the exchange lets none of them in.

    Args:
        record: The run; its spec was checked when it was submitted.

    Raises:
        SpecError: a bank bears a name that is reserved.
    """
    try:
        parties = msgspec.json.decode(record.spec_json, type=_Spec).party
    except msgspec.MsgspecError:
        parties = []  # of a version before this one: a run of one room
    roles = {PartyId(one.name): one.role for one in parties}
    if not is_hybrid(roles):
        return {record.run: (*record.parties, COORDINATOR)}
    return {network.run: tuple(network.roster) for network in networks_of(record.run, roles).values()}


def check_rooms(roles: Mapping[PartyId, Role]) -> None:
    """Refuses a run that takes more rooms than any may.

    Args:
        roles: Role of every party, without the coordinator.

    Raises:
        SpecError: saying how many banks are possible.
    """
    rooms = len(networks_of(RunId(""), roles)) if is_hybrid(roles) else 1
    if rooms > MOST_ROOMS:
        text = f"{rooms - 1} banks with feature holders; between houses at most {MOST_ROOMS - 1} in this version"
        raise SpecError("hybrid.banks", f"party.role: {text}")
