"""The encrypted group sum: one interface, two independent back ends.

An *asker* holds integer vectors ``v`` (one value a row). An *answerer* holds a fixed small-integer matrix: a 0/1
grouping of the rows into the bins of each feature and, optionally, columns of small integer weights. The asker learns
``sum_i m[i, k] * v[i]`` for every output ``k`` and nothing else; the answerer learns nothing.

The asker's objects hold secrets, the answerer's hold none of the asker's: they are different types, and only bytes
pass between them.

Source: docs/adr/0002-hinted-group-sum.md, 0003; Henzinger et al., USENIX Security 2023; Huang et al. (Cheetah),
USENIX Security 2022; Lu et al. (Squirrel), USENIX Security 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError

__all__ = ["Answerer", "Asker", "Grouping", "PendingSum"]


@dataclass(frozen=True)
class Grouping:
    """The answerer's fixed matrix.

    Args:
        codes: int32 (rows, features); bin of each row in each feature, in [0, bins[f]).
        bins: Number of bins of each feature.
        weights: int32 (rows, columns) or None; extra outputs that are weighted sums over all rows.
        weight_bound: Largest absolute weight allowed; at least 1.
        min_rows: A bin with fewer rows is refused; 0 = a bin may be empty, as one that others have rows in.
    """

    codes: NDArray[np.int32]
    bins: tuple[int, ...]
    weights: NDArray[np.int32] | None = None
    weight_bound: int = 1
    min_rows: int = 1

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.codes.shape[0])

    @property
    def outputs(self) -> int:
        """Number of sums an answer holds: all bins of all features in order, then the weighted columns."""
        return sum(self.bins) + (0 if self.weights is None else int(self.weights.shape[1]))

    def check(self) -> None:
        """Refuses codes outside their bins, undersized bins, and weights beyond the bound.

        Raises:
            BoundError: naming the feature number and what was found.
        """
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.bins):
            raise BoundError("grouping.shape", f"grouping has {self.codes.shape} codes for {len(self.bins)} features")
        for feature, bins in enumerate(self.bins):
            column = np.ascontiguousarray(self.codes[:, feature])
            if len(column) and (column.min() < 0 or column.max() >= bins):
                raise BoundError("grouping.code", f"feature {feature}: a code lies outside its {bins} bins")
            smallest = int(np.bincount(column, minlength=bins).min())
            if smallest < self.min_rows:
                raise BoundError(
                    "grouping.undersized",
                    f"feature {feature}: a bin has fewer than the {self.min_rows} rows it needs",
                )
        if self.weights is not None:
            if self.weights.ndim != 2 or self.weights.shape[0] != self.rows:
                raise BoundError("grouping.weights", f"weights of shape {self.weights.shape} for {self.rows} rows")
            if self.weights.size and int(np.abs(self.weights.astype(np.int64)).max()) > self.weight_bound:
                raise BoundError("grouping.weight-bound", f"a weight exceeds the declared bound {self.weight_bound}")


class PendingSum(Protocol):
    """One vector under way, held by the asker; holds that vector's one-time secret."""

    def open(self, answerer: str, answer: bytes, withheld: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Sums of one answerer, int64 (outputs,); once per answerer.

        Args:
            answerer: Name under which its hints were accepted.
            answer: As it came.
            withheld: bool (outputs,), outputs that the answerer withholds: they are not decoded and 0 in the result.

        Raises:
            PeerError: malformed answer, or a value outside the proven range.
            BoundError: the answerer's answer was opened before.
        """
        ...

    def open_masked(self, answerer: str, answer: bytes) -> bytes:
        """What is left of a masked answer: uniform to the asker, decoded by whoever holds the mask."""
        ...


class Asker(Protocol):
    """Secret side: owns vectors and keys."""

    def setup(self) -> bytes:
        """Public bytes every answerer needs first; empty where the back end needs none."""
        ...

    def accept_hints(self, answerer: str, hints: bytes, outputs: int) -> None:
        """Takes an answerer's one-time hints; refuses malformed ones and a second set."""
        ...

    def encrypt(self, values: NDArray[np.int64], seed: bytes) -> tuple[bytes, PendingSum]:
        """Encrypts one vector with a 32-byte one-time seed from which all its randomness is expanded.

        Raises:
            BoundError: a value exceeds the bound, or the seed was used before.
        """
        ...


class Answerer(Protocol):
    """Public side: owns a grouping, never a key of the asker."""

    def hints(self) -> bytes:
        """One-time bytes for the asker; empty where the back end needs none."""
        ...

    def answer(
        self, request: bytes, noise: NDArray[np.int64] | None = None, withheld: NDArray[np.bool_] | None = None
    ) -> bytes:
        """Encrypted sums for one request.

        Args:
            request: As the asker sent it.
            noise: int64 (outputs,) added to the sums, within the parameters' slack; None = exact sums.
            withheld: bool (outputs,), outputs of which nothing is told: what the asker gets there is uniform and
                independent of everything; None = none.

        Raises:
            PeerError: malformed request.
        """
        ...

    def answer_masked(self, request: bytes, noise: NDArray[np.int64] | None = None) -> tuple[bytes, bytes]:
        """An answer under a uniform mask, and the mask; each is useless without the other."""
        ...
