"""A whole hybrid run on one machine: every bank's part, the banks' sums, every model beside it, the run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from fedcredit.crypto.profiles import PROFILES
from fedcredit.data.load import load_tables
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.kernels.metrics import auc
from fedcredit.runtime import accounts, houses
from fedcredit.runtime.hybrid.compare import MODELS, Compared, HybridOutcome
from fedcredit.runtime.hybrid.leakage import hybrid_steps
from fedcredit.runtime.hybrid.networks import SUMS, check_hybrid
from fedcredit.runtime.hybrid.play import HybridHouses, HybridPlayed, play_hybrid
from fedcredit.runtime.hybrid.scorecard import compare_scorecards
from fedcredit.runtime.hybrid.sums import SUM_SCHEMAS
from fedcredit.runtime.hybrid.trees import compare_trees
from fedcredit.runtime.model_run import HeldOutRows
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.progress import Listener, Progress, StageClock
from fedcredit.runtime.provenance import commit, versions
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.settings import TranscriptEntry, transcript_digest
from fedcredit.runtime.summary import peak_memory_mb
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.write import spec_toml
from fedcredit.types import COORDINATOR, PartyId, RunId

__all__ = ["HYBRID_COMPARISONS", "simulate_hybrid"]

HYBRID_COMPARISONS: Mapping[str, Callable[[HybridOutcome], Compared]] = MappingProxyType(
    {"scorecard": compare_scorecards, "boost": compare_trees}
)
"""How a hybrid run of each model is compared, by ``run.model``."""


@dataclass(frozen=True)
class _Ended:
    """A run whose roles have ended.

    Args:
        there: The houses.
        played: What the roles left.
        compared: Every model on held-out rows.
        seconds: By stage.
        seeded: Whether secrets came from a seed.
    """

    there: HybridHouses
    played: HybridPlayed
    compared: Compared
    seconds: Mapping[str, float]
    seeded: bool


def simulate_hybrid(loaded: LoadedSpec, files: RunFiles, run: RunId, seed: bytes | None, tell: Listener) -> None:
    """Plays a hybrid run and writes its run directory.

    Args:
        loaded: The spec, and the folder that its paths are relative to.
        files: The run directory.
        run: Name of the run.
        seed: 32 bytes from which secrets come, for tests; None = from the operating system.
        tell: Told each stage of the first bank.

    Raises:
        SpecError: the spec asks for what a hybrid run cannot do.
        DataError: the records do not carry the run.
        FedCreditError: a party or the protocol failed.
    """
    spec, model = loaded.spec, MODEL_RUNS[loaded.spec.run.model]
    check_hybrid(spec)
    tell(Progress("load"))
    started = time.perf_counter()
    tables = load_tables(loaded)
    held_out = {bank.name: _held_out(tables[bank.name], loaded) for bank in spec.banks}
    secrets = houses.fresh_secrets((*spec.parties, COORDINATOR), seed)
    clock = StageClock(spec.banks[0].name, model.seconds, tell)
    with ExitStack() as stack:
        rules = houses.policies(spec, (*model.schemas, *SUM_SCHEMAS))
        ledgers = houses.open_ledgers(houses.ledger_folder(loaded, files), rules, stack)
        there = HybridHouses(spec, run, model, tables, held_out, secrets, files, ledgers)
        files.text("spec.toml", spec_toml(spec, base=loaded.base))
        played = play_hybrid(there, clock, clock.report, stack)
        seconds = clock.finish()
        tell(Progress("compare"))
        common = {holder.name: there.common(holder.name) for holder in spec.feature_holders}
        outcome = HybridOutcome(spec, tables, played.outcomes, there.keep, common)
        compared = HYBRID_COMPARISONS[spec.run.model](outcome)
        total = {**seconds, "total": time.perf_counter() - started}
        _write(_Ended(there, played, compared, total, seed is not None))
        for network in played.networks.values():
            network.seal()
        _heads(files, played)


def _held_out(table: HolderTable, loaded: LoadedSpec) -> HeldOutRows:
    mask = held_out_rows(table, loaded.spec.split, loaded.base)
    held = frozenset(one for one, test in zip(table.ids.to_list(), mask, strict=True) if test)
    return lambda ids: np.fromiter((one in held for one in ids), dtype=np.bool_, count=len(ids))


def _write(ended: _Ended) -> None:
    files, model, played = ended.there.files, ended.there.model, ended.played
    for bank, outcome in played.outcomes.items():
        part = RunFiles(files.folder / "banks" / bank)
        part.folder.mkdir(parents=True)
        for party in outcome.spec.parties:
            model.own(part, outcome, party)
    files.table("predictions.parquet", _predictions(ended.compared))
    transcript = _transcript(played)
    files.transcript(transcript)
    files.json("leakage.json", _leakage(ended, transcript))
    files.json("summary.json", _summary(ended, transcript))


def _heads(files: RunFiles, played: HybridPlayed) -> None:
    """Heads of the audit logs of all networks in one file, as every run directory has it."""
    heads = {
        f"{SUMS if name == COORDINATOR else name}/{party}": head
        for name, network in played.networks.items()
        for party, head in network.heads.items()
    }
    files.json("audit/heads.json", heads)


def _transcript(played: HybridPlayed) -> list[TranscriptEntry]:
    return [entry for network in played.networks.values() for entry in network.transcript]


def _predictions(compared: Compared) -> pl.DataFrame:
    """Risk of every held-out row under every model; higher is riskier."""
    frames = []
    for bank, bad in compared.bad.items():
        scores = {f"risk_{line.key}": compared.risk[line.key][bank] for line in MODELS if line.key in compared.risk}
        frames.append(pl.DataFrame({"bank": [bank] * len(bad), "id": list(compared.ids[bank]), "label": bad, **scores}))
    return pl.concat(frames)


def _leakage(ended: _Ended, transcript: Sequence[TranscriptEntry]) -> dict[str, Any]:
    kinds, model = {entry.kind for entry in transcript}, ended.there.model
    names = [schema.name for schema in (*model.schemas, *SUM_SCHEMAS)]
    return {
        "steps": [*accounts.leakage_steps(names, kinds), *hybrid_steps(ended.there.spec.run.model)],
        "ledger": accounts.ledger_numbers(_ledgers(ended)),
        "statistical_leak_log2": None,
    }


def _ledgers(ended: _Ended) -> dict[PartyId, list[Any]]:
    found: dict[PartyId, list[Any]] = {}
    for outcome in ended.played.outcomes.values():
        for party, lines in outcome.ledgers.items():
            found.setdefault(party, []).extend(lines)
    return found


def _summary(ended: _Ended, transcript: Sequence[TranscriptEntry]) -> dict[str, Any]:
    spec, played = ended.there.spec, ended.played
    sent: dict[str, int] = {}
    for entry in transcript:
        sent[entry.sender] = sent.get(entry.sender, 0) + entry.bytes
    cpu: dict[str, float] = {}
    for network in played.networks.values():
        for party, seconds in network.cpu_seconds.items():
            cpu[party] = cpu.get(party, 0.0) + seconds
    hybrid = _hybrid(ended)
    profile = PROFILES[spec.crypto.profile]
    main = next(one for one in hybrid["models"] if one["key"] == hybrid["main"])
    return {
        "run_id": ended.there.run,
        "name": spec.run.name,
        "spec_digest": spec_digest(spec),
        "model": spec.run.model,
        "mode": spec.run.mode,
        "entropy": "seeded" if ended.seeded else "system",
        "protocol": [schema.name for schema in (*ended.there.model.schemas, *SUM_SCHEMAS)],
        "parties": {party.name: party.role.value for party in spec.party},
        "bank": spec.banks[0].name,
        "align": {"mode": spec.align.mode, "decoys": None, "rows_left_out": None},
        "transcript_digest": transcript_digest(transcript),
        "encryption": {
            "enabled": profile.security_bits > 0,
            "scheme": profile.scheme,
            "profile": profile.name,
            "poly_degree": profile.degree,
            "plain_modulus_bits": None,
            "security_bits": profile.security_bits,
        },
        "rows_train": sum(one["rows_train"] for one in hybrid["banks"]),
        "rows_test": sum(one["rows_test"] for one in hybrid["banks"]),
        "positives_test": sum(one["positives_test"] for one in hybrid["banks"]),
        "auc_test": main["auc"],
        "scores_equal_pooled_plaintext": hybrid["equal_pooled_plaintext"],
        "hybrid": hybrid,
        "disclosure": accounts.disclosure(_ledgers(ended), None),
        "ledger_scope": "all runs with these ledgers" if spec.privacy.ledger_dir else "this run only",
        "seconds": {key: round(value, 3) for key, value in ended.seconds.items()},
        "cpu_seconds": {party: round(value, 3) for party, value in cpu.items()},
        "bytes_sent": sent,
        "messages": len(transcript),
        "max_rss_mb": peak_memory_mb(),
        "versions": versions(),
        "git": commit(),
    }


def _hybrid(ended: _Ended) -> dict[str, Any]:
    spec, compared, played = ended.there.spec, ended.compared, ended.played
    keys = [line.key for line in MODELS if line.key in compared.risk]
    found: dict[str, dict[PartyId, float]] = {
        key: {bank: auc(bad, compared.risk[key][bank]) for bank, bad in compared.bad.items()} for key in keys
    }
    rows = {bank: len(bad) for bank, bad in compared.bad.items()}
    return {
        "main": compared.main,
        "models": [
            {
                "key": line.key,
                "name": line.name,
                "what": line.what,
                "auc": float(np.average([found[line.key][bank] for bank in rows], weights=list(rows.values()))),
            }
            for line in MODELS
            if line.key in found
        ],
        "banks": [
            {
                "name": bank,
                "rows_train": int(outcome.results[bank].index.train.sum()),
                "rows_test": rows[bank],
                "positives_train": int(outcome.results[bank].bad[outcome.results[bank].index.train].sum()),
                "positives_test": int(compared.bad[bank].sum()),
                "auc": {key: found[key][bank] for key in keys},
            }
            for bank, outcome in played.outcomes.items()
        ],
        "equal_pooled_plaintext": compared.equal,
        "secure_sum": spec.secure_sum.profile,
        "sums": played.sums[0],
        "values_summed": played.sums[1],
        "own_intercepts": spec.hybrid.own_intercepts,
        "facts": list(compared.facts),
    }
