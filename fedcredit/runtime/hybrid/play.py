"""The roles of a hybrid run, played in one process: one network for each bank, and one for the banks' sums.

Each bank's part is a plain run of its own, with its own key, transcript and audit logs, in which every feature holder
answers that bank; what makes it hybrid is the pool in which the bank takes its decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from fedcredit.crypto.prg import SEED_BYTES, SystemEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.table import HolderTable
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.joint_account import JointAccount
from fedcredit.protocol.pool import Pool
from fedcredit.protocol.secure_sum.rules import SumRules
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.escrow import FileEscrow
from fedcredit.runtime.hybrid.networks import SUMS, network_run, part_digest, part_secret
from fedcredit.runtime.hybrid.side_by_side import Played, Presence, run_side_by_side
from fedcredit.runtime.hybrid.sums import SUM_SCHEMAS, MemberHouse, open_pool, relay, sum_rules
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.runtime.metering import Meter
from fedcredit.runtime.model_run import HeldOutRows, ModelRun, Outcome, Report, Seat
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

__all__ = ["HybridHouses", "HybridPlayed", "play_hybrid"]


@dataclass(frozen=True)
class HybridHouses:
    """What stands in the parties' houses.

    Args:
        spec: The hybrid run.
        run: Its name.
        model: What each bank's part is.
        tables: Records by party.
        held_out: For each bank, which ids are test rows.
        secrets: 32 bytes of each party, the coordinator included.
        files: The run directory.
        ledgers: Of each party; one for all networks.
    """

    spec: RunSpec
    run: RunId
    model: ModelRun
    tables: Mapping[PartyId, HolderTable]
    held_out: Mapping[PartyId, HeldOutRows]
    secrets: Mapping[PartyId, bytes] = field(repr=False)
    files: RunFiles
    ledgers: Mapping[PartyId, Ledger]

    def part_of(self, bank: str) -> RunId:
        """Name of one bank's part of the run, or of the sums."""
        return network_run(self.run, bank)

    def secrets_in(self, bank: str) -> dict[PartyId, bytes]:
        """Every party's run secret for one bank's part: nothing that is derived in one serves in another."""
        return {party: part_secret(secret, self.run, bank) for party, secret in self.secrets.items()}

    def keep(self, bank: PartyId) -> dict[PartyId, KeptSecrets]:
        """Secrets of every party as it began a bank's part, once more, for what is repeated in the clear."""
        spec = self.spec.for_bank(bank)
        origin = houses.Origin.of(spec, {party: self.tables[party] for party in spec.parties})
        return houses.oracle_secrets(origin, self.secrets_in(bank))

    def common(self, holder: PartyId) -> bytes:
        """What a holder's order of features follows from in all parts: in a simulation, from spec and records."""
        origin = houses.Origin.of(self.spec, self.tables)
        return houses.repeatable_draws(origin, holder).child("common").take(SEED_BYTES)


@dataclass(frozen=True)
class HybridPlayed:
    """What the roles left.

    Args:
        outcomes: Of each bank's part.
        networks: Of each bank's part, and of the sums under the coordinator's name; not sealed yet.
        sums: Totals that the first bank opened, and values in them; all banks opened the same.
    """

    outcomes: Mapping[PartyId, Outcome]
    networks: Mapping[PartyId, LocalNetwork]
    sums: tuple[int, int]


def play_hybrid(
    there: HybridHouses, progress: Callable[[PartyId, str], None], report: Report, stack: ExitStack
) -> HybridPlayed:
    """Plays every role of every network to its end; leaves audit logs and ledgers open.

    Args:
        there: The houses.
        progress: Told each stage of the first bank.
        report: Told how far the first bank is.
        stack: Closes what was opened.

    Raises:
        FedCreditError: a party failed, or the protocol was broken.
    """
    busy, banks = Meter(), [bank.name for bank in there.spec.banks]
    common = _sums_network(there, busy)
    stack.callback(common.close)
    rules = sum_rules(there.spec, there.part_of(SUMS))
    accounts = {holder.name: JointAccount(banks) for holder in there.spec.feature_holders}
    parts, stand_ins, led = {}, {}, []
    for bank in banks:
        settings = _settings(there, bank, busy, progress if bank == banks[0] else None)
        part = _Part(there, bank, LocalNetwork(settings), accounts)
        stack.callback(part.network.close)
        bank_role = _Bank(part, common.channel(bank), rules, report if bank == banks[0] else _unheard)
        presence = Presence(bank_role.play(stack))
        led.append(bank_role)
        stack.callback(presence.close)
        stand_ins[bank] = presence.stand_in()
        roles = {holder.name: part.role(holder.name, None, _unheard, stack) for holder in there.spec.feature_holders}
        answers = there.model.coordinate(part.network.channel(COORDINATOR), part.spec)
        parts[bank] = Played(part.network, {bank: presence.play(), **roles, COORDINATOR: answers})
    adding = Played(common, {**stand_ins, COORDINATOR: relay(common.channel(COORDINATOR), rules)})
    results = asyncio.run(run_side_by_side([*parts.values(), adding]))
    outcomes = {bank: _outcome(there, bank, parts[bank].network, results[at]) for at, bank in enumerate(banks)}
    networks = {**{bank: one.network for bank, one in parts.items()}, COORDINATOR: common}
    return HybridPlayed(outcomes, networks, led[0].added)


class _Bank:
    """A bank in two networks: it opens its pool, then plays its part."""

    def __init__(self, part: _Part, sums: Channel, rules: SumRules, report: Report) -> None:
        self._part, self._sums, self._rules, self._report = part, sums, rules, report
        self.added = (0, 0)

    async def play(self, stack: ExitStack) -> Any:
        """The role; the bank leaves the sums when it has ended well."""
        there, bank = self._part.there, self._sums.party
        secrets = there.secrets_in(SUMS)
        escrow = FileEscrow(there.files.folder / "escrow" / SUMS / f"{bank}.jsonl", durable=False)
        stack.callback(escrow.close)
        keys = houses.signing_keys({one: secrets[one] for one in self._rules.banks}, _run_digest(there, SUMS))
        pool = await open_pool(self._sums, self._rules, MemberHouse(RunSecret(secrets[bank]), escrow, keys))
        result = await self._part.role(bank, pool, self._report, stack)
        await pool.close()
        self.added = (pool.sums, pool.values)
        return result


class _Part:
    """One bank's part of the run."""

    def __init__(
        self, there: HybridHouses, bank: PartyId, network: LocalNetwork, accounts: Mapping[PartyId, JointAccount]
    ) -> None:
        self.there, self._bank, self.network, self._accounts = there, bank, network, accounts
        self.spec = there.spec.for_bank(bank)
        self._secrets = there.secrets_in(bank)

    def role(self, party: PartyId, pool: Pool | None, report: Report, stack: ExitStack) -> Coroutine[Any, Any, Any]:
        """The role of the bank, or of a feature holder that answers it."""
        there, files = self.there, self.there.files
        origin = houses.Origin.of(self.spec, {one: there.tables[one] for one in self.spec.parties})
        keep = houses.keep_secrets(origin, party, self._secrets[party], files.folder / "escrow" / self._bank, stack)
        table = there.tables[party]
        holding = Holding(
            spec=self.spec,
            run_digest=_run_digest(there, self._bank),
            table=table,
            keep=keep,
            decoy_key=houses.simulated_decoy_key(table),
            pool=pool,
            common=None if party == self._bank else there.common(party),
            account=self._accounts.get(party),
        )
        checkpoints = FileCheckpoints(files.checkpoints / self._bank / party)
        seat = Seat(self.network.channel(party), holding, checkpoints, report)
        return there.model.role(self.spec, seat, there.held_out[self._bank])


def _run_digest(there: HybridHouses, bank: str) -> str:
    return part_digest(spec_digest(there.spec), there.run, bank)


def _settings(
    there: HybridHouses, bank: PartyId, busy: Meter, progress: Callable[[PartyId, str], None] | None
) -> LocalSettings:
    spec = there.spec.for_bank(bank)
    return LocalSettings(
        run=there.part_of(bank),
        spec_digest=spec_digest(there.spec),
        roster={**{party.name: party.role for party in spec.party}, COORDINATOR: Role.COORDINATOR},
        schemas=there.model.schemas,
        entropy=SystemEntropy(),
        signing_keys=houses.signing_keys(there.secrets_in(bank), _run_digest(there, bank)),
        policies=houses.policies(spec, there.model.schemas),
        ledgers=there.ledgers,
        audit_dir=there.files.audit / bank,
        timeout_s=spec.network.timeout_s,
        progress=progress,
        busy=busy,
    )


def _sums_network(there: HybridHouses, busy: Meter) -> LocalNetwork:
    banks = {bank.name: bank.role for bank in there.spec.banks}
    rules = houses.policies(there.spec, SUM_SCHEMAS)
    return LocalNetwork(
        LocalSettings(
            run=there.part_of(SUMS),
            spec_digest=spec_digest(there.spec),
            roster={**banks, COORDINATOR: Role.COORDINATOR},
            schemas=SUM_SCHEMAS,
            entropy=SystemEntropy(),
            signing_keys=houses.signing_keys(there.secrets_in(SUMS), _run_digest(there, SUMS)),
            policies={party: rules[party] for party in (*banks, COORDINATOR)},
            ledgers={party: there.ledgers[party] for party in banks},
            audit_dir=there.files.audit / SUMS,
            timeout_s=there.spec.network.timeout_s,
            busy=busy,
        )
    )


def _outcome(there: HybridHouses, bank: PartyId, network: LocalNetwork, results: Mapping[PartyId, Any]) -> Outcome:
    spec = there.spec.for_bank(bank)
    run = there.part_of(bank)
    tables = {party: there.tables[party] for party in spec.parties}
    ledgers = {party: network.ledger(party).report(run) for party in spec.parties}
    return Outcome(spec, run, tables, results, there.keep(bank), ledgers, network.transcript)


def _unheard(done: int, total: int, note: str) -> None:
    """The first bank alone says how far a run is."""
