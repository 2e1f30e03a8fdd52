"""No way around a cap: restarts, new processes, threads and retries."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedcredit.errors import DisclosureRefused
from fedcredit.governance.ledger import Ledger
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend

BANK = PartyId("bank")
BASIS = Basis(n_eff=1_000, n_bad=100)  # 10 equations a feature


def _declaration(amount: float) -> Declaration:
    return Declaration("v1", BASIS, (Cost(CostKind.EQUATIONS, "x0", amount),))


def _spend(number: int, amount: float = 1) -> Spend:
    return Spend(f"{number:064x}", (Cost(CostKind.EQUATIONS, "x0", amount),))


_OTHER_PROCESS = """
import os, sys
from pathlib import Path
from fedcredit.governance.ledger import Ledger
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
ledger = Ledger(Path(sys.argv[1]))
cost = (Cost(CostKind.EQUATIONS, "x0", 7),)
ledger.declare(RunId("dying"), PartyId("bank"), Declaration("v1", Basis(1000, 100), cost))
ledger.spend(RunId("dying"), PartyId("bank"), Spend("0" * 64, cost), b"answer")
os._exit(9)
"""


def test_spent_is_spent_when_the_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    done = subprocess.run([sys.executable, "-c", _OTHER_PROCESS, str(path)], check=False, capture_output=True)
    assert done.returncode == 9, done.stderr
    with Ledger(path) as ledger:
        with pytest.raises(DisclosureRefused, match="asked 4, spent 7, cap 10, still possible 3"):
            ledger.declare(RunId("again"), BANK, _declaration(4))
        assert ledger.recall(RunId("dying"), BANK, "0" * 64) == b"answer"
        with pytest.raises(DisclosureRefused, match="other bytes"):
            ledger.spend(RunId("dying"), BANK, _spend(0, 7), b"another answer")


def test_a_restarted_run_gets_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    for run in ("first", "second"):
        with Ledger(path) as ledger:
            if run == "second":
                with pytest.raises(DisclosureRefused, match="spent 10, cap 10, still possible 0"):
                    ledger.declare(RunId(run), BANK, _declaration(1))
                with pytest.raises(DisclosureRefused, match="declaration leaves 0"):
                    ledger.spend(RunId("first"), BANK, _spend(99), b"a")
                return
            ledger.declare(RunId(run), BANK, _declaration(10))
            for number in range(10):
                ledger.spend(RunId(run), BANK, _spend(number), b"a")


def test_two_declared_runs_share_one_cap(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as one, Ledger(path) as two:
        one.declare(RunId("one"), BANK, _declaration(10))
        two.declare(RunId("two"), BANK, _declaration(10))
        for number in range(6):
            one.spend(RunId("one"), BANK, _spend(number), b"a")
        for number in range(4):
            two.spend(RunId("two"), BANK, _spend(number), b"a")
        with pytest.raises(DisclosureRefused, match="spent 10, cap 10"):
            two.spend(RunId("two"), BANK, _spend(4), b"a")


@pytest.mark.parametrize("shared", [True, False])
def test_threads_cannot_pass_the_cap_together(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "ledger.sqlite"
    ledgers = [Ledger(path)] * 8 if shared else [Ledger(path) for _ in range(8)]
    for number, ledger in enumerate(ledgers):
        ledger.declare(RunId(f"run-{number}"), BANK, _declaration(10))

    def spend_all(number: int) -> int:
        admitted = 0
        for request in range(10):
            try:
                ledgers[number].spend(RunId(f"run-{number}"), BANK, _spend(request), b"a")
            except DisclosureRefused as error:
                assert error.code == "ledger.cap"  # noqa: PT017 -- any other refusal would hide an overspend
            else:
                admitted += 1
        return admitted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend_all, range(8))) == 10
    assert ledgers[0].report(RunId("run-0"))[0].equations == 10
    for ledger in set(ledgers):
        ledger.close()


def test_one_request_answered_by_two_threads_has_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.declare(RunId("run"), BANK, _declaration(10))

        def answer(number: int) -> bytes | None:
            try:
                return ledger.spend(RunId("run"), BANK, _spend(0), bytes([number]))
            except DisclosureRefused:
                return None

        with ThreadPoolExecutor(8) as pool:
            answers = [one for one in pool.map(answer, range(8)) if one is not None]
        assert len(answers) == 1
        assert ledger.report(RunId("run"))[0].equations == 1
