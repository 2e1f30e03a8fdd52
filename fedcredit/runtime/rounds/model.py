"""What carries rounds has to know of a model that is learned in rounds: its messages, both roles, a bank's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.rounds.bank import RoundBank
from fedcredit.runtime.rounds.driver import RoundRelay
from fedcredit.runtime.rounds.tables import BankTables
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId, RunId
from fedcredit.wire.envelope import SigningKey, VerifyKey
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["BankSeat", "RoundModel"]


@dataclass(frozen=True)
class BankSeat:
    """What a bank's role works with.

    Args:
        spec: The run.
        party: The bank.
        run: Name of the run.
        tables: Its records.
        keep: Its secret of this run, and its escrow.
        key: Its signing key.
        keys: Public signing key of every party of the run.
        privacy: The house's ledger of noisy releases.
    """

    spec: RunSpec
    party: PartyId
    run: RunId
    tables: BankTables
    keep: KeptSecrets = field(repr=False)
    key: SigningKey = field(repr=False)
    keys: Mapping[PartyId, VerifyKey]
    privacy: PrivacyLedger


@dataclass(frozen=True)
class RoundModel:
    """One kind of model.

    Args:
        schemas: All messages of a run.
        bank: A bank's role from its state, or from None where it begins.
        relay: The coordinator's role, from spec and name of the run.
        own: Writes a bank's own files and says what its summary is to hold.
    """

    schemas: tuple[ProtocolSchema, ...]
    bank: Callable[[BankSeat, bytes | None], RoundBank]
    relay: Callable[[RunSpec, RunId], RoundRelay]
    own: Callable[[RunFiles, BankSeat, RoundBank], Mapping[str, Any]]
