"""What feature holders can say of the labels from the splits that were named to them, alone and together."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.attack.boost_attack import PlayedBoost, play_boost
from fedcredit.attack.boost_labels import LabelGuess, guess_labels, named_splits, ranked_right
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.errors import BoundError
from fedcredit.types import COORDINATOR, PartyId

TAX, UTILITY = PartyId("tax"), PartyId("utility")
SECTIONS = '[crypto]\nprofile = "unsafe-plaintext"\n'


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> PlayedBoost:
    """A default run in which each feature holder has three columns that matter and three that do not."""
    columns = {"bank": 3, "tax": 3, "utility": 3}
    sample = Sample(4000, columns, bad_rate=0.2, sections=SECTIONS, idle=3, model="boost")
    return play_boost(Rehearsal(write_sample(tmp_path_factory.mktemp("labels"), sample)))


def _guess(played: PlayedBoost, *parties: PartyId) -> LabelGuess:
    held = {party: played.held[party] for party in parties}
    named = [one for party in parties for one in named_splits(played.notes, party, played.held[party])]
    return guess_labels(held, named, played.result.index.train, played.bad)


@pytest.mark.parametrize("party", [TAX, UTILITY])
def test_named_splits_tell_a_holder_which_columns_matter_and_not_much_more(played: PlayedBoost, party: PartyId) -> None:
    found = _guess(played, party)
    assert 4 <= found.splits_named <= 18
    # Told which of its columns matter, a holder guesses better; never as well as with the labels themselves.
    assert found.without < found.best < found.ceiling
    assert found.best - found.without < 0.12


def test_two_holders_together_have_both_their_columns_and_both_their_splits(played: PlayedBoost) -> None:
    alone, both = [_guess(played, one) for one in (TAX, UTILITY)], _guess(played, TAX, UTILITY)
    assert both.splits_named == sum(one.splits_named for one in alone)
    assert both.best > max(one.best for one in alone)
    assert both.best < both.ceiling
    assert both.best - both.without < 0.12


def test_the_splits_named_are_those_disclosed(played: PlayedBoost) -> None:
    for party in (TAX, UTILITY):
        named = named_splits(played.notes, party, played.held[party])
        assert len({(one.feature, one.left) for one in named}) == played.held[party].disclosed == len(named)


def test_the_coordinator_receives_nothing_at_all(played: PlayedBoost) -> None:
    assert not [message for to, _, message in played.notes.received if to == COORDINATOR]


def test_holders_hear_nothing_of_each_other_but_shares_of_the_reference_string(played: PlayedBoost) -> None:
    """So what two of them pool is what each has, side by side."""
    kinds = {type(message).__name__ for to, sender, message in played.notes.received if {to, sender} == {TAX, UTILITY}}
    assert kinds == {"NonceCommitment", "NonceReveal"}


def test_without_a_named_split_there_is_nothing_to_guess_with(played: PlayedBoost) -> None:
    with pytest.raises(BoundError, match="no split was named"):
        guess_labels({TAX: played.held[TAX]}, [], played.result.index.train, played.bad)


def test_ranked_right_counts_pairs() -> None:
    bad = np.array([True, False, True, False])
    assert ranked_right(np.array([3.0, 1.0, 2.0, 0.0]), bad) == 1.0
    assert ranked_right(np.zeros(4), bad) == 0.5
    assert ranked_right(np.array([0.0, 1.0, 2.0, 3.0]), bad) == 0.25
