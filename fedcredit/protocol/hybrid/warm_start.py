"""A bank that joins later with few rows: it starts from what the banks of a hybrid run have in common.

It plays a run of its own with the feature holders, in which bins, features and coefficients are given. From its rows
come its intercept, and as much of a WOE and of coefficients of its own as they carry: the same shrinkage as in the run
of the others, whose sums it neither sees nor changes. The holders number and cut their features as they did then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, IntegrityError, PeerError
from fedcredit.kernels.discriminant import Moments
from fedcredit.kernels.prebin import Prebins
from fedcredit.kernels.selection import Dropped
from fedcredit.kernels.woe import MergedBins
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature, OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.hybrid.scorecard_bins import in_bins
from fedcredit.protocol.hybrid.scorecard_steps import Local, local_information, own_intercept, personal
from fedcredit.protocol.scorecard.candidates import Candidates, Offer, within_budgets
from fedcredit.protocol.scorecard.decisions import CommonFit, Decided, Evaluated, Steps, flat_information
from fedcredit.protocol.scorecard.fit import FittedScorecard
from fedcredit.spec.model import BinSection, HybridSection, ScorecardSection
from fedcredit.types import PartyId

__all__ = ["CommonFeature", "CommonScorecard", "WarmDecisions", "common_scorecard"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CommonFeature:
    """One feature of the common scorecard.

    Args:
        owner: The feature holder; empty for a column of the banks.
        code: Its code among the owner's features.
        name: Column of the banks; empty for a holder's, whose name no bank knows.
        prebins: How the banks cut the column; None for a holder's.
        group: Merged bin of each prebin.
        woe: WOE of the pool in units, by merged bin.
        iv: Information value.
        slope: Common coefficient.
    """

    owner: str
    code: str
    name: str
    prebins: Prebins | None
    group: tuple[int, ...]
    woe: tuple[int, ...]
    iv: float
    slope: float

    @property
    def bins(self) -> MergedBins:
        """The merged bins with the pool's WOE, and no counts."""
        none = np.zeros(len(self.woe), np.int64)
        return MergedBins(np.array(self.group, np.int64), none, none, np.array(self.woe, np.int64), self.iv)


@dataclass(frozen=True)
class CommonScorecard:
    """What the banks of a hybrid run have in common, as one of them hands it on.

    Every number is the same at each bank. Of categories of their own columns each can only name those that it has: the
    newcomer's others go where unknown names go.

    Args:
        features: In the order of the fit's columns.
    """

    features: tuple[CommonFeature, ...]

    def encode(self) -> bytes:
        """As bytes to hand to a bank that joins."""
        return msgspec.json.encode(self)

    def digest(self) -> str:
        """SHA-256 of these bytes, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def decode(cls, data: bytes, digest: str) -> CommonScorecard:
        """Reads what another bank has sent.

        Args:
            data: The bytes.
            digest: As that bank states it by another way.

        Raises:
            IntegrityError: other bytes than that bank has sent, or no scorecard.
        """
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError("hybrid.common", "the common scorecard is not the one whose digest was stated")
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise IntegrityError("hybrid.common", "the common scorecard cannot be read", str(error)) from None

    def own_features(self, table: HolderTable, index: RowIndex) -> list[OwnFeature]:
        """A bank's own columns of the scorecard in its bins.

        Raises:
            DataError: the bank has no column of that name.
        """
        found = []
        for one in self.features:
            if one.prebins is None:
                continue
            if one.name not in table.columns:
                raise DataError("hybrid.column", f"{table.party}: has no column {one.name!r} of the common scorecard")
            column = index.take(table.columns[one.name])
            shape = FeatureShape(code=one.code, bins=one.prebins.bins, ordered=one.prebins.ordered, monotone="")
            rare = not one.prebins.has_missing and column.null_count() > 0
            codes = one.prebins.apply(column).astype(np.int32)
            found.append(OwnFeature(one.name, shape, one.prebins, codes, rare))
        return found


def common_scorecard(me: PartyId, own: Sequence[OwnFeature], fitted: FittedScorecard) -> CommonScorecard:
    """The common part of one bank's scorecard.

    Args:
        me: The bank.
        own: Its own features.
        fitted: Its scorecard from a hybrid run.

    Raises:
        DataError: it is from a run of one bank.
    """
    if fitted.common is None:
        raise DataError("hybrid.common", f"{me}: its scorecard is of one bank and has nothing in common with others")
    mine = {feature.shape.code: feature for feature in own}
    features = []
    for feature, slope, woe in zip(fitted.features, fitted.common.slopes, fitted.common.woe_units, strict=True):
        column = mine[feature.code] if feature.owner == me else None
        features.append(
            CommonFeature(
                owner="" if column else feature.owner,
                code=feature.code,
                name=column.name if column else "",
                prebins=column.prebins if column else None,
                group=tuple(feature.merged.group.tolist()),
                woe=tuple(woe.tolist()),
                iv=feature.merged.iv,
                slope=float(slope),
            )
        )
    return CommonScorecard(tuple(features))


class WarmDecisions:
    """Decisions of a bank that joins; see `fedcredit.protocol.scorecard.decisions.Decisions`.

    Args:
        common: What it starts from.
        me: The bank.
        hybrid: Section ``[hybrid]``.
    """

    def __init__(self, common: CommonScorecard, me: PartyId, hybrid: HybridSection) -> None:
        self._hybrid = hybrid
        self._given = {(PartyId(one.owner) if one.owner else me, one.code): one for one in common.features}

    async def merge(self, counted: Sequence[CountedFeature], rules: BinSection) -> list[BinnedFeature]:
        """The given bins; a feature of no common scorecard is one bin.

        Raises:
            PeerError: a holder has cut a feature in another way, or lacks one.
        """
        del rules
        offered = {(one.owner, one.shape.code): one for one in counted}
        for key, given in self._given.items():
            one = offered.get(key)
            if one is None or one.shape.bins != len(given.group):
                raise PeerError("hybrid.shapes", f"{key[0]}: {key[1]} is not cut as in the common scorecard")
        return [self._binned(one) for one in counted]

    def _binned(self, one: CountedFeature) -> BinnedFeature:
        given = self._given.get((one.owner, one.shape.code))
        if given is not None:
            return in_bins(one, given.bins, 0.0, self._hybrid.woe_rows)
        none = np.zeros(1, np.int64)
        single = MergedBins(np.zeros(one.shape.bins, np.int64), none, none, none, 0.0)
        return in_bins(one, single, 0.0, 0.0)

    async def candidates(self, offer: Offer) -> Candidates:
        """The given features, as far as the ledgers allow."""
        own = sum(feature.owner not in offer.budgets for feature in offer.binned)
        return within_budgets(offer, np.eye(own), offer.budgets)

    async def uncollinear(
        self, features: Sequence[BinnedFeature], products: Ints, rules: ScorecardSection
    ) -> tuple[list[int], list[Dropped]]:
        """All of them: that was decided on more rows."""
        del products, rules
        return list(range(len(features))), []

    def steps(self, features: Sequence[BinnedFeature], moments: Moments, good: Floats, ridge: float) -> Steps:
        """One look at the rows."""
        del good
        given = [self._given[feature.owner, feature.code] for feature in features]
        common = CommonFit(np.array([one.slope for one in given]), tuple(one.bins.woe_units for one in given))
        return _WarmSteps(common, moments, self._hybrid.slope_ridge, ridge)


class _WarmSteps:
    """From the common coefficients to a bank's own, with one total per row."""

    def __init__(self, common: CommonFit, moments: Moments, slope_ridge: float, ridge: float) -> None:
        self._common, self._moments, self._slope_ridge = common, moments, slope_ridge
        self._known_from_others = slope_ridge or ridge or 1.0  # a column may be constant at a bank with few rows
        self._local: Local | None = None

    async def start(self) -> Decided:
        """The common coefficients, and an intercept from the bank's class means."""
        slopes = self._common.slopes
        point = np.concatenate([[own_intercept(self._moments, slopes)], slopes])
        return Decided(point, flat_information(self._moments, self._known_from_others), np.inf)

    async def best(self, point: Floats, total: Floats) -> tuple[Floats, Floats]:
        """The point itself."""
        return point, total

    async def step(self, at: Evaluated) -> Decided:
        """A step of the intercept; the coefficients stay until the end."""
        information = local_information(self._moments, at)
        self._local = Local(at.point, at.gradient, information.copy())
        point = at.point.copy()
        point[0] = self._local.intercept_after(np.zeros(len(point) - 1))
        information[1:, 1:] += self._known_from_others * np.eye(len(point) - 1)
        return Decided(point, information, 0.0)

    def finish(self, last: Decided) -> tuple[Decided, CommonFit | None]:
        """Coefficients of the bank's own near the common ones."""
        if self._local is None or self._slope_ridge == 0:
            return last, self._common
        return personal(last, self._local, self._slope_ridge), self._common
