"""What a run disclosed, in numbers: the ledgers, the leak of the encryption itself, and who learns what by design."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from fedcredit.crypto import slots_parameters
from fedcredit.crypto.profiles import BFV_8192, PROFILES, statistical_leak_log2
from fedcredit.governance.ledger import LedgerLine
from fedcredit.protocol.group_sum.session import Conversation
from fedcredit.types import PartyId
from fedcredit.wire.leakage import parse_leakage

__all__ = ["ChosenAnswers", "disclosure", "leakage_steps", "ledger_numbers", "statistical_leak"]

_SHARED_OUTPUTS = 8  # outputs of bfv-8192 that share a ciphertext, and so one rounding


@dataclass(frozen=True)
class ChosenAnswers:
    """Answers to rows that were chosen under encryption, of all holders and under all keys of a run.

    Args:
        rows: Rows of the common order.
        selected: Vectors answered row by row: totals, bits, columns.
        sums: Sums answered of products of two holders' columns, the label holder's shares and the others' counted.
        column_bound: Largest absolute value of a column of these sums.
    """

    rows: int
    selected: int
    sums: int
    column_bound: int

    @property
    def leak(self) -> float:
        """Base-2 logarithm of what their noise says beyond the results."""
        return slots_parameters.statistical_leak_log2(
            self.rows, selected=self.selected, sums=self.sums, column_bound=self.column_bound
        )


def statistical_leak(
    answered: Sequence[tuple[Conversation, int, int]], profile: str, chosen: ChosenAnswers | None = None
) -> float | None:
    """Base-2 logarithm of all that the answers' noise says beyond the sums; None where nothing is encrypted
    or nothing is known of the answers.

    Args:
        answered: Conversation, number of answered sums, largest squared norm of an answered column.
        profile: Encryption profile of the run.
        chosen: Answers to an encrypted choice of rows, where the run had one.
    """
    if PROFILES[profile].security_bits == 0 or not answered:
        return None
    shared = _SHARED_OUTPUTS if profile == BFV_8192 else 1
    leaks = [statistical_leak_log2(c.parameters, answers, shared * norm) for c, answers, norm in answered]
    if chosen is not None:
        leaks.append(chosen.leak)
    return math.log2(sum(2.0**leak for leak in leaks))


def ledger_numbers(reports: Mapping[PartyId, Sequence[LedgerLine]]) -> dict[str, list[dict[str, Any]]]:
    """The ledgers as plain values, party by party."""
    return {
        party: [
            {
                "counterparty": line.counterparty,
                "equations": {"largest": line.equations, "cap": line.equations_cap},
                "row_bits": {"spent": line.row_bits, "cap": line.row_bits_cap},
                "feature_bits": {"largest": line.feature_bits, "cap": line.feature_bits_cap},
                "bins_returned": {"spent": line.bins_returned, "cap": line.bins_returned_cap},
                "ids_asked": {"spent": line.ids_asked, "cap": line.ids_asked_cap},
            }
            for line in lines
        ]
        for party, lines in reports.items()
    }


def disclosure(reports: Mapping[PartyId, Sequence[LedgerLine]], leak: float | None) -> dict[str, Any]:
    """The section ``disclosure`` of the summary: for each currency the account nearest its cap, or furthest beyond."""
    lines = [line for party in reports.values() for line in party]

    def worst(spent: str, cap: str) -> tuple[float, float | None]:
        found = [(getattr(line, spent), getattr(line, cap)) for line in lines]
        return max(found, key=lambda one: (one[0] / one[1] if one[1] else 0.0, one[0]), default=(0.0, None))

    equations, bits = worst("equations", "equations_cap"), worst("row_bits", "row_bits_cap")
    of_feature, returned = worst("feature_bits", "feature_bits_cap"), worst("bins_returned", "bins_returned_cap")
    asked = worst("ids_asked", "ids_asked_cap")
    return {
        "equations_per_feature": equations[0],
        "cap": equations[1],
        "bits_per_row": bits[0],
        "bits_per_row_cap": bits[1],
        "bits_per_feature": of_feature[0],
        "bits_per_feature_cap": of_feature[1],
        "bins_returned": returned[0],
        "bins_returned_cap": returned[1],
        "ids_asked": asked[0],
        "ids_asked_cap": asked[1],
        "noise_rows": min((line.noise_rows for line in lines if math.isfinite(line.noise_rows)), default=0.0),
        "statistical_leak_log2": leak,
    }


def leakage_steps(protocols: Sequence[str], kinds: Collection[str]) -> list[dict[str, str]]:
    """Who learns what, step by step, from each protocol's ``LEAKAGE.md``.

    Args:
        protocols: Protocols of a run.
        kinds: Kinds of messages that were sent; which of a protocol's there are depends on the run.
    """
    steps = []
    for name in protocols:
        text = (resources.files("fedcredit.protocol") / name / "LEAKAGE.md").read_text(encoding="utf-8")
        steps += [
            {
                "protocol": name,
                "receiver": row.receiver.value,
                "message": row.message,
                "field": row.field,
                "learns": row.learns,
                "bound": row.bound,
            }
            for row in parse_leakage(text)
            if row.message in kinds
        ]
    return steps
