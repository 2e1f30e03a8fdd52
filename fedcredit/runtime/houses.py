"""What stands in each party's house in a simulation: policy, ledger, escrow, secrets."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from fedcredit.crypto.prg import SEED_BYTES, SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.places import expand
from fedcredit.data.table import HolderTable
from fedcredit.errors import IntegrityError, SpecError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import CapSection, Policy, simulation_policy
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.escrow import FileEscrow, NoEscrow
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.model import AlignSection, CryptoSection, NetworkSection, RunSpec
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.schema import ProtocolSchema

__all__ = [
    "Origin",
    "fresh_secrets",
    "keep_run_secrets",
    "keep_secrets",
    "ledger_folder",
    "open_ledgers",
    "oracle_secrets",
    "policies",
    "policy_of",
    "read_run_secrets",
    "repeatable_draws",
    "signing_keys",
    "simulated_decoy_key",
]


def policies(spec: RunSpec, schemas: Sequence[ProtocolSchema]) -> dict[PartyId, Policy]:
    """Every party's policy: the spec's caps, the run's protocols, nobody but its parties."""
    return {party: policy_of(spec, schemas, party) for party in (*spec.parties, COORDINATOR)}


def policy_of(spec: RunSpec, schemas: Sequence[ProtocolSchema], party: PartyId) -> Policy:
    """One party's policy, as `policies` gives it."""
    privacy = spec.privacy
    caps = CapSection(
        equations=None if privacy.max_equations == "auto" else float(privacy.max_equations),
        bins_returned=None if privacy.max_bins_returned == "auto" else float(privacy.max_bins_returned),
    )
    others = [other for other in (*spec.parties, COORDINATOR) if other != party]
    return simulation_policy(others, [schema.name for schema in schemas], caps=caps, enforce=privacy.enforce)


def ledger_folder(loaded: LoadedSpec, files: RunFiles) -> Path:
    """Where the ledgers of a run are: the spec's folder, or one in the run directory."""
    kept = loaded.spec.privacy.ledger_dir
    return loaded.base / expand(kept, "privacy.ledger_dir") if kept else files.folder / "ledger"


def open_ledgers(folder: Path, rules: Mapping[PartyId, Policy], stack: ExitStack) -> dict[PartyId, Ledger]:
    """The ledgers of all parties but the coordinator, which has nothing to disclose.

    Raises:
        SpecError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {
            party: stack.enter_context(Ledger(folder / f"{party}.sqlite", policy.cap_rules()))
            for party, policy in rules.items()
            if party != COORDINATOR
        }
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        why = error.strerror or "cannot be written"
        raise SpecError("spec.ledger-dir", f"privacy.ledger_dir: {folder}: {why}; name a writable folder") from None


def keep_run_secrets(folder: Path, secrets: Mapping[PartyId, bytes]) -> None:
    """Writes each party's run secret to its file, readable by its owner only."""
    folder.mkdir(mode=0o700)
    for party, secret in secrets.items():
        replace_file(folder / party, secret)


def read_run_secrets(folder: Path, parties: Sequence[PartyId]) -> dict[PartyId, bytes]:
    """The run secrets that a process before this one has kept.

    Raises:
        IntegrityError: one is missing or damaged.
    """
    found = {}
    for party in parties:
        try:
            found[party] = (folder / party).read_bytes()
        except OSError:
            found[party] = b""
        if len(found[party]) != SEED_BYTES:
            raise IntegrityError(
                "resume.secret", f"{party}: its run secret is missing or damaged; the run cannot go on"
            )
    return found


def fresh_secrets(parties: Sequence[PartyId], seed: bytes | None) -> dict[PartyId, bytes]:
    """A run secret for each party: from the operating system, or from a seed that is for tests only."""
    return {
        party: (SystemEntropy() if seed is None else UnsafeSeededEntropy(seed).child(party)).take(SEED_BYTES)
        for party in parties
    }


def signing_keys(secrets: Mapping[PartyId, bytes], run_digest: str) -> dict[PartyId, SigningKey]:
    """Every party's signing key, from its run secret: after a restart the same envelopes are signed the same way."""
    return {
        party: SigningKey(RunSecret(secret).derive("envelope/signing-key", run_digest.encode()))
        for party, secret in secrets.items()
    }


@dataclass(frozen=True)
class Origin:
    """What the draws of a simulation follow from.

    Args:
        spec: The run.
        records: Digest of every party's table.
    """

    spec: RunSpec
    records: Mapping[PartyId, str]

    @classmethod
    def of(cls, spec: RunSpec, tables: Mapping[PartyId, HolderTable]) -> Self:
        """The origin of a run over some tables."""
        return cls(spec, {party: table.digest for party, table in tables.items()})


def keep_secrets(origin: Origin, party: PartyId, secret: bytes, folder: Path, stack: ExitStack) -> KeptSecrets:
    """A party's secrets for the run, and its escrow in the folder.

    Raises:
        IntegrityError: the escrow is damaged, or another process writes to it.
    """
    escrow = FileEscrow(folder / f"{party}.jsonl", durable=False)
    stack.callback(escrow.close)
    return KeptSecrets(RunSecret(secret), repeatable_draws(origin, party), escrow)


def oracle_secrets(origin: Origin, secrets: Mapping[PartyId, bytes]) -> dict[PartyId, KeptSecrets]:
    """Secrets as the parties of the spec began with them, once more, for what is repeated in the clear."""
    return {
        party: KeptSecrets(RunSecret(secrets[party]), repeatable_draws(origin, party), NoEscrow())
        for party in origin.spec.parties
    }


def simulated_decoy_key(table: HolderTable) -> bytes:
    """The label holder's key of decoys in a simulation: it follows from the records, so that runs can be repeated."""
    return hashlib.sha256(b"fedcredit/simulation/decoys" + table.digest.encode()).digest()


def repeatable_draws(origin: Origin, party: PartyId) -> UnsafeSeededEntropy:
    """A party's seed for what is not secret to its auditor, so that a simulation can be repeated.

    It follows from everything that decides what is asked: another specification or other records get other noise, since
    the same noise on two different sums would show their difference. How the same rows are found, and how sums are
    encrypted and carried, decides nothing.
    """
    rows: Literal["auto", "label_holder"] = "label_holder" if origin.spec.align.every_row else "auto"
    carried = {"align": AlignSection(mode="plain", rows=rows), "crypto": CryptoSection(), "network": NetworkSection()}
    same = origin.spec.model_copy(update=carried)
    bound = json.dumps(["fedcredit/simulation", spec_digest(same), party, sorted(origin.records.items())])
    return UnsafeSeededEntropy(hashlib.sha256(bound.encode()).digest())
