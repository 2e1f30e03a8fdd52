"""What differential privacy says of a run of averaging: epsilon, the releases it follows from, what it leaves open."""

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


class _Bank(msgspec.Struct, frozen=True):
    name: str
    epsilon: float | None = None


class _File(msgspec.Struct, frozen=True):
    differential_privacy: _Block | None = None
    banks: list[_Bank] = []
    bank: str = ""


@dataclass(frozen=True)
class SpentRow:
    """One figure of the bank that the run cost most: what it is, epsilon, delta."""

    name: str
    epsilon: str
    delta: str


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
        headline: The figure and what it means.
        rows: Figures of the bank that the run cost most.
        limit: That bank's limit over all runs, "" for none.
        used: How much of it is used, in per cent.
        banks: Name and epsilon of every bank, the largest first; empty where one bank's own house writes.
        releases: What that bank released.
        accountant: Who counted.
        uncovered: What no figure covers, one sentence each.
    """

    protected: bool
    headline: str
    rows: list[SpentRow]
    limit: str
    used: float | None
    banks: list[tuple[str, str]]
    releases: list[ReleaseRow]
    accountant: str
    uncovered: list[str]


def privacy_part(run: Path) -> PrivacyPart | None:
    """The section of a run; None where its summary says nothing of differential privacy.

    Raises:
        DataError: summary.json is missing or damaged.
    """
    try:
        file = msgspec.json.decode(file_bytes(run / "summary.json", run), type=_File)
    except msgspec.MsgspecError as error:
        raise damaged(f"summary.json is damaged: {error}") from error
    block = file.differential_privacy
    if block is None:
        return None
    total_delta = block.delta if block.total_delta is None else block.total_delta
    used = None
    if block.max_epsilon:
        used = min(100.0, round(100 * _number(block.total_epsilon) / block.max_epsilon, 1))
    ranked = sorted(file.banks, key=lambda one: (-_number(one.epsilon), one.name))
    protected = block.unit != "none"
    return PrivacyPart(
        protected=protected,
        headline=_headline(block),
        rows=[
            SpentRow("Released in this run", _shown(block.epsilon), f"{block.delta:g}"),
            SpentRow("Planned for this run", _shown(block.planned_epsilon), f"{block.delta:g}"),
            SpentRow("All runs on the same version of the data", _shown(block.total_epsilon), f"{total_delta:g}"),
        ],
        limit="" if block.max_epsilon is None else f"{block.max_epsilon:g}",
        used=used,
        banks=[(one.name, _shown(one.epsilon)) for one in ranked],
        releases=[_release(event) for event in block.events],
        accountant=block.accountant,
        uncovered=_uncovered(block.unit) if protected else [],
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
