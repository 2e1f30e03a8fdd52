"""What a boosting run asks for and what it costs: every party derives it from the spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fedcredit.crypto.noise import exact_sd, noise_bound
from fedcredit.crypto.packing import Field
from fedcredit.errors import DisclosureRefused
from fedcredit.kernels.gradients import gradient_bound
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_grower import GrowRules, query_slots
from fedcredit.kernels.trees import BoostRules
from fedcredit.protocol.boost.columns import UNCAPPED
from fedcredit.protocol.boost.draws import HolderDraws
from fedcredit.protocol.group_sum.session import Conversation, Session
from fedcredit.spec.model import BoostSection, PrivacySection, RunSpec
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Cost, CostKind

__all__ = ["FIELDS", "SHAPE_EQUATIONS", "BoostPlan", "check_trees", "plan_boost"]

FIELDS = 2
"""Sums of g and of h: two equations about every feature for each node asked."""

SHAPE_EQUATIONS = 1
"""The number of bins itself follows the common rows, which are the label holder's choice."""

_EARNS_CAP = 4.0  # rows of noise from which a ledger's higher cap holds


_SAMPLED, _COARSE, _COARSE_BITS, _MEASURED_BINS = 4, 2, 2, 16


@dataclass(frozen=True)
class BoostPlan:
    """The rounds of a tree, their requests and their price.

    Args:
        boost: Section ``[boost]``.
        privacy: Section ``[privacy]``.
    """

    boost: BoostSection
    privacy: PrivacySection

    @cached_property
    def grow(self) -> GrowRules:
        """How a tree is grown."""
        search = SplitRules(
            l2=self.boost.l2, min_child_weight=self.boost.min_child_weight, min_child_rows=self.boost.min_child_rows
        )
        return GrowRules(self.boost.growth, self.boost.depth, self.boost.leaves, search, self.boost.learning_rate)

    @cached_property
    def rules(self) -> BoostRules:
        """How the model is grown."""
        return BoostRules(
            trees=self.boost.trees,
            grow=self.grow,
            gradient_bits=self.privacy.gradient_bits,
            row_sampling=self.privacy.row_sampling,
            first_trees_local=self.boost.first_trees_local,
            early_stopping=self.privacy.early_stopping,
            noise_rows=self.privacy.noise_rows,
        )

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Nodes asked in each round of a tree, padded with empty ones."""
        return query_slots(self.grow)

    def wanted(self, number: int) -> int:
        """Most new splits of one holder in a round."""
        return 1 if self.boost.growth == "leaf" else int(2**number)

    @property
    def asked_trees(self) -> int:
        """Trees that feature holders are asked about, at most."""
        return self.boost.trees - self.boost.first_trees_local

    @property
    def noise_units(self) -> float:
        """Least standard deviation of a holder's noise on each sum, in units of the quantised values."""
        return self.privacy.noise_rows * gradient_bound(self.privacy.gradient_bits)

    @property
    def noise_sd(self) -> float:
        """The standard deviation that it really has."""
        return exact_sd(self.noise_units)

    @property
    def weight(self) -> int:
        """What one sum counts in the ledger: more where it says more than those that the caps were measured on.

        Sampled rows and coarse rounding make the vectors of consecutive trees independent, so that each equation is
        new; finer bins make a guess that is right worth more. Measured in docs/attacks.md.
        """
        sampled = _SAMPLED if self.privacy.row_sampling < 1 else 1
        coarse = _COARSE if self.privacy.gradient_bits <= _COARSE_BITS else 1
        return sampled * coarse * -(-self.boost.holder_bins // _MEASURED_BINS)

    @property
    def equations_a_tree(self) -> int:
        """What a tree costs each feature that takes part."""
        return FIELDS * sum(self.slots) * self.weight

    @property
    def cap(self) -> int:
        """Distinct splits of a feature that are disclosed at most."""
        return self.boost.holder_thresholds or UNCAPPED

    @property
    def capped(self) -> bool:
        """Whether there is such a cap."""
        return self.boost.holder_thresholds > 0

    def conversation(self, session: Session, rows: int) -> Conversation:
        """One batch a round of every asked tree."""
        field = Field(gradient_bound(self.privacy.gradient_bits), noise_bound(self.noise_units), self.noise_sd)
        rounds = tuple((field, field) * slots for slots in self.slots)
        return Conversation(session, "boost", rounds * max(1, self.asked_trees), rows)

    def batch(self, tree: int, number: int) -> int:
        """Number of the request of one round."""
        return (tree - self.boost.first_trees_local) * len(self.slots) + number

    def kept_slots(self, thresholds: Sequence[int]) -> int:
        """Length of the mask of kept splits: as many as a holder could have disclosed, and at least one."""
        return max(1, min(sum(thresholds), self.asked_trees * (self.boost.leaves - 1)))

    def trees_offered(self, draws: HolderDraws, features: int, trees: int) -> list[int]:
        """In how many of the asked trees each feature takes part, when there are ``trees`` in all."""
        local = self.boost.first_trees_local
        if self.boost.column_sampling >= 1:
            return [max(0, trees - local)] * features
        counts = [0] * features
        for tree in range(local, trees):
            for feature, offered in enumerate(draws.columns(tree, features, self.boost.column_sampling)):
                counts[feature] += int(offered)
        return counts

    def costs(self, names: Sequence[str], offered: Sequence[int], thresholds: Sequence[int]) -> tuple[Cost, ...]:
        """What a holder discloses at most.

        Args:
            names: Ledger names of its features.
            offered: Trees each takes part in.
            thresholds: New splits each may disclose; without one a feature is never asked.
        """
        each = self.equations_a_tree
        equations = [
            Cost(CostKind.EQUATIONS, name, SHAPE_EQUATIONS + (each * trees if new else 0))
            for name, trees, new in zip(names, offered, thresholds, strict=True)
        ]
        most = self.asked_trees * (self.boost.leaves - 1)
        bits = [
            Cost(CostKind.ROW_BITS, name, min(new, most)) for name, new in zip(names, thresholds, strict=True) if new
        ]
        return (*equations, *bits)


def plan_boost(spec: RunSpec) -> BoostPlan:
    """The plan of sections ``[boost]`` and ``[privacy]``."""
    return BoostPlan(spec.boost or BoostSection(), spec.privacy)


def check_trees(plan: BoostPlan, draws: HolderDraws, left: Sequence[float], label_holder: PartyId) -> None:
    """Refuses a run whose trees would pass a cap, and says how many would not.

    Args:
        plan: The run.
        draws: The holder's, for the trees that each feature takes part in.
        left: Equations that the ledger leaves for each feature that would be asked.
        label_holder: Who asks.

    Raises:
        DisclosureRefused: with the largest number of trees that would be answered.
    """
    each = plan.equations_a_tree

    def fits(trees: int) -> bool:
        offered = plan.trees_offered(draws, len(left), trees)
        return all(SHAPE_EQUATIONS + each * count <= room for count, room in zip(offered, left, strict=True))

    trees = plan.boost.trees
    if fits(trees):
        return
    low, high = plan.boost.first_trees_local, trees
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    boost = plan.boost
    size = f"{boost.leaves} leaves" if boost.growth == "leaf" else f"depth {boost.depth}"
    needed = SHAPE_EQUATIONS + each * max(plan.trees_offered(draws, len(left), trees))
    advice = "" if plan.privacy.noise_rows >= _EARNS_CAP else "; privacy.noise_rows = 4 would raise the cap"
    raise DisclosureRefused(
        "boost.trees",
        f"boost.trees = {trees}: {needed} equations a feature for {label_holder}, the ledger leaves {min(left):.0f}: "
        f"the largest number of trees of {size} is {low if fits(low) else 0}{advice}",
    )
