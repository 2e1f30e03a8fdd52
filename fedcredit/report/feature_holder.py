"""A feature holder's report: its own part of the model, its own ledger, what it learned and what it disclosed.

It opens the summary, this party's own model file, leakage.json, transcript.jsonl and the published audit heads. Of the
summary it prints what every party knows: names, protection, versions, and this party's own bytes and seconds. The
predictions and the other model files are never opened.
"""

from __future__ import annotations

from pathlib import Path

from fedcredit.errors import DataError
from fedcredit.report.files import Summary
from fedcredit.report.parts import cards_of, dropped_rows, learned, meters, owner_colours, routes
from fedcredit.report.read import party_names, read_heads, read_leakage, read_scorecard, read_transcript
from fedcredit.types import Role

__all__ = ["feature_holder_view"]


def feature_holder_view(run: Path, summary: Summary, party: str) -> dict[str, object]:
    """Everything that the template prints.

    Args:
        run: Run directory.
        summary: Its summary.
        party: A feature holder of the run.

    Raises:
        DataError: A file is missing or damaged, or the party's model file holds another party's features.
    """
    card_file = read_scorecard(run, party)
    owners = {part.owner for part in card_file.features} | {part.owner for part in card_file.dropped}
    if owners - {party}:
        raise DataError(
            "report.foreign-feature",
            f"model/{party}/scorecard.json holds a feature of another party; it must hold those of {party!r} only",
        )
    leakage, sent = read_leakage(run), read_transcript(run)
    parties = party_names(summary)
    mine = {party, Role.FEATURE_HOLDER.value}
    known = mine | {summary.bank, Role.LABEL_HOLDER.value, Role.COORDINATOR.value}
    cards = cards_of(card_file.features, party)
    ledgers = meters(leakage, party)
    own_routes = routes(sent, party)
    return {
        "party": party,
        "colours": owner_colours(parties),
        "cards": cards,
        "bins": sum(len(entry.bins) for entry in cards),
        "dropped": dropped_rows(card_file.dropped, party),
        "learned": learned(leakage, lambda receiver: receiver in mine, summary.bank),
        "disclosed": learned(leakage, lambda receiver: receiver in known - mine, summary.bank),
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
