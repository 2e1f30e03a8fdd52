"""What a bank adds to the pool's trees for its own rows, without asking anyone anything."""

from __future__ import annotations

from typing import Final

from fedcredit.kernels.boost_state import BoostRules, BoostState
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_draws import NoDraws
from fedcredit.kernels.tree_parts import GrowRules
from fedcredit.spec.model import HybridSection

__all__ = ["own_trees", "personal_rules"]

_DEPTH: Final = 4


def personal_rules(hybrid: HybridSection) -> BoostRules:
    """How a bank's own trees are grown: small ones, at exact derivatives, since nobody but the bank sees a sum."""
    search = SplitRules(l2=1.0, min_child_weight=1.0, min_child_rows=hybrid.personal_rows)
    leaves = hybrid.personal_leaves
    grow = GrowRules("leaf", min(leaves - 1, _DEPTH), leaves, search, hybrid.personal_rate)
    return BoostRules(trees=hybrid.personal_trees, grow=grow)


def own_trees(state: BoostState, hybrid: HybridSection) -> BoostState:
    """The pool's trees up to the best one, and ``hybrid.personal_trees`` more for this bank's rows.

    They split on the bank's own columns and on what the holders have disclosed by then. On eight lenders of 600 to
    2,500 rows that is worth more than asking anew: it costs no answer, and sums of so few rows would lead astray.
    """
    if not hybrid.personal_trees:
        return state
    own = state.personal(personal_rules(hybrid))
    draws = NoDraws(len(own.records.features))
    while not own.finished:
        grower = own.next_tree(draws)
        while not grower.done:
            grower.choose([])
            grower.settle({})
        own.add(grower)
    return own
