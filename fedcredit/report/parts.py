"""Parts that both kinds of report share, as plain values for the templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedcredit.report.files import Dropped, Encryption, Feature, Leakage, LedgerPage, Sent, Spent, Summary
from fedcredit.report.svg import OWNERS
from fedcredit.report.words import amount, count, decimals, dropped_reason, join, percent, power_of_two, role_name, size
from fedcredit.types import Role

__all__ = [
    "BinRow",
    "Card",
    "DroppedRow",
    "Learned",
    "Lesson",
    "Meter",
    "Route",
    "budget_words",
    "bytes_of",
    "cards_of",
    "commit",
    "dropped_rows",
    "encryption_words",
    "learned",
    "meters",
    "owner_colours",
    "routes",
    "title",
    "versions",
]


@dataclass(frozen=True)
class BinRow:
    """One line of a feature's bin table; ``low`` and ``width`` place its bar of points, in per cent of the cell."""

    label: str
    share: str
    bad_rate: str
    woe: str
    points: str
    low: float
    width: float
    negative: bool


@dataclass(frozen=True)
class Card:
    """One feature with its bins.

    Args:
        name: Its name to its owner, its code to everyone else.
        owner: Party that holds it.
        own: Whether the reader is the owner.
        zero: Where zero points stand in the bar cells, in per cent.
        feature: The numbers as read.
        bins: Its bins.
    """

    name: str
    owner: str
    own: bool
    zero: float
    feature: Feature
    bins: list[BinRow]

    @property
    def full_name(self) -> str:
        """A name that no other feature of the run has: another party's code with its owner."""
        return self.name if self.own else f"{self.owner} {self.name}"


@dataclass(frozen=True)
class DroppedRow:
    """A feature that did not enter, and why, in words."""

    owner: str
    name: str
    reason: str


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


def cards_of(features: Sequence[Feature], party: str) -> list[Card]:
    """Features as ``party`` may see them: names and labels only of its own, whatever the file holds.

    All bars of points have one scale, so that a long bar is a feature that moves the score.
    """
    shown = [part.points for feature in features for part in feature.bins]
    low, high = min([0.0, *shown]), max([0.0, *shown])
    return [_card(feature, party, low, (high - low) or 1.0) for feature in features]


def _card(feature: Feature, party: str, least: float, span: float) -> Card:
    own = feature.owner == party
    rows = sum((part.goods or 0) + (part.bads or 0) for part in feature.bins)
    lines = []
    for number, part in enumerate(feature.bins, start=1):
        here = None if part.goods is None or part.bads is None else part.goods + part.bads
        lines.append(
            BinRow(
                label=_label(part.label, feature.kind) if own and part.label else f"bin {number}",
                share=percent(None if here is None or rows == 0 else here / rows),
                bad_rate=percent(part.bads / here if here and part.bads is not None else None),
                woe=decimals(part.woe, 2),
                points=amount(part.points),
                low=round(100 * (min(part.points, 0.0) - least) / span, 2),
                width=round(100 * abs(part.points) / span, 2),
                negative=part.points < 0,
            )
        )
    name = feature.name if own and feature.name else feature.code
    return Card(name, feature.owner, own, round(-100 * least / span, 2), feature, lines)


def _label(label: str, kind: str | None) -> str:
    at_most = "<= "
    return f"≤ {label.removeprefix(at_most)}" if kind == "numeric" and label.startswith(at_most) else label


def dropped_rows(dropped: Sequence[Dropped], party: str) -> list[DroppedRow]:
    """Dropped features in words, with names only of the reader's own."""
    return [
        DroppedRow(row.owner, row.name if row.owner == party and row.name else row.code, dropped_reason(row))
        for row in dropped
    ]


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
    return lesson.learns.startswith("Nothing") or lesson.bound.startswith(("Public", "Known from"))


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
        ("Bins whose weight of evidence was returned", page.bins_returned, ""),
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


def _capped(cap: float | None) -> str:
    return "" if cap is None else f" (cap {amount(cap)})"


def budget_words(summary: Summary, leak: float | None) -> list[str]:
    """What encryption and ledger leave open, one sentence each."""
    spent = summary.disclosure
    words = []
    if spent.equations_per_feature is not None:
        words.append(f"{amount(spent.equations_per_feature)} sums about one feature{_capped(spent.cap)}")
    if spent.bits_per_row is not None:
        words.append(f"{amount(spent.bits_per_row)} bits about each row{_capped(spent.bits_per_row_cap)}")
    if spent.bins_returned is not None:
        words.append(f"{amount(spent.bins_returned)} bins returned to an owner{_capped(spent.bins_returned_cap)}")
    sentences = [f"At most {join(words)}."] if words else []
    if summary.encryption.enabled and leak is not None:
        sentences.append(f"Beyond these the encrypted answers give away at most {power_of_two(leak)} (statistical).")
    return sentences


def bytes_of(sent: Sequence[Sent]) -> str:
    """All bytes of a list of messages, in words."""
    return size(sum(message.size for message in sent))
