"""The disclosure ledger: what a house has told each counterparty about each version of its data, across runs.

A run first declares what it will spend at most (all of it or nothing), then spends within that. A spend is committed to
disk before the answer it pays for leaves; the same request is answered with the same bytes for free; spent is spent,
also when the run dies. Declarations reserve nothing against other runs: the cap is checked again at every spend.

Not covered: a house that edits its own ledger (it protects that house), and counterparties that pool what they learn.

Source: docs/adr/0004-disclosure-ledger.md; measurements in docs/attacks.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import Self

from fedcredit.errors import DisclosureRefused
from fedcredit.governance.books import Account, Books, Entry, costs_text, names_ids_only
from fedcredit.governance.caps import CapRules, Caps
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend

__all__ = ["Ledger", "LedgerLine"]

_UNIT = 1000
"""Amounts are kept in whole thousandths, rounded up: sums are exact and never too low."""


@dataclass(frozen=True)
class LedgerLine:
    """The ledger in numbers for one counterparty and data version, all runs together.

    Args:
        counterparty: Who was told.
        data_version: Of which table.
        equations: Largest number of equations spent on one feature.
        equations_feature: That feature.
        equations_cap: Cap in force for the run asked about; None where caps are not enforced.
        row_bits: Bits about every row, totals and bitmaps together.
        row_bits_cap: Their caps together: of the totals of the whole party, and of each feature with a bitmap; None as
            above.
        feature_bits: Largest number of bits about every row in bitmaps of one feature.
        feature_bits_cap: Cap on them; None as above.
        bins_returned: Bins returned to their owner.
        bins_returned_cap: Their cap; None as above.
        noise_rows: Smallest noise the run declared, in rows; infinite where it declared ids alone.
        ids_asked: Ids asked in blind alignments.
        ids_asked_cap: Their cap; None as above.
    """

    counterparty: PartyId
    data_version: str
    equations: float
    equations_feature: str
    equations_cap: float | None
    row_bits: float
    row_bits_cap: float | None
    feature_bits: float
    feature_bits_cap: float | None
    bins_returned: float
    bins_returned_cap: float | None
    noise_rows: float
    ids_asked: float = 0.0
    ids_asked_cap: float | None = None


class Ledger:
    """One house's ledger.

    Args:
        path: Its file, created if absent, readable by its owner only; ``":memory:"`` forgets (tests, simulations).
        rules: The house's policy on caps.

    Raises:
        IntegrityError: the file is not a ledger of this version.
    """

    def __init__(self, path: Path | str, rules: CapRules | None = None) -> None:
        self._rules = rules or CapRules()
        self._books = Books(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was spent is on disk already."""
        self._books.close()

    def declare(self, run: RunId, counterparty: PartyId, declaration: Declaration) -> None:
        """Admits all that a protocol will spend with a counterparty, or nothing of it.

        The caps of a run are the strictest of those that follow from its declared bases.

        Raises:
            DisclosureRefused: a cap would be passed, the purpose was declared with other content, the run is closed,
                or the run already works on another data version with this counterparty.
        """
        entry = Entry(run, counterparty)
        asked = _by_account(declaration.costs)
        with self._books.transaction():
            self._check_open(run)
            known = self._books.declarations(entry)
            if declaration.purpose in known:
                content = (declaration.data_version, declaration.basis, costs_text(asked))
                if known[declaration.purpose] != content:
                    raise DisclosureRefused(
                        "ledger.redeclared",
                        f"{declaration.purpose!r} was declared to {counterparty} with other content",
                    )
                return
            if any(version != declaration.data_version for version, _, _ in known.values()):
                raise DisclosureRefused(
                    "ledger.data-version", f"this run already answers {counterparty} from another version of the data"
                )
            caps = self._caps(entry, declaration.basis, ids_only=_ids_only(asked))
            self._admit(entry, declaration.data_version, asked, caps)
            self._books.add_declaration(entry, declaration, asked)

    def _admit(self, entry: Entry, version: str, asked: Mapping[Account, int], caps: Caps) -> None:
        """Refuses amounts that would pass a cap, naming the account furthest beyond it."""
        over: list[tuple[float, str]] = []
        for account, amount in asked.items():
            used = self._books.total(entry.counterparty, version, account) + self._books.pending(entry, account)
            cap = caps.for_cost(*account) * _UNIT
            if amount and used + amount > cap:
                over.append((used + amount - cap, _refusal(account, entry.counterparty, (amount, used, cap))))
        if over:
            over.sort(key=lambda one: (-one[0], one[1]))
            others = f" (and {len(over) - 1} more)" if len(over) > 1 else ""
            raise DisclosureRefused("ledger.cap", over[0][1] + others)

    def spend(self, run: RunId, counterparty: PartyId, spend: Spend, response: bytes) -> bytes:
        """Pays for one answer and keeps it; committed to disk when this returns.

        Args:
            run: The run.
            counterparty: Who will be told.
            spend: The request answered, and its cost.
            response: The answer's bytes.

        Returns:
            The bytes that may leave: those given, or the same ones stored before (which cost nothing again).

        Raises:
            DisclosureRefused: nothing was declared, the declaration or a cap would be passed, the run is closed, or
                the request was answered before with other bytes.
        """
        entry = Entry(run, counterparty)
        digest = hashlib.sha256(response).hexdigest()
        with self._books.transaction():
            self._check_open(run)
            stored = self._books.answer(entry, spend.request)
            if stored is not None:
                if stored[0] != digest or stored[1] is None:
                    raise DisclosureRefused(
                        "ledger.answer-differs", f"a request of {counterparty} was already answered with other bytes"
                    )
                return stored[1]
            costs = {account: amount for account, amount in _by_account(spend.costs).items() if amount}
            if costs:
                self._pay(entry, costs)
            self._books.add_answer(entry, spend.request, (digest, response), costs)
        return response

    def _pay(self, entry: Entry, costs: Mapping[Account, int]) -> None:
        """Checks costs against the run's declaration and the caps, then books them."""
        known = self._books.declarations(entry)
        if not known:
            raise DisclosureRefused("ledger.undeclared", f"nothing was declared to {entry.counterparty} in this run")
        version, _, _ = next(iter(known.values()))
        caps = self._caps(entry)
        for account, amount in costs.items():
            left = self._books.pending(entry, account)
            if amount > left:
                raise DisclosureRefused(
                    "ledger.beyond-declaration",
                    f"{_account_name(account)} for {entry.counterparty}: asked {_number(amount)}, "
                    f"this run's declaration leaves {_number(left)}",
                )
            spent = self._books.total(entry.counterparty, version, account)
            cap = caps.for_cost(*account) * _UNIT
            if spent + amount > cap:
                raise DisclosureRefused("ledger.cap", _refusal(account, entry.counterparty, (amount, spent, cap)))
        self._books.pay(entry, version, costs)

    def recall(self, run: RunId, counterparty: PartyId, request: str) -> bytes | None:
        """The stored answer to a request, for a retry; None if there is none (any more)."""
        with self._books.transaction():
            stored = self._books.answer(Entry(run, counterparty), request)
        return None if stored is None else stored[1]

    def headroom(
        self, run: RunId, counterparty: PartyId, data_version: str, basis: Basis, accounts: Sequence[Account]
    ) -> tuple[float, ...]:
        """What this run could still declare for each account; infinite where caps are not enforced."""
        entry = Entry(run, counterparty)
        with self._books.transaction():
            caps = self._caps(entry, basis, ids_only=all(kind is CostKind.IDS_ASKED for kind, _ in accounts))
            left = []
            for account in (_account(kind, feature) for kind, feature in accounts):
                used = self._books.total(counterparty, data_version, account) + self._books.pending(entry, account)
                left.append(max(0.0, (caps.for_cost(*account) * _UNIT - used) / _UNIT))
        return tuple(left)

    def close_run(self, run: RunId) -> None:
        """Ends a run: no more spends in its name; its stored answers are dropped, their digests stay."""
        with self._books.transaction():
            self._books.close_run(run)

    def evidence(self, run: RunId, counterparty: PartyId) -> dict[str, str]:
        """Digests of the signed envelopes that a counterparty's claimed sizes came in, by purpose."""
        with self._books.transaction():
            return self._books.evidence(Entry(run, counterparty))

    def report(self, run: RunId) -> tuple[LedgerLine, ...]:
        """The ledger in numbers for every counterparty of a run, spends of other runs on the same data included."""
        with self._books.transaction():
            return tuple(self._line(Entry(run, one)) for one in self._books.counterparties(run))

    def _line(self, entry: Entry) -> LedgerLine:
        known = list(self._books.declarations(entry).values())
        version, _, _ = known[0]
        caps = self._caps(entry)
        totals = self._books.totals(entry.counterparty, version)
        equations = [(amount, name) for (kind, name), amount in totals.items() if kind is CostKind.EQUATIONS]
        largest, feature = max(equations, default=(0, ""), key=lambda one: (one[0], one[1]))

        bits = {name: amount for (kind, name), amount in totals.items() if kind is CostKind.ROW_BITS}
        bits_cap = sum(caps.for_cost(CostKind.ROW_BITS, name) for name in bits or [""])

        def total(kind: CostKind) -> float:
            return sum(amount for (one, _), amount in totals.items() if one is kind) / _UNIT

        return LedgerLine(
            counterparty=entry.counterparty,
            data_version=version,
            equations=largest / _UNIT,
            equations_feature=feature,
            equations_cap=_finite(caps.equations),
            row_bits=total(CostKind.ROW_BITS),
            row_bits_cap=_finite(bits_cap),
            feature_bits=max((amount for name, amount in bits.items() if name), default=0) / _UNIT,
            feature_bits_cap=_finite(caps.feature_row_bits),
            bins_returned=total(CostKind.BINS_RETURNED),
            bins_returned_cap=_finite(caps.bins_returned),
            noise_rows=min((one.noise_rows for _, one, costs in known if not names_ids_only(costs)), default=math.inf),
            ids_asked=total(CostKind.IDS_ASKED),
            ids_asked_cap=_finite(caps.ids_asked),
        )

    def _caps(self, entry: Entry, basis: Basis | None = None, *, ids_only: bool = False) -> Caps:
        """Strictest caps of a basis and of all that the run has declared to this counterparty.

        The cap of ids follows from declarations of ids alone where there are any, the others from the rest: the one is
        about the house's own table, the others about what the counterparty claims.

        Args:
            entry: Run and counterparty.
            basis: Of what is asked now; None = of what is declared alone.
            ids_only: Whether ``basis`` is of ids alone.
        """
        bases: dict[bool, list[Basis]] = {True: [], False: []}
        if basis is not None:
            bases[ids_only].append(basis)
        for _, one, costs in self._books.declarations(entry).values():
            bases[names_ids_only(costs)].append(one)
        of_ids, of_claims = ([Caps.of(one, self._rules) for one in bases[kind]] for kind in (True, False))
        caps = reduce(Caps.strictest, of_claims or of_ids)
        return replace(caps, ids_asked=reduce(Caps.strictest, of_ids).ids_asked) if of_ids else caps

    def _check_open(self, run: RunId) -> None:
        if self._books.is_closed(run):
            raise DisclosureRefused("ledger.closed", "this run has ended, its ledger account is closed")


def _account(kind: CostKind, feature: str) -> Account:
    """The account a cost goes to: bins returned and ids are always counted for the whole party."""
    return (kind, "" if kind in {CostKind.BINS_RETURNED, CostKind.IDS_ASKED} else feature)


def _ids_only(costs: Mapping[Account, int]) -> bool:
    return bool(costs) and all(kind is CostKind.IDS_ASKED for kind, _ in costs)


def _by_account(costs: Sequence[Cost]) -> dict[Account, int]:
    """Sums of costs by account, in thousandths rounded up."""
    sums: dict[Account, int] = {}
    for cost in costs:
        account = _account(cost.kind, cost.feature)
        # The inner rounding keeps 0.1 at 100 thousandths in spite of binary fractions.
        sums[account] = sums.get(account, 0) + math.ceil(round(cost.amount * _UNIT, 6))
    return sums


def _refusal(account: Account, counterparty: PartyId, figures: tuple[int, int, float]) -> str:
    """Which account, how much was asked, spent and allowed, and what would still be possible."""
    asked, spent, cap = figures
    return (
        f"{_account_name(account)} for {counterparty}: asked {_number(asked)}, spent {_number(spent)}, "
        f"cap {_number(cap)}, still possible {_number(max(0, cap - spent))}"
    )


def _account_name(account: Account) -> str:
    kind, feature = account
    words = {
        CostKind.EQUATIONS: "equations",
        CostKind.ROW_BITS: "bits per row",
        CostKind.BINS_RETURNED: "bins returned",
        CostKind.IDS_ASKED: "ids asked",
    }[kind]
    return f"{words} on feature {feature!r}" if feature else f"{words} of the whole party"


def _number(thousandths: float) -> str:
    return f"{thousandths / _UNIT:.3f}".rstrip("0").rstrip(".")


def _finite(cap: float) -> float | None:
    return None if math.isinf(cap) else cap
