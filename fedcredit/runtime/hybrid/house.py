"""A node's part in a hybrid run between houses: its roles in all networks it is in, and what it keeps of each.

A bank plays its own part and adds up with the other banks; a feature holder answers every bank, each in a network of
its own, and its caps follow from the smallest of them (ADR 16). What is left stands as in a simulation: ``banks/BANK``
is a run directory of that bank's part, ``audit/NETWORK`` has the log of each network, and the house's own log binds
their heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedcredit.crypto.prg import SEED_BYTES, Entropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.joint_account import JointAccount
from fedcredit.protocol.pool import Pool
from fedcredit.protocol.secure_sum.member import SumHouse
from fedcredit.protocol.secure_sum.roles import SecureSumPool
from fedcredit.protocol.secure_sum.rules import SignedIdentity
from fedcredit.runtime import accounts, houses
from fedcredit.runtime.escrow import FileEscrow, NoEscrow
from fedcredit.runtime.hybrid.attempt import Joined, through_networks
from fedcredit.runtime.hybrid.books import close_networks, networks_closed
from fedcredit.runtime.hybrid.leakage import hybrid_steps
from fedcredit.runtime.hybrid.networks import (
    SUMS,
    Network,
    network_run,
    networks_of,
    part_digest,
    part_secret,
    roles_of,
)
from fedcredit.runtime.hybrid.side_by_side import all_of
from fedcredit.runtime.hybrid.sums import SUM_SCHEMAS, CountedPool, sum_rules
from fedcredit.runtime.kept import KeptFiles
from fedcredit.runtime.leftovers import earlier_messages
from fedcredit.runtime.model_run import Outcome, Seat
from fedcredit.runtime.provenance import commit, versions
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.session.files import decoy_key, ended_well
from fedcredit.runtime.session.node import Node, shared_figures
from fedcredit.runtime.session.session import repeat
from fedcredit.runtime.settings import TranscriptEntry, transcript_digest
from fedcredit.runtime.summary import Effort, leakage, peak_memory_mb, summarise
from fedcredit.spec.write import spec_toml
from fedcredit.types import PartyId, Role

__all__ = ["HybridNode"]

Finish = Callable[[Path, PartyId], None]


@dataclass(frozen=True)
class _Played:
    """What the roles of one attempt left.

    Args:
        results: By bank, what this party's role in its part returned.
        sums: Totals that a bank opened, and values in them; zeros at a feature holder.
    """

    results: Mapping[PartyId, Any]
    sums: tuple[int, int]


class _NothingSaved:
    """Checkpoints of a role that is repeated from its beginning: the parts of a run have no state in common.

    Every message is the same the second time, and is charged once.
    """

    def load(self) -> bytes | None:
        """Nothing."""
        return None

    def save(self, state: bytes) -> None:
        """Nothing."""


class HybridNode(Node):
    """One node in one hybrid run."""

    def play(self, *, ended: bool) -> None:
        """All roles, to their end."""
        started, part = time.perf_counter(), self._part
        if networks_closed(part.files, part.party):
            return
        joined = [Joined(network, self._schemas(network.name)) for network in self._networks]

        def once(attempt: int) -> Coroutine[Any, Any, None]:
            return through_networks(part, joined, attempt, self._roles, lambda result: self._keep(result, started))

        repeat(part, once, ended=ended)

    def close(self, finish: Finish | None) -> bytes:
        """Ends the run in this house; returns what the coordinator is told."""
        for network in self._networks:
            self._ledger.close_run(network.run)
        self._ledger.close_run(self._checked.run)
        close_networks(self._part, self._networks)
        for bank in self._banks:  # each part is a run directory, and has its log as such a one has it
            place = self._files.folder / "banks" / bank / "audit"
            if not place.is_symlink():
                place.symlink_to(Path("..", "..", "audit", bank))
        report = None if finish is None else partial(self._report, finish)
        return ended_well(self._part, shared_figures(self._own_folder, self._spec, leads=self._leads), report)

    def _report(self, finish: Finish, folder: Path, party: PartyId) -> None:
        """A report of every part this party has."""
        for bank in self._banks:
            finish(folder / "banks" / bank, party)

    @property
    def _leads(self) -> bool:
        return roles_of(self._spec)[self._party] is Role.LABEL_HOLDER

    @property
    def _banks(self) -> list[PartyId]:
        """Banks in whose parts this party plays."""
        return [self._party] if self._leads else [bank.name for bank in self._spec.banks]

    @property
    def _networks(self) -> list[Network]:
        """Networks that this party is in."""
        found = networks_of(self._checked.run, roles_of(self._spec))
        return [found[name] for name in (*self._banks, *([SUMS] if self._leads else []))]

    @property
    def _own_folder(self) -> Path:
        """The run directory of the (first) part this party has."""
        return self._files.folder / "banks" / self._banks[0]

    def _schemas(self, name: str) -> tuple[Any, ...]:
        return SUM_SCHEMAS if name == SUMS else self._model.schemas

    async def _roles(self, channels: Mapping[PartyId, Channel]) -> _Played:
        _ = self._register  # before the records: what was derived by another catalogue is other records
        with ExitStack() as stack:
            if self._leads:
                pool = await self._pool(channels[SUMS], stack)
                result = await self._part_role(self._party, channels[self._party], (pool, None), stack)
                await pool.close()
                return _Played({self._party: result}, (pool.sums, pool.values))
            account = JointAccount(self._banks, self._part.timing.busy_timeout_s)
            roles = {bank: self._part_role(bank, channels[bank], (None, account), stack) for bank in self._banks}
            return _Played(await all_of(roles), (0, 0))

    async def _pool(self, channel: Channel, stack: ExitStack) -> CountedPool:
        """This bank's end of the sums."""
        home, run = self._home, self._checked.run
        rules = sum_rules(self._spec, network_run(run, SUMS))
        identity = SignedIdentity(home.identity, {bank: home.roster.member(bank).identity for bank in rules.banks})
        secret = RunSecret(part_secret(self._secret, run, SUMS))
        house = SumHouse(self._party, secret, self._escrow(SUMS, stack), identity)
        return CountedPool(await SecureSumPool.open(channel, rules, house))

    async def _part_role(
        self, bank: PartyId, channel: Channel, decided: tuple[Pool | None, JointAccount | None], stack: ExitStack
    ) -> Any:
        pool, account = decided
        spec, run = self._spec.for_bank(bank), self._checked.run
        holding = Holding(
            spec=spec,
            run_digest=part_digest(self._checked.proposal.spec_digest, run, bank),
            table=self._table,
            keep=self._secrets(bank, stack),
            decoy_key=decoy_key(self._home.state),
            pool=pool,
            common=None if account is None else self._common(),
            account=account,
        )
        report = self._clock.report if bank == self._banks[0] else _unheard
        checkpoints: Checkpoints = _NothingSaved()
        return await self._model.role(spec, Seat(channel, holding, checkpoints, report), self._held_out)

    def _escrow(self, name: str, stack: ExitStack) -> FileEscrow:
        escrow = FileEscrow(self._files.folder / "escrow" / name / f"{self._party}.jsonl")
        stack.callback(escrow.close)
        return escrow

    def _secrets(self, bank: PartyId, stack: ExitStack) -> KeptSecrets:
        """This party's secrets in one part."""
        secret = RunSecret(part_secret(self._secret, self._checked.run, bank))
        owner = f"{part_digest(self._checked.proposal.spec_digest, self._checked.run, bank)}/{self._party}"
        kept = KeptFiles(self._files.kept / bank, owner)
        return KeptSecrets(secret, self._part_draws(bank), self._escrow(bank, stack), kept)

    def _part_draws(self, bank: PartyId) -> Entropy:
        """Source of noise and order in one part; another in each, since equal noise would show a difference of sums."""
        spec, run = self._spec.for_bank(bank), self._checked.run
        if spec.simulation:
            records = {party: self._records[party] for party in spec.parties}
            return houses.repeatable_draws(houses.Origin(spec, records), self._party)
        bound = (self._checked.run_digest.encode(), self._table.digest.encode())
        return RunSecret(part_secret(self._secret, run, bank)).entropy("node/draws", *bound)

    def _common(self) -> bytes:
        """What this holder's order of features follows from in all parts."""
        if self._spec.simulation:
            origin = houses.Origin(self._spec, self._records)
            return houses.repeatable_draws(origin, self._party).child("common").take(SEED_BYTES)
        bound = (self._checked.run_digest.encode(), self._table.digest.encode())
        return RunSecret(self._secret).derive("hybrid/common", *bound)

    def _keep(self, played: _Played, started: float) -> None:
        """Everything this party keeps: a run directory for each part, and what the house has of the whole run."""
        seconds = {**self._clock.finish(), "total": time.perf_counter() - started}
        effort = Effort(seconds, {self._party: time.process_time()}, 0.0, self._part.attempts - 1, seeded=False)
        steps: list[Any] = []
        ledgers: list[Any] = []
        for bank in self._banks:
            leaked = self._keep_part(bank, played.results[bank], effort)
            steps, ledgers = leaked["steps"], [*ledgers, *self._ledger.report(network_run(self._checked.run, bank))]
        files, party = self._files, self._party
        transcript = earlier_messages(files.audit)
        files.text("spec.toml", spec_toml(self._checked.spec))
        files.transcript(transcript)
        own = accounts.ledger_numbers({party: ledgers})
        files.json("leakage.json", {"steps": steps, "ledger": own, "statistical_leak_log2": None})
        files.json("summary.json", self._summary(played, effort, transcript))

    def _keep_part(self, bank: PartyId, result: Any, effort: Effort) -> dict[str, Any]:
        """The run directory of one part; returns what its ``leakage.json`` holds."""
        spec, party = self._checked.spec.for_bank(bank), self._party
        run = network_run(self._checked.run, bank)
        files = RunFiles(self._files.folder / "banks" / bank, resumed=True)
        files.folder.mkdir(parents=True, exist_ok=True)
        secret = RunSecret(part_secret(self._secret, self._checked.run, bank))
        outcome = Outcome(
            spec,
            run,
            {party: self._table},
            {party: result},
            {party: KeptSecrets(secret, self._part_draws(bank), NoEscrow())},
            {party: self._ledger.report(run)},
            earlier_messages(self._files.audit / bank),
        )
        written = self._model.own(files, outcome, party)
        leaked = leakage(self._model, outcome, written)
        if self._leads:
            kinds = {entry.kind for entry in earlier_messages(self._files.audit / SUMS)}
            sums = accounts.leakage_steps([schema.name for schema in SUM_SCHEMAS], kinds)
            leaked["steps"] = [*leaked["steps"], *sums, *hybrid_steps(spec.run.model)]
        files.text("spec.toml", spec_toml(spec))
        files.transcript(outcome.transcript)
        files.json("leakage.json", leaked)
        files.json("summary.json", {**summarise(self._model, outcome, written, effort), "deployed": self._deployed})
        return leaked

    @property
    def _deployed(self) -> dict[str, Any]:
        proposal = self._checked.proposal
        return {"party": self._party, "continues": proposal.continues or None, "missing": list(proposal.missing)}

    def _summary(self, played: _Played, effort: Effort, transcript: list[TranscriptEntry]) -> dict[str, Any]:
        """What the house has of the whole run; figures of a part stand in the part's own summary."""
        spec, party = self._checked.spec, self._party
        return {
            "run_id": self._checked.run,
            "name": spec.run.name,
            "spec_digest": self._checked.proposal.spec_digest,
            "model": spec.run.model,
            "mode": spec.run.mode,
            "restarts": effort.restarts,
            "protocol": [schema.name for schema in (*self._model.schemas, *SUM_SCHEMAS)],
            "parties": {one.name: one.role.value for one in spec.party},
            "parts": [f"banks/{bank}" for bank in self._banks],
            "secure_sum": spec.secure_sum.profile,
            "sums": played.sums[0],
            "values_summed": played.sums[1],
            "transcript_digest": transcript_digest(transcript),
            "seconds": {key: round(value, 3) for key, value in effort.seconds.items()},
            "cpu_seconds": {party: round(value, 3) for party, value in effort.cpu_seconds.items()},
            "bytes_sent": {party: sum(entry.bytes for entry in transcript)},
            "messages": len(transcript),
            "max_rss_mb": peak_memory_mb(),
            "versions": versions(),
            "git": commit(),
            "deployed": self._deployed,
        }


def _unheard(done: int, total: int, note: str) -> None:
    """The first part alone says how far a run is."""
