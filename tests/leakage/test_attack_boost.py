"""What a boosting run's caps and noise stand for: all that the label holder received does not give rows' bins back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.attack.boost_attack import Found, PlayedBoost, attacks, play_boost, recover, together
from fedcredit.attack.boost_table import RUNS, figures, main
from fedcredit.attack.membership import Equations, class_prior, least_squares, measure, one_hot, start_from
from fedcredit.attack.posterior import Sweeps, posterior
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.errors import BoundError, DisclosureRefused
from fedcredit.types import PartyId

LIMIT = 3.5
"""Multiples of chance that the product owner allows, over all rows and over defaulters."""

QUICK = Sweeps(first=40, counted=80)
SECTIONS = """
[crypto]
profile = "unsafe-plaintext"
[boost]
{}
[privacy]
{}
"""


def _played(folder: Path, boost: str = "", privacy: str = "") -> PlayedBoost:
    columns = {"bank": 4, "tax": 1, "utility": 1}
    sections = SECTIONS.format(boost, privacy)
    sample = Sample(2450, columns, bad_rate=0.15, sections=sections, idle=4, model="boost")
    return play_boost(Rehearsal(write_sample(folder, sample)))


def _by_attack(played: PlayedBoost, features: Sequence[tuple[PartyId, str]], *, noisy: bool = True) -> dict[str, Found]:
    return {
        name: together([recover(played.view.equations(one), played.truth[one], played.bad, attack) for one in features])
        for name, attack in attacks(played.bad, noisy=noisy, sweeps=QUICK).items()
    }


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> PlayedBoost:
    """20 trees of depth 3, noise of 4 rows, 16 bins, 3 thresholds a feature, caps enforced: nothing is set."""
    return _played(tmp_path_factory.mktemp("default"))


def test_sums_alone_do_not_give_the_bins_of_a_default_run(default: PlayedBoost) -> None:
    """Features of which no split was disclosed: chance is one in sixteen."""
    assert len(default.unsplit) >= 4
    for found in _by_attack(default, default.unsplit).values():
        assert found.chance == 1 / 16
        assert 130 <= found.equations <= 160
        assert max(found.everyone, found.defaulters) <= LIMIT
        # the largest of several figures over 250 defaulters each, one deviation of which is a quarter of chance
        assert found.worst <= LIMIT + 0.5


def test_sums_add_little_to_disclosed_splits_in_a_default_run(default: PlayedBoost) -> None:
    """Features with a disclosed split: chance is a guess among the bins that the bitmaps leave."""
    assert default.split
    for found in _by_attack(default, default.split).values():
        assert found.chance > 1 / 16
        assert max(found.everyone, found.defaulters) <= LIMIT
        assert found.right - found.chance < 0.25


@pytest.mark.slow
def test_trees_up_to_the_cap_do_not_give_the_bins(tmp_path: Path) -> None:
    """As many equations as the ledger allows at this size: one more tree is refused."""
    with pytest.raises(DisclosureRefused, match="the largest number of trees of depth 3 is 31"):
        _played(tmp_path / "more", "trees = 32")
    played = _played(tmp_path, "trees = 31")
    found = _by_attack(played, played.unsplit)
    assert max(one.equations for one in found.values()) > 200
    assert max(max(one.everyone, one.defaulters) for one in found.values()) <= LIMIT


@pytest.mark.slow
def test_columns_offered_by_their_owners_draw_do_not_help(tmp_path: Path) -> None:
    played = _played(tmp_path, "trees = 30\ncolumn_sampling = 0.5")
    features = [one for one in played.unsplit if len(played.view.equations(one).vectors) > 80]
    found = _by_attack(played, features)["least squares"]
    assert max(found.everyone, found.defaulters) <= LIMIT


@pytest.mark.slow
def test_without_noise_and_caps_the_same_attacks_read_every_row(tmp_path: Path) -> None:
    """The same roles, with nothing held back: the caps and the noise are what protects."""
    privacy = "noise_rows = 0\nenforce = false\nrow_sampling = 0.7"
    played = _played(tmp_path, "trees = 80\nholder_thresholds = 0", privacy)
    for feature in played.view.features[:2]:
        known = replace(played.view.equations(feature), allowed=None)  # of the sums alone
        assert len(known.vectors) > 500
        found = recover(known, played.truth[feature], played.bad, lambda one: one_hot(one, steps=150))
        assert found.chance == 1 / 16
        assert found.everyone > 0.9
        assert found.defaulters > 0.95


@pytest.mark.slow
def test_noise_alone_keeps_the_same_sums_from_giving_rows(tmp_path: Path) -> None:
    """Without caps but with the default noise: much better than chance, far from every row."""
    played = _played(tmp_path, "trees = 80\nholder_thresholds = 0", "enforce = false\nrow_sampling = 0.7")
    feature = played.view.features[0]
    known = replace(played.view.equations(feature), allowed=None)
    found = recover(known, played.truth[feature], played.bad, least_squares)
    assert found.equations > 500
    assert LIMIT / 16 < found.defaulters < 0.7


@pytest.mark.parametrize(
    ("boost", "privacy"),
    [
        ("trees = 121\ndepth = 1\nlearning_rate = 0.1", "row_sampling = 0.5"),
        ("trees = 30", "row_sampling = 0.5"),
        ("trees = 30", "gradient_bits = 2"),
    ],
)
@pytest.mark.slow
def test_vectors_made_more_random_pass_the_limit_within_the_same_number_of_equations(
    tmp_path: Path, boost: str, privacy: str
) -> None:
    """A finding, kept: sampled rows and coarse rounding are worth several ordinary equations each."""
    played = _played(tmp_path, boost, privacy + "\nenforce = false")
    known = {one: played.view.equations(one) for one in played.unsplit}
    found = together([recover(known[one], played.truth[one], played.bad, least_squares) for one in known])
    assert found.equations <= len(played.bad) // 7
    assert found.defaulters > LIMIT


def _small(noise: float | None, source: np.random.Generator) -> tuple[Equations, NDArray[np.int64]]:
    truth = source.integers(0, 4, 80)
    vectors = source.integers(-50, 51, (60, 80))
    sums = vectors @ np.eye(4, dtype=np.int64)[truth]
    if noise is None:
        return Equations(vectors, sums), truth
    noisy = np.rint(sums + noise * source.normal(size=sums.shape)).astype(np.int64)
    return Equations(vectors, noisy, np.full(60, noise)), truth


def test_each_attack_finds_most_rows_of_a_small_noisy_system() -> None:
    known, truth = _small(40.0, np.random.default_rng(1))
    for attack in attacks(truth == 0, noisy=True, sweeps=QUICK).values():
        guess = attack(known)
        assert (guess.argmax(axis=1) == truth).mean() > 0.7


def test_the_posterior_is_a_distribution_and_calibrated() -> None:
    """Where it says 60 %, about 60 % are right: over many small systems."""
    source = np.random.default_rng(2)
    said, right = [], []
    for _ in range(12):
        known, truth = _small(150.0, source)
        found = posterior(known, sweeps=Sweeps(first=60, counted=200))
        assert np.allclose(found.sum(axis=1), 1.0)
        said += found.max(axis=1).tolist()
        right += (found.argmax(axis=1) == truth).tolist()
    assert 0.4 < np.mean(said) < 0.95
    assert abs(np.mean(said) - np.mean(right)) < 0.05


def test_ruled_out_bins_are_never_named() -> None:
    known, truth = _small(40.0, np.random.default_rng(3))
    allowed = (np.arange(4) // 2) == (truth // 2)[:, None]
    halved = Equations(known.vectors, known.sums, known.noise, allowed)
    for attack in attacks(truth == 0, noisy=True, sweeps=QUICK).values():
        named = attack(halved).argmax(axis=1)
        assert allowed[np.arange(80), named].all()
        assert (named == truth).mean() > (attack(known).argmax(axis=1) == truth).mean() - 0.05
    exact = Equations(known.vectors, known.vectors @ np.eye(4, dtype=np.int64)[truth], None, allowed)
    assert (least_squares(exact).argmax(axis=1) == truth).all()
    assert (one_hot(exact).argmax(axis=1) == truth).all()


def test_a_prior_by_class_helps_the_posterior_no_less_than_the_shares_it_learns() -> None:
    """Shares by class are learnt from the sums themselves."""
    source = np.random.default_rng(4)
    bad = np.arange(400) < 100
    truth = np.where(bad, source.integers(0, 2, 400), source.integers(2, 4, 400))
    vectors = source.integers(-50, 51, (30, 400))
    sums = np.rint(vectors @ np.eye(4)[truth] + 200 * source.normal(size=(30, 4))).astype(np.int64)
    known = Equations(np.vstack([vectors, bad]), np.vstack([sums, bad @ np.eye(4, dtype=np.int64)[truth]]))
    noisy = Equations(known.vectors, known.sums, np.append(np.full(30, 200.0), 1.0))
    every = np.ones(400, np.bool_)
    blind = measure(posterior(noisy, sweeps=QUICK), truth, bad, every, 31)
    learnt = measure(posterior(noisy, bad, sweeps=QUICK), truth, bad, every, 31)
    shares = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0]]) * 100
    told = measure(posterior(noisy, None, class_prior(bad.astype(int), shares.astype(np.int64))), truth, bad, every, 31)
    assert learnt.everyone > blind.everyone
    assert told.everyone > blind.everyone
    assert abs(told.everyone - learnt.everyone) < 0.15


def test_what_cannot_be_attacked_is_refused(default: PlayedBoost, tmp_path: Path) -> None:
    known, truth = _small(None, np.random.default_rng(5))
    with pytest.raises(BoundError, match="one_hot"):
        posterior(known)
    with pytest.raises(BoundError, match="deviation"):
        Equations(known.vectors, known.sums, np.zeros(60))
    with pytest.raises(BoundError, match="place"):
        Equations(known.vectors, known.sums, None, np.zeros((80, 4), np.bool_))
    nowhere = Equations(known.vectors, known.sums, None, np.eye(4, dtype=np.bool_)[truth])
    with pytest.raises(BoundError, match="no bin"):
        start_from(nowhere, 1.0 - np.eye(4)[truth])
    with pytest.raises(BoundError, match="no feature"):
        together([])
    with pytest.raises(BoundError, match="no equation"):
        recover(Equations(known.vectors[:0], known.sums[:0]), truth, truth == 0, least_squares)
    sample = Sample(400, {"bank": 1, "tax": 1})
    with pytest.raises(BoundError, match=r"run\.model"):
        play_boost(Rehearsal(write_sample(tmp_path, sample)))


@pytest.mark.slow
def test_the_table_has_a_line_for_every_attack(default: PlayedBoost, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(figures(default, split=True)) == {"least squares", "one-hot", "posterior"}
    with pytest.raises(BoundError, match="beyond and proposed"):
        main(["nothing"])
    assert capsys.readouterr().out == ""
    assert {run.group for run in RUNS} == {"default", "beyond", "proposed"}
