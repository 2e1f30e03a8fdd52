"""Banks of a simulated run of rounds: houses below the run's unfinished folder, opened for one visit or for all.

Everything a house needs stands in the folder, so that any process can open it: `visit` is what a virtual node of
Flower's calls, wherever Ray has put it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.errors import IntegrityError
from fedcredit.governance.gate import House, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.leftovers import mend_lines
from fedcredit.runtime.quick_files import QuickCheckpoints, quick_audit
from fedcredit.runtime.rounds.bank import RoundHouse
from fedcredit.runtime.rounds.model import BankSeat, RoundModel
from fedcredit.runtime.rounds.models import ROUND_MODELS
from fedcredit.runtime.rounds.tables import BankTables, kept_tables
from fedcredit.spec.load import parse_spec
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.envelope import SigningKey, VerifyKey
from fedcredit.wire.schema import merge

__all__ = ["SimulatedRun", "records_folder", "visit"]

_ABOUT = "rounds.json"


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """What every house knows of the run."""

    run: str
    spec_digest: str
    run_digest: str
    keys: dict[str, str]
    records: dict[str, str]
    ledgers: str


def records_folder(folder: Path, party: PartyId) -> Path:
    """Where the copy of a bank's records stands, below the checkpoints: it goes with them."""
    return folder / "checkpoints" / "records" / party


@dataclass(frozen=True)
class SimulatedRun:
    """A simulated run that any process can play a part of.

    Args:
        folder: The run's unfinished folder.
        spec: The run.
        run: Its name.
        spec_digest: Digest of its spec.
        run_digest: Digest of spec and run.
        keys: Public signing keys.
        records: Digest of every bank's records.
        ledgers: Folder of the ledgers.
    """

    folder: Path
    spec: RunSpec
    run: RunId
    spec_digest: str
    run_digest: str
    keys: Mapping[PartyId, VerifyKey]
    records: Mapping[PartyId, str]
    ledgers: Path

    def keep(self) -> None:
        """Writes down what other processes need."""
        about = _About(
            run=self.run,
            spec_digest=self.spec_digest,
            run_digest=self.run_digest,
            keys={str(party): key.raw.hex() for party, key in self.keys.items()},
            records={str(party): digest for party, digest in self.records.items()},
            ledgers=str(self.ledgers),
        )
        folder = self.folder / "checkpoints"
        folder.mkdir(mode=0o700, exist_ok=True)
        spec = self.spec.model_dump(mode="json", exclude_none=True)
        replace_file(folder / "spec.json", json.dumps(spec).encode())
        replace_file(folder / _ABOUT, msgspec.json.encode(about))

    @classmethod
    def read(cls, folder: Path) -> SimulatedRun:
        """Reads what `keep` wrote."""
        about = msgspec.json.decode((folder / "checkpoints" / _ABOUT).read_bytes(), type=_About)
        return cls(
            folder,
            parse_spec(json.loads((folder / "checkpoints" / "spec.json").read_bytes()), "the kept spec"),
            RunId(about.run),
            about.spec_digest,
            about.run_digest,
            {PartyId(party): VerifyKey(bytes.fromhex(key)) for party, key in about.keys.items()},
            {PartyId(party): digest for party, digest in about.records.items()},
            Path(about.ledgers),
        )

    @property
    def model(self) -> RoundModel:
        """What is known of its model."""
        return ROUND_MODELS[self.spec.run.model]

    @cached_property
    def context(self) -> RunContext:
        """The run as all gates see it."""
        roster = {**{party.name: party.role for party in self.spec.party}, COORDINATOR: Role.COORDINATOR}
        return RunContext(self.run, self.spec_digest, roster, self.keys, merge(*self.model.schemas))

    @contextmanager
    def house(self, party: PartyId) -> Iterator[House]:
        """A party's house; its audit log is left open for the next process."""
        audit_file = self.folder / "audit" / f"{party}.jsonl"
        mend_lines(audit_file)
        key = self._key(party)
        with ExitStack() as stack:
            audit = quick_audit(audit_file, party, self.run)
            stack.callback(audit.suspend)
            policy = houses.policy_of(self.spec, self.model.schemas, party)
            place = ":memory:" if party == COORDINATOR else self.ledgers / f"{party}.sqlite"
            ledger = stack.enter_context(Ledger(place, policy.cap_rules()))
            yield House(party, key, policy, ledger, audit, lambda: datetime.now(UTC))

    @contextmanager
    def bank(self, party: PartyId, tables: BankTables | None = None) -> Iterator[tuple[RoundHouse, BankSeat]]:
        """A bank, opened.

        Args:
            party: Which.
            tables: Its records; None = those of which a copy is kept.
        """
        with ExitStack() as stack:
            house = stack.enter_context(self.house(party))
            origin = houses.Origin(self.spec, self.records)
            secret = _secret(self.folder / "secrets" / party, party)
            keep = houses.keep_secrets(origin, party, secret, self.folder / "escrow", stack)
            own = tables or kept_tables(records_folder(self.folder, party))
            limit = house.policy.privacy_limit()
            privacy = stack.enter_context(PrivacyLedger(self.ledgers / f"{party}.privacy.sqlite", limit))
            seat = BankSeat(self.spec, party, self.run, own, keep, house.key, self.keys, privacy)
            checkpoints = QuickCheckpoints(self.folder / "checkpoints" / "banks" / party)
            model = self.model
            yield RoundHouse(self.context, house, checkpoints, lambda state: model.bank(seat, state)), seat

    def _key(self, party: PartyId) -> SigningKey:
        secret = _secret(self.folder / "secrets" / party, party)
        return houses.signing_keys({party: secret}, self.run_digest)[party]


def visit(folder: Path, party: PartyId, question: bytes) -> bytes:
    """One visit to a bank of a run, whose house is opened for it; see `fedcredit.runtime.flower_office.FlowerJob`."""
    if not (folder / "checkpoints" / _ABOUT).exists():
        node = os.uname().nodename
        raise IntegrityError(
            "simulation.folder", f"the folder of the run is not there on {node}; put --out on a shared file system"
        )
    with SimulatedRun.read(folder).bank(party) as (rounds, _):
        return rounds.visit(question)


def _secret(path: Path, party: PartyId) -> bytes:
    try:
        secret = path.read_bytes()
    except OSError:
        secret = b""
    if len(secret) != SEED_BYTES:
        raise IntegrityError("resume.secret", f"{party}: its run secret is missing or damaged; the run cannot go on")
    return secret
