"""Policies deny what they do not name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.governance.policy import CapSection, Policy, load_policy, simulation_policy
from fedcredit.types import PartyId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BANK = PartyId("bank")
TEXT = """
counterparties = ["bank"]
protocols = ["bin"]
messages = ["bin.shapes"]
runs = ["aa"]
expires = 2026-06-01T00:00:00Z
max_message_bytes = 1000
max_run_bytes = 10_000
max_run_messages = 10
kind_messages = { "bin.shapes" = 2 }

[caps]
equations = 50
row_bits = 12.5
ids_asked = 3000
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_a_written_policy_allows_what_it_names(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path, TEXT))
    policy.check_run("aa", NOW)
    policy.check_recipient(BANK)
    policy.check_kind("bin", "bin.shapes")
    rules = policy.cap_rules()
    assert (rules.equations, rules.row_bits, rules.bins_returned, rules.enforce) == (50, 12.5, None, True)
    assert rules.ids_asked == 3000


def test_no_policy_allows_nothing(tmp_path: Path) -> None:
    for policy in (
        Policy(),
        load_policy(None),
        load_policy(tmp_path / "absent.toml"),
        load_policy(_write(tmp_path, "")),
    ):
        with pytest.raises(PolicyDenied, match="no expiry"):
            policy.check_run("aa", NOW)
        with pytest.raises(PolicyDenied, match="bank"):
            policy.check_recipient(BANK)
        with pytest.raises(PolicyDenied, match="bin"):
            policy.check_kind("bin", "bin.shapes")
        assert (policy.max_message_bytes, policy.max_run_bytes, policy.max_run_messages) == (0, 0, 0)


def test_what_is_not_named_is_denied(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path, TEXT))
    denied: tuple[Callable[[], None], ...] = (
        lambda: policy.check_run("ab", NOW),
        lambda: policy.check_run("aa", datetime(2026, 6, 1, tzinfo=UTC)),
        lambda: policy.check_recipient(PartyId("eve")),
        lambda: policy.check_kind("boost", "bin.shapes"),
        lambda: policy.check_kind("bin", "bin.budgets"),
    )
    for what in denied:
        with pytest.raises(PolicyDenied):
            what()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("counterparty = ['bank']", "counterparty"),
        ("protocols = 'bin'", "protocols"),
        ("max_run_bytes = '10'", "max_run_bytes"),
        ("max_run_bytes = 1.0", "max_run_bytes"),
        ("max_run_bytes = -1", "max_run_bytes"),
        ("enforce = 1", "enforce"),
        ("enforce = false", "simulation"),
        ("any_run = true", "simulation"),
        ("mode = 'test'", "mode"),
        ("align_modes = ['plain']", "simulation"),
        ("align_modes = ['open']", r"align_modes\.0"),
        ("align_modes = 'blind'", "align_modes"),
        ("min_decoys = -1", "min_decoys"),
        ("min_decoys = inf", "min_decoys|policy"),
        ("min_decoys = true", "min_decoys"),
        ("expires = 2026-06-01", "time zone"),
        ("expires = 2026-06-01T00:00:00", "time zone"),
        ("[caps]\nequations = -1", r"caps\.equations"),
        ("[caps]\nequations = inf", r"caps\.equations|policy"),
        ("[caps]\nthresholds = 5", r"caps\.thresholds"),
        ("protocols = [", "TOML"),
    ],
)
def test_mistakes_are_named_and_never_guessed(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        load_policy(_write(tmp_path, text))


def test_a_simulation_may_switch_caps_off_and_production_may_not() -> None:
    open_policy = simulation_policy([BANK], ["bin"], caps=CapSection(equations=7.0), enforce=False)
    open_policy.check_run("any", NOW)
    open_policy.check_kind("bin", "bin.anything")
    assert open_policy.cap_rules().enforce is False
    with pytest.raises(ValidationError, match="simulation"):
        Policy(enforce=False)


@pytest.mark.parametrize(
    ("keys", "mode", "decoys", "code"),
    [
        ("", "registry", 0.0, ""),
        ("", "blind", 1.0, ""),
        ("", "blind", 0.999, "policy.decoys"),
        ("", "blind", 0.0, "policy.decoys"),
        ("", "plain", 1.0, "policy.align"),
        ("min_decoys = 0.0", "blind", 0.0, ""),
        ("min_decoys = 2.5", "blind", 2.0, "policy.decoys"),
        ("align_modes = ['registry']", "blind", 5.0, "policy.align"),
        ("align_modes = []", "registry", 1.0, "policy.align"),
        ("mode = 'simulation'", "plain", 0.0, ""),
        ("mode = 'simulation'", "blind", 0.0, ""),
        ("mode = 'simulation'\nmin_decoys = 1.0", "blind", 0.0, "policy.decoys"),
        ("mode = 'simulation'\nalign_modes = ['registry']", "plain", 0.0, "policy.align"),
    ],
    ids=[f"case-{number}" for number in range(13)],
)
def test_how_rows_may_be_found(tmp_path: Path, keys: str, mode: str, decoys: float, code: str) -> None:
    policy = load_policy(_write(tmp_path, keys))
    if not code:
        policy.check_alignment(mode, decoys)
        return
    with pytest.raises(PolicyDenied) as caught:
        policy.check_alignment(mode, decoys)
    assert caught.value.code == code
    assert mode in caught.value.public or f"{decoys:g}" in caught.value.public
