"""Every wrong configuration is one SpecError of one line that names file, key, what was found, what would be right."""

from __future__ import annotations

import pytest

from fedcredit.errors import SpecError
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import parse_spec, parse_toml
from fedcredit.spec.model import RunSpec
from fedcredit.spec.travel import read_travelling, travelling_json
from fedcredit.types import Role

GOOD = """
[run]
name = "t"
mode = "simulation"

[align]
mode = "plain"

[[party]]
name = "bank"
role = "label_holder"
source = "bank.csv"
label = "y"
columns = ["a", "b"]

[[party]]
name = "tax_office"
role = "feature_holder"
source = "tax.csv"
"""
SAFE = ["run.mode=production", "align.mode=blind"]


def fault(*overrides: str, text: str = GOOD) -> str:
    with pytest.raises(SpecError) as caught:
        parse_toml(text, "run.toml", overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line


def test_minimal_spec_has_every_default() -> None:
    spec = parse_toml(GOOD, "run.toml")
    assert spec.parties == ("bank", "tax_office")
    assert spec.label_holder.name == "bank"
    assert [party.name for party in spec.feature_holders] == ["tax_office"]
    assert spec.simulation
    assert spec.scorecard.max_totals == 2
    assert spec.boost is None
    assert spec.party[0].role is Role.LABEL_HOLDER


def test_spec_is_frozen() -> None:
    spec = parse_toml(GOOD, "run.toml")
    with pytest.raises(ValueError, match="frozen"):
        spec.bin.prebins = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("bin.max_bin=3", ["run.toml", "bin.max_bin", "unknown key", '"max_bins"']),
        ("party.bank.rolle=x", ["party.bank.rolle", "unknown key", '"role"']),
        ("bni.max_bins=3", ["bni", "unknown key", '"bin"']),
        ("bin.max_bins=1", ["bin.max_bins", "found 1", "at least 2"]),
        ("bin.max_bins=2.5", ["bin.max_bins", "found 2.5", "whole number"]),
        ("bin.max_bins=true", ["bin.max_bins", "found true", "whole number"]),
        ("bin.max_bins=21", ["bin.max_bins", "21", "bin.prebins = 20"]),
        ("bin.min_share=0.6", ["bin.min_share", "found 0.6", "at most 0.5"]),
        ("scorecard.pdo=0", ["scorecard.pdo", "found 0", "above 0"]),
        ("scorecard.base_odds=inf", ["scorecard.base_odds", "finite"]),
        ("scorecard.fit=newton", ["scorecard.fit", '"newton"', '"one-step"']),
        ("scorecard.max_totals=4", ["scorecard.max_totals", "at most 3"]),
        ("scorecard.true_bad_rate=1", ["scorecard.true_bad_rate", "below 1"]),
        ("split.test_fraction=1.0", ["split.test_fraction", "below 1"]),
        ("split.seed=-1", ["split.seed", "found -1", "at least 0"]),
        ("privacy.max_equations=many", ["privacy.max_equations", '"many"', '"auto"']),
        ("privacy.enforce=False", ["privacy.enforce", '"False"', "true or false"]),
        ("crypto.profile=rlwe", ["crypto.profile", '"rlwe"', '"rlwe-8192"']),
        ("network.timeout_s=0", ["network.timeout_s", "above 0"]),
        ("run.mode=prod", ["run.mode", '"prod"', '"production"']),
        ("run.name=A b", ["run.name", '"A b"', "a-z 0-9 _ -"]),
        ("party.bank.name=Bank", ["party.1.name", '"Bank"', "a-z 0-9 _ -"]),
        ("party.bank.role=lender", ["party.bank.role", '"lender"', '"label_holder"']),
        ("party.bank.columns=[]", ["party.bank.columns", "empty list"]),
        ('party.bank.columns=["a","a"]', ["party.bank.columns", '"a"', "more than once"]),
        ('party.bank.columns=["a","y"]', ["party.bank.columns", '"y"', "never a feature"]),
        ('party.bank.columns=["a","id"]', ["party.bank.columns", '"id"', "never a feature"]),
        ('party.bank.categorical=["aa"]', ["party.bank.categorical", '"aa"', 'did you mean "a"']),
        ("party.bank.special.c=[1]", ["party.bank.special", '"c"', "not among the columns"]),
        ("party.bank.special.a=1", ["party.bank.special.a", "found 1", "list"]),
        ("party.bank.monotone.a=up", ["party.bank.monotone.a", '"up"', '"increasing"']),
        ("party.bank.label=id", ["party.bank.label", '"id"', "id column"]),
        ("party.bank.source=known:", ["party.bank.source", "known:NAME"]),
        ("party.bank.source=sqlite:///x.db", ["party.bank.query", "missing"]),
        ("party.bank.query=select 1", ["party.bank.query", "no database URL"]),
        ("split.time=when", ["split.test_from", "missing"]),
        ("split.test_from=2006", ["split.time", "missing"]),
    ],
)
def test_one_wrong_key(override: str, parts: list[str]) -> None:
    line = fault(override)
    for part in parts:
        assert part in line


def test_categorical_column_has_no_special_codes() -> None:
    line = fault('party.bank.categorical=["a"]', "party.bank.special.a=[1]")
    assert "party.bank.special" in line
    assert "categorical" in line


def test_duplicate_party_names() -> None:
    assert '"bank" names 2 parties' in fault("party.tax_office.name=bank")


def test_reserved_party_name() -> None:
    assert '"coordinator" is reserved' in fault("party.tax_office.name=coordinator")


def test_no_label_holder() -> None:
    text = GOOD.replace("label_holder", "feature_holder").replace('label = "y"', "")
    assert 'no party is "label_holder"' in fault(text=text)


def test_two_label_holders() -> None:
    line = fault("party.tax_office.role=label_holder", "party.tax_office.label=y")
    assert '2 parties are "label_holder" (bank, tax_office)' in line


def test_no_feature_holder() -> None:
    text = GOOD[: GOOD.rindex("[[party]]")]
    assert 'no party is "feature_holder"' in fault(text=text)


def test_label_missing_at_label_holder() -> None:
    assert "party.bank.label: missing" in fault(text=GOOD.replace('label = "y"', ""))


def test_label_given_at_feature_holder() -> None:
    assert "party.tax_office.label: given at a feature holder" in fault("party.tax_office.label=y")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["run.mode=production"], "align.mode"),
        ([*SAFE, "crypto.profile=unsafe-plaintext"], "crypto.profile"),
        ([*SAFE, "privacy.enforce=false"], "privacy.enforce"),
        ([*SAFE, "scorecard.fit=mle", "scorecard.total_noise=0"], "scorecard.total_noise"),
        ([*SAFE, "run.model=boost", "boost.holder_thresholds=0"], "boost.holder_thresholds"),
        ([*SAFE, "network.latency_ms=5"], "network.latency_ms"),
    ],
)
def test_unsafe_is_refused_outside_simulation(overrides: list[str], key: str) -> None:
    line = fault(*overrides)
    assert f": {key}: " in line
    assert "simulation only" in line
    # and the same is accepted in simulation, so that it is the mode that decides
    parse_toml(GOOD, "run.toml", [o for o in overrides if not o.startswith("run.mode")])


def test_production_without_anything_unsafe_is_accepted() -> None:
    assert not parse_toml(GOOD, "run.toml", [*SAFE, "scorecard.fit=mle"]).simulation


def without_places(*extra: str) -> str:
    return "\n".join(
        [*(line for line in GOOD.splitlines() if not line.startswith(("source", "[align]", 'mode = "plain'))), *extra]
    )


@pytest.mark.parametrize("mode", ["registry", "blind"])
def test_between_houses_a_file_names_no_places(mode: str) -> None:
    # each house has its own; the digest is that of the same run with places
    wanted = ["run.mode=production", f"align.mode={mode}", 'party.tax_office.as_of="2025-12-31"']
    left = parse_toml(without_places(), "run.toml", wanted)
    places = ["align.registry=r.csv", "party.tax_office.catalog=tax.toml"]
    assert spec_digest(left) == spec_digest(parse_toml(GOOD, "run.toml", [*wanted, *places]))
    assert read_travelling(travelling_json(left, "march"))[1] == "march"


def test_a_simulation_names_its_places() -> None:
    assert "party.bank.source: missing" in fault(text=without_places())


def test_without_decoys_no_register_is_meant() -> None:
    spec = parse_toml(without_places(), "run.toml", [*SAFE, "align.decoys=0"])
    assert spec.align.registry is None


def test_ids_and_time_exclude_each_other() -> None:
    line = fault("split.time=when", "split.test_from=2006", "split.test_ids=ids.txt")
    assert "split.test_ids" in line


def test_time_column_is_no_feature() -> None:
    assert "party.bank.columns" in fault("split.time=a", "split.test_from=2006")


def test_feature_holder_must_not_take_the_label_from_a_shared_file() -> None:
    assert "party.tax_office.columns: missing" in fault("party.tax_office.source=bank.csv")
    line = fault("party.tax_office.source=bank.csv", 'party.tax_office.columns=["y"]')
    assert 'lists "y", the label of "bank"' in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:hunter2@host/db",
        "postgresql+psycopg://user:hunter2@ss@host/db",
        "postgresql+psycopg://host/db?user=u&password=hunter2",
    ],
)
def test_password_in_the_clear_is_refused_and_not_repeated(url: str) -> None:
    line = fault(f'party.bank.source="{url}"', "party.bank.query=select 1")
    assert "party.bank.source: holds a password in the clear" in line
    assert "hunter2" not in line


def test_password_in_a_variable_is_accepted() -> None:
    source = "postgresql+psycopg://user:${DB_PASSWORD}@host/db"
    spec = parse_toml(GOOD, "run.toml", [f'party.bank.source="{source}"', "party.bank.query=select 1"])
    assert spec.label_holder.source == source


def test_source_of_wrong_type_is_not_repeated() -> None:
    line = fault('party.bank.source=["postgresql://u:hunter2@h"]')
    assert "party.bank.source" in line
    assert "hunter2" not in line


def test_missing_keys_say_what_to_add() -> None:
    assert "run.mode: missing" in fault(text=GOOD.replace('mode = "simulation"', "", 1))
    assert "run: missing" in fault(text="[bin]\n")
    assert "[[party]] section (two brackets)" in fault(text='[run]\nname="t"\nmode="simulation"\n[party]\nname="b"\n')


def test_several_faults_are_counted() -> None:
    assert "(and 1 more)" in fault("bin.max_bins=1", "bin.prebins=1")


def test_boosting_has_its_section_by_default() -> None:
    spec = parse_toml(GOOD, "run.toml", ["run.model=boost"])
    assert spec.boost is not None
    assert spec.boost.trees == 20


def test_keys_of_boosting_that_belong_to_privacy() -> None:
    spec = parse_toml(GOOD, "run.toml", ["run.model=boost", "boost.gradient_bits=9", "privacy.row_sampling=0.5"])
    assert (spec.privacy.gradient_bits, spec.privacy.row_sampling) == (9, 0.5)
    line = fault("boost.early_stopping=3", "privacy.early_stopping=4")
    assert "boost.early_stopping" in line


def test_direct_construction_checks_the_rules_too() -> None:
    spec = parse_toml(GOOD, "run.toml")
    content = spec.model_dump()
    content["party"][1]["name"] = "bank"
    with pytest.raises(ValueError, match="names 2 parties"):
        RunSpec.model_validate(content)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"max_leaves": 4}, "boost.max_leaves"),
        ({"growth": "leaf", "depth": 2, "max_leaves": 5}, "boost.max_leaves"),
        ({"trees": 3, "first_trees_local": 4}, "boost.first_trees_local"),
    ],
)
def test_boosting_keys_that_contradict_each_other(section: dict[str, object], key: str) -> None:
    raw = _boost(section)
    with pytest.raises(SpecError, match=key.replace(".", r"\.")):
        parse_spec(raw)


def test_leaves_of_a_tree() -> None:
    deep = parse_spec(_boost({"depth": 4})).boost
    grown = parse_spec(_boost({"growth": "leaf", "depth": 4, "max_leaves": 6})).boost
    if deep is None or grown is None:
        pytest.fail("no section [boost]")
    assert (deep.leaves, grown.leaves) == (16, 6)


def _boost(section: dict[str, object]) -> dict[str, object]:
    return {
        "run": {"name": "trees", "mode": "simulation", "model": "boost"},
        "party": [
            {"name": "bank", "role": "label_holder", "source": "bank.csv", "label": "y"},
            {"name": "tax_office", "role": "feature_holder", "source": "tax.csv"},
        ],
        "boost": section,
    }
