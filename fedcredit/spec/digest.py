"""The digest of a specification: the run's identity."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fedcredit.spec.model import RunSpec

__all__ = ["canonical_json", "spec_digest"]

_FORMAT = 1  # raise when the canonical form changes, so that old and new digests never meet

_LATER = (
    ("run", "on_missing", "stop"),
    ("align", "rows", "auto"),
    ("align", "ids", "text"),
    ("align", "registry", False),
    ("align", "decoys", 1.0),
    ("align", "min_overlap", 100),
    ("split", "test_source", False),
)
"""Keys that came after format 1, with the value that says what specs without them said: they keep their digests."""


def canonical_json(spec: RunSpec) -> bytes:
    """Canonical form of a spec: sorted keys, every default written, ASCII, shortest round-trip floats.

    Left out are the places of records: ``source`` and ``query`` of each party, ``privacy.ledger_dir``, the address of a
    cluster, and the paths of catalogues, ``split.test_ids``, ``split.test_source``, ``fedavg.reference`` and
    ``align.registry`` (whether they are given stays in). They are each party's private affair, differ from machine to
    machine, and may name hosts; parties agree on *what* is computed, and each holder's own ledger and audit name the
    content it was computed on by a digest of the records themselves.

    Source: the idea of RFC 8785 (JSON canonicalisation); all numbers here are Python ints or finite floats, whose
    ``repr`` is the same on every platform.
    """
    content: dict[str, Any] = spec.model_dump(mode="json")
    for party in content["party"]:
        del party["source"], party["query"]
        party["catalog"] = party["catalog"] is not None
        for key, absent in (("catalog", False), ("as_of", None)):
            if party[key] == absent:
                del party[key]
    del content["privacy"]["ledger_dir"]
    content["split"]["test_ids"] = spec.split.test_ids is not None
    content["align"]["registry"] = spec.align.registry is not None
    content["split"]["test_source"] = spec.split.test_source is not None
    _several_banks(content, spec)
    for section, key, default in _LATER:
        if content[section][key] == default:
            del content[section][key]
    canonical = {"format": _FORMAT, "spec": content}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def _several_banks(content: dict[str, Any], spec: RunSpec) -> None:
    """Sections that mean something to runs with several banks only are left out of all others."""
    for party in content["party"]:
        if party["part"] is None:
            del party["part"]
    if not spec.several_banks:
        for section in ("partition", "secure_sum", "differential_privacy", "hybrid"):
            del content[section]
    if content["fedavg"] is not None:
        del content["fedavg"]["ray_address"]
        content["fedavg"]["reference"] = content["fedavg"]["reference"] is not None


def spec_digest(spec: RunSpec) -> str:
    """SHA-256 of the canonical form, as 64 hex digits; the same on every machine for the same run."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()
