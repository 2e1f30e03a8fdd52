"""The report of a made-up run: what it may hold, what it may not, and that it stands on its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
import pytest

from fedcredit.cli import main
from fedcredit.errors import DataError
from fedcredit.kernels.metrics import auc
from fedcredit.report.build import build_report

Names = Callable[..., list[str]]


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return build_report(finished).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def holder_page(finished: Path) -> str:
    return build_report(finished, "tax_office").read_text(encoding="utf-8")


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


class _Tags(HTMLParser):
    """Counts what is open, and keeps every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parsed(text: str) -> _Tags:
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


@pytest.mark.parametrize("which", ["page", "holder_page"])
def test_the_report_stands_on_its_own(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    tags = _parsed(text)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not tags.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    values = dict.fromkeys(name for name, _ in tags.attributes)
    assert "src" not in values
    assert not [name for name in values if name.startswith("on")]
    ids = [value for name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value for name, value in tags.attributes if name in {"href", "xlink:href"}}
    clips = {f"#{target}" for target in re.findall(r"url\(#([^)]*)\)", text)}
    assert targets | clips <= {f"#{name}" for name in ids}


def test_the_verdict_is_what_the_predictions_give(finished: Path, page: str) -> None:
    held_out = pl.read_parquet(finished / "predictions.parquet")
    together = round(auc(held_out["label"].to_numpy(), -held_out["score"].to_numpy()), 4)
    alone = round(auc(held_out["label"].to_numpy(), -held_out["score_alone"].to_numpy()), 4)
    assert f"Together: AUC {together:.4f}, bank alone {alone:.4f}, lift +{together - alone:.4f}." in page
    assert "Federated = pooled plaintext." in page
    assert "Distance to the reference: −0.0004 AUC." in page
    assert page.count("<svg ") == 8


def test_the_label_holder_sees_no_name_of_another(run: Path, names: Names) -> None:
    theirs = json.loads((run / "model/tax_office/scorecard.json").read_text())["features"]

    def betray(card: dict[str, Any]) -> None:  # names and labels that should never have come into this file
        for feature, named in zip([f for f in card["features"] if f["owner"] == "tax_office"], theirs, strict=True):
            feature["name"] = named["name"]
            for mine, labelled in zip(feature["bins"], named["bins"], strict=True):
                mine["label"] = labelled["label"]

    _edit(run / "model/bank/scorecard.json", betray)
    text = build_report(run).read_text(encoding="utf-8")
    assert [name for name in names("bank") if name not in text] == []
    assert [name for name in names("tax_office", "utility") if name in text] == []
    assert "CNY" in text  # a label of its own
    assert "grade 20" not in text


def test_only_files_of_the_reader_are_opened(run: Path, page: str) -> None:
    shutil.rmtree(run / "model/utility")
    (run / "model/tax_office/scorecard.json").write_text("not for the bank", encoding="utf-8")
    assert build_report(run).read_text(encoding="utf-8") == page


def test_a_feature_holder_sees_its_own_part_and_no_measure(run: Path, holder_page: str, names: Names) -> None:
    (run / "predictions.parquet").unlink()
    shutil.rmtree(run / "model/bank")
    shutil.rmtree(run / "model/utility")
    hidden = (
        "auc",
        "ks",
        "brier",
        "ece",
        "rows",
        "positives",
        "metrics",
        "calibration",
        "disclosure",
        "fit",
        "messages",
    )

    def forget(summary: dict[str, Any]) -> None:
        for key in [key for key in summary if key.startswith(hidden)]:
            del summary[key]
        summary["seconds"] = {}
        summary["cpu_seconds"] = {"tax_office": summary["cpu_seconds"]["tax_office"]}

    _edit(run / "summary.json", forget)
    assert build_report(run, "tax_office").read_text(encoding="utf-8") == holder_page
    assert [name for name in names("tax_office") if name not in holder_page] == []
    assert [name for name in names("bank", "utility") if name in holder_page] == []
    assert "grade 20" in holder_page


def test_a_foreign_feature_in_a_holders_file_is_refused(run: Path) -> None:
    _edit(run / "model/utility/scorecard.json", lambda card: card["features"][0].update(owner="bank"))
    with pytest.raises(DataError, match=r"model/utility/scorecard\.json"):
        build_report(run, "utility")


def test_hostile_names_are_text(run: Path) -> None:
    hostile = '<script>alert("x")</script> font-family: $x$ id="y" {{ 7 * 7 }} \\1 &amp; 税'
    _edit(run / "summary.json", lambda summary: summary.update(name=hostile, ledger_scope=hostile, git=hostile))

    def spoil(card: dict[str, Any]) -> None:
        card["features"][0]["name"] = card["dropped"][0]["name"] = hostile
        card["features"][0]["bins"][0]["label"] = hostile
        card["dropped"][0]["reason"] = hostile

    _edit(run / "model/bank/scorecard.json", spoil)
    _edit(run / "leakage.json", lambda leakage: leakage["steps"][0].update(learns=hostile, receiver=hostile))
    text = build_report(run).read_text(encoding="utf-8")
    tags = _parsed(text)
    assert "script" not in tags.tags
    assert "y" not in [value for name, value in tags.attributes if name == "id"]
    assert "{{ 7 * 7 }}" in text
    assert "&lt;script&gt;" in text


def test_two_builds_give_the_same_bytes(run: Path, page: str) -> None:
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert build_report(run).read_bytes() == page.encode()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_encryption_is_said_in_large_letters(run: Path, page: str) -> None:
    assert "<strong>ENCRYPTED</strong>" in page
    assert "128-bit security" in page
    _edit(run / "summary.json", lambda summary: summary["encryption"].update(enabled=False))
    for party in (None, "utility"):
        text = build_report(run, party).read_text(encoding="utf-8")
        assert "<strong>UNENCRYPTED</strong>" in text
        assert "128-bit" not in text
    _edit(run / "summary.json", lambda summary: summary["encryption"].pop("enabled"))
    with pytest.raises(DataError, match=r"summary\.json.*enabled"):
        build_report(run)


def test_what_is_outside_its_limits_is_named(run: Path, page: str) -> None:
    assert "unexpected sign" not in page
    assert "without a bound" not in page
    _edit(run / "summary.json", lambda summary: summary.update(auc_test=0.5, entropy="seeded"))
    _edit(run / "model/bank/scorecard.json", lambda card: card["features"][6].update(sign_ok=False, p_value=0.4))
    _edit(run / "leakage.json", lambda leakage: leakage["steps"][0].update(learns="every id", bound="none: a test"))
    text = build_report(run).read_text(encoding="utf-8")
    assert "Coefficient with the unexpected sign: tax_office F1" in text
    assert "tax_office F1 (p 0.400)" in text
    assert "Federated differs from pooled plaintext." in text
    assert "The summary states AUC 0.5000" in text
    assert "Keys came from a fixed seed" in text
    assert "learns, without a bound, every id (a test)." in text


def test_a_ledger_that_refused_nothing_is_said_in_large_letters(run: Path, page: str) -> None:
    assert "refuses to pass its cap" in page
    (run / "spec.toml").write_text("[privacy]\nenforce = false\nnoise_rows = 0.0\n", encoding="utf-8")
    for party in (None, "utility"):
        text = build_report(run, party).read_text(encoding="utf-8")
        assert "<strong>RESULTS UNPROTECTED</strong>" in text
        assert "No ledger was enforced." in text
        assert "No noise on sums." not in text  # a scorecard has none anyway
        assert not re.search("refuses (to pass|what would pass)", text)


def test_a_model_without_a_report_is_refused(run: Path) -> None:
    _edit(run / "summary.json", lambda summary: summary.update(model="moons"))
    with pytest.raises(DataError, match="model 'moons' has no report; those with one: boost and scorecard"):
        build_report(run)


def test_a_feature_of_no_party_is_refused(run: Path) -> None:
    _edit(run / "model/bank/scorecard.json", lambda card: card["features"][0].update(owner="nobody"))
    with pytest.raises(DataError, match=r"model/bank/scorecard\.json holds a feature of a party"):
        build_report(run)


@pytest.mark.parametrize(
    "name",
    [
        "summary.json",
        "spec.toml",
        "model/bank/scorecard.json",
        "predictions.parquet",
        "leakage.json",
        "transcript.jsonl",
        "audit/heads.json",
    ],
)
def test_a_missing_or_damaged_file_is_named(run: Path, name: str) -> None:
    (run / "report.html").write_text("an older report", encoding="utf-8")
    (run / name).write_bytes(b'{"half": "a fi')
    with pytest.raises(DataError, match=re.escape(name)):
        build_report(run)
    (run / name).unlink()
    with pytest.raises(DataError, match=rf"{re.escape(name)} is missing"):
        build_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "an older report"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("label", [0, 2]),
        ("label", [0, 0]),
        ("probability", [0.5, 1.5]),
        ("score", [400.0, None]),
        ("score", ["a", "b"]),
        ("score_alone", [0.1, float("nan")]),
    ],
)
def test_predictions_that_cannot_be_are_refused(run: Path, column: str, values: list[Any]) -> None:
    good: dict[str, list[Any]] = {"label": [0, 1], "score": [600, 500], "probability": [0.1, 0.2]}
    pl.DataFrame({**good, "score_alone": [0.3, 0.1], column: values}).write_parquet(run / "predictions.parquet")
    with pytest.raises(DataError, match=f"predictions.parquet.*{column}"):
        build_report(run)


@pytest.mark.parametrize("party", ["../bank", "", "coordinator", "nobody", "utility/../utility"])
def test_a_party_that_is_not_in_the_run_is_refused(run: Path, party: str) -> None:
    _edit(run / "summary.json", lambda summary: summary["parties"].append("utility/../utility"))
    with pytest.raises(DataError, match="no party"):
        build_report(run, party)


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--party", "utility", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(run / "model/utility/report.html")
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").exists()
    assert main(["report", str(run / "nowhere")]) == 2
    assert "summary.json is missing" in capsys.readouterr().err
