"""What the records of a made-up district are worth: AUC and KS by holder, out of fold, with this product's own kernels.

Derives every holder's features with its catalogue, joins them to the rows of one bank (unknown = missing), and fits a
scorecard of weight of evidence and, to compare, boosted trees.

    python benchmarks/district.py DIR [--bank bank_1] [--folds 5] [--common] [--json]
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.catalog.derive import Derived
from fedcredit.catalog.load import load_catalog
from fedcredit.data.derive import derive_source
from fedcredit.errors import DataError
from fedcredit.kernels.logistic import fit_logistic
from fedcredit.kernels.metrics import auc, ks
from fedcredit.kernels.prebin import PrebinRules, fit_prebins
from fedcredit.kernels.woe import BinningRules, merge_bins

CATALOGS = Path(__file__).parents[1] / "configs" / "catalog"
HOLDERS = ("tax_office", "electricity", "social_insurance", "water", "gas", "market_regulation")
GROUPS: tuple[tuple[str, ...], ...] = (
    ("bank",),
    *((name,) for name in HOLDERS),
    ("bank", "tax_office"),
    ("bank", "tax_office", "electricity", "social_insurance"),
    ("bank", *HOLDERS),
)
LEAST_BADS = 20  # of a scorecard bin

Features = dict[str, pl.Series]
Floats = NDArray[np.float64]
Score = Callable[[Features, NDArray[np.int8], NDArray[np.bool_]], Floats]


@dataclass(frozen=True)
class Worth:
    """Out-of-fold quality of some holders' features together."""

    holders: str
    features: int
    auc: float
    ks: float
    auc_trees: float


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one bank's run, and every holder's features about them; ``known`` = all but gas know them."""

    label: NDArray[np.int8]
    features: Mapping[str, Features]
    known: NDArray[np.bool_]

    def only(self, keep: NDArray[np.bool_]) -> Rows:
        chosen = pl.Series(keep)
        features = {h: {name: c.filter(chosen) for name, c in columns.items()} for h, columns in self.features.items()}
        return Rows(self.label[keep], features, self.known[keep])


def source(folder: Path, holder: str) -> str:
    facts = json.loads((folder / "district.json").read_text("utf-8"))
    return str(facts["holders"][holder]["source"])


def derived(folder: Path, holder: str, as_of: dt.date, *, label: bool = False) -> Derived:
    catalog = load_catalog(CATALOGS / f"{'bank' if holder.startswith('bank') else holder}.toml")
    return derive_source(catalog, source(folder, holder), folder, as_of, label=label, place=holder)


def gather(folder: Path, bank: str, holders: Sequence[str] = HOLDERS) -> Rows:
    """Rows and features of a run of ``bank`` with ``holders``."""
    as_of = dt.date.fromisoformat(json.loads((folder / "district.json").read_text("utf-8"))["settings"]["as_of"])
    own = derived(folder, bank, as_of, label=True)
    if own.label is None:
        raise DataError("bench.label", f"{bank} has no label")
    features: dict[str, Features] = {"bank": dict(own.columns)}
    known = np.ones(len(own.ids), dtype=np.bool_)
    for holder in holders:
        theirs = derived(folder, holder, as_of)
        frame = pl.DataFrame([theirs.ids, *(column.alias(name) for name, column in theirs.columns.items())])
        joined = own.ids.to_frame().join(frame, on="id", how="left", maintain_order="left")
        features[holder] = {name: joined[name] for name in theirs.columns}
        if holder != "gas":
            known &= own.ids.is_in(theirs.ids.implode()).to_numpy()
    return Rows(own.label.to_numpy(), features, known)


def woe_columns(columns: Features, label: NDArray[np.int8], fit: NDArray[np.bool_]) -> list[Floats]:
    """WOE of each feature that makes two bins or more, grouped and weighed on the rows of ``fit``."""
    rules = BinningRules(monotone="auto", min_bads=LEAST_BADS, max_bins=8, min_share=0.02)
    made = []
    for column in columns.values():
        try:
            prebins = fit_prebins(column, fit, PrebinRules(min_rows=min(100, int(fit.sum()) // 20)))
        except DataError:
            continue
        codes = prebins.apply(column)
        goods = np.bincount(codes[fit], weights=label[fit] == 0, minlength=prebins.bins).astype(np.int64)
        bads = np.bincount(codes[fit], weights=label[fit] == 1, minlength=prebins.bins).astype(np.int64)
        bins = merge_bins(goods, bads, prebins.ordered, rules)
        if bins.bins > 1:
            made.append(bins.woe[bins.group[codes]])
    return made


def matrix(columns: Features) -> Floats:
    """Numbers as they are, categories as codes, for trees."""
    made = []
    for column in columns.values():
        numbers = column if column.dtype.is_numeric() else column.cast(pl.Categorical).to_physical()
        made.append(numbers.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    return np.column_stack(made)


def folds_of(label: NDArray[np.int8], folds: int) -> NDArray[np.int64]:
    """Fold of each row; the same share of bads in each. The seed is fixed: rows are no secret here."""
    order = np.random.default_rng(11).permutation(len(label))
    fold = np.empty(len(label), dtype=np.int64)
    for value in (0, 1):
        at = order[label[order] == value]
        fold[at] = np.arange(len(at)) % folds
    return fold


def out_of_fold(rows: Rows, holders: Sequence[str], folds: int, score: Score) -> Floats:
    """Risk of each row by a model that has not seen it."""
    columns = {f"{holder}.{name}": c for holder in holders for name, c in rows.features[holder].items()}
    fold = folds_of(rows.label, folds)
    risk = np.zeros(len(fold))
    for number in range(folds):
        held = fold == number
        risk[held] = score(columns, rows.label, ~held)[held]
    return risk


def scorecard(columns: Features, label: NDArray[np.int8], fit: NDArray[np.bool_]) -> Floats:
    """Log odds of a scorecard fitted on the rows of ``fit``; the ridge is worth a few bads, whatever their number."""
    made = woe_columns(columns, label, fit)
    if not made:
        return np.zeros(len(label))
    X = np.column_stack(made)
    return fit_logistic(X[fit], label[fit], ridge=20.0).logit(X)


def trees(columns: Features, label: NDArray[np.int8], fit: NDArray[np.bool_]) -> Floats:
    """Log odds of boosted trees fitted on the rows of ``fit``."""
    rounds = {"objective": "binary", "num_leaves": 8, "learning_rate": 0.04, "min_data_in_leaf": 60, "verbosity": -1}
    rounds |= {"num_threads": 1, "feature_fraction": 0.5, "lambda_l2": 5.0, "seed": 1, "deterministic": True}
    numbers = matrix(columns)
    booster = lightgbm.train(rounds, lightgbm.Dataset(numbers[fit], label[fit]), num_boost_round=200)
    return np.asarray(booster.predict(numbers, raw_score=True))


def worth(rows: Rows, holders: Sequence[str], folds: int) -> Worth:
    """Quality of the features of ``holders``."""
    card, forest = (out_of_fold(rows, holders, folds, score) for score in (scorecard, trees))
    features = sum(len(rows.features[holder]) for holder in holders)
    return Worth("+".join(holders), features, auc(rows.label, card), ks(rows.label, card), auc(rows.label, forest))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bank", default="bank_1")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--common", action="store_true", help="rows that all holders but gas know")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    rows = gather(given.folder, given.bank)
    if given.common:
        rows = rows.only(rows.known)
    took = time.perf_counter() - started
    report: dict[str, Any] = {"rows": len(rows.label), "bads": int(rows.label.sum()), "seconds_derive": round(took, 1)}
    if not given.json:
        print(
            f"{report['rows']} rows, {report['bads']} bads ({rows.label.mean():.2%}); features derived in {took:.0f} s"
        )
    report["worth"] = []
    for holders in GROUPS:
        found = worth(rows, holders, given.folds)
        report["worth"].append(asdict(found))
        if not given.json:
            print(f"{found.holders:75s} {found.features:4d} {found.auc:.3f} {found.ks:.3f} {found.auc_trees:.3f}")
    if given.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
