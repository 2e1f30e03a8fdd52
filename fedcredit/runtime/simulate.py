"""A whole run on one machine: every party's role over the local network, the oracle beside it, the run directory.

Nothing here knows a model; see `fedcredit.runtime.model_run`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SystemEntropy
from fedcredit.data.load import load_tables
from fedcredit.data.register import register_of
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import SpecError
from fedcredit.protocol.holding import Holding
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.hybrid.simulation import simulate_hybrid
from fedcredit.runtime.kept import KeptFiles
from fedcredit.runtime.leftovers import close_books, earlier_messages
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.runtime.model_run import HeldOutRows, ModelRun, Outcome, RunInputs, Seat
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.progress import Listener, Progress, StageClock
from fedcredit.runtime.provenance import versions
from fedcredit.runtime.ready_loops import loops_for, loops_if_kept
from fedcredit.runtime.run_directory import RunFiles, run_directory
from fedcredit.runtime.runs.driver_parts import IN_ROUNDS
from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.runtime.summary import Effort, leakage, summarise
from fedcredit.runtime.unfinished import (
    Identity,
    check_unchanged,
    digest_of,
    read_identity,
    to_resume,
    write_identity,
)
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.write import spec_toml
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

__all__ = ["Simulation", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """A finished simulation.

    Args:
        out: Its run directory.
        summary: Content of ``summary.json``.
    """

    out: Path
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class _Begun:
    """A run that is about to start, or to go on."""

    loaded: LoadedSpec
    model: ModelRun
    files: RunFiles
    tables: Mapping[PartyId, HolderTable]
    register: Sequence[str] | None
    held_out: frozenset[str]
    secrets: Mapping[PartyId, bytes]
    identity: Identity
    earlier: Sequence[TranscriptEntry]

    @property
    def run(self) -> RunId:
        return RunId(self.identity.run)

    @property
    def run_digest(self) -> str:
        name = "seeded" if self.identity.seeded else self.run
        return hashlib.sha256(f"{self.identity.spec_digest}/{name}".encode()).hexdigest()


def simulate(
    loaded: LoadedSpec,
    out: Path,
    *,
    progress: Listener | None = None,
    finish: Callable[[Path], None] | None = None,
    entropy_seed: bytes | None = None,
    resume: bool = False,
) -> Simulation:
    """Runs a simulation and writes its run directory.

    Args:
        loaded: The spec and the folder its paths are relative to.
        out: Run directory to create.
        progress: Told each stage as it begins, and each step of those that are counted.
        finish: Adds what else belongs into the run directory, such as a report, before it appears under its name.
        entropy_seed: 32 bytes from which all secrets come but those that SEAL draws itself (the totals and bfv-8192),
            for transcripts that can be compared in tests. None: secrets come from the operating system; results are the
            same. A run that is resumed keeps the secrets it has.
        resume: Go on with the unfinished run of ``out`` that a killed process left, under its name, with its secrets,
            ledgers, audit logs, escrow and checkpoints: what was answered before is not charged again.

    Raises:
        SpecError: the spec asks for what a simulation cannot do, ``out`` exists, or there is nothing to resume.
        DataError: the records do not carry the run, or are not those that it began with.
        FedCreditError: a party or the protocol failed.
    """
    spec = loaded.spec
    if spec.run.model in IN_ROUNDS:
        from fedcredit.runtime.averaging.simulation import How, simulate_averaging  # noqa: PLC0415 -- loads what others do not need

        simulate_averaging(
            loaded, out, progress=progress, finish=finish, how=How(resume=resume, entropy_seed=entropy_seed)
        )
        return Simulation(out, json.loads((out / "summary.json").read_text("utf-8")))
    model = MODEL_RUNS.get(spec.run.model)
    if not spec.simulation or model is None:
        known = " or ".join(f'"{name}"' for name in sorted({*MODEL_RUNS, *IN_ROUNDS}))
        raise SpecError("spec.simulate", f'run: simulate runs mode = "simulation" with model = {known} in this version')
    tell = progress or (lambda _: None)
    loops_if_kept(loops_for(spec.run.model))
    if spec.several_banks:
        if resume:
            raise SpecError("resume.hybrid", "--resume: a run of several banks with feature holders starts anew")
        run = RunId(os.urandom(16).hex())
        with run_directory(out, run) as files:
            simulate_hybrid(loaded, files, run, entropy_seed, tell)
            if finish is not None:
                finish(files.folder)
        return Simulation(out, json.loads((out / "summary.json").read_text("utf-8")))
    left = to_resume(out, spec_digest(spec)) if resume else None
    run = RunId(os.urandom(16).hex()) if left is None or left.run is None else left.run
    with run_directory(out, run, None if left is None else left.folder) as files, ExitStack() as stack:
        if left is not None and left.finished is not None:
            _close(loaded, model, files, run, stack)
        else:
            _run(loaded, model, files, (entropy_seed, run), (tell, stack))
        if finish is not None:
            finish(files.folder)
    return Simulation(out, json.loads((out / "summary.json").read_text("utf-8")))


def _run(
    loaded: LoadedSpec,
    model: ModelRun,
    files: RunFiles,
    origin: tuple[bytes | None, RunId],
    around: tuple[Listener, ExitStack],
) -> None:
    """From the records to ``summary.json``."""
    tell, stack = around
    tell(Progress("load"))
    started = time.perf_counter()
    begun = _begin(loaded, model, files, origin)
    clock = StageClock(loaded.spec.label_holder.name, model.seconds, tell)
    network, outcome = _play(begun, clock, stack)
    seconds = clock.finish()
    tell(Progress("compare"))
    written = model.write(files, outcome)
    files.transcript(outcome.transcript)
    files.json("leakage.json", leakage(model, outcome, written))
    total = {**seconds, "total": time.perf_counter() - started}
    identity = begun.identity
    effort = Effort(total, network.cpu_seconds, network.modelled_seconds, identity.restarts, identity.seeded)
    # From the summary on all is written: a process that is killed now is resumed without a message.
    files.json("summary.json", summarise(model, outcome, written, effort))
    network.seal()


def _close(loaded: LoadedSpec, model: ModelRun, files: RunFiles, run: RunId, stack: ExitStack) -> None:
    """What is left to do where a killed process had written the summary."""
    rules = houses.policies(loaded.spec, model.schemas)
    ledgers = houses.open_ledgers(houses.ledger_folder(loaded, files), rules, stack)
    close_books(files.audit, list(rules), run, ledgers.values(), lambda: datetime.now(UTC))


def _begin(loaded: LoadedSpec, model: ModelRun, files: RunFiles, origin: tuple[bytes | None, RunId]) -> _Begun:
    """Reads the records and writes down what the run is; for one that goes on, checks that it is the same."""
    spec, (seed, run) = loaded.spec, origin
    tables, register = load_tables(loaded), register_of(spec, loaded.base)
    leader = tables[spec.label_holder.name]
    mask = held_out_rows(leader, spec.split, loaded.base)
    held_out = frozenset(one for one, test in zip(leader.ids.to_list(), mask, strict=True) if test)
    kept = spec.privacy.ledger_dir is not None
    everyone = (*spec.parties, COORDINATOR)
    identity = Identity(
        run=run,
        spec_digest=spec_digest(spec),
        seeded=seed is not None,
        restarts=0,
        data={party: table.digest for party, table in tables.items()}
        | {"split": digest_of(sorted(held_out))}
        | ({} if register is None else {"register": digest_of(register)}),
        ledgers=str(houses.ledger_folder(loaded, files).resolve()) if kept else "",
        versions=versions(),
    )
    if files.resumed:
        then = read_identity(files.folder)
        check_unchanged(then, identity, files.folder)
        earlier = earlier_messages(files.audit)
        identity = msgspec.structs.replace(then, restarts=then.restarts + 1)
        secrets = houses.read_run_secrets(files.secrets, everyone)
    else:
        earlier, secrets = [], houses.fresh_secrets(everyone, seed)
        houses.keep_run_secrets(files.secrets, secrets)
    files.text("spec.toml", spec_toml(spec, base=loaded.base))
    write_identity(files.folder, identity)
    return _Begun(loaded, model, files, tables, register, held_out, secrets, identity, earlier)


def _play(begun: _Begun, clock: StageClock, stack: ExitStack) -> tuple[LocalNetwork, Outcome]:
    """Runs every role to its end; leaves audit logs and ledgers open."""
    spec, files = begun.loaded.spec, begun.files
    rules = houses.policies(spec, begun.model.schemas)
    network = LocalNetwork(
        LocalSettings(
            run=begun.run,
            spec_digest=begun.identity.spec_digest,
            roster={**{party.name: party.role for party in spec.party}, COORDINATOR: Role.COORDINATOR},
            schemas=begun.model.schemas,
            entropy=SystemEntropy(),
            signing_keys=houses.signing_keys(begun.secrets, begun.run_digest),
            policies=rules,
            ledgers=houses.open_ledgers(houses.ledger_folder(begun.loaded, files), rules, stack),
            audit_dir=files.audit,
            headroom_dir=files.headroom,
            timeout_s=spec.network.timeout_s,
            bandwidth_mbps=spec.network.bandwidth_mbps,
            latency_ms=spec.network.latency_ms,
            progress=clock,
        )
    )
    stack.push(_evidence(network, files))
    seats = {party: _seat(begun, party, network, clock, stack) for party in spec.parties}
    inputs = RunInputs(spec, seats, network.channel(COORDINATOR), _held_out(begun.held_out))
    results = asyncio.run(network.run_roles(begun.model.roles(inputs), seal=False))
    ledgers = {party: network.ledger(party).report(begun.run) for party in spec.parties}
    keep = houses.oracle_secrets(houses.Origin.of(spec, begun.tables), begun.secrets)
    transcript = [*begun.earlier, *network.transcript]
    return network, Outcome(spec, begun.run, begun.tables, results, keep, ledgers, transcript)


def _evidence(
    network: LocalNetwork, files: RunFiles
) -> Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]:
    """Closes the network at the end; the audit logs too where a run has failed and nobody can go on with it."""

    def close(kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        network.close()
        if kind is not None and not files.stays_after(kind):
            network.close_audits()

    return close


def _seat(begun: _Begun, party: PartyId, network: LocalNetwork, clock: StageClock, stack: ExitStack) -> Seat:
    spec, files = begun.loaded.spec, begun.files
    origin = houses.Origin.of(spec, begun.tables)
    keep = houses.keep_secrets(origin, party, begun.secrets[party], files.folder / "escrow", stack)
    keep = replace(keep, kept=KeptFiles(files.kept / party, f"{begun.run_digest}/{party}", durable=False))
    table = begun.tables[party]
    holding = Holding(spec, begun.run_digest, table, keep, begun.register, houses.simulated_decoy_key(table))
    report = clock.report if party == spec.label_holder.name else _unheard
    return Seat(network.channel(party), holding, FileCheckpoints(files.checkpoints / party), report)


def _unheard(done: int, total: int, note: str) -> None:
    """The label holder alone says how far a run is."""


def _held_out(held: frozenset[str]) -> HeldOutRows:
    def rows(ids: Sequence[str]) -> NDArray[np.bool_]:
        return np.fromiter((one in held for one in ids), dtype=np.bool_, count=len(ids))

    return rows
