"""Any accepted spec survives being written and read, with the same digest."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import parse_spec, parse_toml
from fedcredit.spec.write import spec_toml

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=12).filter(
    lambda name: name[0] not in "_-" and name != "coordinator"
)
# any text a column may be called, TOML's escapes included
COLUMNS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NUMBERS = st.floats(min_value=-1e9, max_value=1e9)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    columns = draw(st.lists(COLUMNS.filter(lambda c: c not in ("id", "y")), min_size=2, max_size=6, unique=True))
    parties: list[dict[str, Any]] = [
        {"name": name, "role": "feature_holder", "source": f"{name}.csv", "columns": columns} for name in names
    ]
    parties[0] |= {"role": "label_holder", "label": "y"}
    parties[0]["categorical"] = columns[:1]
    parties[1]["special"] = {columns[0]: draw(st.lists(NUMBERS, min_size=1, max_size=3))}
    parties[1]["monotone"] = {columns[1]: draw(st.sampled_from(["increasing", "decreasing", "auto"]))}
    split: dict[str, Any] = {"test_fraction": draw(st.floats(0.01, 0.99)), "seed": draw(st.integers(0, 2**63 - 1))}
    if draw(st.booleans()):
        split |= {"time": "when", "test_from": draw(st.integers(-(2**40), 2**40) | NUMBERS | COLUMNS)}
    return {
        "run": {"name": names[0], "mode": "simulation", "model": draw(st.sampled_from(["scorecard", "boost"]))},
        "party": parties,
        "split": split if "when" not in columns else {},
        "scorecard": {"pdo": draw(st.floats(1e-3, 1e6)), "true_bad_rate": draw(st.none() | st.floats(0.001, 0.9))},
        "privacy": {
            "max_equations": draw(st.just("auto") | st.integers(1, 10**6)),
            "noise_rows": draw(st.floats(0, 9)),
        },
        "bin": {"prebins": draw(st.integers(20, 100))},
    }


@given(specs())
def test_written_spec_reads_back_equal(raw: dict[str, Any]) -> None:
    spec = parse_spec(raw)
    again = parse_toml(spec_toml(spec))
    assert again == spec
    assert spec_digest(again) == spec_digest(spec)


@given(specs(), st.permutations(["run", "party", "split", "scorecard", "privacy", "bin"]))
def test_digest_does_not_depend_on_the_order_of_sections(raw: dict[str, Any], order: list[str]) -> None:
    assert spec_digest(parse_spec({key: raw[key] for key in order})) == spec_digest(parse_spec(raw))
