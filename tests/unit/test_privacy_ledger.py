"""The privacy ledger: reserve, release, limit, chain."""

from __future__ import annotations

import math
import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fedcredit.errors import DisclosureRefused, IntegrityError, PolicyDenied
from fedcredit.governance.privacy_accounting import ACCOUNTANT, Event, Planned, Unit, epsilon_of
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.governance.privacy_limit import PrivacyLimit
from fedcredit.types import RunId

RUN, NEXT = RunId("aa"), RunId("bb")
DATA, DIGEST = "v1", "0" * 64


def planned(rounds: int = 10, multiplier: float = 5.0, unit: Unit = "bank") -> Planned:
    if unit == "none":
        return Planned("none", 1e-5, math.inf, (Event("update", "none", 0.0, times=rounds),))
    update = Event("update", "discrete_sum", multiplier, times=rounds)
    if unit == "record":
        update = Event("update", "sampled_gaussian", multiplier, 0.05, 20, rounds)
    events = (Event("columns", "discrete_sum", 10.0, times=2), update)
    return Planned(unit, 1e-5, epsilon_of(events, 1e-5), events)


def ledger(max_epsilon: float | None = None) -> PrivacyLedger:
    return PrivacyLedger(":memory:", PrivacyLimit(max_epsilon=max_epsilon))


def test_what_was_released_is_what_is_reported() -> None:
    with ledger() as books:
        books.reserve(RUN, DATA, planned())
        for round_number in range(4):
            books.commit(RUN, "update", f"update/{round_number}", DIGEST)
        spent = books.report(RUN)
        assert spent.events == (Event("update", "discrete_sum", 5.0, times=4),)
        assert spent.epsilon == epsilon_of(spent.events, 1e-5)
        assert spent.planned == planned().epsilon == spent.total
        books.close_run(RUN)
        assert books.report(RUN).total == spent.epsilon
        block = books.report(RUN).block()
        assert (block["unit"], block["noise_multiplier"], block["accountant"]) == ("bank", 5.0, ACCOUNTANT)


def test_a_run_that_would_pass_the_limit_is_refused_with_the_rounds_that_fit() -> None:
    limit = planned(14).epsilon
    with ledger(limit) as books:
        with pytest.raises(DisclosureRefused, match=r"policy allows .*: 14 rounds would fit"):
            books.reserve(RUN, DATA, planned(20))
        books.reserve(RUN, DATA, planned(14))
        with pytest.raises(DisclosureRefused, match="not one round would fit"):
            books.reserve(NEXT, DATA, planned(1))
        books.reserve(NEXT, "v2", planned(14))


def test_what_a_closed_run_did_not_release_may_be_spent_again() -> None:
    with ledger(planned(14).epsilon) as books:
        books.reserve(RUN, DATA, planned(14))
        books.commit(RUN, "update", "update/0", DIGEST)
        with pytest.raises(DisclosureRefused):
            books.reserve(NEXT, DATA, planned(10))
        books.close_run(RUN)
        books.reserve(NEXT, DATA, planned(10))


def test_the_same_release_is_free_and_another_under_its_name_is_refused() -> None:
    with ledger() as books:
        books.reserve(RUN, DATA, planned(1))
        books.commit(RUN, "update", "update/0", DIGEST)
        books.commit(RUN, "update", "update/0", DIGEST)
        with pytest.raises(DisclosureRefused, match="other content"):
            books.commit(RUN, "update", "update/0", "1" * 64)
        with pytest.raises(DisclosureRefused, match="other content"):
            books.commit(RUN, "columns", "update/0", DIGEST)
        with pytest.raises(DisclosureRefused, match="1 are planned"):
            books.commit(RUN, "update", "update/1", DIGEST)
        assert books.report(RUN).events[0].times == 1


def test_nothing_leaves_unplanned_or_after_the_end() -> None:
    with ledger() as books:
        with pytest.raises(DisclosureRefused, match="reserved nothing"):
            books.commit(RUN, "update", "update/0", DIGEST)
        with pytest.raises(DisclosureRefused, match="reserved nothing"):
            books.report(RUN)
        books.reserve(RUN, DATA, planned())
        books.reserve(RUN, DATA, planned())
        with pytest.raises(DisclosureRefused, match="other releases or other data"):
            books.reserve(RUN, DATA, planned(11))
        with pytest.raises(DisclosureRefused, match="other releases or other data"):
            books.reserve(RUN, "v2", planned())
        with pytest.raises(DisclosureRefused, match="0 are planned"):
            books.commit(RUN, "validation", "validation/0", DIGEST)
        books.close_run(RUN)
        books.close_run(RUN)
        with pytest.raises(DisclosureRefused, match="has ended"):
            books.commit(RUN, "update", "update/0", DIGEST)
        with pytest.raises(DisclosureRefused, match="has ended"):
            books.reserve(RUN, DATA, planned())


def test_a_limit_refuses_runs_without_noise_and_a_unit_refuses_others() -> None:
    with ledger(5.0) as books, pytest.raises(DisclosureRefused, match="no finite epsilon"):
        books.reserve(RUN, DATA, planned(unit="none"))
    with PrivacyLedger(":memory:", PrivacyLimit("record")) as books:
        for unit in ("none", "bank"):
            with pytest.raises(PolicyDenied, match='policy asks for "record"'):
                books.reserve(RUN, DATA, planned(unit=unit))
        books.reserve(RUN, DATA, planned(unit="record"))
    with PrivacyLedger(":memory:", PrivacyLimit("record", 1e-3, enforce=False)) as books:
        books.reserve(RUN, DATA, planned(unit="none"))
        assert math.isinf(books.report(RUN).total)
        assert books.report(RUN).block()["total_epsilon"] is None


def test_units_are_counted_apart_and_a_bank_run_counts_for_rows_at_twice_the_sensitivity() -> None:
    with ledger() as books:
        books.reserve(RUN, DATA, planned(unit="bank"))
        books.reserve(NEXT, DATA, planned(unit="record"))
        halved = [replace(one, noise_multiplier=one.noise_multiplier / 2) for one in planned(unit="bank").events]
        both = epsilon_of((*halved, *planned(unit="record").events), 1e-5)
        assert books.epsilon("record", DATA) == both
        assert books.epsilon("bank", DATA) == planned(unit="bank").epsilon
        assert books.epsilon("bank", DATA, 1e-7) > books.epsilon("bank", DATA)


def test_entries_stay_over_processes_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "privacy.sqlite"
    with PrivacyLedger(path) as books:
        books.reserve(RUN, DATA, planned())
        books.commit(RUN, "update", "update/0", DIGEST)
        head = books.head
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with PrivacyLedger(path) as books:
        assert books.head == head
        assert books.report(RUN).events[0].times == 1
        assert books.verify(head) == 2
        books.commit(RUN, "update", "update/1", DIGEST)
        assert books.verify(head) == 3
        with pytest.raises(IntegrityError, match="no longer holds the noted head"):
            books.verify("f" * 64)


def _open_by_force(path: Path) -> sqlite3.Connection:
    raw = sqlite3.connect(path, isolation_level=None)
    for name in ("no_update", "no_delete"):
        raw.execute(f"DROP TRIGGER {name}")
    return raw


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE entries SET content = replace(content, '5.0', '50.0') WHERE line = 1", "entry 1 .* was changed"),
        ("UPDATE entries SET kind = 'closed' WHERE line = 2", "entry 2 .* was changed"),
        ("DELETE FROM entries WHERE line = 2", "entry 2 .* missing or out of order"),
        ("DELETE FROM entries WHERE line = 3", "no longer holds the noted head"),
    ],
)
def test_what_was_changed_by_force_is_found(tmp_path: Path, change: str, fault: str) -> None:
    path = tmp_path / "privacy.sqlite"
    with PrivacyLedger(path) as books:
        books.reserve(RUN, DATA, planned())
        books.commit(RUN, "update", "update/0", DIGEST)
        books.commit(RUN, "update", "update/1", DIGEST)
        head = books.head
    raw = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="never"):
        raw.execute(change)
    raw.close()
    raw = _open_by_force(path)
    assert raw.execute(change).rowcount == 1
    raw.close()
    with PrivacyLedger(path) as books, pytest.raises(IntegrityError, match=fault):
        books.verify(head)


def test_another_file_is_no_privacy_ledger(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE t (x)")
    raw.close()
    with pytest.raises(IntegrityError, match="not a privacy ledger of version"):
        PrivacyLedger(path)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(IntegrityError, match="not a privacy ledger"):
        PrivacyLedger(path)


def test_two_runs_at_once_cannot_share_the_same_budget(tmp_path: Path) -> None:
    path, limit = tmp_path / "privacy.sqlite", PrivacyLimit(max_epsilon=planned(10).epsilon)
    PrivacyLedger(path, limit).close()
    admitted: list[int] = []

    def work(number: int) -> None:
        with PrivacyLedger(path, limit) as books:
            try:
                books.reserve(RunId(f"run{number}"), DATA, planned(8))
            except DisclosureRefused:
                return
            admitted.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 1
