"""A scorecard in the reports: its sections at the label holder, and at a feature holder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fedcredit.errors import DataError
from fedcredit.kernels.stability import MOVING
from fedcredit.report import bars
from fedcredit.report.cards import Card, cards_of, dropped_rows
from fedcredit.report.compare import Figures, Rival, reference, rivals
from fedcredit.report.files import Settings, Summary
from fedcredit.report.read import check_owners, read_scorecard
from fedcredit.report.sections import Evidence, HolderPart, LabelPart, Tile
from fedcredit.report.words import count, decimals, join

__all__ = ["holder_scorecard", "label_scorecard"]

_SIGNIFICANT: Final = 0.05  # customary level of a coefficient's test
_TOO_STRONG: Final = 0.5  # beyond it a feature may know the answer: Siddiqi, "Credit Risk Scorecards" (2006), ch. 6

_TERMS: Final = (
    ("WOE", "Weight of evidence of a bin: log of its share of goods over its share of bads. Higher is safer."),
    (
        "IV",
        "Information value of a feature: below 0.02 very weak, to 0.1 weak, to 0.3 medium, to 0.5 strong.",
    ),
    ("Stability", "Population stability index: below 0.10 stable, to 0.25 watch, from 0.25 shifted."),
    ("Sign", "A coefficient is expected to be positive, so that safer bins earn more points."),
)


def label_scorecard(seen: Evidence) -> LabelPart:
    """The scorecard at the label holder.

    Raises:
        DataError: Its file is missing or damaged.
    """
    summary = seen.summary
    card_file = read_scorecard(seen.run, summary.bank)
    owners = [feature.owner for feature in card_file.features]
    check_owners(owners, seen.colours, f"model/{summary.bank}/scorecard.json")
    cards = cards_of(card_file.features, summary.bank)
    dropped = dropped_rows(card_file.dropped, summary.bank)
    return LabelPart(
        template="scorecard.html.j2",
        contents=(("scorecard", "Scorecard"), ("selection", "Features")),
        values={
            "file": card_file,
            "owners": _by_owner(cards, seen.colours),
            "cards": sorted(cards, key=_strength),
            "dropped": dropped,
            "charts": _charts(cards, seen.colours),
        },
        about=f"fit: {summary.fit.method}" if summary.fit.method else "",
        tile=Tile("Features", count(len(cards)), f"of {count(len(cards) + len(dropped))} offered"),
        lift_title=f"Lift over {summary.bank} alone",
        rivals=_rivals(summary, seen.figures),
        statements=(reference(summary, seen.figures.auc, "A standard library"),),
        attention=_attention(cards),
        calm="Signs, significance, stability, calibration and disclosure are inside the limits that this report "
        "checks.",
        terms=_TERMS,
    )


def holder_scorecard(run: Path, _: Settings, party: str) -> HolderPart:
    """A feature holder's part of the scorecard.

    Raises:
        DataError: Its file is missing or damaged, or holds another party's features.
    """
    card_file = read_scorecard(run, party)
    owners = {part.owner for part in card_file.features} | {part.owner for part in card_file.dropped}
    if owners - {party}:
        raise DataError(
            "report.foreign-feature",
            f"model/{party}/scorecard.json holds a feature of another party; it must hold those of {party!r} only",
        )
    cards, dropped = cards_of(card_file.features, party), dropped_rows(card_file.dropped, party)
    offered = f" of {len(cards) + len(dropped)}" if dropped else ""
    one = len(cards) == 1
    verb = "is" if one and not dropped else "are"
    return HolderPart(
        template="scorecard_holder.html.j2",
        values={"cards": cards, "dropped": dropped},
        verdict=f"{len(cards)}{offered} feature{'' if one else 's'} of {party} {verb} in the scorecard.",
        tiles=(
            Tile("Features in use", count(len(cards)), f"{len(dropped)} left out" if dropped else "in the scorecard"),
            Tile("Bins", count(sum(len(card.bins) for card in cards)), "with weight of evidence"),
        ),
    )


def _strength(card: Card) -> float:
    return -(card.feature.iv or 0.0)


def _by_owner(cards: Sequence[Card], colours: Mapping[str, str]) -> list[tuple[str, list[Card]]]:
    groups = [(owner, sorted((card for card in cards if card.owner == owner), key=_strength)) for owner in colours]
    return [(owner, held) for owner, held in groups if held]


def _rivals(summary: Summary, figures: Figures) -> list[Rival]:
    bank, metrics = summary.bank, summary.metrics
    plain = "Pooled plain data, same computation"
    library = "Pooled plain data, reference library"
    return rivals(
        [
            ("alone", f"{bank} alone", f"A scorecard of the columns of {bank}.", metrics.alone, figures.alone),
            ("together", "Together, federated", "This run.", metrics.federated, figures.auc),
            ("same", plain, "As this run, but in the clear.", metrics.pooled_plaintext, summary.auc_pooled_plaintext),
            (
                "reference",
                library,
                "Logistic regression of a standard library on the same bins.",
                metrics.reference,
                summary.auc_pooled_reference,
            ),
        ]
    )


def _attention(cards: Sequence[Card]) -> list[str]:
    found = []
    if wrong := [f"{card.owner} {card.name}" for card in cards if card.feature.sign_ok is False]:
        found.append(f"Coefficient with the unexpected sign: {join(wrong)}. Safer bins would lose points.")
    weak = [card for card in cards if card.feature.p_value is not None and card.feature.p_value > _SIGNIFICANT]
    if weak:
        named = join([f"{card.owner} {card.name} (p {decimals(card.feature.p_value)})" for card in weak])
        found.append(f"Not significant at {_SIGNIFICANT:.0%}: {named}.".replace("%", " %"))
    moved = [card for card in cards if (card.feature.stability or 0.0) >= MOVING]
    if moved:
        named = join([f"{card.owner} {card.name} ({decimals(card.feature.stability, 2)})" for card in moved])
        found.append(f"Population stability of {decimals(MOVING, 2)} or more: {named}.")
    if strong := [f"{card.owner} {card.name}" for card in cards if (card.feature.iv or 0.0) > _TOO_STRONG]:
        found.append(f"Information value above {_TOO_STRONG}: {join(strong)}. Check that it was known before the loan.")
    return found


def _charts(cards: Sequence[Card], colours: Mapping[str, str]) -> dict[str, str]:
    drawn: dict[str, str] = {}
    if ranked := _ranked(cards, [card.feature.iv for card in cards]):
        drawn["iv"] = bars.iv_ranking(ranked, colours)
    if moved := _ranked(cards, [card.feature.stability for card in cards]):
        drawn["stability"] = bars.stability(moved, colours)
    return drawn


def _ranked(cards: Sequence[Card], values: Sequence[float | None]) -> list[tuple[str, str, float]]:
    """Name, owner and value of the features that have one, largest first."""
    pairs = zip(cards, values, strict=True)
    return sorted(
        ((card.full_name, card.owner, value) for card, value in pairs if value is not None), key=lambda entry: -entry[2]
    )
