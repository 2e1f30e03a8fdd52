"""What differential privacy says of a run of averaging: epsilon bank by bank, its releases, what they leave open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from fedcredit.report.read import damaged, file_bytes
from fedcredit.report.words import count, percent

__all__ = ["PrivacyPart", "ReleaseRow", "SpentRow", "privacy_part"]

_UNITS: Final = {"record": "one row of one bank", "bank": "all rows of one bank"}
_NAMES: Final = {"columns": "Sums by which banks agreed on columns", "update": "Updates, round by round"}
_HOW: Final = {
    "sampled_gaussian": "in each step inside the bank, on rows drawn at random",
    "discrete_sum": "in the sum, a share from each bank",
    "none": "none",
}


class _Event(msgspec.Struct, frozen=True):
    release: str
    mechanism: str
    noise_multiplier: float
    rate: float
    steps: int
    times: int


class _Block(msgspec.Struct, frozen=True):
    """What `PrivacySpent.block` wrote; an epsilon of None is infinite."""

    unit: str
    delta: float
    accountant: str
    events: list[_Event]
    epsilon: float | None = None
    planned_epsilon: float | None = None
    total_epsilon: float | None = None
    total_delta: float | None = None
    max_epsilon: float | None = None


class _File(msgspec.Struct, frozen=True):
    differential_privacy: dict[str, _Block] | None = None


@dataclass(frozen=True)
class SpentRow:
    """One bank: epsilon of the run, of its plan, of all runs on its data, its limit, and the part used in per cent."""

    bank: str
    epsilon: str
    planned: str
    total: str
    limit: str
    used: float | None


@dataclass(frozen=True)
class ReleaseRow:
    """One kind of release in words."""

    name: str
    how: str
    multiplier: str
    rate: str
    number: str


@dataclass(frozen=True)
class PrivacyPart:
    """The section.

    Args:
        protected: Whether there was noise.
        unit: What it protects, in words.
        headline: The figure and what it means.
        rows: Banks, the largest epsilon first.
        releases: Of the bank with the largest epsilon.
        whose: That bank.
        delta: Of the run's figures.
        total_delta: Of those over all runs.
        accountant: Who counted.
        uncovered: What no figure covers, one sentence each.
    """

    protected: bool
    unit: str
    headline: str
    rows: list[SpentRow]
    releases: list[ReleaseRow]
    whose: str
    delta: str
    total_delta: str
    accountant: str
    uncovered: list[str]


def privacy_part(run: Path) -> PrivacyPart | None:
    """The section of a run; None where its summary says nothing of differential privacy.

    Raises:
        DataError: summary.json is missing or damaged.
    """
    try:
        blocks = msgspec.json.decode(file_bytes(run / "summary.json", run), type=_File).differential_privacy
    except msgspec.MsgspecError as error:
        raise damaged(f"summary.json is damaged: {error}") from error
    if not blocks:
        return None
    ranked = sorted(blocks.items(), key=lambda one: (-_number(one[1].epsilon), one[0]))
    whose, worst = ranked[0]
    protected = worst.unit != "none"
    return PrivacyPart(
        protected=protected,
        unit=_UNITS.get(worst.unit, "nothing"),
        headline=_headline(worst),
        rows=[_row(bank, block) for bank, block in ranked],
        releases=[_release(event) for event in worst.events],
        whose=whose,
        delta=f"{worst.delta:g}",
        total_delta=f"{worst.delta if worst.total_delta is None else worst.total_delta:g}",
        accountant=worst.accountant,
        uncovered=_uncovered(worst.unit) if protected else [],
    )


def certainty(epsilon: float, delta: float) -> float:
    """How often an attacker who was undecided can be right about one unit, at best.

    Source: Kairouz, Oh, Viswanath, ICML 2015, theorem 2.1: both kinds of error together are at least
    2 (1 - delta) / (1 + exp(epsilon)).
    """
    return 1 - (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))


def _headline(block: _Block) -> str:
    if block.unit == "none" or block.epsilon is None:
        return (
            "No noise was added to what the banks averaged: encryption hides each bank's part, but nothing bounds what "
            "the common model itself says of a row."
        )
    unit = _UNITS.get(block.unit, block.unit)
    right = percent(certainty(block.epsilon, block.delta))
    return (
        f"Epsilon {_shown(block.epsilon)} at delta {block.delta:g} for {unit}. Who sees all that was released and is "
        f"undecided whether {unit} took part is right in at most {right} of such cases; guessing is right in 50 %."
    )


def _row(bank: str, block: _Block) -> SpentRow:
    used = None
    if block.max_epsilon:
        used = min(100.0, round(100 * _number(block.total_epsilon) / block.max_epsilon, 1))
    return SpentRow(
        bank,
        _shown(block.epsilon),
        _shown(block.planned_epsilon),
        _shown(block.total_epsilon),
        "none" if block.max_epsilon is None else f"{block.max_epsilon:g}",
        used,
    )


def _release(event: _Event) -> ReleaseRow:
    number = count(event.times) if event.steps == 1 else f"{count(event.times)} × {count(event.steps)} steps"
    return ReleaseRow(
        _NAMES.get(event.release, event.release),
        _HOW.get(event.mechanism, event.mechanism),
        f"{event.noise_multiplier:g}" if event.noise_multiplier else "–",
        percent(event.rate),
        number,
    )


def _uncovered(unit: str) -> list[str]:
    sentences = [
        "Numbers of rows, which banks take part, and measures on held-out rows are not covered.",
        "A new version of the data has an account of its own, whatever rows it shares with the one before.",
    ]
    if unit == "record":
        sentences.append("An enterprise that several banks know has a row at each, and each bank counts its own.")
    else:
        sentences.append("The figure allows for secure_sum.colluding banks that add no noise, and for no more of them.")
    return sentences


def _number(epsilon: float | None) -> float:
    return math.inf if epsilon is None else epsilon


def _shown(epsilon: float | None) -> str:
    """Rounded up: what is printed is never less than what holds."""
    return "∞" if epsilon is None else f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"
