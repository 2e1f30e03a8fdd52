"""A whole run on one machine: every party's role over the local network, the oracle beside it, the run directory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import Entropy, SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.profiles import PROFILES
from fedcredit.data.load import load_tables
from fedcredit.data.places import expand
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, SpecError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import CapSection, Policy, simulation_policy
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.scorecard.feature_holder import HolderFeature
from fedcredit.protocol.scorecard.roles import SCHEMAS, LabelResult, coordinate, hold, lead
from fedcredit.runtime import accounts, quality
from fedcredit.runtime.escrow import FileEscrow
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.runtime.oracle import Pooled, PooledResult, pool, pooled_scorecard
from fedcredit.runtime.parts import holder_part, label_holder_part
from fedcredit.runtime.provenance import commit, versions
from fedcredit.runtime.run_directory import RunFiles, run_directory
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.model import RunSpec
from fedcredit.spec.write import spec_toml
from fedcredit.types import COORDINATOR, PartyId, Role, RunId

__all__ = ["Simulation", "simulate"]

Progress = Callable[[str], None]

_STAGE_OF = {
    "start": "align",
    "reference": "align",
    "align": "align",
    "bin": "bin",
    "scorecard": "train",
    "score": "score",
}
"""Key under ``seconds`` of the summary for each stage of the label holder."""


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
class _Outcome:
    """Everything a run produced."""

    run: RunId
    label: LabelResult
    held: Mapping[PartyId, Sequence[HolderFeature]]
    network: LocalNetwork
    seconds: Mapping[str, float]
    seeded: bool


def simulate(
    loaded: LoadedSpec,
    out: Path,
    *,
    progress: Progress | None = None,
    finish: Callable[[Path], None] | None = None,
    entropy_seed: bytes | None = None,
) -> Simulation:
    """Runs a simulation and writes its run directory.

    Args:
        loaded: The spec and the folder its paths are relative to.
        out: Run directory to create.
        progress: Told the name of each stage as it begins.
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
    if not spec.simulation or spec.run.model != "scorecard":
        raise SpecError(
            "spec.simulate", 'run: simulate runs mode = "simulation" with model = "scorecard" in this version'
        )
    tell = progress or (lambda _: None)
    run = RunId(os.urandom(16).hex())
    with run_directory(out, run) as files, ExitStack() as stack:
        tell("load")
        started = time.perf_counter()
        tables = load_tables(loaded)
        files.text("spec.toml", spec_toml(spec, base=loaded.base))
        outcome = _run_parties(loaded, tables, files, (run, entropy_seed), (stack, tell))
        tell("compare")
        summary = _write(files, spec, tables, outcome, started)
        if finish is not None:
            finish(files.folder)
    return Simulation(out, summary)


def _run_parties(
    loaded: LoadedSpec,
    tables: Mapping[PartyId, HolderTable],
    files: RunFiles,
    identity: tuple[RunId, bytes | None],
    hooks: tuple[ExitStack, Progress],
) -> _Outcome:
    spec, (run, seed), (stack, tell) = loaded.spec, identity, hooks
    leader = spec.label_holder.name
    clock = _StageClock(leader, tell)
    digest = spec_digest(spec)
    network = LocalNetwork(
        LocalSettings(
            run=run,
            spec_digest=digest,
            roster={**{party.name: party.role for party in spec.party}, COORDINATOR: Role.COORDINATOR},
            schemas=SCHEMAS,
            entropy=_entropy(seed, "keys"),
            policies=(policies := _policies(spec)),
            ledgers=_ledgers(spec, loaded.base, files, policies, stack),
            audit_dir=files.audit,
            timeout_s=spec.network.timeout_s,
            bandwidth_mbps=spec.network.bandwidth_mbps,
            latency_ms=spec.network.latency_ms,
            progress=clock,
        )
    )
    stack.callback(network.close)
    run_digest = hashlib.sha256(f"{digest}/{run if seed is None else 'seeded'}".encode()).hexdigest()
    holdings = {}
    for party in spec.parties:
        escrow = FileEscrow(files.folder / "escrow" / f"{party}.jsonl", durable=False)
        stack.callback(escrow.close)
        keep = KeptSecrets(_entropy(seed, party), replayable_entropy(spec, party), escrow)
        holdings[party] = Holding(spec, run_digest, tables[party], keep)
    held_out = _held_out(loaded, tables[leader])
    roles: dict[PartyId, Any] = {
        party: (
            lead(network.channel(party), holding, held_out)
            if party == leader
            else hold(network.channel(party), holding)
        )
        for party, holding in holdings.items()
    }
    roles[COORDINATOR] = coordinate(network.channel(COORDINATOR), spec)
    results = asyncio.run(network.run_roles(roles))
    held = {party: results[party][1] for party in spec.parties if party != leader}
    return _Outcome(run, results[leader], held, network, clock.finish(), seed is not None)


def replayable_entropy(spec: RunSpec, party: PartyId) -> UnsafeSeededEntropy:
    """A party's seed for what is not secret to its auditor, from the spec's seed: a simulation can be repeated."""
    return UnsafeSeededEntropy(hashlib.sha256(f"fedcredit/simulation/{spec.run.seed}/{party}".encode()).digest())


def _entropy(seed: bytes | None, label: str) -> Entropy:
    return SystemEntropy() if seed is None else UnsafeSeededEntropy(seed).child(label)


class _StageClock:
    """Seconds of each stage, as the label holder goes through them."""

    def __init__(self, leader: PartyId, tell: Progress) -> None:
        self._leader, self._tell = leader, tell
        self._stage, self._since = "start", time.perf_counter()
        self._seconds: dict[str, float] = dict.fromkeys(_STAGE_OF.values(), 0.0)

    def __call__(self, party: PartyId, stage: str) -> None:
        if party != self._leader:
            return
        self._close()
        self._stage = stage
        self._tell(stage)

    def _close(self) -> None:
        now = time.perf_counter()
        self._seconds[_STAGE_OF[self._stage]] += now - self._since
        self._since = now

    def finish(self) -> Mapping[str, float]:
        """Seconds by key of the summary."""
        self._close()
        return dict(self._seconds)


def _policies(spec: RunSpec) -> dict[PartyId, Policy]:
    privacy = spec.privacy
    caps = CapSection(
        equations=None if privacy.max_equations == "auto" else float(privacy.max_equations),
        bins_returned=None if privacy.max_bins_returned == "auto" else float(privacy.max_bins_returned),
    )
    everyone = [*spec.parties, COORDINATOR]
    protocols = [schema.name for schema in SCHEMAS]
    return {
        party: simulation_policy(
            [other for other in everyone if other != party], protocols, caps=caps, enforce=privacy.enforce
        )
        for party in everyone
    }


def _ledgers(
    spec: RunSpec, base: Path, files: RunFiles, policies: Mapping[PartyId, Policy], stack: ExitStack
) -> dict[PartyId, Ledger]:
    kept = spec.privacy.ledger_dir
    folder = base / expand(kept, "privacy.ledger_dir") if kept else files.folder / "ledger"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {
            party: stack.enter_context(Ledger(folder / f"{party}.sqlite", policies[party].cap_rules()))
            for party in spec.parties
        }
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        why = error.strerror or "cannot be written"
        raise SpecError("spec.ledger-dir", f"privacy.ledger_dir: {folder}: {why}; name a writable folder") from None


def _held_out(loaded: LoadedSpec, table: HolderTable) -> Callable[[Sequence[str]], NDArray[np.bool_]]:
    mask = held_out_rows(table, loaded.spec.split, loaded.base)
    held = {one for one, test in zip(table.ids.to_list(), mask, strict=True) if test}
    return lambda ids: np.fromiter((one in held for one in ids), dtype=np.bool_, count=len(ids))


def _write(
    files: RunFiles, spec: RunSpec, tables: Mapping[PartyId, HolderTable], outcome: _Outcome, started: float
) -> dict[str, Any]:
    leader = spec.label_holder.name
    label = outcome.label
    fresh = {
        party: KeptSecrets(SystemEntropy(), replayable_entropy(spec, party), _NoEscrow()) for party in spec.parties
    }
    pooled = pool(label, spec, tables, fresh)
    together = pooled_scorecard(pooled, label.budgets, [leader, *label.budgets])
    alone = _alone(pooled, leader)
    rows = quality.held_out(label, spec.scorecard, alone.fitted.scores if alone else None)
    reports = {party: outcome.network.ledger(party).report(outcome.run) for party in spec.parties}
    leak = accounts.statistical_leak(label, spec)
    summary: dict[str, Any] = {
        **_identity(spec, outcome),
        **_sizes(label),
        "encryption": _encryption(spec, label),
        **_metrics(spec, rows, pooled, together, alone),
        "fit": {
            "method": spec.scorecard.fit,
            "totals": label.fitted.totals,
            "ridge": spec.scorecard.ridge,
            "features_offered": len(label.binned.features),
            "features_tried": len(label.candidates.features),
            "features_selected": len(label.fitted.features),
            "features_beyond_ledgers": sum(one.reason in {"equations", "bins"} for one in label.dropped),
        },
        "disclosure": accounts.disclosure(reports, leak),
        "ledger_scope": "all runs with these ledgers" if spec.privacy.ledger_dir else "this run only",
        **_effort(outcome, time.perf_counter() - started),
        "versions": versions(),
        "git": commit(),
    }
    parts: dict[str, Any] = {leader: label_holder_part(label, spec.scorecard, leader)}
    parts |= {party: holder_part(held, spec.scorecard, party) for party, held in outcome.held.items()}
    files.parts(parts)
    files.predictions(rows)
    files.transcript(outcome.network.transcript)
    steps = accounts.leakage_steps([schema.name for schema in SCHEMAS])
    files.json(
        "leakage.json",
        {"steps": steps, "ledger": accounts.ledger_numbers(reports), "statistical_leak_log2": leak},
    )
    files.json("summary.json", summary)
    return summary


class _NoEscrow:
    """The oracle keeps nothing."""

    def record(self, what: str, entry: Mapping[str, str | int]) -> None:
        """Drops the entry."""


def _alone(pooled: Pooled, leader: PartyId) -> PooledResult | None:
    """The label holder's own scorecard; None where none of its features passes the selection."""
    try:
        return pooled_scorecard(pooled, {}, [leader])
    except DataError:
        return None


def _identity(spec: RunSpec, outcome: _Outcome) -> dict[str, Any]:
    return {
        "run_id": outcome.run,
        "name": spec.run.name,
        "spec_digest": spec_digest(spec),
        "model": spec.run.model,
        "mode": spec.run.mode,
        "entropy": "seeded" if outcome.seeded else "system",
        "protocol": [schema.name for schema in SCHEMAS],
        "parties": {party.name: party.role.value for party in spec.party},
        "bank": spec.label_holder.name,
        "split": spec.split.model_dump(mode="json", exclude={"test_ids"}) | {"by_ids": spec.split.test_ids is not None},
        "transcript_digest": outcome.network.transcript_digest(),
    }


def _sizes(label: LabelResult) -> dict[str, int]:
    index = label.index
    return {
        "rows_train": int(index.train.sum()),
        "rows_test": int(index.test.sum()),
        "positives_train": int(label.bad[index.train].sum()),
        "positives_test": int(label.bad[index.test].sum()),
    }


def _encryption(spec: RunSpec, label: LabelResult) -> dict[str, Any]:
    profile = PROFILES[spec.crypto.profile]
    bits = max(conversation.parameters.sum_bits for conversation, _, _ in accounts.conversations(label, spec))
    return {
        "enabled": profile.security_bits > 0,
        "scheme": profile.scheme,
        "profile": profile.name,
        "poly_degree": profile.degree,
        "plain_modulus_bits": bits,
        "security_bits": profile.security_bits,
    }


def _metrics(
    spec: RunSpec, rows: quality.HeldOut, pooled: Pooled, together: PooledResult, alone: PooledResult | None
) -> dict[str, Any]:
    federated = quality.measure(rows.bad, -rows.score, rows.sample_probability)
    pooled_measures = quality.measure(rows.bad, -together.fitted.scores)
    own = quality.measure(rows.bad, -rows.alone) if alone is not None and rows.alone is not None else None
    reference = quality.reference(pooled, together)
    library = None if reference is None else quality.measure(rows.bad, reference.risk)
    difference = None
    if reference is not None:
        difference = float(np.abs(reference.coefficients - together.fitted.coefficients).max())
    return {
        **{f"{name}_test": federated[name] for name in ("auc", "ks", "brier", "ece")},
        "auc_label_holder_alone": own["auc"] if own else None,
        "auc_pooled_plaintext": pooled_measures["auc"],
        "auc_pooled_reference": library["auc"] if library else None,
        "coefficients_from_reference": difference,
        "scores_equal_pooled_plaintext": bool(np.array_equal(rows.score, together.fitted.scores)),
        "metrics": {"federated": federated, "alone": own, "pooled_plaintext": pooled_measures, "reference": library},
        "calibration": quality.calibration(rows, spec.scorecard),
    }


def _effort(outcome: _Outcome, total: float) -> dict[str, Any]:
    network, usage = outcome.network, resource.getrusage
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(usage(resource.RUSAGE_SELF).ru_maxrss, usage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit
    modelled = network.modelled_seconds
    return {
        "seconds": {**{key: round(value, 3) for key, value in outcome.seconds.items()}, "total": round(total, 3)},
        "cpu_seconds": {party: round(value, 3) for party, value in network.cpu_seconds.items()},
        "bytes_sent": network.bytes_sent,
        "messages": len(network.transcript),
        "network": {"modelled_seconds": round(modelled, 3)} if modelled else None,
        "max_rss_mb": round(peak / 2**20, 1),
    }
