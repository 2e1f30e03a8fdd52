"""The grid of a sweep: which runs it has, what they are called, and what is refused before any starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedcredit.errors import SpecError
from fedcredit.runtime.sweep.plan import identity_of, plan_sweep, shown, split_values, typed
from fedcredit.spec.load import load_spec
from fedcredit.spec.write import spec_toml

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3", ("1", "2", "3")),
        (" 1 , 2 ", ("1", "2")),
        ("[1,2]", ("[1,2]",)),
        ("[1,2],[3]", ("[1,2]", "[3]")),
        ('"a,b",c', ('"a,b"', "c")),
        ("'a,b'", ("'a,b'",)),
        ('{a=1,b=2},{a="x,}"}', ("{a=1,b=2}", '{a="x,}"}')),
        ("[[1,2],[3,4]],[]", ("[[1,2],[3,4]]", "[]")),
    ],
)
def test_values_between_commas(text: str, values: tuple[str, ...]) -> None:
    assert split_values(text, "k") == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,,2", "missing"),
        (",1", "missing"),
        ("", "missing"),
        ("[1,2", "not closed"),
        ("'a", "not closed"),
        ("1]", "not"),
    ],
)
def test_values_that_cannot_be_told_apart(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        split_values(text, "boost.depth")


def test_values_as_people_read_them() -> None:
    assert [shown(one) for one in ("0.10", '"one-step"', "moments", "[32,16]", '["a", "b"]', "true")] == [
        "0.10",
        "one-step",
        "moments",
        "[32,16]",
        "[a,b]",
        "true",
    ]
    assert [typed(one) for one in ("0.10", "3", "moments", "true", "[1]")] == [0.1, 3, "moments", True, [1]]


@pytest.fixture
def config(tmp_path: Path, consortium: Make) -> Path:
    return consortium(tmp_path, rows=200)


def test_every_combination_is_a_run(config: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4", "crypto.profile=unsafe-plaintext", "scorecard.fit=moments,mle"])
    assert [one.label for one in plan.varied] == ["max_bins", "fit"]
    assert plan.fixed == ("crypto.profile=unsafe-plaintext",)
    assert [point.name for point in plan.points] == [
        "max_bins=3,fit=moments",
        "max_bins=3,fit=mle",
        "max_bins=4,fit=moments",
        "max_bins=4,fit=mle",
    ]
    for point in plan.points:
        assert point.loaded is not None
        spec = point.loaded.spec
        assert (str(spec.bin.max_bins), spec.scorecard.fit) == point.values
        assert spec.crypto.profile == "unsafe-plaintext"
    assert len({point.digest for point in plan.points}) == 4


def test_no_value_is_one_run(config: Path) -> None:
    plan = plan_sweep(config, [])
    assert [(point.name, point.values, point.seed) for point in plan.points] == [("run", (), None)]


def test_seeds_repeat_with_other_splits(config: Path) -> None:
    plan = plan_sweep(config, ["bin.max_bins=3,4"], (5, 6))
    assert plan.seeded == ("run.seed", "split.seed")
    assert [point.name for point in plan.points] == [
        "max_bins=3,seed=5",
        "max_bins=3,seed=6",
        "max_bins=4,seed=5",
        "max_bins=4,seed=6",
    ]
    specs = [point.loaded.spec for point in plan.points if point.loaded is not None]
    assert [(spec.run.seed, spec.split.seed) for spec in specs] == [(5, 5), (6, 6), (5, 5), (6, 6)]


def test_a_seed_given_as_key_is_left_to_it(config: Path) -> None:
    plan = plan_sweep(config, ["split.seed=1"], (5,))
    assert plan.seeded == ("run.seed",)
    with pytest.raises(SpecError, match="every seed of this run"):
        plan_sweep(config, ["split.seed=1", "run.seed=1,2"], (5,))
    assert plan_sweep(config, ["split.seed=1,2"]).varied[0].label == "split.seed"


def test_keys_with_one_last_part_keep_all_of_it(config: Path) -> None:
    texts = ["['delay_0'],['delay_0','luck']", "['delay_2'],['delay_2','luck']"]
    plan = plan_sweep(config, [f"party.bank.columns={texts[0]}", f"party.customs.columns={texts[1]}"])
    assert [one.label for one in plan.varied] == ["party.bank.columns", "party.customs.columns"]
    assert plan.points[1].name == "party.bank.columns=delay_0,party.customs.columns=delay_2-luck"


def test_combinations_that_break_a_rule_are_listed_not_fatal(config: Path) -> None:
    plan = plan_sweep(config, ["bin.prebins=3,8", "bin.max_bins=3,4"])
    refused = [point for point in plan.points if point.loaded is None]
    assert [point.name for point in refused] == ["prebins=3,max_bins=4"]
    assert "above bin.prebins = 3" in refused[0].refusal
    assert refused[0].digest == ""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["bin.max_bin=3,4"], 'did you mean "max_bins"'),
        (["bins.max_bins=3,4"], "bins"),
        (["party.customz.id=a,b"], "customz"),
        (["bin.max_bins"], "not of the form"),
        (["bin.max_bins=3,4", "bin.max_bins=5"], "given twice"),
        (["bin.max_bins=3,3"], "3 is given twice"),
        (["scorecard.min_iv=0.1,0.10"], "0.10 is given twice"),
        (["bin.max_bins=three,four"], "max_bins"),
        (["bin.max_bins=40,50"], "above bin.prebins"),
        (["run.seed=" + ",".join(map(str, range(200))), "split.seed=" + ",".join(map(str, range(51)))], "10,200 runs"),
        (["run.mode=production", "privacy.enforce=true", "align.mode=blind", "bin.max_bins=3,4"], "a sweep runs"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(config: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_sweep(config, overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(" [") == 1


def test_a_seed_twice_and_no_file(config: Path) -> None:
    with pytest.raises(SpecError, match="given twice"):
        plan_sweep(config, [], (1, 1))
    with pytest.raises(SpecError, match="no such file"):
        plan_sweep(config.with_name("none.toml"), ["bin.max_bins=3,4"])


def test_names_of_folders_are_safe_short_and_different(config: Path) -> None:
    plan = plan_sweep(config, ["party.bank.source=../a b/x.csv,../a/b/x.csv,${DATA}/" + "y" * 300 + ".csv"])
    names = [point.name for point in plan.points]
    assert len(set(names)) == 3
    for name in names:
        assert "/" not in name
        assert " " not in name
        assert len(name) <= 130
        assert not name.startswith(".")


def test_values_that_look_alike_in_a_name_get_different_names(config: Path) -> None:
    plan = plan_sweep(config, ["party.bank.source=a b.csv,a/b.csv,A-B.csv"])
    names = [point.name.casefold() for point in plan.points]
    assert len(set(names)) == 3


def test_identity_is_that_of_the_kept_specification(config: Path, tmp_path: Path) -> None:
    loaded = load_spec(config)
    kept = tmp_path / "elsewhere" / "spec.toml"
    kept.parent.mkdir()
    kept.write_text(spec_toml(loaded.spec, base=loaded.base))
    again = load_spec(kept)
    assert identity_of(again.spec, again.base) == identity_of(loaded.spec, loaded.base)
    other = load_spec(config, ["party.bank.source=other.csv"])
    assert identity_of(other.spec, other.base) != identity_of(loaded.spec, loaded.base)
