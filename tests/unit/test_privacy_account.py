"""A run of averaging in its house's privacy ledger, and what the house's policy says of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedcredit.errors import DisclosureRefused, PolicyDenied, SpecError
from fedcredit.governance.policy import Policy, load_policy
from fedcredit.governance.privacy_account import PrivacyAccount, release_of
from fedcredit.governance.privacy_accounting import epsilon_of, plan
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.governance.privacy_limit import PrivacyLimit
from fedcredit.spec.load import parse_toml
from fedcredit.spec.model import RunSpec
from fedcredit.types import RunId

BANKS = "".join(
    f'[[party]]\nname = "bank{i}"\nrole = "label_holder"\nsource = "bank{i}.csv"\nlabel = "y"\n' for i in range(3)
)
STAGES = ("exponents", "moments", "round/1", "round/2", "round/3")


def spec_of(unit: str, multiplier: float = 2.0) -> RunSpec:
    head = '[run]\nname = "r"\nmode = "simulation"\nmodel = "fedavg"\n[fedavg]\nrounds = 3\n'
    return parse_toml(f'{head}[differential_privacy]\nunit = "{unit}"\nnoise_multiplier = {multiplier}\n{BANKS}')


def account(unit: str, limit: PrivacyLimit | None = None, run: str = "aa") -> PrivacyAccount:
    return PrivacyAccount(PrivacyLedger(":memory:", limit), spec_of(unit), RunId(run), "v1", 4000)


@pytest.mark.parametrize("unit", ["record", "bank"])
def test_a_whole_run_costs_what_was_planned(unit: str) -> None:
    one = account(unit)
    one.begin()
    for stage in (*STAGES, "judge", "score", "finished"):
        one.release(stage, stage.encode())
        one.release(stage, stage.encode())
    spent = one.end()
    planned = plan(one.spec, 4000, 3)
    assert spent.events == planned.events
    assert spent.epsilon == spent.total == planned.epsilon == epsilon_of(spent.events, 1e-5)


def test_a_run_that_stops_early_costs_less() -> None:
    one = account("bank")
    one.begin()
    for stage in STAGES[:3]:
        one.release(stage, b"")
    spent = one.end()
    assert [event.times for event in spent.events] == [2, 1]
    assert spent.epsilon < spent.planned


def test_nothing_beyond_the_plan_leaves() -> None:
    one = account("record")
    with pytest.raises(DisclosureRefused, match="reserved nothing"):
        one.release("exponents", b"")
    one.begin()
    for stage in STAGES:
        one.release(stage, b"")
    with pytest.raises(DisclosureRefused, match="3 are planned"):
        one.release("round/4", b"")
    with pytest.raises(DisclosureRefused, match="other content"):
        one.release("round/3", b"another")


def test_a_run_without_noise_is_on_the_books_as_infinite() -> None:
    one = account("none")
    one.begin()
    for stage in STAGES:
        one.release(stage, b"")
    assert math.isinf(one.end().total)
    with pytest.raises(DisclosureRefused, match="no finite epsilon"):
        account("none", PrivacyLimit(max_epsilon=10.0)).begin()
    # What left without noise cannot be made good by noise in a later run.
    limited = PrivacyLedger(":memory:")
    PrivacyAccount(limited, spec_of("none"), RunId("aa"), "v1", 4000).begin()
    limited._limit = PrivacyLimit(max_epsilon=100.0)
    with pytest.raises(DisclosureRefused, match=r"infinite.*not one round would fit"):
        PrivacyAccount(limited, spec_of("record"), RunId("bb"), "v1", 4000).begin()


def test_stages_that_say_nothing_of_training_rows_are_no_release() -> None:
    assert [release_of(stage) for stage in STAGES] == ["columns", "columns", "update", "update", "update"]
    assert {release_of(stage) for stage in ("judge", "score", "finished")} == {None}


def test_the_policy_names_unit_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[differential_privacy]\nrequire_unit = "record"\nmax_epsilon = 0.5\ndelta = 1e-6\n')
    limit = load_policy(path).privacy_limit()
    assert limit == PrivacyLimit("record", 0.5, 1e-6)
    with pytest.raises(PolicyDenied, match='asks for "record"'):
        account("bank", limit).begin()
    with pytest.raises(DisclosureRefused, match=r"delta 1e-06.*allows 0\.5"):
        account("record", limit).begin()
    assert Policy().privacy_limit() == PrivacyLimit()


@pytest.mark.parametrize("line", ['require_unit = "none"', "max_epsilon = 0.0", "delta = 1.0", "epsilon = 1.0"])
def test_a_policy_that_asks_for_what_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f"[differential_privacy]\n{line}\n")
    with pytest.raises(SpecError, match="differential_privacy"):
        load_policy(path)
    for most, delta in ((math.nan, 1e-5), (0.0, 1e-5), (1.0, 0.0)):
        with pytest.raises(PolicyDenied, match="the policy's"):
            PrivacyLimit(None, most, delta)
