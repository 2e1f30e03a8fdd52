"""Clever use of the holders' noise: several runs, the same noise twice, another question under the same noise."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.attack.boost_attack import PlayedBoost, play_boost, recover, together
from fedcredit.attack.boost_noise import differences, noise_left, pool_runs
from fedcredit.attack.membership import Equations, least_squares, one_hot
from fedcredit.attack.rehearsal import Rehearsal, draws_of
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError, DisclosureRefused, IntegrityError
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.escrow import FileEscrow, NoEscrow
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import PartyId, RunId

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
LIMIT = 3.5
ONCE = RunId("once")
SECTIONS = '[crypto]\nprofile = "unsafe-plaintext"\n[boost]\n{}\n'


def _loaded(folder: Path, boost: str, rows: int = 2450) -> LoadedSpec:
    columns = {"bank": 4, "tax": 1, "utility": 1}
    sample = Sample(rows, columns, bad_rate=0.15, sections=SECTIONS.format(boost), idle=4, model="boost")
    return write_sample(folder, sample)


def _changed(loaded: LoadedSpec, *, seed: int = 0, learning_rate: float = 0.3) -> LoadedSpec:
    spec = loaded.spec
    assert spec.boost is not None
    split = spec.split.model_copy(update={"seed": seed})
    boost = spec.boost.model_copy(update={"learning_rate": learning_rate})
    return replace(loaded, spec=spec.model_copy(update={"split": split, "boost": boost}))


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> PlayedBoost:
    return play_boost(Rehearsal(_loaded(tmp_path_factory.mktemp("default"), "trees = 20")))


@pytest.mark.slow
def test_runs_against_one_ledger_do_not_add_up_to_more_than_one_at_the_cap(tmp_path: Path) -> None:
    """Five runs of six trees, each with other rows held out: together as near the cap as one run may go."""
    loaded = _loaded(tmp_path, "trees = 6")
    runs = []
    with ExitStack() as stack:
        ledgers = {p: stack.enter_context(Ledger(tmp_path / f"{p}.sqlite")) for p in (BANK, TAX, UTILITY)}
        for number in range(5):
            again = Rehearsal(_changed(loaded, seed=number), run=RunId(f"run-{number}"), ledgers=ledgers)
            runs.append(play_boost(again))
        with pytest.raises(DisclosureRefused, match="the largest number of trees of depth 3 is"):
            play_boost(Rehearsal(_changed(loaded, seed=5), run=RunId("run-5"), ledgers=ledgers))
    columns = [one for one in pool_runs(runs).values() if not one.disclosed]
    found = together([recover(one.known, one.truth, one.bad, least_squares) for one in columns])
    assert found.features >= 4
    assert found.equations > 180
    assert max(found.everyone, found.defaulters) <= LIMIT
    assert max(sum(run.view.disclosed((TAX, f"F{place}")) for run in runs) for place in range(1, 6)) <= 15


def test_one_noise_for_two_runs_would_give_the_bins_away(tmp_path: Path) -> None:
    """Why a holder's draws must never serve two runs: the noise cancels, and exact equations remain.

    Rows to train on, order of columns and noise are the same here; the trees learn at another rate. Both runs are
    within the caps, which count them as noisy.
    """
    loaded = _loaded(tmp_path, "trees = 15")
    runs = []
    with ExitStack() as stack:
        ledgers = {p: stack.enter_context(Ledger(tmp_path / f"{p}.sqlite")) for p in (BANK, TAX, UTILITY)}
        for number, rate in enumerate((0.3, 0.1)):
            secrets = {p: KeptSecrets(RunSecret.fresh(), draws_of(p, ONCE), NoEscrow()) for p in (TAX, UTILITY)}
            again = _changed(loaded, learning_rate=rate)
            runs.append(play_boost(Rehearsal(again, run=RunId(f"run-{number}"), ledgers=ledgers, secrets=secrets)))
    first, second = runs
    features = [one for one in first.unsplit if one in second.unsplit][:3]
    found = []
    for feature in features:
        exact = differences(first.view, second.view, feature)
        truth = first.truth[feature]
        assert np.array_equal(exact.vectors @ np.eye(exact.bins, dtype=np.int64)[truth], exact.sums)
        found.append(recover(exact, truth, first.bad, lambda one: one_hot(one, steps=150)))
    assert len(found) == 3
    assert together(found).defaulters > 2 * LIMIT


def test_other_runs_have_other_noise(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, "trees = 2")
    first, second = (play_boost(Rehearsal(loaded, run=RunId(name))) for name in ("one", "two"))
    feature = first.unsplit[0]
    name = next(own.name for own in first.held[feature[0]].own if own.shape.code == feature[1])
    code = next(own.shape.code for own in second.held[feature[0]].own if own.name == name)
    there = (feature[0], code)
    before, after = _noise(first, feature), _noise(second, there)
    assert before.keys() == after.keys()
    one, two = (np.concatenate([noise[at] for at in before]).astype(float) for noise in (before, after))
    assert 0.85 < one.std() / (4 * 127) < 1.15
    assert abs(float(np.corrcoef(one, two)[0, 1])) < 0.25  # three deviations of 256 independent pairs are 0.19


def _noise(played: PlayedBoost, feature: tuple[PartyId, str]) -> dict[tuple[int, int], NDArray[np.int64]]:
    """What a holder added to each answer."""
    truth = np.eye(played.view.bins[feature], dtype=np.int64)[played.truth[feature]]
    return {at: sums - vector @ truth for at, (vector, sums) in played.view.answers(feature).items()}


def test_empty_slots_tell_noise_that_is_used_nowhere_else(default: PlayedBoost) -> None:
    """A padded slot is answered with noise alone: it must not help with any other slot."""
    feature = default.unsplit[0]
    empty = [at for at, (vector, _) in default.view.answers(feature).items() if not vector.any()]
    added = _noise(default, feature)
    assert len(empty) > 5
    assert len({one.tobytes() for one in added.values()}) == len(added)
    noise = np.stack(list(added.values())).astype(float)
    assert 0.9 < noise.std() / (4 * 127) < 1.1
    likeness = np.corrcoef(noise)[np.triu_indices(len(noise), 1)]
    assert abs(likeness).max() < 0.97  # of 16 numbers each: chance alone makes some pairs look alike
    assert abs(likeness.mean()) < 0.02


def test_a_run_that_goes_on_with_other_vectors_is_refused(tmp_path: Path) -> None:
    """A crash, and then another question under the same noise: the holder's escrow knows what it has answered."""
    loaded = _loaded(tmp_path, "trees = 1")
    secret = {party: RunSecret.fresh().derive("test", party.encode()) for party in (TAX, UTILITY)}

    def play() -> None:
        with ExitStack() as stack:
            secrets = {}
            for party, key in secret.items():
                escrow = FileEscrow(tmp_path / f"{party}.jsonl", durable=False)
                stack.callback(escrow.close)
                secrets[party] = KeptSecrets(RunSecret(key), draws_of(party, ONCE), escrow)
            play_boost(Rehearsal(loaded, secrets=secrets))

    play()
    with pytest.raises(IntegrityError, match="bound to other content before"):
        play()  # a label holder with a fresh secret: other nonces, other ciphertexts, whatever the vectors


def test_averages_over_like_vectors_are_worth_this_much(default: PlayedBoost) -> None:
    """Roots of consecutive trees are alike: all of them together say more of the first tree's sums than one does."""
    feature = default.unsplit[0]
    known = default.view.equations(feature)
    asked = [at for at, (vector, _) in default.view.answers(feature).items() if vector.any()]
    roots = [place for place, (number, slot) in enumerate(asked) if number % 3 == 0 and slot == 0]  # 3 rounds a tree
    first = known.vectors[roots[0]]
    nothing, one, all_roots, everything = (
        noise_left(known, use, first, 127.0) for use in ([], roots[:1], roots, range(len(known.vectors)))
    )
    assert len(roots) == 20
    assert nothing > one > all_roots > everything
    assert 2.0 < one <= 4.02
    assert all_roots < 0.75 * one
    assert everything > 0.2 * one


def test_what_cannot_be_put_together_is_refused(default: PlayedBoost) -> None:
    exact = Equations(np.ones((2, 4), np.int64), np.ones((2, 3), np.int64))
    with pytest.raises(BoundError, match="leave none"):
        noise_left(exact, [0], np.ones(4, np.int64), 127.0)
    with pytest.raises(BoundError, match="do not differ"):
        differences(default.view, default.view, default.unsplit[0])
    with pytest.raises(BoundError, match="same common rows"):
        pool_runs([])
