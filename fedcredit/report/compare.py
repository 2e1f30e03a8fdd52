"""How good the common model is, beside the models that a simulation can hold against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcredit.kernels.metrics import auc, brier, ece, gini, ks
from fedcredit.report.files import Metrics, Summary
from fedcredit.report.tables import Predictions
from fedcredit.report.words import count, decimals, signed

__all__ = [
    "SAME_AUC",
    "Figures",
    "Rival",
    "auc_error",
    "difference",
    "equality",
    "measured",
    "reference",
    "rivals",
    "rows_found",
    "verdict",
]

SAME_AUC: Final = 5e-4
"""AUCs of one model that differ by less differ by the rounding of points."""


@dataclass(frozen=True)
class Figures:
    """The measures of the common model on the held-out rows, from the predictions; ``alone`` is an AUC."""

    auc: float
    gini: float
    ks: float
    brier: float
    ece: float
    alone: float | None


@dataclass(frozen=True)
class Rival:
    """One model in the comparison.

    Args:
        kind: Colour of its bar: ``alone``, ``together``, ``same``, ``bare`` or ``reference``.
        name: What to call it.
        what: What it is, in a sentence.
        metrics: Its measures, the AUC among them.
    """

    kind: str
    name: str
    what: str
    metrics: Metrics

    @property
    def auc(self) -> float:
        """Its AUC."""
        return self.metrics.auc or 0.0

    def against(self, ours: float) -> str:
        """Its AUC less another, as printed."""
        return signed(difference(self.auc, ours), 4)

    @property
    def bar(self) -> float:
        """Its AUC between 0.5 and 1 in per cent of a bar."""
        return round(max(0.0, 200 * (self.auc - 0.5)), 2)


def measured(held_out: Predictions, summary: Summary) -> Figures:
    """Measures from the predictions; the label holder's own AUC as the run states it if its points agree."""
    bad, risk = held_out.bad, held_out.risk
    alone = None if held_out.alone is None else auc(bad, -held_out.alone)
    stated = summary.metrics.alone.auc if summary.metrics.alone else None
    if alone is not None and stated is not None and abs(alone - stated) < SAME_AUC:
        alone = stated  # points are rounded, what the run measured is not
    return Figures(
        auc=auc(bad, risk),
        gini=gini(bad, risk),
        ks=ks(bad, risk),
        brier=brier(bad, held_out.probability),
        ece=ece(bad, held_out.probability),
        alone=alone,
    )


def difference(first: float, second: float) -> float:
    """The difference of two AUCs as printed, so that a reader who subtracts finds what is written."""
    return round(first, 4) - round(second, 4)


def auc_error(value: float, bads: int, goods: int) -> float:
    """Standard error of an AUC, by Hanley & McNeil (1982), equation 1 with their exponential approximation."""
    first, second = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value) + (bads - 1) * (first - value**2) + (goods - 1) * (second - value**2)
    return float(np.sqrt(max(0.0, spread) / (bads * goods)))


def rivals(entries: Sequence[tuple[str, str, str, Metrics | None, float | None]]) -> list[Rival]:
    """The models whose AUC is known.

    Args:
        entries: Kind, name, what it is, measures, and the AUC where there are no measures.
    """
    found = [
        Rival(kind, name, what, metrics or Metrics(auc=fallback)) for kind, name, what, metrics, fallback in entries
    ]
    return [one for one in found if one.metrics.auc is not None]


def verdict(figures: Figures, bank: str) -> str:
    """The lift in a line."""
    together = f"Together: AUC {decimals(figures.auc, 4)}"
    if figures.alone is None:
        return f"{together}."
    lift = signed(difference(figures.auc, figures.alone), 4)
    return f"{together}, {bank} alone {decimals(figures.alone, 4)}, lift {lift}."


def equality(summary: Summary) -> tuple[str, str]:
    """Whether the parties' messages gave what pooled rows give: a short heading and one sentence."""
    ours, pooled = summary.auc_test, summary.auc_pooled_plaintext
    if ours is None or pooled is None:
        return (
            "Not compared with pooled plain data.",
            "Only a simulation holds all rows in one place and can make that comparison.",
        )
    unequal = False in (summary.scores_equal_pooled_plaintext, summary.model_equals_pooled_plaintext)
    if ours == pooled and not unequal:
        same = "every held-out row the same score and " if summary.scores_equal_pooled_plaintext else ""
        same = f"the same model, {same}" if summary.model_equals_pooled_plaintext else same
        return (
            "Federated = pooled plaintext.",
            f"The same computation on pooled plain rows gives {same}AUC {decimals(pooled, 6)}, equal in every digit.",
        )
    return (
        "Federated differs from pooled plaintext.",
        f"AUC {decimals(ours, 6)} against {decimals(pooled, 6)}, or unequal scores. Do not use this model.",
    )


def rows_found(summary: Summary) -> tuple[str, str] | None:
    """Who learned who is a customer: a short heading and one sentence; None where the summary does not say."""
    if summary.align is None or summary.rows_common is None:
        return None
    found, left = _who_is_who(summary), summary.align.rows_left_out
    if not left or found is None:
        return found
    where = "in the register" if summary.align.mode == "registry" else "known to all parties"
    return found[0], f"{found[1]} {count(left)} more rows of {summary.bank} are not {where} and take no part."


def _who_is_who(summary: Summary) -> tuple[str, str] | None:
    if summary.align is None or summary.rows_common is None:
        return None
    bank, rows = summary.bank, count(summary.rows_common)
    own = count((summary.rows_train or 0) + (summary.rows_test or 0))
    if summary.align.mode == "registry":
        text = (
            f"All parties computed over the {rows} enterprises of the register; {own} of them counted, and only {bank}"
        )
        return "Nobody learned who banks where.", f"{text} knows which."
    if summary.align.mode == "blind" and summary.align.decoys:
        text = f"Of {rows} rows that all parties have, {own} are customers of {bank}; the others are decoys, and no"
        return "Rows were found without showing an id.", f"{text} feature holder can tell which."
    if summary.align.mode == "blind":
        return (
            "Every feature holder learned who is a customer.",
            f"Ids were matched blindly but without decoys: each holder knows which of its rows are among the {rows}.",
        )
    return ("Ids were matched in the open.", f"{bank} saw every id of every party: for simulations and trials only.")


def reference(summary: Summary, ours: float, library: str) -> tuple[str, str]:
    """The distance to a library that has all rows: a short heading and one sentence."""
    found = summary.auc_pooled_reference
    if found is None:
        return "No reference.", "This run did not fit a reference model on pooled rows."
    return (
        f"Distance to the reference: {signed(difference(ours, found), 4)} AUC.",
        f"{library} on the pooled rows, without noise or rounding, reaches {decimals(found, 4)}.",
    )
