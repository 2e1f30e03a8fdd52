"""The label holder's report as values for its template: what all kinds of model share, around the model's own part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from fedcredit.kernels.metrics import calibration_curve, gain_table
from fedcredit.report import bars, charts
from fedcredit.report.attention import Seen, points
from fedcredit.report.compare import auc_error, difference, equality, measured, rows_found, verdict
from fedcredit.report.files import Leakage, Sent, Settings, Summary
from fedcredit.report.parts import budget_words, learned, meters, routes
from fedcredit.report.read import read_heads, read_leakage, read_transcript
from fedcredit.report.sections import Contents, Evidence, LabelPart
from fedcredit.report.tables import read_predictions

__all__ = ["label_holder_view"]

_BEFORE: Final = (
    ("lift", "Lift"),
    ("separation", "Separation"),
    ("calibration", "Calibration"),
    ("gain", "Gain table"),
)
_AFTER: Final = (("learned", "What each party learned"), ("cost", "Cost"), ("evidence", "Evidence"))


def label_holder_view(
    run: Path,
    summary: Summary,
    settings: Settings,
    colours: Mapping[str, str],
    model: Callable[[Evidence], LabelPart],
) -> dict[str, object]:
    """Everything that the template prints, from the label holder's own files.

    Args:
        run: Run directory.
        summary: Its summary.
        settings: What the specification says of protection.
        colours: Colour of each party.
        model: What this kind of model adds.

    Raises:
        DataError: A file is missing or damaged.
    """
    held_out, leakage, sent = read_predictions(run), read_leakage(run), read_transcript(run)
    ledgers, lessons = meters(leakage), learned(leakage, lambda _: True, summary.bank)
    figures, bads = measured(held_out, summary), int(held_out.bad.sum())
    part = model(Evidence(run, summary, settings, held_out, figures, ledgers, colours))
    leak = _leak(summary, leakage)
    curve = calibration_curve(held_out.bad, held_out.probability)
    traffic = _bytes_by_party(summary, sent)
    return {
        "figures": figures,
        "verdict": verdict(figures, summary.bank),
        "lift": None if figures.alone is None else difference(figures.auc, figures.alone),
        "auc_error": auc_error(figures.auc, bads, held_out.bad.size - bads),
        "rows_test": int(held_out.bad.size),
        "bads_test": bads,
        "equality": equality(summary),
        "rows": rows_found(summary),
        "budget": budget_words(ledgers, leak),
        "leak": leak,
        "attention": points(summary, Seen(part.attention, ledgers, lessons, figures)),
        "part": part,
        **numbered((*_BEFORE, *part.contents, *_AFTER)),
        "gain": gain_table(held_out.bad, held_out.risk),
        "curve": curve,
        "learned": lessons,
        "meters": ledgers,
        "routes": routes(sent),
        "heads": read_heads(run),
        "charts": {
            "roc": charts.roc(held_out, figures),
            "compared": charts.compared(part.rivals),
            "separation": charts.separation(held_out, figures.ks),
            "distribution": charts.distribution(held_out),
            "calibration": charts.calibration(curve, figures.ece),
            "traffic": bars.traffic(traffic, colours) if traffic else None,
        },
    }


def numbered(contents: Contents) -> dict[str, object]:
    """Contents, and the number of each section by its anchor."""
    return {"contents": contents, "number": {anchor: place for place, (anchor, _) in enumerate(contents, start=1)}}


def _leak(summary: Summary, leakage: Leakage) -> float | None:
    """Power of two, None where nothing was encrypted or none is stated."""
    stated = leakage.statistical_leak_log2
    found = summary.disclosure.statistical_leak_log2 if stated is None else stated
    return found if summary.encryption.enabled else None


def _bytes_by_party(summary: Summary, sent: Sequence[Sent]) -> list[tuple[str, int]]:
    totals = dict(summary.bytes_sent)
    if not totals:
        for message in sent:
            totals[message.sender] = totals.get(message.sender, 0) + message.size
    return sorted(totals.items(), key=lambda entry: (-entry[1], entry[0]))
