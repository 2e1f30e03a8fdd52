"""What every run says of itself in ``summary.json`` and ``leakage.json``, whatever its model."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.profiles import PROFILES
from fedcredit.protocol.align.index import RowIndex
from fedcredit.runtime import accounts
from fedcredit.runtime.model_run import ModelRun, Outcome, Written
from fedcredit.runtime.provenance import commit, versions
from fedcredit.runtime.settings import transcript_digest
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["Effort", "leakage", "own_rows", "peak_memory_mb", "sizes", "summarise"]


@dataclass(frozen=True)
class Effort:
    """What a run took.

    Args:
        seconds: By key of the summary, ``total`` included.
        cpu_seconds: Of each party.
        modelled_seconds: What the messages would have taken on the modelled network; 0 = not modelled.
        restarts: How often it went on after its process had been killed; seconds are those of the last process.
        seeded: Whether its secrets came from a seed.
    """

    seconds: Mapping[str, float]
    cpu_seconds: Mapping[PartyId, float]
    modelled_seconds: float
    restarts: int
    seeded: bool


def summarise(model: ModelRun, outcome: Outcome, written: Written, effort: Effort) -> dict[str, Any]:
    """Content of ``summary.json``."""
    spec = outcome.spec
    leak = accounts.statistical_leak(written.answered, spec.crypto.profile, written.chosen)
    return {
        **_identity(model, outcome, effort),
        "encryption": _encryption(spec, written),
        **written.summary,
        "disclosure": accounts.disclosure(outcome.ledgers, leak),
        "ledger_scope": "all runs with these ledgers" if spec.privacy.ledger_dir else "this run only",
        **_effort(outcome, effort),
        "versions": versions(),
        "git": commit(),
    }


def leakage(model: ModelRun, outcome: Outcome, written: Written) -> dict[str, Any]:
    """Content of ``leakage.json``."""
    kinds = {entry.kind for entry in outcome.transcript}
    return {
        "steps": accounts.leakage_steps([schema.name for schema in model.schemas], kinds),
        "ledger": accounts.ledger_numbers(outcome.ledgers),
        "statistical_leak_log2": accounts.statistical_leak(
            written.answered, outcome.spec.crypto.profile, written.chosen
        ),
    }


def own_rows(index: RowIndex) -> dict[str, int]:
    """What a feature holder knows of the number of rows, for `Written.summary`: no split where rows are hidden."""
    if index.hidden:
        return {"rows": len(index.rows)}
    return {"rows_train": int(index.train.sum()), "rows_test": int(index.test.sum())}


def sizes(index: RowIndex, bad: NDArray[np.bool_]) -> dict[str, int]:
    """Rows and bads of both parts of the split, and all rows of the common order, for `Written.summary`."""
    return {
        "rows_train": int(index.train.sum()),
        "rows_test": int(index.test.sum()),
        "positives_train": int(bad[index.train].sum()),
        "positives_test": int(bad[index.test].sum()),
        "rows_common": len(index.rows),
    }


def _identity(model: ModelRun, outcome: Outcome, effort: Effort) -> dict[str, Any]:
    spec = outcome.spec
    return {
        "run_id": outcome.run,
        "name": spec.run.name,
        "spec_digest": spec_digest(spec),
        "model": spec.run.model,
        "mode": spec.run.mode,
        "entropy": "seeded" if effort.seeded else "system",
        "restarts": effort.restarts,
        "protocol": [schema.name for schema in model.schemas],
        "parties": {party.name: party.role.value for party in spec.party},
        "bank": outcome.leader,
        "align": _aligned(outcome),
        "split": spec.split.model_dump(mode="json", exclude={"test_ids"}) | {"by_ids": spec.split.test_ids is not None},
        "transcript_digest": transcript_digest(outcome.transcript),
    }


def _aligned(outcome: Outcome) -> dict[str, Any]:
    """How rows were found; at the label holder, how many of its own are in no part of the run."""
    align, index = outcome.spec.align, getattr(outcome.results.get(outcome.leader), "index", None)
    left = None
    if isinstance(index, RowIndex):
        left = outcome.tables[outcome.leader].rows - int((index.train | index.test).sum())
    return {"mode": align.mode, "decoys": align.decoys if align.mode == "blind" else None, "rows_left_out": left}


def _encryption(spec: RunSpec, written: Written) -> dict[str, Any]:
    profile = PROFILES[spec.crypto.profile]
    return {
        "enabled": profile.security_bits > 0,
        "scheme": profile.scheme,
        "profile": profile.name,
        "poly_degree": profile.degree,
        "plain_modulus_bits": max((one.parameters.sum_bits for one, _, _ in written.answered), default=None),
        "security_bits": profile.security_bits,
    }


def peak_memory_mb() -> float:
    """Largest memory of this process, or of any that it has started and that has ended, in 2^20 bytes."""
    usage = resource.getrusage
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(usage(resource.RUSAGE_SELF).ru_maxrss, usage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit
    return round(peak / 2**20, 1)


def _effort(outcome: Outcome, effort: Effort) -> dict[str, Any]:
    sent = dict.fromkeys(effort.cpu_seconds, 0)
    for entry in outcome.transcript:
        sent[entry.sender] += entry.bytes
    modelled = effort.modelled_seconds
    return {
        "seconds": {key: round(value, 3) for key, value in effort.seconds.items()},
        "cpu_seconds": {party: round(value, 3) for party, value in effort.cpu_seconds.items()},
        "bytes_sent": sent,
        "messages": len(outcome.transcript),
        "network": {"modelled_seconds": round(modelled, 3)} if modelled else None,
        "max_rss_mb": peak_memory_mb(),
    }
