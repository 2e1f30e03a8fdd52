"""What one party brings to a run of a vertical protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.kernels.prebin import PrebinRules
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature, order_of_features, prebin
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.spec.model import RunSpec

__all__ = ["Holding"]


@dataclass(frozen=True)
class Holding:
    """What one party brings to a run.

    Args:
        spec: The run.
        run_digest: Digest of the spec and the run's name; binds reference strings.
        table: The party's own records.
        keep: Randomness and escrow.
        register: Ids of the public register, where the run has one and this party needs it.
        decoy_key: 32 secret bytes of a label holder that mixes decoys in: the same in every run, so that two runs with
            the same customers have the same decoys.
    """

    spec: RunSpec
    run_digest: str
    table: HolderTable
    keep: KeptSecrets
    register: Sequence[str] | None = None
    decoy_key: bytes = field(default=bytes(32), repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the label holder."""
        return bool(self.spec.label_holder.name == self.table.party)

    def prebinned(self, index: RowIndex, rules: PrebinRules, fit: NDArray[np.bool_] | None = None) -> list[OwnFeature]:
        """Own columns in bins, in an order drawn for this run; the label holder keeps the file's order.

        Args:
            index: Common rows.
            rules: How to cut.
            fit: bool (n,), common rows whose quantiles make the bins, and of which no bin has too few; None = all.
        """
        party = next(party for party in self.spec.party if party.name == self.table.party)
        count = len(self.table.columns)
        order = list(range(count)) if self.leads else order_of_features(count, self.keep.replayable)
        return prebin(self.table, index, party, rules, order, fit)
