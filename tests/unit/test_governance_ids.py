"""Ids asked: counted for the whole party, capped by the own table and not by what a counterparty claims."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcredit.errors import DisclosureRefused, PolicyDenied
from fedcredit.governance.caps import CapRules, Caps
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import CapSection, load_policy, simulation_policy
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend

BANK, TAX = PartyId("bank"), PartyId("tax")
RUN, NEXT = RunId("run"), RunId("next")
CLAIMED = Basis(n_eff=20_000, n_bad=1_000, noise_rows=4.0)
EQUATIONS = (Cost(CostKind.EQUATIONS, "x", 100),)


def _ids(amount: float, rows: int = 1_000, version: str = "v1") -> Declaration:
    return Declaration(version, Basis.own(rows), (Cost(CostKind.IDS_ASKED, "", amount),), purpose="align/ids")


def _spend(amount: float, number: int = 1) -> Spend:
    return Spend(f"{number:064x}", (Cost(CostKind.IDS_ASKED, "", amount),))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(":memory:", CapRules()) as one:
        yield one


@pytest.mark.parametrize(
    ("rows", "cap"), [(0, 1_000_000), (250_000, 1_000_000), (250_001, 1_000_004), (1_800_000, 7_200_000)]
)
def test_the_cap_follows_the_own_table(rows: int, cap: int) -> None:
    assert Caps.of(Basis.own(rows)).ids_asked == cap
    assert Caps.of(Basis.own(rows), CapRules(ids_asked=10)).ids_asked == 10
    assert Caps.of(Basis.own(rows), CapRules(ids_asked=10**9)).ids_asked == cap
    assert Caps.of(Basis.own(rows), CapRules(enforce=False, simulation=True)).ids_asked == math.inf


def test_what_passes_the_cap_is_refused_before_the_answer(ledger: Ledger) -> None:
    ledger.declare(RUN, BANK, _ids(600_000))
    ledger.spend(RUN, BANK, _spend(600_000), b"answer")
    with pytest.raises(
        DisclosureRefused, match="ids asked of the whole party for bank: asked 600000, spent 600000, cap 1000000"
    ):
        ledger.declare(NEXT, BANK, _ids(600_000))
    ledger.declare(NEXT, BANK, _ids(400_000))
    ledger.declare(NEXT, TAX, _ids(600_000))  # another counterparty has its own account
    ledger.declare(RunId("third"), BANK, _ids(600_000, version="v2"))  # as has another version of the data


def test_the_same_list_again_is_free_and_another_is_not(ledger: Ledger) -> None:
    ledger.declare(RUN, BANK, _ids(100))
    for _ in range(3):
        ledger.declare(RUN, BANK, _ids(100))
        assert ledger.spend(RUN, BANK, _spend(100), b"answer") == b"answer"
    with pytest.raises(DisclosureRefused, match="this run's declaration leaves 0"):
        ledger.spend(RUN, BANK, _spend(100, number=2), b"another")
    assert ledger.report(RUN)[0].ids_asked == 100


def test_claims_and_the_own_table_do_not_touch_each_others_caps(ledger: Ledger) -> None:
    ledger.declare(RUN, BANK, _ids(3_000_000, rows=1_000_000))
    ledger.spend(RUN, BANK, _spend(3_000_000), b"answer")
    assert ledger.report(RUN)[0].noise_rows == math.inf
    ledger.declare(RUN, BANK, Declaration("v1", CLAIMED, EQUATIONS, purpose="bin"))
    (line,) = ledger.report(RUN)
    assert line.equations_cap == Caps.of(CLAIMED).equations == 400
    assert line.ids_asked_cap == 4_000_000
    assert (line.noise_rows, line.ids_asked) == (4.0, 3_000_000)
    (left,) = ledger.headroom(RUN, BANK, "v1", Basis.own(1_000_000), [(CostKind.IDS_ASKED, "")])
    assert left == 1_000_000
    (equations,) = ledger.headroom(RUN, BANK, "v1", CLAIMED, [(CostKind.EQUATIONS, "x")])
    assert equations == 300


def test_a_claim_cannot_lift_the_cap_of_ids(ledger: Ledger) -> None:
    ledger.declare(RUN, BANK, Declaration("v1", Basis(10_000_000, 1), EQUATIONS[:0], purpose="bin"))
    with pytest.raises(DisclosureRefused):
        ledger.declare(RUN, BANK, _ids(1_000_001))


def test_a_house_lowers_the_cap_in_its_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('mode = "production"\n[caps]\nids_asked = 500\n', encoding="utf-8")
    with Ledger(tmp_path / "ledger.sqlite", load_policy(path).cap_rules()) as strict:
        strict.declare(RUN, BANK, _ids(500))
        with pytest.raises(DisclosureRefused, match="cap 500"):
            strict.declare(NEXT, BANK, _ids(501))
    assert simulation_policy([BANK], ["align"], caps=CapSection(ids_asked=3)).cap_rules().ids_asked == 3
    with pytest.raises(PolicyDenied, match="cap of ids"):
        CapRules(ids_asked=-1)


def test_the_count_survives_the_process(tmp_path: Path) -> None:
    for run, total in ((RUN, 70), (NEXT, 140)):
        with Ledger(tmp_path / "ledger.sqlite") as one:
            one.declare(run, BANK, _ids(70))
            one.spend(run, BANK, _spend(70), b"answer")
            assert one.report(run)[0].ids_asked == total
