"""What a run depends on: the records and the spec; not the secrets, not the order of rows in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec

Make = Callable[..., Path]

# The library's own cipher draws from the operating system and takes no seed: the totals' key and what is made with it.
UNSEEDED = {"scorecard.totals_key", "scorecard.partial", "scorecard.total"}


def transcript(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "transcript.jsonl").read_text().splitlines()]


def result(out: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    parts = {path.parent.name: json.loads(path.read_text()) for path in (out / "model").glob("*/scorecard.json")}
    return pl.read_parquet(out / "predictions.parquet"), parts


def same(first: Path, second: Path) -> None:
    (rows, parts), (other_rows, other_parts) = result(first), result(second)
    assert rows.equals(other_rows)
    assert parts == other_parts


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Path:
    return consortium(tmp_path_factory.mktemp("determinism"))


def test_one_seed_gives_one_transcript(small_run: Simulation, config: Path, tmp_path: Path) -> None:
    again = simulate(load_spec(config), tmp_path / "o", entropy_seed=b"\x11" * 32)
    first, second = transcript(small_run.out), transcript(again.out)
    assert [{**one, "sha256": ""} for one in first] == [{**one, "sha256": ""} for one in second]
    differing = {one["type"] for one, other in zip(first, second, strict=True) if one["sha256"] != other["sha256"]}
    assert differing <= UNSEEDED
    assert again.summary["entropy"] == "seeded"
    same(small_run.out, again.out)


def test_other_secrets_give_the_same_model(small_run: Simulation, config: Path, tmp_path: Path) -> None:
    other = simulate(load_spec(config), tmp_path / "o", entropy_seed=b"\x12" * 32)
    assert other.summary["transcript_digest"] != small_run.summary["transcript_digest"]
    changed = {
        one["type"]
        for one, two in zip(transcript(small_run.out), transcript(other.out), strict=True)
        if one["sha256"] != two["sha256"]
    }
    assert changed >= {"group_sum.nonce_reveal", "group_sum.request", "group_sum.answer", "group_sum.hints"}
    same(small_run.out, other.out)


def test_secrets_of_the_system_differ_from_run_to_run(config: Path, tmp_path: Path) -> None:
    runs = [simulate(load_spec(config), tmp_path / name) for name in ("a", "b")]
    assert runs[0].summary["entropy"] == "system"
    bodies = [{one["sha256"] for one in transcript(run.out) if one["type"] == "group_sum.request"} for run in runs]
    assert not bodies[0] & bodies[1]
    same(runs[0].out, runs[1].out)


def test_the_order_of_rows_in_a_file_does_not_matter(small_run: Simulation, tmp_path: Path, consortium: Make) -> None:
    shuffled = consortium(tmp_path, shuffle=77, sections={"crypto": {"profile": "unsafe-plaintext"}})
    run = simulate(load_spec(shuffled), tmp_path / "o")
    same(small_run.out, run.out)


def test_seeds_of_the_spec_matter_where_they_should(small_run: Simulation, config: Path, tmp_path: Path) -> None:
    plain = "crypto.profile=unsafe-plaintext"
    split = simulate(load_spec(config, [plain, "split.seed=2"]), tmp_path / "split")
    assert set(result(split.out)[0]["id"]) != set(result(small_run.out)[0]["id"])
    order = simulate(load_spec(config, [plain, "run.seed=4"]), tmp_path / "order")
    names = [
        [one["name"] for one in sorted(result(run.out)[1]["customs"]["features"], key=lambda one: str(one["code"]))]
        for run in (small_run, order)
    ]
    assert sorted(names[0]) == sorted(names[1])
    assert order.summary["rows_test"] == small_run.summary["rows_test"]
