"""A feature holder's report: its own part of the model, its own ledger, what it learned and what it disclosed.

It opens the summary, the specification, this party's own model file, leakage.json, transcript.jsonl and the published
audit heads. Of the summary it prints what every party knows: names, protection, versions, and this party's own bytes
and seconds. The predictions and the other model files are never opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedcredit.report.files import Settings, Summary
from fedcredit.report.parts import learned, meters, routes
from fedcredit.report.read import read_heads, read_leakage, read_transcript
from fedcredit.report.sections import HolderPart
from fedcredit.types import Role

__all__ = ["feature_holder_view"]


def feature_holder_view(
    run: Path, summary: Summary, settings: Settings, party: str, model: Callable[[Path, Settings, str], HolderPart]
) -> dict[str, object]:
    """Everything that the template prints.

    Args:
        run: Run directory.
        summary: Its summary.
        settings: What the specification says of protection.
        party: A feature holder of the run.
        model: What this kind of model adds.

    Raises:
        DataError: A file is missing or damaged, or the party's model file holds another party's features.
    """
    part = model(run, settings, party)
    leakage, sent = read_leakage(run), read_transcript(run)
    mine = {party, Role.FEATURE_HOLDER.value}
    known_to = mine | {summary.bank, Role.LABEL_HOLDER.value, Role.COORDINATOR.value}
    ledgers = meters(leakage, party)
    own_routes = routes(sent, party)
    return {
        "party": party,
        "part": part,
        "learned": learned(leakage, lambda receiver: receiver in mine, summary.bank),
        "disclosed": learned(leakage, lambda receiver: receiver in known_to - mine, summary.bank),
        "meters": ledgers,
        "leak": leakage.statistical_leak_log2,
        "most_used": max(
            (line for line in ledgers if line.used is not None), key=lambda line: line.used or 0.0, default=None
        ),
        "routes": own_routes,
        "bytes_sent": sum(route.size for route in own_routes if route.sender == party),
        "bytes_received": sum(route.size for route in own_routes if route.recipient == party),
        "messages": sum(route.messages for route in own_routes),
        "cpu_seconds": summary.cpu_seconds.get(party),
        "heads": read_heads(run),
    }
