"""Whether a holder's bitmaps agree with the sums that it answered in the same tree, as far as its noise lets see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import IntegrityError
from fedcredit.kernels.histogram import bin_offsets
from fedcredit.kernels.tree_grower import Columns
from fedcredit.kernels.tree_model import Split, TreeFeature
from fedcredit.protocol.boost.plan import BoostPlan

__all__ = ["RoundSums"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_DEVIATIONS = 8.0  # honest noise is that far off once in 3 * 10^13 sums; see `fedcredit.crypto.noise`


@dataclass(frozen=True, eq=False)
class RoundSums:
    """What was asked and answered in one round.

    Args:
        questions: One for each node asked; the nodes have no row in common.
        sums: For each question the sums of g and of h, int64 (foreign bins,): bins of all foreign features in order.
    """

    questions: Sequence[Columns]
    sums: Sequence[tuple[Ints, Ints]]

    def check(
        self, features: Sequence[TreeFeature], bits: Mapping[Split, Bools], plan: BoostPlan, *, common: bool = False
    ) -> None:
        """Holds each bitmap against the rules for bins and, over all nodes together, against the sums.

        A lie within the noise, or one told in sums and bitmap alike, is not seen: the column is its owner's.

        Args:
            features: All features of the run.
            bits: bool (n,) of each new split.
            plan: Sizes of bins and noise.
            common: Whether bins are those of several banks: then one of them may have no rows here.

        Raises:
            IntegrityError: naming the holder and the code of its feature.
        """
        if not bits:
            return
        foreign = [place for place, feature in enumerate(features) if feature.foreign]
        starts = dict(zip(foreign, bin_offsets([features[place].bins for place in foreign]).tolist(), strict=True))
        together = self._together()
        for split, left in bits.items():
            feature, places = features[split.feature], starts[split.feature] + np.array(split.left, dtype=np.int64)
            name = f"{feature.owner}: a bitmap of feature {feature.code}"
            fewest = min(int(left.sum()), int((~left).sum()))
            if fewest < plan.boost.min_bin_rows and not (common and fewest == 0):
                raise IntegrityError("boost.bitmap", f"{name} has fewer rows on a side than a bin may have")
            room = _DEVIATIONS * plan.noise_sd * math.sqrt(len(self.questions) * places.size)
            for values, sums in together:
                if abs(int(sums[places].sum()) - int(values[left].sum())) > room:
                    raise IntegrityError("boost.bitmap", f"{name} does not fit the sums that were answered")

    def _together(self) -> list[tuple[Ints, Ints]]:
        """For g and for h, what was asked of each row and what each bin was answered to hold; nothing if none was."""
        if not self.questions:
            return []
        asked = ([one.g for one in self.questions], [one.h for one in self.questions])
        return [
            (reduce(np.add, values), reduce(np.add, [pair[field] for pair in self.sums]))
            for field, values in enumerate(asked)
        ]
