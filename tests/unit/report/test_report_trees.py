"""The report of a made-up run of boosted trees: its own sections, whose names it may hold, and damaged files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.errors import DataError
from fedcredit.kernels.metrics import auc
from fedcredit.report.build import build_report
from fedcredit.report.compare import auc_error

THEIRS = ("vat_paid", "sector", "arrears", "Textile")
OWN = ("turnover", "overdrawn")


@pytest.fixture(scope="module")
def page(grown: Path) -> str:
    return build_report(grown).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def holder_page(grown: Path) -> str:
    return build_report(grown, "tax_office").read_text(encoding="utf-8")


@pytest.fixture
def trees(grown: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(grown, tmp_path / "trees"))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def _words(text: str) -> str:
    """Text of a page as a reader sees it."""
    pieces: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            pieces.append(data)

    reader = Reader()
    reader.feed(text.rpartition("</style>")[2])
    return re.sub(r"\s+", " ", " ".join(pieces))


@pytest.mark.parametrize("which", ["page", "holder_page"])
def test_it_stands_on_its_own(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    assert not re.search(r"https?://|@import|url\((?!#)|<script|<img|<link| src=", text)
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)
    numbers = [int(number) for number in re.findall(r"<h2>(\d+) ", text)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_run_in_three_sentences(grown: Path, page: str) -> None:
    summary = json.loads((grown / "summary.json").read_text())
    held_out = pl.read_parquet(grown / "predictions.parquet")
    ours = round(auc(held_out["label"].to_numpy(), held_out["sample_probability"].to_numpy()), 4)
    words = _words(page)
    assert "Together with tax_office and utility, bank, which knows who defaulted, grew 5 trees" in words
    assert "of at most 4 leaves on 1,400 rows and kept 3 of them." in words
    assert "each under noise as large as 4 rows, and disclosed 3 of at most 9 thresholds." in words
    assert f"On 600 held-out rows the trees reach AUC {ours:.4f}" in words
    price = round(summary["auc_pooled_unprotected"], 4) - ours
    assert f"Price of protection: {price:.4f} AUC." in words
    assert f"−{price:.4f} against the same trees without noise and caps." in words


def test_the_four_models_say_what_they_are(page: str) -> None:
    words = _words(page)
    for name in ("bank alone", "Together, protected", "Together, unprotected", "XGBoost, pooled rows"):
        assert name in words
    assert "This run: noise of 4 rows on every sum, at most 3 thresholds a feature, 4 bins a column" in words
    assert "The same trees on pooled plain rows: no noise, no cap, 8 bins a column at every party." in words
    assert 'id="compared-title"' in page


def test_the_learning_curve_marks_where_it_stopped(trees: Path, page: str) -> None:
    assert "kept: 3 of 5 trees" in page
    assert "5 trees were grown, and the model is cut back to the best, tree 3." in _words(page)
    assert "Validation rows 0.7060" in page

    def forget(summary: dict[str, Any]) -> None:
        summary["boost"] |= {"trees_grown": 3, "stopped_early": False}
        summary["boost"]["history"] = [one | {"validation_auc": None} for one in summary["boost"]["history"][:3]]

    _edit(trees / "summary.json", forget)
    text = build_report(trees).read_text(encoding="utf-8")
    assert "Validation rows 0" not in text
    assert "the model has all 3 trees that the specification asks for" in _words(text)


def test_features_by_gain(page: str) -> None:
    section = _words(page.partition('id="features"')[2].partition("<section")[0])
    assert re.search(r"turnover bank 60\.00 % 3 2 ", section)
    assert re.search(r"F2 tax_office 30\.00 % 2 2 ", section)
    assert re.search(r"F1 tax_office 10\.00 % 1 1 ", section)
    assert "tax_office 2 of 2 3 40.00 %" in section
    assert "Offered, but in no tree overdrawn, utility F1" in section


def test_trees_show_own_limits_and_codes_of_others(page: str) -> None:
    drawing = page.partition('<svg class="chart tree"')[2].partition("</svg>")[0]
    words = _words(drawing)
    assert "turnover ≤ 120" in words
    assert "tax_office F2, split 0" in words
    assert "1,400 rows, weight 210.5" in words
    assert "gain 40.00" in words
    assert "+0.2500" in words
    assert "−0.3000" in words
    assert page.count('<svg class="chart tree"') == 2
    assert "tax_office F2, splits 0 and 2 together" in page


def test_a_deep_tree_is_cut(trees: Path) -> None:
    def deepen(file: dict[str, Any]) -> None:
        inner = [
            {"id": place, "rows": 64 - place, "weight": 9.0, "gain": 1.0, "split": 0, "value": None}
            | {"left": place + 1, "right": 6 + place}
            for place in range(6)
        ]
        leaves = [
            {"id": 6 + place, "rows": 3, "weight": 1.0, "value": 0.1}
            | dict.fromkeys(("gain", "split", "left", "right"))
            for place in range(7)
        ]
        for place, node in enumerate(inner):
            node["left"], node["right"] = (place + 1 if place < 5 else 12), 6 + place
        file["trees"][0]["nodes"] = inner + leaves

    _edit(trees / "model/bank/trees.json", deepen)
    _edit(trees / "summary.json", lambda summary: summary["boost"].update(depth=6))
    text = build_report(trees).read_text(encoding="utf-8")
    assert "2 more splits below" in text
    assert "Levels below 3 are left out" in _words(text)


def test_reasons_of_the_riskiest_tenth_and_of_three_rows(grown: Path, page: str) -> None:
    held_out = pl.read_parquet(grown / "predictions.parquet").sort("sample_probability", descending=True)
    reasons = pl.read_parquet(grown / "explanations.parquet")
    top = reasons.filter(pl.col("id").is_in(held_out["id"].head(60).to_list()))
    own = top.filter((pl.col("owner") == "bank") & (pl.col("feature") == "F1"))
    section = page.partition('id="reasons"')[2].partition("<section")[0]
    words = _words(section)
    assert "the riskiest 60 rows" in words
    assert f"turnover bank {100 * own.height / 60:.1f} %" in words
    for place in (0, 300, 599):
        assert held_out["id"][place] in words
    assert words.index("Highest risk") < words.index("Middle") < words.index("Lowest risk")
    assert "No feature raises its risk." in words
    first = reasons.filter((pl.col("id") == held_out["id"][0]) & (pl.col("rank") == 1))["contribution"][0]
    assert f"+{first:.4f}" in words


def test_the_label_holder_sees_no_name_of_another(trees: Path, page: str) -> None:
    def betray(file: dict[str, Any]) -> None:  # names and labels that should never have come into this file
        for one in file["features"]:
            if one["owner"] != "bank":
                one |= {"name": "vat_paid", "reason": {"code": "x", "text": "arrears"}}
        for one in file["splits"]:
            if one["owner"] != "bank":
                one["label"] = "sector in: Textile"

    assert [name for name in OWN if name not in page] == []
    _edit(trees / "model/bank/trees.json", betray)
    assert build_report(trees).read_text(encoding="utf-8") == page
    assert [name for name in THEIRS if name in page] == []


def test_only_files_of_the_reader_are_opened(trees: Path, page: str, holder_page: str) -> None:
    shutil.rmtree(trees / "model/utility")
    (trees / "model/tax_office/trees.json").rename(trees / "kept.json")
    assert build_report(trees).read_text(encoding="utf-8") == page
    (trees / "kept.json").rename(trees / "model/tax_office/trees.json")
    shutil.rmtree(trees / "model/bank")
    for name in ("predictions.parquet", "explanations.parquet"):
        (trees / name).unlink()
    secret = ("auc", "ks", "brier", "ece", "rows", "positives", "metrics", "calibration", "disclosure", "boost")

    def forget(summary: dict[str, Any]) -> None:
        for key in [key for key in summary if key.startswith(secret)]:
            del summary[key]

    _edit(trees / "summary.json", forget)
    assert build_report(trees, "tax_office").read_text(encoding="utf-8") == holder_page


def test_a_feature_holder_sees_its_own_splits_in_words(holder_page: str) -> None:
    words = _words(holder_page)
    assert "2 of 2 features of tax_office are in the trees, by 3 thresholds." in words
    assert "1 vat_paid ≤ 900 or missing 2 of 4" in words
    assert "0 sector in: Textile, Mining, Farming and 2 more Textile, Mining, Farming, Retail, Steel 3 of 4" in words
    assert "tax_office/F1 vat_paid High arrears of VAT." in words
    assert "Each sum carried noise of tax_office, as large as 4 rows" in words
    assert "at most 3 thresholds a feature may be disclosed" in words
    assert "Bits disclosed about each row by one feature (the largest) 2 3 67 %" in words
    assert [name for name in ("turnover", "overdrawn", "arrears_24m", "AUC", "Gini") if name in words] == []


def test_a_holder_without_a_split_says_so(grown: Path) -> None:
    words = _words(build_report(grown, "utility").read_text(encoding="utf-8"))
    assert "0 of 1 features of utility are in the trees, by 0 thresholds." in words
    assert "No column of utility is in the trees." in words


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("privacy", "noise_rows", "0.0", "No noise on sums."),
        ("privacy", "enforce", "false", "No ledger was enforced."),
        ("boost", "holder_thresholds", "0", "No cap on thresholds."),
    ],
)
def test_missing_protection_is_said_in_large_letters(
    trees: Path, section: str, key: str, value: str, said: str, page: str
) -> None:
    assert "<strong>ENCRYPTED</strong>" in page
    assert "UNPROTECTED" not in page
    spec = (trees / "spec.toml").read_text(encoding="utf-8")
    assert f"[{section}]" in spec
    (trees / "spec.toml").write_text(re.sub(rf"{key} = \S+", f"{key} = {value}", spec), encoding="utf-8")
    for party in ("bank", "tax_office", "utility"):
        text = build_report(trees, party).read_text(encoding="utf-8")
        assert "<strong>RESULTS UNPROTECTED</strong>" in text
        assert "<strong>ENCRYPTED</strong>" not in text
        assert said in text


def test_nothing_encrypted_is_said_in_large_letters(trees: Path) -> None:
    _edit(trees / "summary.json", lambda summary: summary["encryption"].update(enabled=False))
    for party in ("bank", "utility"):
        text = build_report(trees, party).read_text(encoding="utf-8")
        assert "<strong>UNENCRYPTED</strong>" in text
        assert "encrypted sums" not in text


def test_what_is_outside_its_limits_is_named(trees: Path, page: str) -> None:
    assert "More than half of the gain is of one feature: turnover (60.0 %)." in _words(page)

    def spoil(summary: dict[str, Any]) -> None:
        summary["auc_pooled_unprotected"] += 0.05
        summary["model_equals_pooled_plaintext"] = False
        summary["boost"]["history"][2]["train_auc"] = 0.99

    _edit(trees / "summary.json", spoil)
    words = _words(build_report(trees).read_text(encoding="utf-8"))
    assert "Federated differs from pooled plaintext." in words
    assert "grew other trees" in words
    assert "Protection costs 0.0" in words
    assert "The trees know their training rows too well: AUC 0.9900 there" in words


def test_an_unprotected_run_states_no_price(trees: Path) -> None:
    (trees / "spec.toml").write_text(
        "[privacy]\nenforce = true\nnoise_rows = 0.0\n[boost]\nholder_thresholds = 0\n", encoding="utf-8"
    )
    words = _words(build_report(trees).read_text(encoding="utf-8"))
    assert "rice of protection" not in words
    assert "Together, this run" in words


def test_hostile_names_are_text(trees: Path) -> None:
    hostile = '<script>alert("x")</script> & $x$ </svg> {{ 7 * 7 }}'

    def spoil(file: dict[str, Any]) -> None:
        file["features"][0]["name"] = hostile
        file["splits"][0]["label"] = hostile

    _edit(trees / "model/bank/trees.json", spoil)
    _edit(trees / "model/tax_office/trees.json", lambda file: file["splits"][0].update(label=hostile))
    for party in ("bank", "tax_office"):
        text = build_report(trees, party).read_text(encoding="utf-8")
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert text.count("<svg ") == text.count("</svg>")


@pytest.mark.parametrize(
    ("party", "name"),
    [
        ("bank", "summary.json"),
        ("bank", "spec.toml"),
        ("bank", "model/bank/trees.json"),
        ("bank", "predictions.parquet"),
        ("bank", "explanations.parquet"),
        ("tax_office", "spec.toml"),
        ("tax_office", "model/tax_office/trees.json"),
    ],
)
def test_a_missing_or_damaged_file_is_named(trees: Path, party: str, name: str) -> None:
    (trees / name).write_bytes(b'{"half": "a fi')
    with pytest.raises(DataError, match=re.escape(name)) as damaged:
        build_report(trees, party)
    assert "\n" not in damaged.value.public
    (trees / name).unlink()
    with pytest.raises(DataError, match=rf"{re.escape(name)} is missing"):
        build_report(trees, party)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.update(party="utility"), "another party's"),
        (lambda file: file.update(role="feature_holder"), "role"),
        (lambda file: file.update(trees=[]), "must hold a tree"),
        (lambda file: file["splits"][0].update(label=None), "a label for each split"),
        (lambda file: file["trees"][0]["nodes"][0].update(split=99), "is no tree"),
        (lambda file: file["trees"][1]["nodes"].pop(), "is no tree"),
        (lambda file: file["features"].pop(0), "split 0 is of no feature"),
        (lambda file: file["features"][4].update(owner="nobody"), "a party that summary.json does not name"),
    ],
)
def test_trees_that_cannot_be_are_refused(trees: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    _edit(trees / "model/bank/trees.json", change)
    with pytest.raises(DataError, match=f"model/bank/trees.json.*{said}"):
        build_report(trees)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("id", "nobody", "column 'id' names a row"),
        ("feature", "F9", "name a feature"),
        ("owner", None, "must be text"),
        ("rank", 0, "must count from 1"),
        ("contribution", float("nan"), "missing or infinite"),
    ],
)
def test_reasons_that_cannot_be_are_refused(trees: Path, column: str, value: object, said: str) -> None:
    frame = pl.read_parquet(trees / "explanations.parquet")
    broken = pl.Series(column, [value, *frame[column].to_list()[1:]], dtype=frame[column].dtype)
    frame.with_columns(broken).write_parquet(trees / "explanations.parquet")
    with pytest.raises(DataError, match=rf"explanations\.parquet: .*{said}"):
        build_report(trees)
    frame.drop(column).write_parquet(trees / "explanations.parquet")
    with pytest.raises(DataError, match=f"explanations.parquet has no column '{column}'"):
        build_report(trees)


@pytest.mark.parametrize("path", ["summary.json", "spec.toml"])
def test_a_run_that_says_nothing_of_boosting_is_refused(trees: Path, path: str) -> None:
    if path == "summary.json":
        _edit(trees / path, lambda summary: summary.pop("boost"))
    else:
        (trees / path).write_text("[privacy]\nenforce = true\nnoise_rows = 4.0\n", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(path)):
        build_report(trees)


def test_two_builds_give_the_same_bytes(grown: Path, page: str) -> None:
    assert build_report(grown).read_bytes() == page.encode()


@pytest.mark.parametrize(("area", "bads", "goods", "expected"), [(0.5, 50, 50, 0.0580), (0.9, 100, 300, 0.0213)])
def test_the_standard_error_of_an_auc(area: float, bads: int, goods: int, expected: float) -> None:
    # By hand from Hanley & McNeil (1982): sqrt((A(1-A) + (m-1)(A/(2-A)-A²) + (n-1)(2A²/(1+A)-A²)) / (m n)).
    assert auc_error(area, bads, goods) == pytest.approx(expected, abs=5e-5)
    assert np.isfinite(auc_error(1.0, bads, goods))
