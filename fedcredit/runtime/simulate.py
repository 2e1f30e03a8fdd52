"""A whole run on one machine: every party's role over the local network, the oracle beside it, the run directory.

Nothing here knows a model; see `fedcredit.runtime.model_run`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SEED_BYTES, Entropy, SystemEntropy, UnsafeSeededEntropy
from fedcredit.data.load import load_tables
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import SpecError
from fedcredit.protocol.holding import Holding
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.runtime.model_run import HeldOutRows, ModelRun, Outcome, RunInputs, Seat
from fedcredit.runtime.progress import Listener, Progress, StageClock
from fedcredit.runtime.run_directory import RunFiles, run_directory
from fedcredit.runtime.scorecard_run import SCORECARD_RUN
from fedcredit.runtime.summary import Effort, leakage, summarise
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.write import spec_toml
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

__all__ = ["MODEL_RUNS", "Simulation", "simulate"]

MODEL_RUNS: Mapping[str, ModelRun] = MappingProxyType({"scorecard": SCORECARD_RUN})
"""What can be simulated, by ``run.model``."""


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
    """A run that is about to start."""

    loaded: LoadedSpec
    model: ModelRun
    files: RunFiles
    tables: Mapping[PartyId, HolderTable]
    run: RunId
    secrets: Mapping[PartyId, bytes]
    seeded: bool

    @property
    def run_digest(self) -> str:
        name = "seeded" if self.seeded else self.run
        return hashlib.sha256(f"{spec_digest(self.loaded.spec)}/{name}".encode()).hexdigest()


def simulate(
    loaded: LoadedSpec,
    out: Path,
    *,
    progress: Listener | None = None,
    finish: Callable[[Path], None] | None = None,
    entropy_seed: bytes | None = None,
) -> Simulation:
    """Runs a simulation and writes its run directory.

    Args:
        loaded: The spec and the folder its paths are relative to.
        out: Run directory to create.
        progress: Told each stage as it begins, and each step of those that are counted.
        finish: Adds what else belongs into the run directory, such as a report, before it appears under its name.
        entropy_seed: 32 bytes from which all secrets come but those that SEAL draws itself (the totals and bfv-8192),
            for transcripts that can be compared in tests. None: secrets come from the operating system; results are the
            same.

    Raises:
        SpecError: the spec asks for what a simulation cannot do, or ``out`` exists.
        DataError: the records do not carry the run.
        FedCreditError: a party or the protocol failed.
    """
    spec = loaded.spec
    model = MODEL_RUNS.get(spec.run.model)
    if not spec.simulation or model is None:
        known = " or ".join(f'"{name}"' for name in MODEL_RUNS)
        raise SpecError("spec.simulate", f'run: simulate runs mode = "simulation" with model = {known} in this version')
    tell = progress or (lambda _: None)
    run = RunId(os.urandom(16).hex())
    with run_directory(out, run) as files, ExitStack() as stack:
        tell(Progress("load"))
        started = time.perf_counter()
        tables = load_tables(loaded)
        files.text("spec.toml", spec_toml(spec, base=loaded.base))
        secrets = {party: _entropy(entropy_seed, party).take(SEED_BYTES) for party in (*spec.parties, COORDINATOR)}
        begun = _Begun(loaded, model, files, tables, run, secrets, entropy_seed is not None)
        clock = StageClock(spec.label_holder.name, model.seconds, tell)
        network, outcome = _play(begun, clock, stack)
        seconds = clock.finish()
        tell(Progress("compare"))
        written = model.write(files, outcome)
        files.transcript(outcome.transcript)
        files.json("leakage.json", leakage(model, outcome, written))
        total = {**seconds, "total": time.perf_counter() - started}
        effort = Effort(total, network.cpu_seconds, network.modelled_seconds, 0, begun.seeded)
        summary = summarise(model, outcome, written, effort)
        files.json("summary.json", summary)
        if finish is not None:
            finish(files.folder)
    return Simulation(out, summary)


def _play(begun: _Begun, clock: StageClock, stack: ExitStack) -> tuple[LocalNetwork, Outcome]:
    """Runs every role to its end."""
    spec, files = begun.loaded.spec, begun.files
    rules = houses.policies(spec, begun.model.schemas)
    network = LocalNetwork(
        LocalSettings(
            run=begun.run,
            spec_digest=spec_digest(spec),
            roster={**{party.name: party.role for party in spec.party}, COORDINATOR: Role.COORDINATOR},
            schemas=begun.model.schemas,
            entropy=SystemEntropy(),
            signing_keys=houses.signing_keys(begun.secrets, begun.run_digest),
            policies=rules,
            ledgers=houses.open_ledgers(houses.ledger_folder(begun.loaded, files), rules, stack),
            audit_dir=files.audit,
            timeout_s=spec.network.timeout_s,
            bandwidth_mbps=spec.network.bandwidth_mbps,
            latency_ms=spec.network.latency_ms,
            progress=clock,
        )
    )
    stack.callback(network.close)
    seats = {party: _seat(begun, party, network, clock, stack) for party in spec.parties}
    held_out = _held_out(begun.loaded, begun.tables[spec.label_holder.name])
    inputs = RunInputs(spec, seats, network.channel(COORDINATOR), held_out)
    results = asyncio.run(network.run_roles(begun.model.roles(inputs)))
    ledgers = {party: network.ledger(party).report(begun.run) for party in spec.parties}
    keep = houses.oracle_secrets(spec, begun.secrets)
    return network, Outcome(spec, begun.run, begun.tables, results, keep, ledgers, network.transcript)


def _seat(begun: _Begun, party: PartyId, network: LocalNetwork, clock: StageClock, stack: ExitStack) -> Seat:
    spec, folder = begun.loaded.spec, begun.files.folder
    keep = houses.keep_secrets(spec, party, begun.secrets[party], folder / "escrow", stack)
    holding = Holding(spec, begun.run_digest, begun.tables[party], keep)
    checkpoints = FileCheckpoints(folder / "checkpoints" / party)
    report = clock.report if party == spec.label_holder.name else _unheard
    return Seat(network.channel(party), holding, checkpoints, report)


def _unheard(done: int, total: int, note: str) -> None:
    """The label holder alone says how far a run is."""


def _entropy(seed: bytes | None, label: str) -> Entropy:
    return SystemEntropy() if seed is None else UnsafeSeededEntropy(seed).child(label)


def _held_out(loaded: LoadedSpec, table: HolderTable) -> HeldOutRows:
    mask: NDArray[np.bool_] = held_out_rows(table, loaded.spec.split, loaded.base)
    held = {one for one, test in zip(table.ids.to_list(), mask, strict=True) if test}

    def rows(ids: Sequence[str]) -> NDArray[np.bool_]:
        return np.fromiter((one in held for one in ids), dtype=np.bool_, count=len(ids))

    return rows
