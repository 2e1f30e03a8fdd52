"""A run by a register, in which rows that do not count are mixed in, is the plain run over the label holder's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import BY_REGISTER, PLAIN_SAME_ROWS, REGISTER, Sample, write_sample
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec
from fedcredit.types import PartyId

TAX, UTILITY = PartyId("tax"), PartyId("utility")
SECTIONS = """
[crypto]
profile = "{}"
[bin]
prebins = 6
min_prebin_rows = 20
min_goods = 5
min_bads = 5
max_bins = 4
[scorecard]
min_iv = 0.0
[boost]
trees = 4
bins = 8
holder_bins = 5
min_bin_rows = 10
min_child_rows = 15
[privacy]
enforce = false
"""
PLAINTEXT = SECTIONS.format("unsafe-plaintext")
HOLDERS: dict[int, Mapping[str, int]] = {
    1: {"bank": 2, "tax": 3},
    2: {"bank": 2, "tax": 3, "utility": 2},
    3: {"bank": 1, "tax": 1, "utility": 2, "customs": 2},
}
ROWS, STRANGERS, KNOWN = 900, 400, 0.85


def _sample(holders: int = 2, model: str = "scorecard", sections: str = PLAINTEXT) -> Sample:
    """The holders know different parts of the customers, and of those who are none."""
    return Sample(
        ROWS, HOLDERS[holders], bad_rate=0.35, sections=sections, model=model, strangers=STRANGERS, known=KNOWN
    )


def _run(folder: Path, sample: Sample, align: str) -> Simulation:
    """A simulation; the holders' columns of trees have four values, which are their own bins whatever the rows.

    Trees are cut at the quantiles of the rows summed, which by a register are others: all that the holder knows.
    """
    loaded = write_sample(folder, replace(sample, align=align))
    if sample.model == "boost":
        for party in set(sample.columns) - {"bank"}:
            table = pl.read_csv(folder / f"{party}.csv")
            quarters = [(pl.col(one).rank("ordinal") * 4 // (table.height + 1)).alias(one) for one in table.columns[1:]]
            table.with_columns(quarters).write_csv(folder / f"{party}.csv")
    return simulate(loaded, folder / "out")


def _part(run: Simulation, party: str, file: str) -> Any:
    return json.loads((run.out / "model" / party / file).read_text())


def _same(plain: Simulation, hidden: Simulation, parties: Mapping[str, int], file: str) -> None:
    for party in parties:
        parts = [_part(run, party, file) for run in (plain, hidden)]
        for cuts in (one["cuts"] for part in parts for one in part["features"] if one.get("cuts")):
            if cuts.get("has_missing"):
                del cuts["fallback"]  # no row goes there
        assert parts[0] == parts[1]
    predictions = [pl.read_parquet(run.out / "predictions.parquet") for run in (plain, hidden)]
    assert predictions[0].height > 200
    assert predictions[0].equals(predictions[1])
    for key in ("metrics", "calibration", "rows_train", "rows_test", "positives_train", "positives_test"):
        assert plain.summary[key] == hidden.summary[key], key
    for run in (plain, hidden):
        assert run.summary["scores_equal_pooled_plaintext"]
        assert run.summary["auc_test"] == run.summary["auc_pooled_plaintext"]


@pytest.mark.slow
@pytest.mark.parametrize("holders", HOLDERS)
def test_the_scorecard_is_the_same(tmp_path: Path, holders: int) -> None:
    sample = _sample(holders)
    plain, hidden = (_run(tmp_path / align[:12], sample, align) for align in (PLAIN_SAME_ROWS, BY_REGISTER))
    _same(plain, hidden, HOLDERS[holders], "scorecard.json")
    assert plain.summary["fit"] == hidden.summary["fit"]
    owners = {one["owner"] for one in _part(hidden, "bank", "scorecard.json")["features"]}
    assert owners == set(HOLDERS[holders])


@pytest.mark.parametrize("holders", HOLDERS)
def test_the_trees_are_the_same(tmp_path: Path, holders: int) -> None:
    sample = _sample(holders, "boost")
    plain, hidden = (_run(tmp_path / align[:12], sample, align) for align in (PLAIN_SAME_ROWS, BY_REGISTER))
    _same(plain, hidden, HOLDERS[holders], "trees.json")
    assert hidden.summary["model_equals_pooled_plaintext"]
    assert hidden.summary["boost"]["splits_of_holders"] > 0
    assert plain.summary["boost"]["history"] == hidden.summary["boost"]["history"]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "file"), [("scorecard", "scorecard.json"), ("boost", "trees.json")])
@pytest.mark.parametrize("profile", ["rlwe-8192", "bfv-8192"])
def test_so_they_are_under_encryption(tmp_path: Path, profile: str, model: str, file: str) -> None:
    sample = _sample(2, model, SECTIONS.format(profile))
    plain, hidden = (_run(tmp_path / align[:12], sample, align) for align in (PLAIN_SAME_ROWS, BY_REGISTER))
    _same(plain, hidden, HOLDERS[2], file)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["moments", "mle"])
def test_so_is_each_other_fit(tmp_path: Path, fit: str) -> None:
    sample = _sample(2, sections=PLAINTEXT.replace("min_iv = 0.0", f'min_iv = 0.0\nfit = "{fit}"'))
    plain, hidden = (_run(tmp_path / align[:12], sample, align) for align in (PLAIN_SAME_ROWS, BY_REGISTER))
    _same(plain, hidden, HOLDERS[2], "scorecard.json")


@pytest.mark.slow
@pytest.mark.parametrize("size", [DEGREE - 1, DEGREE, DEGREE + 1])
@pytest.mark.parametrize("model", ["scorecard", "boost"])
def test_registers_about_the_size_of_a_ciphertext(tmp_path: Path, size: int, model: str) -> None:
    """One row less or more than the slots of a ciphertext."""
    sample = replace(_sample(2, model), strangers=size - ROWS, known=0.95)
    plain, hidden = (_run(tmp_path / align[:12], sample, align) for align in (PLAIN_SAME_ROWS, BY_REGISTER))
    file = "scorecard.json" if model == "scorecard" else "trees.json"
    _same(plain, hidden, HOLDERS[2], file)


def test_trees_cut_at_other_quantiles_are_still_the_oracles(tmp_path: Path) -> None:
    """Columns as they are: bins follow the rows that a holder knows, and the pooled computation has the same."""
    loaded = write_sample(tmp_path, replace(_sample(2, "boost"), align=BY_REGISTER))
    summary = simulate(loaded, tmp_path / "out").summary
    assert summary["model_equals_pooled_plaintext"]
    assert summary["scores_equal_pooled_plaintext"]
    assert summary["boost"]["splits_of_holders"] > 0


def test_the_order_of_the_register_changes_nothing(tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        folder = tmp_path / str(number)
        loaded = write_sample(folder, replace(_sample(), align=BY_REGISTER))
        register = pl.read_csv(folder / REGISTER)
        register = register.sort("id") if number else register.sample(fraction=1.0, shuffle=True, seed=3)
        register.write_csv(folder / REGISTER)
        runs.append(simulate(loaded, folder / "out"))
    _same(runs[0], runs[1], HOLDERS[2], "scorecard.json")


def test_customers_outside_the_register_take_no_part(tmp_path: Path) -> None:
    """The run is the one over the others: by a smaller table of the bank in the open."""
    loaded = write_sample(tmp_path / "hidden", replace(_sample(), align=BY_REGISTER))
    gone = [f"r{row:05d}" for row in range(0, ROWS, 9)]
    register = pl.read_csv(tmp_path / "hidden" / REGISTER)
    register.filter(~pl.col("id").is_in(gone)).write_csv(tmp_path / "hidden" / REGISTER)
    label = Rehearsal(loaded).play()[PartyId("bank")]
    assert not set(label.index.ids) & set(gone)
    assert int(label.index.members.sum()) == ROWS - len(gone)
    assert len(label.index.ids) == ROWS + STRANGERS - len(gone)


@pytest.mark.parametrize("rows", ["many", "few"])
def test_rows_that_a_holder_does_not_know_are_missing_there(tmp_path: Path, rows: str) -> None:
    """In a bin of their own, or, where they are too few for one, in the bin of the median."""
    sample = replace(_sample(), align=BY_REGISTER, known=0.85 if rows == "many" else 0.99)
    results = Rehearsal(write_sample(tmp_path, sample)).play()
    label = results[PartyId("bank")]
    assert label.index.hidden
    for party in (TAX, UTILITY):
        index, features = results[party]
        assert (index.members, index.known.sum()) == (None, round(sample.known * (ROWS + STRANGERS)))
        assert features
        for one in features:
            unknown = one.own.codes[~index.known]
            shape = one.own.prebins
            assert shape.has_missing == (rows == "many")
            assert set(unknown.tolist()) == {shape.bins - 1 if rows == "many" else shape.fallback}
        if rows == "many":
            counted = [f for f in label.binned.features if f.owner == party]
            strange = int((label.index.members & ~index.known).sum())
            for feature in counted:
                last = feature.merged.group[-1]
                assert (feature.merged.group == last).sum() > 1 or (
                    int((feature.merged.goods + feature.merged.bads)[last] + feature.test_rows[last]) == strange
                )


def test_only_customers_count_at_the_label_holder(tmp_path: Path) -> None:
    """Its own columns have no bin for rows of others, which miss all of them."""
    sample = replace(_sample(), align=BY_REGISTER)
    label = Rehearsal(write_sample(tmp_path, sample)).play()[PartyId("bank")]
    assert [feature.prebins.has_missing or feature.rare_missing for feature in label.own] == [False, False]
    counts = label.binned.features[0].merged
    assert int((counts.goods + counts.bads).sum()) == int(label.index.train.sum())
    assert int((label.index.train | label.index.test).sum()) == ROWS
    assert not (label.bad & ~label.index.members).any()


def test_the_spec_of_both_runs_is_the_same_but_for_the_alignment(tmp_path: Path) -> None:
    """So that nothing else can make them equal or unequal."""
    specs = []
    for align in (PLAIN_SAME_ROWS, BY_REGISTER):
        write_sample(tmp_path / align[:12], replace(_sample(), align=align))
        specs.append(load_spec(tmp_path / align[:12] / "run.toml").spec)
    assert specs[0] != specs[1]
    assert specs[0] == specs[1].model_copy(update={"align": specs[0].align})
    assert (specs[0].align.hidden, specs[1].align.hidden) == (False, True)
    tables = [pl.read_csv(tmp_path / align[:12] / "tax.csv") for align in (PLAIN_SAME_ROWS, BY_REGISTER)]
    assert tables[0].equals(tables[1])
    assert np.isclose(tables[0].height, KNOWN * (ROWS + STRANGERS), atol=1)
