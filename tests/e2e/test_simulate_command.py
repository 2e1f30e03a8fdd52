"""``fedcredit simulate`` as a user meets it: one complete run directory, or one line and nothing else."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main

from fedcredit.kernels.metrics import auc
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import load_spec

Make = Callable[..., Path]
PLAIN = {"crypto": {"profile": "unsafe-plaintext"}}
SUMMARY_KEYS = {
    "run_id",
    "spec_digest",
    "model",
    "protocol",
    "parties",
    "rows_train",
    "rows_test",
    "positives_test",
    "encryption",
    "auc_test",
    "ks_test",
    "brier_test",
    "ece_test",
    "auc_label_holder_alone",
    "auc_pooled_plaintext",
    "auc_pooled_reference",
    "disclosure",
    "seconds",
    "cpu_seconds",
    "bytes_sent",
    "messages",
    "max_rss_mb",
    "versions",
    "git",
    "bank",
    "split",
    "entropy",
    "network",
    "ledger_scope",
    "fit",
    "metrics",
    "calibration",
}
PARTIES = ("bank", "tax_office", "customs")


@dataclass(frozen=True)
class Finished:
    """A run through the command line."""

    config: Path
    out: Path
    printed: str

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return content

    @property
    def predictions(self) -> pl.DataFrame:
        return pl.read_parquet(self.out / "predictions.parquet")


def command(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(one) for one in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    config = consortium(folder)
    code, printed, err = command("simulate", config, "--out", folder / "out")
    assert (code, err.strip()) == (0, "")
    return Finished(config, folder / "out", printed)


def test_every_file_of_the_contract_is_there(finished: Finished) -> None:
    expected = {"spec.toml", "summary.json", "predictions.parquet", "transcript.jsonl", "leakage.json", "report.html"}
    expected |= {f"audit/{party}.jsonl" for party in (*PARTIES, "coordinator")} | {"audit/heads.json"}
    expected |= {f"model/{party}/scorecard.json" for party in PARTIES}
    assert {name for name in expected if not (finished.out / name).is_file()} == set()
    assert {one.name for one in finished.out.parent.iterdir() if one.name.startswith((".", "out."))} == set()


def test_summary(finished: Finished) -> None:
    summary = finished.summary
    assert set() == SUMMARY_KEYS - summary.keys()
    assert set(summary["encryption"]) >= {"scheme", "poly_degree", "plain_modulus_bits", "security_bits", "enabled"}
    disclosure = {
        "equations_per_feature",
        "cap",
        "bits_per_row",
        "bins_returned",
        "noise_rows",
        "statistical_leak_log2",
    }
    assert set(summary["disclosure"]) >= disclosure
    assert set(summary["seconds"]) == {"align", "bin", "train", "score", "total"}
    everyone = {*PARTIES, "coordinator"}
    assert set(summary["cpu_seconds"]) == set(summary["bytes_sent"]) == everyone
    assert summary["encryption"]["enabled"] is True
    assert summary["encryption"]["security_bits"] == 128
    assert summary["scores_equal_pooled_plaintext"] is True
    assert summary["auc_test"] == summary["auc_pooled_plaintext"]
    assert summary["auc_test"] > summary["auc_label_holder_alone"]
    assert abs(summary["auc_test"] - summary["auc_pooled_reference"]) < 0.01


def test_predictions_give_the_metrics(finished: Finished) -> None:
    rows, summary = finished.predictions, finished.summary
    assert rows.columns[:4] == ["id", "label", "score", "probability"]
    assert rows.height == summary["rows_test"]
    assert rows["id"].n_unique() == rows.height
    assert int(rows["label"].sum()) == summary["positives_test"]
    assert float(auc(rows["label"].to_numpy(), -rows["score"].to_numpy())) == summary["auc_test"]
    by_score = rows.sort("score", descending=True)["probability"].to_numpy()
    assert (np.diff(by_score) >= 0).all()
    assert 0 < by_score.min() < by_score.max() < 1


def test_the_parties_files_together_are_the_scores(finished: Finished) -> None:
    """Each party's own file and records give its points; their sum is the score."""
    parts = {p: json.loads((finished.out / "model" / p / "scorecard.json").read_text()) for p in PARTIES}
    whole = {(f["owner"], f["code"]): f for f in parts["bank"]["features"]}
    for party in PARTIES[1:]:
        assert set(parts[party]) == {"party", "role", "scale", "features", "dropped"}
        for own in parts[party]["features"]:
            twin = whole[party, own["code"]]
            assert [b["points"] for b in own["bins"]] == [b["points"] for b in twin["bins"]]
            assert [b["woe"] for b in own["bins"]] == pytest.approx([b["woe"] for b in twin["bins"]])
            assert own["name"] is not None
            assert twin["name"] is None
            assert all(b["label"] is None for b in twin["bins"])
            assert all(b["label"] for b in own["bins"])
            assert all("goods" not in b and "bads" not in b for b in own["bins"])
    low, high = (
        parts["bank"]["base_points"] + sum(pick(b["points"] for b in f["bins"]) for f in whole.values())
        for pick in (min, max)
    )
    assert low <= finished.predictions["score"].min() <= finished.predictions["score"].max() <= high  # type: ignore[operator]


def test_transcript_adds_up(finished: Finished) -> None:
    lines = [json.loads(line) for line in (finished.out / "transcript.jsonl").read_text().splitlines()]
    summary = finished.summary
    assert len(lines) == summary["messages"]
    assert {frozenset(line) for line in lines} == {
        frozenset({"sender", "recipient", "type", "bytes", "stage", "sequence", "sha256"})
    }
    sent = dict.fromkeys(summary["bytes_sent"], 0)
    for line in lines:
        sent[line["sender"]] += line["bytes"]
    assert sent == summary["bytes_sent"]


def test_leakage_names_what_was_received(finished: Finished) -> None:
    leakage = json.loads((finished.out / "leakage.json").read_text())
    lines = [json.loads(line) for line in (finished.out / "transcript.jsonl").read_text().splitlines()]
    roles = {**finished.summary["parties"], "coordinator": "coordinator"}
    received = {(roles[line["recipient"]], line["type"]) for line in lines}
    assert received <= {(step["receiver"], step["message"]) for step in leakage["steps"]}
    assert set(leakage["ledger"]) == set(PARTIES)


def test_audit_logs_verify(finished: Finished) -> None:
    code, _, err = command("audit", "verify", finished.out)
    assert (code, err) == (0, "")
    log = finished.out / "audit" / "bank.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"bin", b"bun", 1))
    code, _, err = command("audit", "verify", finished.out)
    log.write_bytes(whole)
    assert code == 3
    assert "bank" in err


def test_the_kept_spec_runs_again(finished: Finished, tmp_path: Path) -> None:
    kept = finished.out / "spec.toml"
    assert spec_digest(load_spec(kept).spec) == spec_digest(load_spec(finished.config).spec)
    code, _, err = command("simulate", kept, "--out", tmp_path / "again", "--set", "crypto.profile=unsafe-plaintext")
    assert (code, err.strip()) == (0, "")
    again = Finished(kept, tmp_path / "again", "")
    assert again.predictions.equals(finished.predictions)
    code, printed, _ = command("simulate", kept, "--out", tmp_path / "same", "--json")
    assert code == 0
    assert json.loads(printed)["spec_digest"] == finished.summary["spec_digest"]


def test_what_is_printed(finished: Finished) -> None:
    assert "Encrypted: RLWE" in finished.printed
    assert f"{finished.summary['auc_test']:.4f}" in finished.printed
    assert "NOT ENCRYPTED" not in finished.printed
    assert "\x1b" not in finished.printed


def test_json_and_overrides(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path, rows=700, sections=PLAIN)
    code, out, err = command(
        "simulate", config, "--out", tmp_path / "o", "--json", "--set", "scorecard.fit=moments", "--set", "run.name=x"
    )
    assert (code, err.strip()) == (0, "")
    summary = json.loads(out)
    assert (summary["fit"]["method"], summary["name"]) == ("moments", "x")
    assert summary == json.loads((tmp_path / "o" / "summary.json").read_text())
    kept = tomllib.loads((tmp_path / "o" / "spec.toml").read_text())
    assert kept["scorecard"]["fit"] == "moments"
    assert kept["bin"]["smoothing"] == 0.5  # a default, written out


def test_encryption_off_is_shouted_and_refused_in_production(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path, rows=700, sections=PLAIN)
    code, out, _ = command("simulate", config, "--out", tmp_path / "o")
    assert code == 0
    assert "NOT ENCRYPTED" in out
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert summary["encryption"]["enabled"] is False
    assert summary["encryption"]["security_bits"] == 0
    real = ("run.mode=production", "privacy.enforce=true", "align.mode=blind")
    overrides = [word for one in real for word in ("--set", one)]
    refused = command("simulate", config, "--out", tmp_path / "p", *overrides)
    assert refused[0] == 2
    assert "crypto.profile" in refused[2]
    assert not (tmp_path / "p").exists()


def test_without_out_names_are_never_reused(tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = consortium(tmp_path, rows=700, sections=PLAIN)
    monkeypatch.chdir(tmp_path)
    assert [command("simulate", config)[0] for _ in range(2)] == [0, 0]
    assert sorted(one.name for one in (tmp_path / "runs").iterdir()) == ["made-up", "made-up-2"]


def edited(party: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / f"{party}.csv"
        change(pl.read_csv(path, infer_schema_length=None)).write_csv(path)

    return edit


def written(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / "run.toml").read_text()
        assert old in text
        (folder / "run.toml").write_text(text.replace(old, new, 1))

    return edit


def set_column(party: str, name: str, value: Any) -> Callable[[Path], None]:
    return edited(party, lambda frame: frame.with_columns(pl.lit(value).alias(name)))


def first_row(party: str, name: str, value: Any) -> Callable[[Path], None]:
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        column = frame[name].cast(pl.String).to_list()
        return frame.with_columns(pl.Series(name, [value, *column[1:]]))

    return edited(party, change)


BAD_INPUT: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no configuration": (lambda folder: (folder / "run.toml").unlink(), ["run.toml", "no such file"]),
    "no TOML": (lambda folder: (folder / "run.toml").write_text("run = ["), ["run.toml", "not valid TOML"]),
    "no records": (lambda folder: (folder / "customs.csv").unlink(), ["customs", "customs.csv"]),
    "unknown key": (written("max_bins", "max_bin"), ["max_bin", 'did you mean "max_bins"']),
    "unknown section": (written("[bin]", "[bins]"), ["bins", '"bin"']),
    "unknown column": (written('"turnover_1"', '"turnovr_1"'), ["tax_office", "turnovr_1", '"turnover_1"']),
    "repeated ids": (edited("bank", lambda frame: pl.concat([frame, frame[:2]])), ["bank", "'id'", "unique"]),
    "missing id": (first_row("bank", "id", None), ["bank", "'id'", "missing in 1"]),
    "no id column": (edited("customs", lambda frame: frame.drop("id")), ["customs", "'id'"]),
    "label not 0 or 1": (first_row("bank", "bad", "2"), ["bank", "'bad'", "0 and 1"]),
    "one class": (set_column("bank", "bad", 0), ["bank", "'bad'", "one class"]),
    "constant": (set_column("tax_office", "turnover_1", 3.5), ["tax_office", "'turnover_1'", "same value"]),
    "all missing": (set_column("customs", "delay_2", None), ["customs", "'delay_2'", "no value"]),
    "infinite": (first_row("customs", "turnover_2", "inf"), ["customs", "'turnover_2'", "infinite"]),
    "mixed": (first_row("customs", "turnover_2", "about five"), ["customs", "'turnover_2'", "mixes"]),
    "strangers": (
        edited("customs", lambda frame: frame.with_columns(pl.concat_str(pl.lit("X"), pl.col("id")).alias("id"))),
        ["no id is held by all parties"],
    ),
    "few goods": (written("min_goods = 10", "min_goods = 5000"), ["goods", "at least 5000"]),
    "few bads": (written("min_bads = 10", "min_bads = 5000"), ["bads", "at least 5000"]),
    "nothing passes": (written("min_iv = 0.0", "min_iv = 50.0"), ["no feature passes", "min_iv"]),
    "no label holder": (
        written('role = "label_holder"\nlabel = "bad"', 'role = "feature_holder"'),
        ["label_holder", "one must be"],
    ),
    "two label holders": (
        written('role = "feature_holder"', 'role = "label_holder"\nlabel = "luck"'),
        ["label_holder", "use one, or at least 3"],
    ),
    "one name twice": (written('name = "customs"', 'name = "tax_office"'), ["tax_office", "2 parties"]),
    "reserved name": (written('name = "customs"', 'name = "coordinator"'), ["coordinator", "reserved"]),
    "registry without a register": (written('mode = "plain"', 'mode = "registry"'), ["align.registry"]),
    "ledger in a file": (written("enforce = false", 'enforce = false\nledger_dir = "bank.csv"'), ["ledger_dir"]),
}


@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, consortium: Make, kind: str) -> None:
    spoil, parts = BAD_INPUT[kind]
    config = consortium(tmp_path, rows=500, sections=PLAIN)
    spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command("simulate", config, "--out", tmp_path / "runs" / "o")
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.strip().startswith("error: ")
    assert [part for part in parts if part not in err] == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_folder_is_refused(tmp_path: Path, consortium: Make, kind: str) -> None:
    config = consortium(tmp_path, rows=500, sections=PLAIN)
    out = tmp_path / "o"
    out.mkdir() if kind == "folder" else out.write_text("mine")
    code, _, err = command("simulate", config, "--out", out)
    assert code == 2
    assert "exists already" in err
    assert sorted(out.iterdir()) == [] if kind == "folder" else out.read_text() == "mine"


@pytest.mark.parametrize("writer", ["text", "predictions", "transcript", "parts"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, consortium: Make, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def full(self: RunFiles, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))

    config = consortium(tmp_path, rows=500, sections=PLAIN)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(RunFiles, writer, full)
    code, _, err = command("simulate", config, "--out", tmp_path / "o")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "no space left" in err
    assert sorted(tmp_path.rglob("*")) == before
