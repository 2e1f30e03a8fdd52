"""What one party brings to a run of a vertical protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.secret import RunSecret
from fedcredit.data.table import HolderTable
from fedcredit.kernels.prebin import PrebinRules
from fedcredit.kernels.thin_bins import join_thin
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature, order_of_features, prebin
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.hybrid.joint_account import JointAccount
from fedcredit.protocol.pool import Pool
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
        pool: The banks that decide together, at a label holder of a hybrid run; None in a run of one bank.
        common: 32 secret bytes of a feature holder, the same in all parts of a hybrid run: its features have one order
            and one binning there, that of its whole table. None in a run of one bank.
        account: What those parts have in common in the feature holder's ledger, one object for all of them.
    """

    spec: RunSpec
    run_digest: str
    table: HolderTable
    keep: KeptSecrets
    register: Sequence[str] | None = None
    decoy_key: bytes = field(default=bytes(32), repr=False)
    pool: Pool | None = None
    common: bytes | None = field(default=None, repr=False)
    account: JointAccount | None = None

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
        if self.common is not None:
            order = order_of_features(count, RunSecret(self.common).entropy("hybrid/order"))
            counting = fit if fit is not None else index.members
            found = prebin(self.table, self._whole, party, rules, order)
            return [self._for_one_bank(feature, index, counting, rules.min_rows) for feature in found]
        order = list(range(count)) if self.leads else order_of_features(count, self.keep.replayable)
        return prebin(self.table, index, party, rules, order, fit)

    @property
    def _whole(self) -> RowIndex:
        """Every row of the own table."""
        rows = self.table.rows
        return RowIndex(tuple(self.table.ids.to_list()), np.arange(rows), np.zeros(rows, np.bool_))

    def _for_one_bank(
        self, feature: OwnFeature, index: RowIndex, counting: NDArray[np.bool_] | None, least: int
    ) -> OwnFeature:
        """A feature on the common rows with one bank; where a bin holds few of these, they go to a neighbour."""
        prebins = feature.prebins
        if feature.shape.bins < 2:  # a column that has nothing to tell is one bin, whatever its type
            return replace(feature, codes=np.zeros(len(index.rows), np.int32))
        column = index.take(self.table.columns[feature.name])
        codes = prebins.apply(column)
        counted = codes if counting is None else codes[counting]
        counts = np.bincount(counted, minlength=prebins.bins).astype(np.int64)
        goes = join_thin(counts, prebins.ordered, prebins.fallback, least)
        rare = not prebins.has_missing and column.null_count() > 0
        return replace(feature, codes=goes[codes].astype(np.int32), rare_missing=rare)
