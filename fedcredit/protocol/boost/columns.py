"""All columns of a run as the trees see them, in one order that encrypted run and plaintext oracle share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.tree_model import TreeFeature
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.messages import TreeShape
from fedcredit.types import PartyId

__all__ = ["UNCAPPED", "Codes", "FeatureList", "code_matrix", "direction", "usable"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.uint8] | NDArray[np.uint16]
Ints = NDArray[np.int64]


UNCAPPED = 1 << 24
"""Splits that a holder announces for a feature that nothing caps."""


@dataclass(frozen=True)
class FeatureList:
    """The features of a model: the label holder's own first, then each holder's, in the order announced.

    A feature of a single bin cannot be split and is left out of the model; holders still answer for it.

    Args:
        features: The features of the model.
        shapes: What each holder announced, the features of a single bin included.
    """

    features: tuple[TreeFeature, ...]
    shapes: Mapping[PartyId, tuple[TreeShape, ...]]

    @classmethod
    def of(
        cls,
        label_holder: PartyId,
        own: Sequence[OwnFeature],
        shapes: Mapping[PartyId, Sequence[TreeShape]],
        cap: int | None,
    ) -> FeatureList:
        """Puts all features in order.

        Args:
            label_holder: Owner of ``own``.
            own: Its features.
            shapes: What each holder announced, in the order of the spec.
            cap: Most splits of a feature by the spec, or None; a holder's ledger may allow fewer.

        Raises:
            DataError: no feature can be split.
        """
        found = [
            TreeFeature(label_holder, f.shape.code, f.shape.bins, f.shape.ordered, direction(f))
            for f in own
            if usable(f)
        ]
        for party, announced in shapes.items():
            found += [
                TreeFeature(
                    party,
                    shape.code,
                    shape.bins,
                    shape.ordered,
                    shape.monotone,
                    foreign=True,
                    thresholds=None if cap is None and shape.thresholds >= UNCAPPED else shape.thresholds,
                )
                for shape in announced
                if shape.bins > 1
            ]
        if not found:
            raise DataError("boost.features", "no column of any party has two bins that differ: nothing can be split")
        return cls(tuple(found), {party: tuple(announced) for party, announced in shapes.items()})

    def of_party(self, party: PartyId) -> list[int]:
        """Places of a party's features in the model."""
        return [place for place, feature in enumerate(self.features) if feature.owner == party]

    def bins_of(self, party: PartyId) -> tuple[int, ...]:
        """Bins of all features a holder announced."""
        return tuple(shape.bins for shape in self.shapes[party])

    def announced(self, party: PartyId) -> list[int]:
        """For each of a holder's features in the model, its place among those it announced."""
        return [place for place, shape in enumerate(self.shapes[party]) if shape.bins > 1]

    def outputs_in_model(self, party: PartyId) -> Bools:
        """Which of a holder's sums belong to features of the model; bool (outputs,)."""
        return np.repeat([shape.bins > 1 for shape in self.shapes[party]], self.bins_of(party))


def usable(feature: OwnFeature) -> bool:
    """Whether a column has two bins at least."""
    return feature.shape.bins > 1


def direction(feature: OwnFeature) -> Literal["", "increasing", "decreasing"]:
    """The direction of risk that a column's owner demands; trees need no other hint."""
    asked = feature.shape.monotone
    return "" if asked == "auto" or not feature.shape.ordered else asked


def code_matrix(own: Sequence[OwnFeature], rows: Ints) -> Codes:
    """Bins of all columns that can be split, (features, rows) in the smallest type that holds them."""
    columns = [feature for feature in own if usable(feature)]
    largest = max((feature.shape.bins for feature in columns), default=1)
    kind = np.uint8 if largest <= 256 else np.uint16
    matrix = np.empty((len(columns), len(rows)), kind)
    for place, feature in enumerate(columns):
        matrix[place] = feature.codes[rows]
    return matrix
