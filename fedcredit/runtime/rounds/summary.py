"""What a run of averaging says of itself in ``summary.json`` and ``leakage.json``."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedcredit.governance.ledger import LedgerLine
from fedcredit.runtime import accounts
from fedcredit.runtime.averaging.compare import Compared
from fedcredit.runtime.provenance import commit, versions
from fedcredit.runtime.rounds.driver import Lost
from fedcredit.runtime.rounds.simulated import SimulatedRun
from fedcredit.runtime.settings import TranscriptEntry, transcript_digest
from fedcredit.runtime.unfinished import Identity
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId, RunId
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["Carried", "averaging_leakage", "averaging_summary", "bank_summary"]

Figures = Mapping[PartyId, Mapping[str, Any]]


@dataclass(frozen=True)
class Carried:
    """A simulated run that has gone through.

    Args:
        simulated: The run.
        identity: What it was begun as.
        engine: What carried it.
        lost: Banks that it went on without.
        seconds: By key of the summary.
    """

    simulated: SimulatedRun
    identity: Identity
    engine: str
    lost: Sequence[Lost]
    seconds: Mapping[str, float]


def bank_summary(
    spec: RunSpec, run: RunId, schemas: Sequence[ProtocolSchema], sent: Sequence[TranscriptEntry]
) -> dict[str, Any]:
    """What every run of averaging says of itself, wherever it was run."""
    sums = spec.secure_sum
    return {
        "run_id": run,
        "name": spec.run.name,
        "spec_digest": spec_digest(spec),
        "model": spec.run.model,
        "mode": spec.run.mode,
        "protocol": [schema.name for schema in schemas],
        "parties": {party.name: party.role.value for party in spec.party},
        "split": spec.split.model_dump(mode="json", exclude={"test_ids"}) | {"by_ids": spec.split.test_ids is not None},
        "transcript_digest": transcript_digest(sent),
        "encryption": {
            "enabled": True,
            "scheme": "masks" if sums.profile == "masked" else "masks and BFV",
            "profile": sums.profile,
        },
        "secure_sum": {"profile": sums.profile, "min_banks": sums.min_banks, "colluding": sums.colluding},
        "privacy_unit": spec.differential_privacy.unit,
        "messages": len(sent),
        "versions": versions(),
        "git": commit(),
    }


def averaging_summary(
    carried: Carried,
    figures: Figures,
    compared: Compared,
    reports: Mapping[PartyId, Sequence[LedgerLine]],
    transcript: Sequence[TranscriptEntry],
) -> dict[str, Any]:
    """Content of ``summary.json`` of a simulation."""
    simulated, identity = carried.simulated, carried.identity
    spec, banks = simulated.spec, [_bank(party, one, compared) for party, one in figures.items()]
    digests = sorted({str(one["model_digest"]) for one in figures.values()})
    first = next(iter(figures.values()))
    means = {key: _mean(banks, key) for key in ("auc_test", "ks_test", "auc_personal", "auc_pooled", "auc_alone")}
    own_tests = spec.split.test_source is None
    return {
        **bank_summary(spec, simulated.run, simulated.model.schemas, transcript),
        "bank": spec.label_holder.name,
        "entropy": "seeded" if identity.seeded else "system",
        "restarts": identity.restarts,
        "engine": carried.engine,
        "rows_train": sum(one["rows_train"] for one in banks),
        "rows_test": sum(one["rows_test"] for one in banks) if own_tests else banks[0]["rows_test"],
        "positives_train": sum(one["positives_train"] for one in banks),
        "positives_test": sum(one["positives_test"] for one in banks) if own_tests else banks[0]["positives_test"],
        "auc_test": means["auc_test"],
        "ks_test": means["ks_test"],
        "metrics": {
            "alone": {"auc": means["auc_alone"], "ks": None},
            "federated": {"auc": means["auc_test"], "ks": means["ks_test"]},
            "personal": {"auc": means["auc_personal"], "ks": None},
            "pooled_plaintext": {"auc": means["auc_pooled"], "ks": None},
        },
        "auc_pooled_plaintext": means["auc_pooled"],
        "model_digest": digests[0] if len(digests) == 1 else None,
        "model_equals_plain_sums": None if compared.clear_digest is None else digests == [compared.clear_digest],
        "parameters": first["parameters"],
        "rounds": first["rounds"],
        "pooled": first["pooled"],
        "members": first["members"],
        "differential_privacy": _dearest(figures),
        "lost": [{"party": one.party, "step": one.step, "code": one.code, "text": one.text} for one in carried.lost],
        "banks": banks,
        "disclosure": accounts.disclosure(reports, None),
        "ledger_scope": "this run only" if spec.privacy.ledger_dir is None else "all runs with these ledgers",
        **_effort(carried, transcript),
    }


def averaging_leakage(
    schemas: Sequence[ProtocolSchema],
    reports: Mapping[PartyId, Sequence[LedgerLine]],
    transcript: Sequence[TranscriptEntry],
) -> dict[str, Any]:
    """Content of ``leakage.json``."""
    kinds = {entry.kind for entry in transcript}
    return {
        "steps": accounts.leakage_steps([schema.name for schema in schemas], kinds),
        "ledger": accounts.ledger_numbers(reports),
        "statistical_leak_log2": None,
    }


def _bank(party: PartyId, figures: Mapping[str, Any], compared: Compared) -> dict[str, Any]:
    keys = ("rows_train", "rows_test", "positives_train", "positives_test")
    measures = ("auc_test", "ks_test", "loss_test", "auc_personal")
    return {
        "name": party,
        "epsilon": figures["differential_privacy"]["epsilon"],
        **{key: figures[key] for key in (*keys, *measures)},
        "auc_pooled": compared.pooled[party],
        "auc_alone": compared.alone[party],
    }


def _dearest(figures: Figures) -> Mapping[str, Any]:
    """What the run has cost the bank that it cost most; no epsilon is the most."""
    blocks: list[Mapping[str, Any]] = [one["differential_privacy"] for one in figures.values()]
    return max(blocks, key=lambda one: math.inf if one["epsilon"] is None else float(one["epsilon"]))


def _mean(banks: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean over banks that have the measure, by their held-out rows."""
    found = [(one["rows_test"], one[key]) for one in banks if one[key] is not None]
    rows = sum(count for count, _ in found)
    return sum(count * value for count, value in found) / rows if rows else None


def _effort(carried: Carried, transcript: Sequence[TranscriptEntry]) -> dict[str, Any]:
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux, bytes on macOS
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(one).ru_maxrss for one in both) * unit
    sent: dict[str, int] = {}
    for entry in transcript:
        sent[entry.sender] = sent.get(entry.sender, 0) + entry.bytes
    return {
        "seconds": {key: round(value, 3) for key, value in carried.seconds.items()},
        "bytes_sent": sent,
        "network": None,
        "max_rss_mb": round(peak / 2**20, 1),
    }
