"""Parts that both kinds of report share, as plain values for the templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedcredit.report.files import Encryption, Leakage, LedgerPage, Sent, Spent, Summary
from fedcredit.report.svg import OWNERS
from fedcredit.report.words import amount, count, join, power_of_two, role_name
from fedcredit.types import Role

__all__ = [
    "BITMAPS",
    "Learned",
    "Lesson",
    "Meter",
    "Route",
    "budget_words",
    "commit",
    "encryption_words",
    "learned",
    "meters",
    "owner_colours",
    "routes",
    "title",
    "versions",
]


@dataclass(frozen=True)
class Lesson:
    """One thing learned, its bound, and every message field that teaches it."""

    learns: str
    bound: str
    fields: list[str]

    @property
    def unbounded(self) -> bool:
        """Whether the bound says that there is none."""
        return self.bound.startswith("None")


@dataclass(frozen=True)
class Learned:
    """All that one receiver learns.

    Args:
        receiver: Role in words, or a party.
        lessons: What it learns.
        empty: What reaches it but tells it nothing, or what is public anyway.
    """

    receiver: str
    lessons: list[Lesson]
    empty: list[Lesson]


BITMAPS: Final = "Bits disclosed about each row by one feature"
"""The currency of a feature's disclosed splits."""


@dataclass(frozen=True)
class Meter:
    """One currency of one disclosure ledger, with how much of its cap is used (0 to 1, None without a cap)."""

    party: str
    counterparty: str
    currency: str
    spent: str
    cap: str
    used: float | None
    note: str


@dataclass(frozen=True)
class Route:
    """Messages of one sender to one recipient."""

    sender: str
    recipient: str
    messages: int
    size: int


def owner_colours(parties: Sequence[str]) -> dict[str, str]:
    """A colour for each party, in order; more than six parties share."""
    return {party: OWNERS[place % len(OWNERS)] for place, party in enumerate(parties)}


def title(summary: Summary) -> str:
    """The run's name, or the start of its id where the summary has none."""
    return summary.name or f"Run {summary.run_id[:12]}"


def encryption_words(encryption: Encryption) -> str:
    """What protected the rows, or what follows from nothing having protected them."""
    if not encryption.enabled:
        return (
            "Encryption was switched off. Labels and row values crossed between the parties in the clear. This run "
            "must not be used with real records, and it says nothing of privacy."
        )
    words = [f"profile {encryption.profile}"] if encryption.profile else []
    if encryption.poly_degree is not None:
        words.append(f"ring degree {count(encryption.poly_degree)}")
    if encryption.plain_modulus_bits is not None:
        words.append(f"sums of {amount(encryption.plain_modulus_bits)} bits")
    return ", ".join(words)


def learned(leakage: Leakage, wanted: Callable[[str], bool], bank: str) -> list[Learned]:
    """Steps grouped by receiver, receivers in the order of their first step; equal lessons are told once."""
    groups: dict[str, dict[tuple[str, str], Lesson]] = {}
    for step in leakage.steps:
        if wanted(step.receiver):
            told = groups.setdefault(step.receiver, {})
            lesson = told.setdefault((step.learns, step.bound), Lesson(_upper(step.learns), _upper(step.bound), []))
            lesson.fields.append(f"{step.message} / {step.field}")
    return [
        Learned(
            f"{role_name(receiver)}, {bank}" if receiver == Role.LABEL_HOLDER else role_name(receiver),
            [lesson for lesson in told.values() if not _tells_nothing(lesson)],
            [lesson for lesson in told.values() if _tells_nothing(lesson)],
        )
        for receiver, told in groups.items()
    ]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tells_nothing(lesson: Lesson) -> bool:
    known = lesson.bound == "Known" or lesson.bound.startswith(("Public", "Known from"))
    return known or lesson.learns.startswith("Nothing")


def meters(leakage: Leakage, only: str | None = None) -> list[Meter]:
    """Disclosure ledgers in numbers: of every party, or of one."""
    lines: list[Meter] = []
    for party, held in leakage.ledger.items():
        if only not in (None, party):
            continue
        for page in held if isinstance(held, list) else [held]:
            lines += _page(party, page)
    return lines


def _page(party: str, page: LedgerPage) -> list[Meter]:
    counted = page.equations.features if page.equations and page.equations.features is not None else None
    features = "" if counted is None else f"largest of {count(counted)} features"
    lines = []
    for currency, spent, note in (
        ("Sums answered about one feature", page.equations, features),
        ("Bits disclosed about each row", page.row_bits, ""),
        (BITMAPS, page.feature_bits, "the largest"),
        ("Bins whose weight of evidence was returned", page.bins_returned, ""),
        ("Ids it was asked about, blinded", page.ids_asked, ""),
    ):
        if spent is not None and (spent.largest or spent.spent):
            lines.append(_meter(party, page.counterparty or "all", currency, spent, note))
    return lines


def _meter(party: str, counterparty: str, currency: str, spent: Spent, note: str) -> Meter:
    value = spent.largest if spent.largest is not None else spent.spent
    used = None if value is None or not spent.cap else value / spent.cap
    return Meter(party, counterparty, currency, amount(value), amount(spent.cap), used, note)


def routes(sent: Sequence[Sent], party: str | None = None) -> list[Route]:
    """Messages and bytes by sender and recipient, in the order of first use; of one party only if named."""
    totals: dict[tuple[str, str], list[int]] = {}
    for message in sent:
        if party is None or party in (message.sender, message.recipient):
            total = totals.setdefault((message.sender, message.recipient), [0, 0])
            total[0] += 1
            total[1] += message.size
    return [Route(sender, recipient, *total) for (sender, recipient), total in totals.items()]


def versions(summary: Summary) -> list[tuple[str, str]]:
    """Name and version of what the run used, by name."""
    return [(name, version or "–") for name, version in sorted(summary.versions.items())]


def commit(git: str | Mapping[str, str | bool | None] | None) -> str:
    """The source commit in words."""
    if git is None or isinstance(git, str):
        return git or "not recorded"
    changed = " with uncommitted changes" if git.get("dirty") else ""
    return f"{git.get('commit') or 'not recorded'}{changed}"


def budget_words(lines: Sequence[Meter], leak: float | None) -> list[str]:
    """What encryption and ledger leave open, one sentence each: of each currency the line nearest to its cap."""
    nearest: dict[str, Meter] = {}
    for line in lines:
        best = nearest.get(line.currency)
        if best is None or (line.used or 0.0) > (best.used or 0.0):
            nearest[line.currency] = line
    words = [
        f"{line.spent} {line.currency[0].lower()}{line.currency[1:]}"
        + (f" (cap {line.cap})" if line.used is not None else " (no cap)")
        for line in nearest.values()
    ]
    sentences = [f"At most {join(words)}."] if words else []
    if leak is not None:
        sentences.append(f"Beyond these the encrypted answers give away at most {power_of_two(leak)} (statistical).")
    return sentences
