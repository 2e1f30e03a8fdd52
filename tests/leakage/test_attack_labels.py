"""What a feature holder can make of the WOE that is returned to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcredit.attack.labels import ReturnedFeature, bads_of_woe, labels_from_returned_woe, measure_labels
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.errors import BoundError
from fedcredit.kernels.woe import WOE_UNIT, weight_of_evidence
from fedcredit.types import PartyId

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")


def _returned(rows: int, features: int, bins: int, unit: float) -> tuple[list[ReturnedFeature], np.ndarray]:
    """Many features of random bins, with WOE in steps of ``unit`` (in multiples of the product's step)."""
    source = np.random.default_rng(5)
    bad = source.random(rows) < 0.2
    found = []
    for _ in range(features):
        codes = source.integers(0, bins, rows)
        bads = np.bincount(codes[bad], minlength=bins)
        goods = np.bincount(codes, minlength=bins) - bads
        woe = np.asarray(weight_of_evidence(goods, bads, 0.5))
        found.append(ReturnedFeature(codes, np.rint(woe / unit / WOE_UNIT) * unit))
    return found, bad


def test_the_bads_of_a_bin_follow_from_its_woe() -> None:
    goods, bads = np.array([40, 10, 250]), np.array([3, 25, 22])
    woe = np.asarray(weight_of_evidence(goods, bads, 0.5))
    found = bads_of_woe((goods + bads).astype(np.float64), woe, int(goods.sum()), int(bads.sum()), 0.5)
    assert np.allclose(found, bads, atol=1e-6)


def test_unrounded_woe_of_many_bins_gives_the_labels_back() -> None:
    features, bad = _returned(600, 60, 6, 1e-9)
    goods = int((~bad).sum())
    guess = labels_from_returned_woe(features, goods, int(bad.sum()), 0.5, rounded=False)
    assert measure_labels(guess, bad, features).recall > 0.95


def test_rounding_and_few_bins_do_not() -> None:
    features, bad = _returned(600, 10, 6, 1.0)
    guess = labels_from_returned_woe(features, int((~bad).sum()), int(bad.sum()), 0.5)
    found = measure_labels(guess, bad, features)
    assert found.recall < 0.55
    assert found.bins == 60


def test_in_a_real_run_the_returned_bins_say_no_more_than_the_model_does(tmp_path: Path) -> None:
    sections = '[crypto]\nprofile = "unsafe-plaintext"\n[bin]\nprebins = 8\nmin_prebin_rows = 50\nmax_bins = 6\n'
    sample = Sample(2000, {BANK: 2, TAX: 4, UTILITY: 4}, sections=sections)
    loaded = write_sample(tmp_path, sample)
    results = Rehearsal(loaded).play()
    index, bad = results[BANK].index, results[BANK].bad
    train = index.train
    for party in (TAX, UTILITY):
        features = [ReturnedFeature(one.group[one.own.codes][train], one.woe_units) for one in results[party][1]]
        bads = int((bad & train).sum())
        guess = labels_from_returned_woe(features, int(train.sum()) - bads, bads, loaded.spec.bin.smoothing)
        found = measure_labels(guess, bad[train], features)
        assert found.bins >= 15
        assert found.recall <= found.model + 0.05


def test_nothing_returned_is_nothing_to_attack() -> None:
    with pytest.raises(BoundError, match="no feature was returned"):
        labels_from_returned_woe([], 10, 5, 0.5)
