"""What features and splits of boosted trees are called to the label holder: its own by name, others' by code."""

from __future__ import annotations

from fedcredit.report.words import at_most, join
from fedcredit.runtime.boost.files import LabelFile, PartFeature, PartSplit

__all__ = ["TreeNames"]


class TreeNames:
    """Names as the label holder may see them, whatever the file holds."""

    def __init__(self, file: LabelFile) -> None:
        self.party = file.party
        self.place = {(one.owner, one.code): place for place, one in enumerate(file.features)}
        self._features = file.features

    def own(self, feature: PartFeature) -> bool:
        """Whether it is the reader's."""
        return feature.owner == self.party

    def short(self, feature: PartFeature) -> str:
        """Its name, or another party's code."""
        return feature.name if self.own(feature) and feature.name else feature.code

    def full(self, feature: PartFeature) -> str:
        """A name that no other feature of the run has."""
        return self.short(feature) if self.own(feature) else f"{feature.owner} {feature.code}"

    def split(self, split: PartSplit) -> str:
        """What sends a row left."""
        feature = self._features[self.place[split.owner, split.code]]
        if self.own(feature):
            return at_most(split.label or split.code, feature.name or "")
        if split.derived:
            numbers = join([str(number) for number in split.derived.splits])
            return f"{split.owner} {split.code}, split{'s' * (len(split.derived.splits) > 1)} {numbers} together"
        return f"{split.owner} {split.code}, split {split.split}"
