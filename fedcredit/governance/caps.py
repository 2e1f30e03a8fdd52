"""The caps on disclosure, and where each figure comes from.

Source: measurements by attack, docs/adr/0004-disclosure-ledger.md (equations, thresholds, bins returned) and
docs/attacks.md (totals of a row).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedcredit.errors import PolicyDenied
from fedcredit.wire.disclosure import Basis, CostKind

__all__ = ["NOISE_ROWS", "CapRules", "Caps"]

NOISE_ROWS = 4.0
"""Holder noise that earns the higher cap: at sd 4 rows an equation count of n/7 left recovery near chance."""

_BARE_ROWS, _BARE_BADS = 50, 10
"""Exact sums: recovery of defaulters leaves chance at equations/n_bad = 0.1, of all rows above equations/n = 0.02."""

_NOISED_ROWS, _NOISED_BADS = 7, 1
"""With noise of sd 4 rows, equations/n = 0.14 gave .11 of all rows and .20 of defaulters, against .06 by chance."""

_NOISED_VARIANCE = 25
"""Noise stays what it is while rows grow: at sd 4, 400 equations left defaulters under 3.2 times chance at up to 16,000
rows, 600 to 1,100 did not."""

_RETURNED_ROWS, _RETURNED_BADS = 20, 10
"""WOE returned for more bins than these is a linear system that gives the labels back."""

_TOTALS, _BITS_A_TOTAL = 3, 12
"""At most three totals of a row in integer points, each below 2^12 points."""

_IDS_TIMES, _IDS_LEAST = 4, 250_000
"""Ids that a counterparty may ask for: four lists as long as the table, and a few lists of a large bank with its decoys
where the table is short."""

_THRESHOLDS = 3
"""Distinct thresholds of a feature whose bitmaps may ever be disclosed; a bitmap is one bit a row."""


@dataclass(frozen=True)
class CapRules:
    """What a house's policy says of the caps.

    Args:
        equations: Largest number of equations a feature; None = the default formula alone.
        row_bits: Largest number of bits a row for the whole party; None = the default alone.
        bins_returned: Largest number of bins returned; None = the default formula alone.
        ids_asked: Largest number of ids asked in blind alignments; None = the default formula alone.
        enforce: False counts without refusing what the defaults forbid: simulation only. A number given here still
            holds then, even where it is looser than the default.
        simulation: The run is a simulation.
    """

    equations: float | None = None
    row_bits: float | None = None
    bins_returned: float | None = None
    ids_asked: float | None = None
    enforce: bool = True
    simulation: bool = False

    def __post_init__(self) -> None:
        """Refuses caps that bind nobody where real records are.

        Raises:
            PolicyDenied: ``enforce`` is off outside simulation, or a cap is no number from 0 up.
        """
        if not (self.enforce or self.simulation):
            raise PolicyDenied("ledger.enforce", "enforce = false is possible in a simulation only")
        named = {"equations": self.equations, "row_bits": self.row_bits, "bins": self.bins_returned}
        for name, value in (*named.items(), ("ids", self.ids_asked)):
            if value is not None and not value >= 0:
                raise PolicyDenied(
                    "ledger.caps", f"the policy's cap of {name} is {value}, a number from 0 up is needed"
                )


@dataclass(frozen=True)
class Caps:
    """The caps in force for one basis.

    Args:
        equations: Equations a feature.
        row_bits: Bits a row of the whole party.
        feature_row_bits: Bits a row of one feature's bitmaps.
        bins_returned: Bins of the whole party.
        ids_asked: Ids of the whole party.
    """

    equations: float
    row_bits: float
    feature_row_bits: float
    bins_returned: float
    ids_asked: float

    @classmethod
    def of(cls, basis: Basis, rules: CapRules | None = None) -> Caps:
        """Caps for the sizes a label holder claims, under a house's rules; all are whole numbers or infinite.

        The cap of ids follows from the rows of the house's own table (`Basis.own`), the others from what was claimed.
        With ``enforce`` a rule can only lower a cap. Without it a rule replaces the cap and no rule means no cap.
        """
        rules = rules or CapRules()
        default = cls(
            equations=_equations(basis),
            row_bits=_TOTALS * _BITS_A_TOTAL,
            feature_row_bits=_THRESHOLDS,
            bins_returned=min(basis.n_bad // _RETURNED_BADS, basis.n_eff // _RETURNED_ROWS),
            ids_asked=_IDS_TIMES * max(basis.n_eff, _IDS_LEAST),
        )
        return replace(
            default,
            equations=_in_force(default.equations, rules.equations, rules),
            row_bits=_in_force(default.row_bits, rules.row_bits, rules),
            feature_row_bits=_in_force(default.feature_row_bits, None, rules),
            bins_returned=_in_force(default.bins_returned, rules.bins_returned, rules),
            ids_asked=_in_force(default.ids_asked, rules.ids_asked, rules),
        )

    def for_cost(self, kind: CostKind, feature: str) -> float:
        """The cap that one account is held to."""
        if kind is CostKind.EQUATIONS:
            return self.equations
        if kind is CostKind.BINS_RETURNED:
            return self.bins_returned
        if kind is CostKind.IDS_ASKED:
            return self.ids_asked
        return self.feature_row_bits if feature else self.row_bits

    def strictest(self, other: Caps) -> Caps:
        """The lower of two caps, each by each."""
        return Caps(
            equations=min(self.equations, other.equations),
            row_bits=min(self.row_bits, other.row_bits),
            feature_row_bits=min(self.feature_row_bits, other.feature_row_bits),
            bins_returned=min(self.bins_returned, other.bins_returned),
            ids_asked=min(self.ids_asked, other.ids_asked),
        )


def _equations(basis: Basis) -> int:
    """Equations about a feature; noise can only raise what exact sums would be allowed."""
    bare = min(basis.n_eff // _BARE_ROWS, basis.n_bad // _BARE_BADS)
    if basis.noise_rows < NOISE_ROWS:
        return bare
    noised = min(basis.n_eff // _NOISED_ROWS, basis.n_bad // _NOISED_BADS, int(_NOISED_VARIANCE * basis.noise_rows**2))
    return max(bare, noised)


def _in_force(default: float, rule: float | None, rules: CapRules) -> float:
    """One cap under the rules."""
    if rules.enforce:
        return default if rule is None else min(default, rule)
    return math.inf if rule is None else rule
