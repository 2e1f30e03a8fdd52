"""What an answer discloses, in the units the ledger counts.

These are plain values so that protocol code can state its cost without knowing how it is kept.

Source: docs/adr/0004-disclosure-ledger.md; measurements in docs/attacks.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from fedcredit.errors import BoundError
from fedcredit.types import PartyId

__all__ = ["Basis", "Cost", "CostKind", "Declaration", "Spend"]

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class CostKind(StrEnum):
    """The four currencies of disclosure."""

    EQUATIONS = "equations"
    """Exact or noised sums answered about one feature; a packed vector of two values counts two."""
    ROW_BITS = "row_bits"
    """Bits disclosed about every row; feature "" is the whole party, a name is that feature's bitmaps."""
    BINS_RETURNED = "bins_returned"
    """Bins whose WOE or bad rate went back to their owner; always of the whole party."""
    IDS_ASKED = "ids_asked"
    """Ids that were blinded for somebody who will learn which of them are known here; always of the whole party."""


@dataclass(frozen=True)
class Cost:
    """One amount of one currency.

    Args:
        kind: Currency.
        feature: Name of the feature, stable from run to run; "" for the whole party. It appears in refusals.
        amount: Equations, bits per row, or bins; finite, not negative.
    """

    kind: CostKind
    feature: str
    amount: float

    def __post_init__(self) -> None:
        """Refuses an amount no ledger could add.

        Raises:
            BoundError: negative, infinite or not a number.
        """
        if not (math.isfinite(self.amount) and self.amount >= 0):
            raise BoundError("disclosure.amount", f"{self.kind} cost is {self.amount}, a number from 0 up is needed")
        if self.kind is CostKind.EQUATIONS and not self.feature:
            raise BoundError("disclosure.feature", "an equations cost names no feature")


@dataclass(frozen=True)
class Spend:
    """The cost of one answer.

    Args:
        request: SHA-256 in hexadecimal of what is being answered; the same request is never paid twice.
        costs: What the answer discloses.
        learner: Who learns it, where that is not the recipient: a relay that cannot read what it passes on.
    """

    request: str
    costs: tuple[Cost, ...]
    learner: PartyId | None = None

    def __post_init__(self) -> None:
        """Refuses a request that is not named by a digest.

        Raises:
            BoundError: ``request`` is not 64 lower-case hexadecimal digits.
        """
        if not _HEX_DIGEST.fullmatch(self.request):
            raise BoundError("disclosure.request", "a spend names its request by 64 hexadecimal digits of SHA-256")


@dataclass(frozen=True)
class Basis:
    """What the caps are computed from.

    Args:
        n_eff: Rows with weight at the label holder, by its signed claim.
        n_bad: Bad rows among them.
        noise_rows: Standard deviation of the answerer's noise in rows of maximal gradient; 0 = exact answers.
    """

    n_eff: int
    n_bad: int
    noise_rows: float = 0.0

    def __post_init__(self) -> None:
        """Refuses impossible counts.

        Raises:
            BoundError: negative counts, more bads than rows, or noise that is no number.
        """
        if not 0 <= self.n_bad <= self.n_eff:
            raise BoundError("disclosure.basis", f"basis has {self.n_bad} bads in {self.n_eff} rows")
        if not (math.isfinite(self.noise_rows) and self.noise_rows >= 0):
            raise BoundError("disclosure.basis", f"basis has noise of {self.noise_rows} rows, 0 or more is needed")

    @classmethod
    def own(cls, rows: int) -> Basis:
        """Before anybody has claimed a size: the rows of the declarer's own table, from which the cap of ids follows.

        Args:
            rows: Rows of the table.
        """
        return cls(n_eff=rows, n_bad=0)


@dataclass(frozen=True)
class Declaration:
    """What a protocol will disclose at most, said before it starts.

    Args:
        data_version: Digest of the answerer's table; the ledger counts per version.
        basis: Sizes that the caps follow from.
        costs: Upper bound of all that this protocol will spend with this counterparty.
        purpose: Name of the step; the same purpose declared again with the same content is one declaration.
        rows: Rows of the declarer's own aligned table, or 0 if not stated; a basis with more rows is refused.
        evidence: SHA-256 of the signed envelope the basis came in; filled in by the channel where empty.
    """

    data_version: str
    basis: Basis
    costs: tuple[Cost, ...]
    purpose: str = "run"
    rows: int = 0
    evidence: str = ""

    def __post_init__(self) -> None:
        """Refuses a basis larger than the table, which would lift every cap.

        Raises:
            BoundError: ``basis.n_eff`` exceeds ``rows``, or the data version is missing.
        """
        if not self.data_version:
            raise BoundError("disclosure.data-version", "a declaration names no data version")
        if self.rows and self.basis.n_eff > self.rows:
            raise BoundError(
                "disclosure.basis", f"basis claims {self.basis.n_eff} rows where the aligned table has {self.rows}"
            )
