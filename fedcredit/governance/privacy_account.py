"""One bank's run of averaging in its privacy ledger: planned before the first byte, booked release by release."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedcredit.governance.privacy_accounting import plan
from fedcredit.governance.privacy_ledger import PrivacyLedger, PrivacySpent
from fedcredit.spec.model import RunSpec
from fedcredit.types import RunId

__all__ = ["PrivacyAccount", "release_of"]

_COLUMNS = ("exponents", "moments")
_ROUND = "round/"


def release_of(stage: str) -> str | None:
    """Kind of release that a bank makes in a stage of averaging; None = nothing about training rows.

    Args:
        stage: ``exponents``, ``moments``, ``round/R``, ``judge``, ``score`` or ``finished``.
    """
    if stage in _COLUMNS:
        return "columns"
    return "update" if stage.startswith(_ROUND) else None


@dataclass(frozen=True)
class PrivacyAccount:
    """A run in a house's privacy ledger.

    Args:
        ledger: The house's.
        spec: The run's specification.
        run: Its name.
        data_version: Digest of the bank's records.
        rows: Rows the bank trains on.
    """

    ledger: PrivacyLedger
    spec: RunSpec
    run: RunId
    data_version: str
    rows: int

    def begin(self) -> None:
        """Reserves the whole run; called again it changes nothing.

        Raises:
            PolicyDenied: the house asks for another unit.
            DisclosureRefused: the spec's limit or the house's would be passed; the text says how many rounds would fit.
        """
        self.ledger.reserve(self.run, self.data_version, plan(self.spec, self.rows, len(self.spec.banks)))

    def release(self, stage: str, content: bytes) -> None:
        """Books what a stage brings to a sum, before it leaves.

        Args:
            stage: As `release_of`.
            content: The message; the same one again is free.

        Raises:
            DisclosureRefused: more than was planned, or something else under the same stage.
        """
        kind = release_of(stage)
        if kind is None or (self.spec.differential_privacy.unit == "none" and kind != "update"):
            return  # a run without noise has one figure, infinite, and its updates stand for it
        self.ledger.commit(self.run, kind, stage, hashlib.sha256(content).hexdigest())

    def end(self) -> PrivacySpent:
        """Closes the run; what it has cost."""
        self.ledger.close_run(self.run)
        return self.ledger.report(self.run)
