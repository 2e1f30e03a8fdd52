"""The oracle itself against a slow computation that shares no code with it: row by row, then the field's library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from fedcredit.kernels.prebin import Prebins

Runner = Callable[[Path], dict[str, Any]]


def slow_place(value: float | str | None, prebins: Prebins) -> int:
    """Prebin of one value, from what the bins are said to be."""
    missing = prebins.bins - 1 if prebins.has_missing else prebins.fallback
    if value is None:
        return missing
    if isinstance(value, str):
        places = [place for place, names in enumerate(prebins.categories) if value in names]
        return places[0] if places else prebins.fallback
    for place, codes in enumerate(prebins.special):
        if value in codes:
            return prebins.ordered + place
    if value in prebins.as_missing:
        return missing
    return sum(value > edge for edge in prebins.edges)


@pytest.fixture
def exact(tmp_path: Path, consortium: Callable[..., Path], looked_into: Runner) -> dict[str, Any]:
    """A run to the exact maximum: no noise, no rounding, no penalty."""
    fit = {"fit": "mle", "total_noise": 0.0, "total_step": 1e-6, "ridge": 0.0}
    sections = {"scorecard": fit, "crypto": {"profile": "unsafe-plaintext"}}
    return {**looked_into(consortium(tmp_path, rows=900, seed=5, sections=sections)), "folder": tmp_path}


def columns_by_hand(seen: dict[str, Any]) -> tuple[list[list[int]], list[int], list[bool], Sequence[Any]]:
    """Merged bin of each row in each feature of the model, labels, held out; from the parties' files."""
    label = seen["label"]
    own = {("bank", one.shape.code): one for one in label.own}
    own |= {(party, one.own.shape.code): one.own for party, held in seen["held"].items() for one in held}
    features = label.fitted.features
    files = {party: pl.read_csv(seen["folder"] / f"{party}.csv") for party in ("bank", *seen["held"])}
    rows = {party: {row["id"]: row for row in frame.iter_rows(named=True)} for party, frame in files.items()}
    places = [
        [
            int(f.merged.group[slow_place(rows[f.owner][one][own[f.owner, f.code].name], own[f.owner, f.code].prebins)])
            for one in label.index.ids
        ]
        for f in features
    ]
    bad = [int(rows["bank"][one]["bad"]) for one in label.index.ids]
    return places, bad, label.index.test.tolist(), features


def test_counts_woe_coefficients_and_points(exact: dict[str, Any]) -> None:
    places, bad, test, features = columns_by_hand(exact)
    train = [row for row in range(len(bad)) if not test[row]]
    goods, bads = sum(not bad[row] for row in train), sum(bad[row] for row in train)
    columns = []
    for feature, place in zip(features, places, strict=True):
        bins = feature.merged.bins
        by_bin = [[0, 0] for _ in range(bins)]
        for row in train:
            by_bin[place[row]][bad[row]] += 1
        assert [one[0] for one in by_bin] == feature.merged.goods.tolist()
        assert [one[1] for one in by_bin] == feature.merged.bads.tolist()
        woe = [math.log((good + 0.5) / (goods + 0.5)) - math.log((ill + 0.5) / (bads + 0.5)) for good, ill in by_bin]
        assert np.abs(np.array(woe) - feature.merged.woe).max() <= 0.025 + 1e-9  # rounded to 0.05
        columns.append([float(feature.merged.woe[one]) for one in place])
    x = sm.add_constant(np.array(columns).T)
    library = sm.Logit(1 - np.array(bad)[train], x[train]).fit(disp=0, tol=1e-12, maxiter=200)
    fitted = exact["label"].fitted
    assert np.abs(fitted.coefficients - library.params).max() < 1e-3
    errors = np.sqrt(np.diag(fitted.covariance))
    assert np.abs(errors / library.bse - 1).max() < 0.1  # from projected information
    assert exact["summary"]["coefficients_from_reference"] < 1e-3
    held = [row for row in range(len(bad)) if test[row]]
    logit = np.asarray(library.predict(x[held], which="linear"))
    exact_points = 600 + 50 / math.log(2) * (logit - math.log(20))
    assert np.abs(fitted.scores - exact_points).max() < 0.5 * (len(features) + 1) + 0.1  # each part rounded to a point


def test_the_split_and_the_common_rows_by_hand(exact: dict[str, Any]) -> None:
    folder = exact["folder"]
    lists = [set(pl.read_csv(folder / f"{party}.csv")["id"].to_list()) for party in ("bank", *exact["held"])]
    index = exact["label"].index
    assert set(index.ids) == set.intersection(*lists)
    assert 0.2 < index.test.mean() < 0.4
