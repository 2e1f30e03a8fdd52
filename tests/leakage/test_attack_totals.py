"""What totals of rows in integer points say of the bins behind them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.attack.evidence import LabelHolderView
from fedcredit.attack.recorder import recording
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.attack.totals import bin_posterior, combinations, noisy_posterior, read_totals
from fedcredit.errors import BoundError, DisclosureRefused
from fedcredit.protocol.scorecard.plan import plan_fit
from fedcredit.types import PartyId

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
SECTIONS = (
    '[crypto]\nprofile = "unsafe-plaintext"\n[bin]\nprebins = 8\nmin_prebin_rows = 50\nmax_bins = 6\nmin_bads = 5\n'
)


def _tables(source: np.random.Generator, bins: tuple[int, ...], rounds: int) -> list[NDArray[np.int64]]:
    return [source.integers(-9, 10, (rounds, count)) for count in bins]


@pytest.mark.parametrize(("bins", "rounds"), [((2, 3, 4), 1), ((3, 3, 2, 2), 2), ((5,), 1), ((2, 2, 2, 2, 2), 3)])
def test_counts_and_posteriors_equal_those_of_plain_enumeration(bins: tuple[int, ...], rounds: int) -> None:
    source = np.random.default_rng(len(bins))
    tables = _tables(source, bins, rounds)
    shares = [source.dirichlet(np.ones(count)) for count in bins]
    truth = np.column_stack([source.integers(0, count, 40) for count in bins])
    totals = sum(table[:, truth[:, place]] for place, table in enumerate(tables))
    assert isinstance(totals, np.ndarray)
    found = read_totals(tables, totals, shares)
    for row in range(40):
        weights = [np.zeros(count) for count in bins]
        fits = 0
        for one in product(*(range(count) for count in bins)):
            if all(sum(t[r, b] for t, b in zip(tables, one, strict=True)) == totals[r, row] for r in range(rounds)):
                fits += 1
                weight = np.prod([share[b] for share, b in zip(shares, one, strict=True)])
                for place, b in enumerate(one):
                    weights[place][b] += weight
        assert found.combinations[row] == fits
        for place in range(len(bins)):
            assert np.allclose(found.posterior[place][row], weights[place] / weights[place].sum())


def test_powers_of_a_base_are_read_off_and_flat_tables_say_nothing() -> None:
    truth = np.array([[0, 1, 2], [2, 2, 0], [1, 0, 1]])
    read = [np.array([[0, 1, 2]]) * 3**place for place in range(3)]
    totals = sum(table[:, truth[:, place]] for place, table in enumerate(read))
    assert isinstance(totals, np.ndarray)
    shares = [np.full(3, 1 / 3)] * 3
    found = read_totals(read, totals, shares)
    assert found.determined == 1.0
    assert np.array_equal(np.column_stack([one.argmax(axis=1) for one in found.posterior]), truth)
    flat = [np.zeros((1, 3), np.int64)] * 3
    nothing = read_totals(flat, np.zeros((1, 3), np.int64), shares)
    assert nothing.combinations.tolist() == [27.0] * 3
    assert nothing.determined == 0.0
    assert np.allclose(nothing.posterior[1], 1 / 3)


def test_a_total_that_no_row_can_have_fits_nothing_and_leaves_the_shares() -> None:
    tables = [np.array([[0, 2]]), np.array([[0, 4]])]
    totals = np.array([[3, 100]])
    assert combinations(tables, totals).tolist() == [0.0, 0.0]
    (first, _) = bin_posterior(tables, totals, [np.array([0.25, 0.75]), np.array([0.5, 0.5])])
    assert first.tolist() == [[0.25, 0.75]] * 2


def test_rounds_that_do_not_fit_and_keys_that_are_too_wide_are_refused() -> None:
    with pytest.raises(BoundError, match="rounds"):
        combinations([np.zeros((2, 3), np.int64)], np.zeros((1, 5), np.int64))
    with pytest.raises(BoundError, match="one key"):
        combinations([np.array([[0, 1 << 40], [0, 1 << 40]])], np.zeros((2, 5), np.int64))


def _gap_closed(folder: Path, columns: int, options: str) -> float:
    """How far the totals bring the label holder from class counts (0) to certainty (1) on the defaulters."""
    sample = Sample(2000, {BANK: 2, TAX: columns, UTILITY: columns}, sections=SECTIONS + options)
    with recording() as notes:
        results = Rehearsal(loaded := write_sample(folder, sample)).play()
    view, led = LabelHolderView(notes, BANK), results[BANK]
    bad = led.bad[led.index.train]
    rounds = [one for one in view.rounds() if one.rows == "train"]
    truth = {
        (party, one.own.shape.code): one.group[one.own.codes][led.index.train]
        for party in (TAX, UTILITY)
        for one in results[party][1]
    }
    tables = [np.stack([one.tables[feature] for one in rounds]) for feature in view.kept]
    counts = [view.equations(feature).sums[0] for feature in view.kept]
    totals = np.stack([one.totals for one in rounds])[:, bad]
    shares = [one / one.sum() for one in counts]
    plan = plan_fit(loaded.spec.scorecard)
    variance = 2 * (plan.noise_units**2 + (plan.step_units**2 / 6 if plan.step_units > 1 else 0.0))
    posterior = noisy_posterior(tables, totals, shares, variance) if variance else bin_posterior(tables, totals, shares)
    right = np.mean([(p.argmax(1) == truth[f][bad]).mean() for f, p in zip(view.kept, posterior, strict=True)])
    modal = np.mean([one.max() / one.sum() for one in counts])
    return float((right - modal) / (1 - modal))


def test_noise_hides_what_exact_totals_determine() -> None:
    source = np.random.default_rng(2)
    tables = _tables(source, (4, 4, 4), 2)
    truth = np.column_stack([source.integers(0, 4, 200) for _ in range(3)])
    totals = sum(table[:, truth[:, place]] for place, table in enumerate(tables))
    assert isinstance(totals, np.ndarray)
    shares = [np.full(4, 0.25)] * 3

    def right(posterior: tuple[NDArray[np.float64], ...]) -> float:
        return float(np.mean([(one.argmax(1) == truth[:, place]).mean() for place, one in enumerate(posterior)]))

    exact = right(bin_posterior(tables, totals, shares))
    assert exact > 0.75
    assert right(noisy_posterior(tables, totals, shares, 0.01)) == pytest.approx(exact, abs=0.1)
    noisy = totals + np.rint(source.normal(scale=10.0, size=totals.shape)).astype(np.int64)
    assert right(noisy_posterior(tables, noisy, shares, 100.0)) < 0.55
    with pytest.raises(BoundError, match="without noise"):
        noisy_posterior(tables, totals, shares, 0.0)


def test_two_totals_over_many_columns_say_little(tmp_path: Path) -> None:
    assert _gap_closed(tmp_path, 4, "[scorecard]\nmax_totals = 2\n") < 0.15


def test_two_totals_over_few_columns_say_little(tmp_path: Path) -> None:
    assert _gap_closed(tmp_path, 2, "[scorecard]\nmax_totals = 2\n") < 0.25


def test_it_is_the_noise_that_hides_them(tmp_path: Path) -> None:
    """The same run with exact totals: the ledger refuses it where caps are enforced, and the attack shows why."""
    exact = "[scorecard]\nmax_totals = 2\ntotal_step = 0.0001\ntotal_noise = 0.0\n"
    with pytest.raises(DisclosureRefused, match="bits per row"):
        _gap_closed(tmp_path / "capped", 2, exact)
    assert _gap_closed(tmp_path / "open", 2, exact + "[privacy]\nenforce = false\n") > 0.8
