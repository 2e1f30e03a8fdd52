"""What a party brings to a blind alignment, and in which form an id is hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import DataError, PolicyDenied, SpecError
from fedcredit.kernels.uscc import normalise
from fedcredit.types import PartyId

__all__ = ["BlindInputs", "Ring", "below_floor", "decoys_of", "spelt"]


@dataclass(frozen=True)
class BlindInputs:
    """What a party brings.

    Args:
        parties: The label holder, then every feature holder, in the order that all parties have.
        run_digest: Digest of the spec and the run's name; keys, hashes and shuffles are bound to it.
        own_ids: Ids of the party's own table, in its order.
        ids: ``uscc``: spelling repaired and check character verified, rows without a valid code left out; or ``text``.
        secret: The run's secret.
        data_version: Digest of the table, under which the ledger counts.
        decoys: Rows of no customer for each row of a customer.
        min_overlap: Least number of common rows of customers.
    """

    parties: tuple[PartyId, ...]
    run_digest: str
    own_ids: Sequence[str]
    ids: Literal["text", "uscc"]
    secret: RunSecret
    data_version: str
    decoys: float
    min_overlap: int


@dataclass(frozen=True)
class Ring:
    """Who hands a list to whom.

    A list goes from its owner around the ring, through every other party, and then to the coordinator; what is said of
    its entries comes back the other way.

    Args:
        parties: The label holder first.
    """

    parties: tuple[PartyId, ...]

    def __post_init__(self) -> None:
        """Refuses a ring of one, or a party twice.

        Raises:
            SpecError: fewer than two different parties.
        """
        if len(self.parties) < 2 or len(set(self.parties)) != len(self.parties):
            raise SpecError("align.parties", "a blind alignment needs a label holder and different feature holders")

    def step(self, party: PartyId, steps: int) -> PartyId:
        """The party so many steps onward; backward where negative."""
        return self.parties[(self.parties.index(party) + steps) % len(self.parties)]

    @property
    def leader(self) -> PartyId:
        """The label holder."""
        return self.parties[0]

    @property
    def hops(self) -> range:
        """Distances to all other parties."""
        return range(1, len(self.parties))


def decoys_of(counted: int, ratio: float) -> int:
    """How many decoys belong to so many rows of customers, exactly."""
    return int(ratio * counted + 0.5)


def below_floor() -> PolicyDenied:
    """The refusal that everyone is told, whoever finds it: it holds no number."""
    return PolicyDenied("align.below-floor", "the rows in common that count are below the floor, align.min_overlap")


def spelt(ids: Sequence[str], kind: Literal["text", "uscc"], owner: str) -> tuple[list[str], NDArray[np.int64]]:
    """Ids in the form that is hashed, and the row of each.

    Args:
        ids: As they stand in the table.
        kind: As `BlindInputs.ids`.
        owner: For the error text.

    Raises:
        DataError: no valid id, or two rows with one id.
    """
    column = pl.Series("id", ids, dtype=pl.String)
    if kind == "uscc":
        column = normalise(column)
    rows = column.is_not_null().arg_true().to_numpy().astype(np.int64)
    column = column.drop_nulls()
    if not len(column):
        raise DataError(
            "align.no-ids", f"{owner}: none of {len(ids)} ids is valid as [align] ids = {kind!r} reads them"
        )
    if column.n_unique() != len(column):
        twice = len(column) - column.n_unique()
        raise DataError("align.duplicate-id", f"{owner}: {twice} ids stand in several rows: each may have one row")
    return column.to_list(), rows
