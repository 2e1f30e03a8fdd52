"""The plaintext oracle of a hybrid scorecard: each bank's columns joined, totals added in the clear.

Simulation only. Every bank's scorecard of the encrypted run has to equal the one that is found here, number for number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.data.table import HolderTable
from fedcredit.kernels.selection import Budget
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.hybrid.warm_start import CommonScorecard
from fedcredit.protocol.pool import Pool, UnsafeLocalPools
from fedcredit.protocol.scorecard.roles import decide, own_features, prebin_rules
from fedcredit.runtime.scorecard.oracle import Pooled, PooledResult, decided_scorecard
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["BankRows", "HybridTables", "hybrid_scorecards"]


@dataclass(frozen=True)
class BankRows:
    """One bank's part of the run.

    Args:
        index: Its common rows with the feature holders.
        bad: bool (n,).
        budgets: What the ledgers of the feature holders allow it.
        keep: Fresh seed streams of every party, equal to those it began this part with.
    """

    index: RowIndex
    bad: NDArray[np.bool_]
    budgets: Mapping[PartyId, Budget]
    keep: Mapping[PartyId, KeptSecrets]


@dataclass(frozen=True)
class HybridTables:
    """All records of a hybrid run.

    Args:
        spec: The run.
        tables: Every party's records.
        common: For each feature holder the bytes that its order of features follows from.
    """

    spec: RunSpec
    tables: Mapping[PartyId, HolderTable]
    common: Mapping[PartyId, bytes]

    async def scorecard(
        self, bank: PartyId, rows: BankRows, pool: Pool, start: CommonScorecard | None = None
    ) -> PooledResult:
        """One bank's scorecard, decided in a pool, or from what the banks of an earlier run have in common."""
        spec = self.spec.for_bank(bank)
        holding = Holding(spec, "", self.tables[bank], rows.keep[bank], pool=pool)
        columns: dict[PartyId, list[OwnFeature]] = {bank: await own_features(holding, rows.index, start)}
        draws = {}
        for party in (holder.name for holder in spec.feature_holders):
            index = rows.index.at(self.tables[party].ids.to_list(), leads=False)
            held = Holding(spec, "", self.tables[party], rows.keep[party], common=self.common[party])
            columns[party] = held.prebinned(index, prebin_rules(spec.bin))
            draws[party] = rows.keep[party].replayable.take(SEED_BYTES)
        pooled = Pooled(spec, rows.index, rows.bad, columns, draws)
        return await decided_scorecard(pooled, rows.budgets, list(columns), decide(holding, start))


def hybrid_scorecards(records: HybridTables, banks: Mapping[PartyId, BankRows]) -> dict[PartyId, PooledResult]:
    """Every bank's scorecard, decided together in the clear.

    Args:
        records: All records.
        banks: Each bank's part.

    Raises:
        DataError: the records do not carry a scorecard.
    """

    async def together() -> list[PooledResult]:
        pools = UnsafeLocalPools(list(banks))
        ends = {bank: pools.pool(bank) for bank in banks}
        return await asyncio.gather(*(records.scorecard(bank, rows, ends[bank]) for bank, rows in banks.items()))

    return dict(zip(banks, asyncio.run(together()), strict=True))
