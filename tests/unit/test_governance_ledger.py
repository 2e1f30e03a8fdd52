"""The ledger: caps by their formulas, declarations whole or not at all, spent is spent."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fedcredit.errors import BoundError, DisclosureRefused, IntegrityError, PolicyDenied
from fedcredit.governance.caps import CapRules, Caps
from fedcredit.governance.ledger import Ledger
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend

BANK, OTHER = PartyId("bank"), PartyId("other_bank")
RUN, NEXT = RunId("run-1"), RunId("run-2")
BASIS = Basis(n_eff=21_000, n_bad=1_050)
EQ, BITS, BINS = CostKind.EQUATIONS, CostKind.ROW_BITS, CostKind.BINS_RETURNED


def _request(number: int) -> str:
    return f"{number:064x}"


def _equations(amount: float, *features: str) -> tuple[Cost, ...]:
    return tuple(Cost(EQ, feature, amount) for feature in features or ("x0",))


def _declaration(
    costs: tuple[Cost, ...],
    basis: Basis = BASIS,
    *,
    data_version: str = "v1",
    purpose: str = "run",
    evidence: str = "",
) -> Declaration:
    return Declaration(data_version, basis, costs, purpose=purpose, evidence=evidence)


@pytest.mark.parametrize(
    ("basis", "equations", "bins"),
    [
        (Basis(21_000, 1_050), 105, 105),
        (Basis(21_000, 1_050, 3.9), 105, 105),
        (Basis(2_000, 300, 4.0), 285, 30),
        (Basis(21_000, 300, 4.0), 300, 30),
        (Basis(21_000, 1_050, 4.0), 400, 105),
        (Basis(21_000, 1_050, 8.0), 1_050, 105),
        (Basis(21_000, 21_000), 420, 1_050),
        (Basis(21_000, 21_000, 4.0), 420, 1_050),
        (Basis(1_000_000, 50_000, 4.0), 5_000, 5_000),
        (Basis(49, 10), 0, 1),
        (Basis(0, 0), 0, 0),
    ],
)
def test_default_caps_follow_the_measured_ratios(basis: Basis, equations: int, bins: int) -> None:
    caps = Caps.of(basis)
    assert (caps.equations, caps.bins_returned) == (equations, bins)
    assert (caps.row_bits, caps.feature_row_bits) == (36, 3)


def test_an_enforced_rule_can_only_lower_a_cap() -> None:
    loose = Caps.of(BASIS, CapRules(equations=10_000, row_bits=10_000, bins_returned=10_000))
    assert loose == Caps.of(BASIS)
    strict = Caps.of(BASIS, CapRules(equations=5, row_bits=6, bins_returned=7))
    assert (strict.equations, strict.row_bits, strict.bins_returned) == (5, 6, 7)


def test_caps_are_switched_off_in_simulation_only() -> None:
    with pytest.raises(PolicyDenied, match="simulation only"):
        CapRules(enforce=False)
    caps = Caps.of(BASIS, CapRules(equations=10_000, enforce=False, simulation=True))
    assert caps.equations == 10_000
    assert caps.row_bits == float("inf")


def test_a_refused_declaration_says_what_would_still_be_possible() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(40, "x0", "x1")))
        ledger.spend(RUN, BANK, Spend(_request(1), _equations(40, "x0")), b"a")
        with pytest.raises(DisclosureRefused) as caught:
            ledger.declare(NEXT, BANK, _declaration(_equations(608, "x0", "x1")))
        assert "'x0' for bank: asked 608, spent 40, cap 105, still possible 65 (and 1 more)" in caught.value.public
        ledger.declare(NEXT, BANK, _declaration(_equations(65, "x0")))


def test_a_declaration_is_admitted_whole_or_not_at_all() -> None:
    with Ledger(":memory:") as ledger:
        with pytest.raises(DisclosureRefused):
            ledger.declare(RUN, BANK, _declaration((*_equations(1, "x0"), *_equations(106, "x1"))))
        assert ledger.headroom(RUN, BANK, "v1", BASIS, [(EQ, "x0")]) == (105,)
        with pytest.raises(DisclosureRefused, match="nothing was declared"):
            ledger.spend(RUN, BANK, Spend(_request(1), _equations(1, "x0")), b"a")


def test_a_run_spends_within_its_declaration_only() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(3)))
        ledger.spend(RUN, BANK, Spend(_request(1), _equations(2)), b"a")
        with pytest.raises(DisclosureRefused, match=r"asked 2, this run's declaration leaves 1"):
            ledger.spend(RUN, BANK, Spend(_request(2), _equations(2)), b"b")
        with pytest.raises(DisclosureRefused, match="'x1'"):
            ledger.spend(RUN, BANK, Spend(_request(3), _equations(1, "x1")), b"c")
        assert ledger.report(RUN)[0].equations == 2


def test_the_same_answer_is_free_and_another_one_is_refused() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(1)))
        spend = Spend(_request(1), _equations(1))
        assert ledger.recall(RUN, BANK, spend.request) is None
        assert ledger.spend(RUN, BANK, spend, b"answer") == b"answer"
        assert ledger.spend(RUN, BANK, spend, b"answer") == b"answer"
        assert ledger.recall(RUN, BANK, spend.request) == b"answer"
        assert ledger.report(RUN)[0].equations == 1
        with pytest.raises(DisclosureRefused, match="already answered with other bytes"):
            ledger.spend(RUN, BANK, spend, b"another")


def test_purposes_add_up_and_the_same_one_is_declared_once() -> None:
    with Ledger(":memory:") as ledger:
        first = _declaration(_equations(60), purpose="bin")
        ledger.declare(RUN, BANK, first)
        ledger.declare(RUN, BANK, replace(first, evidence="other envelope"))
        assert ledger.headroom(RUN, BANK, "v1", BASIS, [(EQ, "x0")]) == (45,)
        with pytest.raises(DisclosureRefused, match="'bin' was declared to bank with other content"):
            ledger.declare(RUN, BANK, _declaration(_equations(61), purpose="bin"))
        with pytest.raises(DisclosureRefused, match="asked 46, spent 60, cap 105, still possible 45"):
            ledger.declare(RUN, BANK, _declaration(_equations(46), purpose="scorecard"))
        ledger.declare(RUN, BANK, _declaration(_equations(45), purpose="scorecard"))


def test_the_strictest_of_a_runs_claims_is_in_force() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(50), Basis(10_000, 1_000), purpose="small"))
        with pytest.raises(DisclosureRefused, match="cap 100"):
            ledger.declare(RUN, BANK, _declaration(_equations(51), Basis(10_000, 1_000), purpose="more"))
        with pytest.raises(DisclosureRefused, match="cap 100"):
            ledger.declare(RUN, BANK, _declaration(_equations(51), Basis(10**9, 10**8), purpose="larger"))


def test_a_later_smaller_claim_stops_spends_that_were_declared_before() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(100), purpose="large"))
        ledger.declare(RUN, BANK, _declaration((), Basis(1_000, 50), purpose="small"))
        ledger.spend(RUN, BANK, Spend(_request(1), _equations(5)), b"a")
        with pytest.raises(DisclosureRefused, match="cap 5, still possible 0"):
            ledger.spend(RUN, BANK, Spend(_request(2), _equations(1)), b"b")


def test_accounts_are_by_counterparty_and_data_version() -> None:
    with Ledger(":memory:") as ledger:
        for run, party, version in ((RUN, BANK, "v1"), (RUN, OTHER, "v1"), (NEXT, BANK, "v2")):
            ledger.declare(run, party, _declaration(_equations(105), data_version=version))
            ledger.spend(run, party, Spend(_request(1), _equations(105)), b"a")
        with pytest.raises(DisclosureRefused, match="another version"):
            ledger.declare(RUN, BANK, _declaration(_equations(1), data_version="v2", purpose="other"))


def test_bins_are_counted_for_the_whole_party_and_bits_by_their_account() -> None:
    with Ledger(":memory:") as ledger:
        costs = (Cost(BINS, "x0", 60), Cost(BINS, "x1", 45), Cost(BITS, "", 36), Cost(BITS, "x0", 3))
        ledger.declare(RUN, BANK, _declaration(costs))
        ledger.spend(RUN, BANK, Spend(_request(1), costs), b"a")
        line = ledger.report(RUN)[0]
        assert (line.bins_returned, line.bins_returned_cap, line.row_bits, line.row_bits_cap) == (105, 105, 39, 39)
        assert (line.feature_bits, line.feature_bits_cap) == (3, 3)
        for kind, feature in ((BINS, "x2"), (BITS, ""), (BITS, "x0")):
            with pytest.raises(DisclosureRefused, match="still possible 0"):
                ledger.declare(NEXT, BANK, _declaration((Cost(kind, feature, 0.001),)))
        ledger.declare(NEXT, BANK, _declaration((Cost(BITS, "x1", 3),)))


def test_fractions_are_summed_without_drift() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration((Cost(BITS, "", 36),)))
        for number in range(360):
            ledger.spend(RUN, BANK, Spend(_request(number), (Cost(BITS, "", 0.1),)), b"a")
        assert ledger.report(RUN)[0].row_bits == 36
        with pytest.raises(DisclosureRefused):
            ledger.spend(RUN, BANK, Spend(_request(360), (Cost(BITS, "", 0.0001),)), b"a")


def test_an_answer_that_costs_nothing_needs_no_declaration_but_stays_fixed() -> None:
    with Ledger(":memory:") as ledger:
        ledger.spend(RUN, BANK, Spend(_request(1), ()), b"masked")
        with pytest.raises(DisclosureRefused, match="other bytes"):
            ledger.spend(RUN, BANK, Spend(_request(1), ()), b"remasked")


def test_a_closed_run_spends_no_more_and_keeps_no_answers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(2)))
        ledger.spend(RUN, BANK, Spend(_request(1), _equations(1)), b"a")
        ledger.close_run(RUN)
        assert ledger.recall(RUN, BANK, _request(1)) is None
        for number in (1, 2):
            with pytest.raises(DisclosureRefused, match="ended"):
                ledger.spend(RUN, BANK, Spend(_request(number), _equations(1)), b"a")
        with pytest.raises(DisclosureRefused, match="ended"):
            ledger.declare(RUN, BANK, _declaration(_equations(1), purpose="more"))
        assert ledger.report(RUN)[0].equations == 1


def test_without_enforcement_everything_is_still_counted() -> None:
    with Ledger(":memory:", CapRules(enforce=False, simulation=True)) as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(5_000)))
        ledger.spend(RUN, BANK, Spend(_request(1), _equations(5_000)), b"a")
        line = ledger.report(RUN)[0]
        assert (line.equations, line.equations_feature, line.equations_cap) == (5_000, "x0", None)
        assert ledger.headroom(RUN, BANK, "v1", BASIS, [(EQ, "x0")]) == (float("inf"),)


def test_the_evidence_of_the_claim_is_kept() -> None:
    with Ledger(":memory:") as ledger:
        ledger.declare(RUN, BANK, _declaration(_equations(1), purpose="bin", evidence="ab" * 32))
        assert ledger.evidence(RUN, BANK) == {"bin": "ab" * 32}


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and long enough to be taken for a page header " * 20)
    before = text.read_text()
    with pytest.raises(IntegrityError, match=r"notes\.txt"):
        Ledger(text)
    assert text.read_text() == before
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(IntegrityError, match=r"other\.sqlite"):
        Ledger(other)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_amounts_no_ledger_could_add_are_refused(amount: float) -> None:
    with pytest.raises(BoundError):
        Cost(EQ, "x0", amount)


def test_impossible_claims_are_refused() -> None:
    for n_eff, n_bad, noise in ((10, 11, 0.0), (-1, -1, 0.0), (10, 1, -1.0), (10, 1, float("nan"))):
        with pytest.raises(BoundError, match="basis"):
            Basis(n_eff, n_bad, noise)
    with pytest.raises(BoundError, match="21000 rows where the aligned table has 20000"):
        Declaration("v1", BASIS, (), rows=20_000)
    for request in ("", "ab", "G" * 64, "a" * 64 + "\n"):
        with pytest.raises(BoundError, match="64"):
            Spend(request, ())
    with pytest.raises(BoundError, match="feature"):
        Cost(EQ, "", 1)
