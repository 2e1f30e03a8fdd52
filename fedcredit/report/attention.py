"""Points for attention: what a committee should ask about, by limits that are printed with each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fedcredit.report.compare import SAME_AUC, Figures, difference
from fedcredit.report.files import Settings, Summary
from fedcredit.report.parts import BITMAPS, Learned, Meter
from fedcredit.report.words import count, decimals, percent, signed

__all__ = ["Seen", "alarms", "points"]

_MISCALIBRATED: Final = 0.02  # two points of bad rate on average change a price
_SLOPE: Final = 0.1  # scores a tenth too steep or too flat
_NEAR_CAP: Final = 0.8  # four fifths of a cap leave no room for a second run
_FEW_BADS: Final = 200  # below it the standard error of an AUC near 0.75 passes 0.015 (Hanley & McNeil 1982)


@dataclass(frozen=True)
class Seen:
    """What the report found.

    Args:
        model: What is outside its limits in the model itself.
        meters: Disclosure ledgers.
        lessons: What each party learned.
        figures: Measures from the predictions.
    """

    model: Sequence[str]
    meters: Sequence[Meter]
    lessons: Sequence[Learned]
    figures: Figures


def alarms(settings: Settings, bank: str) -> list[tuple[str, str]]:
    """Protections that the specification switches off: a short heading and a sentence each; empty if none is."""
    exact = (
        f"{bank} got exact sums of its own gradients by bin. From enough of them follows the bin of every single row."
    )
    limits = f"{bank} may have had every bin limit of a feature that helps disclosed, and so the bin of each row."
    ledger = "Every node counted what it disclosed and refused nothing."
    boost = settings.boost
    found = [
        ("No noise on sums.", exact, boost is not None and settings.privacy.noise_rows == 0),
        ("No cap on thresholds.", limits, boost is not None and boost.holder_thresholds == 0),
        ("No ledger was enforced.", ledger, not settings.privacy.enforce),
    ]
    return [(heading, sentence) for heading, sentence, off in found if off]


def points(summary: Summary, seen: Seen) -> list[str]:
    """What lies outside the limits, as sentences, the gravest first; empty if all is inside."""
    return [
        *_run(summary, seen.figures.auc),
        *_unbounded(seen.lessons),
        *_measures(summary, seen.figures.ece),
        *seen.model,
        *_ledgers(seen.meters),
    ]


def _unbounded(lessons: Sequence[Learned]) -> list[str]:
    found = []
    for group in lessons:
        for lesson in group.lessons:
            if lesson.unbounded:
                what, why = lesson.learns, lesson.bound.partition(":")[2].strip()
                named = f"{what[0].lower()}{what[1:]}{f' ({why})' if why else ''}"
                found.append(f"{group.receiver}: learns, without a bound, {named}.")
    return found


def _run(summary: Summary, recomputed: float) -> list[str]:
    found = []
    if not summary.encryption.enabled:
        found.append("Encryption was off. Nothing in this report speaks for privacy.")
    if summary.entropy not in (None, "system"):
        found.append(
            "Keys came from a fixed seed so that the run can be repeated exactly. Whoever has the seed can open every "
            "message: for simulations only."
        )
    if summary.auc_test is not None and abs(summary.auc_test - recomputed) > SAME_AUC:
        found.append(
            f"The summary states AUC {decimals(summary.auc_test, 4)}, the held-out predictions give "
            f"{decimals(recomputed, 4)}. One of the two files is not of this run."
        )
    pooled = summary.auc_pooled_plaintext
    if summary.auc_test is not None and pooled is not None and pooled != summary.auc_test:
        found.append(
            f"The same computation on pooled plain data gives AUC {decimals(pooled, 6)}, not "
            f"{decimals(summary.auc_test, 6)}. They must be equal."
        )
    return found


def _measures(summary: Summary, error: float) -> list[str]:
    found = []
    alone = summary.auc_label_holder_alone
    if summary.auc_test is not None and alone is not None and summary.auc_test <= alone:
        found.append(f"The other parties' data did not help: lift {signed(difference(summary.auc_test, alone), 4)}.")
    if summary.positives_test is not None and summary.positives_test < _FEW_BADS:
        found.append(
            f"Only {count(summary.positives_test)} held-out bads (fewer than {_FEW_BADS}): read AUC with care."
        )
    if error > _MISCALIBRATED:
        found.append(f"Predicted bad rates are off by {percent(error)} on average (limit {percent(_MISCALIBRATED)}).")
    slope = summary.calibration.slope
    doubt = 2 * (summary.calibration.slope_error or 0.0)
    if slope is not None and abs(slope - 1) > max(_SLOPE, doubt):
        side = "too extreme" if slope < 1 else "too cautious"
        found.append(
            f"Calibration slope {decimals(slope, 2)}: predictions are {side} (1.00 ± {_SLOPE:.2f} is accepted)."
        )
    return found


def _ledgers(meters: Sequence[Meter]) -> list[str]:
    """Caps that are nearly spent; the few splits of a column are there to be spent, by the columns that matter."""
    return [
        f"{line.party} has spent {percent(line.used, 0)} of a disclosure cap towards {line.counterparty}: "
        f"{line.currency[0].lower()}{line.currency[1:]} ({line.spent} of {line.cap})."
        for line in meters
        if line.used is not None and line.used >= _NEAR_CAP and line.currency != BITMAPS
    ]
