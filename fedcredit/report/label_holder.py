"""The label holder's report as values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcredit.kernels.metrics import auc, brier, calibration_curve, ece, gain_table, gini, ks
from fedcredit.report import charts
from fedcredit.report.attention import Seen, points
from fedcredit.report.files import Leakage, Metrics, Sent, Summary
from fedcredit.report.parts import Card, budget_words, cards_of, dropped_rows, learned, meters, owner_colours, routes
from fedcredit.report.read import (
    Predictions,
    party_names,
    read_heads,
    read_leakage,
    read_predictions,
    read_scorecard,
    read_transcript,
)
from fedcredit.report.words import decimals, signed

__all__ = ["label_holder_view"]


@dataclass(frozen=True)
class _Compared:
    """One model in the comparison; ``bar`` is its AUC between 0.5 and 1 in per cent of the bar."""

    name: str
    metrics: Metrics
    bar: float
    kind: str


@dataclass(frozen=True)
class _Figures:
    """The measures of the common score, all from the predictions."""

    auc: float
    gini: float
    ks: float
    brier: float
    ece: float
    alone: float | None


def label_holder_view(run: Path, summary: Summary) -> dict[str, object]:
    """Everything that the template prints, from the label holder's own files.

    Args:
        run: Run directory.
        summary: Its summary.

    Raises:
        DataError: A file is missing or damaged.
    """
    card_file = read_scorecard(run, summary.bank)
    held_out, leakage, sent = read_predictions(run), read_leakage(run), read_transcript(run)
    parties = party_names(summary)
    colours = owner_colours((*parties, *sorted({feature.owner for feature in card_file.features} - set(parties))))
    cards = cards_of(card_file.features, summary.bank)
    figures, ledgers = _figures(held_out), meters(leakage)
    leak, lessons = _leak(summary, leakage), learned(leakage, lambda _: True, summary.bank)
    return {
        "colours": colours,
        "figures": figures,
        "verdict": _verdict(figures, summary.bank),
        "lift": None if figures.alone is None else figures.auc - figures.alone,
        "rows_test": int(held_out.bad.size),
        "bads_test": int(held_out.bad.sum()),
        "compared": _compared(summary, figures),
        "equality": _equality(summary),
        "reference": _reference(summary, figures.auc),
        "budget": budget_words(summary, leak),
        "leak": leak,
        "attention": points(summary, Seen(cards, ledgers, lessons, figures.auc, figures.ece)),
        "card_file": card_file,
        "owners": _by_owner(cards, colours),
        "cards": sorted(cards, key=_strength),
        "dropped": dropped_rows(card_file.dropped, summary.bank),
        "gain": gain_table(held_out.bad, -held_out.score),
        "curve": calibration_curve(held_out.bad, held_out.probability),
        "learned": lessons,
        "meters": ledgers,
        "routes": routes(sent),
        "heads": read_heads(run),
        "charts": _charts(held_out, cards, _bytes_by_party(summary, sent), colours, figures.ece),
    }


def _leak(summary: Summary, leakage: Leakage) -> float | None:
    stated = leakage.statistical_leak_log2
    return summary.disclosure.statistical_leak_log2 if stated is None else stated


def _strength(card: Card) -> float:
    return -(card.feature.iv or 0.0)


def _figures(held_out: Predictions) -> _Figures:
    bad, risk = held_out.bad, -held_out.score
    return _Figures(
        auc=auc(bad, risk),
        gini=gini(bad, risk),
        ks=ks(bad, risk),
        brier=brier(bad, held_out.probability),
        ece=ece(bad, held_out.probability),
        alone=None if held_out.alone is None else auc(bad, -held_out.alone),
    )


def _verdict(figures: _Figures, bank: str) -> str:
    together = f"Together: AUC {decimals(figures.auc)}"
    if figures.alone is None:
        return f"{together}."
    # The difference of the two printed numbers, so that a reader who subtracts finds what is written.
    lift = round(figures.auc, 3) - round(figures.alone, 3)
    return f"{together}, {bank} alone {decimals(figures.alone)}, lift {signed(lift)}."


def _compared(summary: Summary, figures: _Figures) -> list[_Compared]:
    entries = (
        (f"{summary.bank} alone", summary.metrics.alone, figures.alone, "alone"),
        ("Together, federated", summary.metrics.federated, figures.auc, "together"),
        ("Pooled plain data, same computation", summary.metrics.pooled_plaintext, summary.auc_pooled_plaintext, "same"),
        ("Pooled plain data, reference library", summary.metrics.reference, summary.auc_pooled_reference, "reference"),
    )
    rows = []
    for name, stated, fallback, kind in entries:
        metrics = stated or Metrics(auc=fallback)
        if metrics.auc is not None:
            rows.append(_Compared(name, metrics, round(max(0.0, 200 * (metrics.auc - 0.5)), 2), kind))
    return rows


def _equality(summary: Summary) -> tuple[str, str]:
    """A short heading and one sentence."""
    ours, pooled = summary.auc_test, summary.auc_pooled_plaintext
    if ours is None or pooled is None:
        return (
            "Not compared with pooled plain data.",
            "Only a simulation holds all rows in one place and can make that comparison.",
        )
    if ours == pooled and summary.scores_equal_pooled_plaintext is not False:
        same = "every held-out row the same score and " if summary.scores_equal_pooled_plaintext else ""
        return (
            "Federated = pooled plaintext.",
            f"The same computation on pooled plain rows gives {same}AUC {decimals(pooled, 6)}, equal in every digit.",
        )
    return (
        "Federated differs from pooled plaintext.",
        f"AUC {decimals(ours, 6)} against {decimals(pooled, 6)}, or unequal scores. Do not use this model.",
    )


def _reference(summary: Summary, ours: float) -> tuple[str, str]:
    reference = summary.auc_pooled_reference
    if reference is None:
        return "No reference.", "This run did not fit a reference model on pooled rows."
    return (
        f"Distance to the reference: {signed(ours - reference, 4)} AUC.",
        f"A standard library on the pooled rows, without noise or rounding, reaches {decimals(reference, 4)}.",
    )


def _by_owner(cards: Sequence[Card], colours: Mapping[str, str]) -> list[tuple[str, list[Card]]]:
    groups = [(owner, sorted((card for card in cards if card.owner == owner), key=_strength)) for owner in colours]
    return [(owner, held) for owner, held in groups if held]


def _bytes_by_party(summary: Summary, sent: Sequence[Sent]) -> list[tuple[str, int]]:
    totals = dict(summary.bytes_sent)
    if not totals:
        for message in sent:
            totals[message.sender] = totals.get(message.sender, 0) + message.size
    return sorted(totals.items(), key=lambda entry: (-entry[1], entry[0]))


def _charts(
    held_out: Predictions,
    cards: Sequence[Card],
    sent: Sequence[tuple[str, int]],
    colours: Mapping[str, str],
    error: float,
) -> dict[str, str]:
    drawn: dict[str, str] = {
        "roc": charts.roc(held_out),
        "separation": charts.separation(held_out),
        "distribution": charts.distribution(held_out),
        "calibration": charts.calibration(calibration_curve(held_out.bad, held_out.probability), error),
    }
    ranked = [(card.full_name, card.owner, card.feature.iv) for card in cards if card.feature.iv is not None]
    if ranked:
        ranked.sort(key=lambda entry: -entry[2])
        drawn["iv"] = charts.iv_ranking(ranked, colours)
    moved = [
        (card.full_name, card.owner, card.feature.stability) for card in cards if card.feature.stability is not None
    ]
    if moved:
        moved.sort(key=lambda entry: -entry[2])
        drawn["stability"] = charts.stability(moved, colours)
    if sent:
        drawn["traffic"] = charts.traffic(sent, colours)
    return drawn


def _ranked(cards: Sequence[Card], values: Sequence[float | None]) -> list[tuple[str, str, float]]:
    """Name, owner and value of the features that have one, largest first."""
    pairs = zip(cards, values, strict=True)
    return sorted(
        ((card.full_name, card.owner, value) for card, value in pairs if value is not None), key=lambda entry: -entry[2]
    )
