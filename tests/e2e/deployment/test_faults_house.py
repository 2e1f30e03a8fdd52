"""What is wrong inside one house is named, the others end soon, and the run goes on when it is put right."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import tomli_w

from fedcredit.runtime.runs.proposal import Decision, SessionOrder, check_finished, make_proposal
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR
from fedcredit.wire.message import decode_struct

if TYPE_CHECKING:
    from tests.e2e.deployment.fault_bench import BANK, CUSTOMS, TAX, Bench, named, new_run
    from tests.e2e.deployment.house_bench import Nursery, until
else:
    from fault_bench import BANK, CUSTOMS, TAX, Bench, named, new_run
    from house_bench import Nursery, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TIMEOUT_S = 6.0
OTHERS = ("run.peer-failed", "run.timeout", "run.peer-ended")
MIB = 1 << 20


@pytest.fixture
def bench(benches: Callable[..., Any]) -> Bench:
    """A consortium that waits for nobody for long."""
    found: Bench = benches("quick", sections={"network": {"timeout_s": TIMEOUT_S}})
    return found


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Puts a folder on a disk of its own, of a few MB."""
    aside = folder.with_name(f"{folder.name}.aside")
    shutil.copytree(folder, aside)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)], check=False)
    if done.returncode:
        shutil.rmtree(aside)
        pytest.skip("full disk: mounting needs root")
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    try:
        yield
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as stream:
        for size in (MIB, 4096, 1):
            with pytest.raises(OSError, match="No space left"):
                _pour(stream, size)


def _pour(stream: Any, size: int) -> None:
    while True:
        stream.write(bytes(size))


def last_words(bench: Bench, run: Any, party: Any) -> tuple[bool, str]:
    """Whether a session that could not end well said so in an answer, and what it said."""
    status, out = bench.houses.ended(party, run)
    if status == 0:
        found = check_finished(out, party, run, bench.houses.homes[party].roster)
        assert not found.ok
        return True, f"{found.text} [{found.code}]"
    assert status == 3, bench.houses.log(party, run).read_text()
    return False, bench.houses.log(party, run).read_text().strip().splitlines()[-1]


@pytest.mark.parametrize("stage", ["bin", "scorecard", "end"])
def test_a_full_disk(bench: Bench, row: Any, stage: str) -> None:
    houses, home = bench.houses, bench.houses.homes[TAX]
    with small_disk(home.folder):
        before = bench.totals()
        run, order = bench.begin()
        held = houses.hold(TAX, run, order, f"{stage}:1")
        houses.start_all(run, order, but=[TAX])
        held.wait()
        fill(home.state / "filler")
        started = time.monotonic()
        held.go()
        _, words = last_words(bench, run, TAX)
        others = {party: houses.finished(party, run) for party in houses.parties if party != TAX}
        seconds = time.monotonic() - started
        told = named(others, TAX, OTHERS)
        assert "[" in words
        assert str(home.folder) not in words
        (home.state / "filler").unlink()
        bench.through(run, order)
        identical = bench.check(run, before)
    code = words.rpartition("[")[2].rstrip("]")
    row("disk full at tax_office", stage, f"{code}; others: {told}; resumed when there was room", seconds, identical)


def test_a_file_size_limit(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    held = bench.houses.hold(TAX, run, order, "scorecard:1", limit=0)
    bench.houses.start_all(run, order, but=[TAX])
    held.wait()
    started = time.monotonic()
    held.go()
    # Its standard output is a file here, and takes nothing either.
    until(lambda: not bench.houses.workers[run, TAX].running(0.05), "the tax office gives up")
    del bench.houses.workers[run, TAX]
    others = {party: bench.houses.finished(party, run) for party in bench.houses.parties if party != TAX}
    seconds = time.monotonic() - started
    told = named(others, TAX, OTHERS)
    bench.through(run, order)
    identical = bench.check(run, before)
    row("no file may grow at tax_office (RLIMIT_FSIZE)", "scorecard", f"others: {told}; resumed", seconds, identical)


FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
SKEWS = {
    "-1d": "1 day behind",
    "+1d": "1 day ahead",
    "-7m": "7 minutes behind",
    "-2m": "2 minutes behind",
    "+2m": "2 minutes ahead",
    "+4000d": "past its certificate",
}


@pytest.fixture(scope="module")
def elsewhen() -> Iterator[Nursery]:
    """Processes whose clock is where the variable FAKETIME says."""
    if not FAKETIME:
        pytest.skip("clock skew: libfaketime is not installed (Debian package faketime)")
    preload = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
    made = Nursery(environment={**preload, "FAKETIME": "+0"})
    yield made
    made.close()


@contextmanager
def other_clocks(bench: Bench, nursery: Nursery) -> Iterator[None]:
    here, bench.houses.nursery = bench.houses.nursery, nursery
    try:
        yield
    finally:
        bench.houses.nursery = here


@pytest.mark.parametrize(
    ("shift", "code"), [("-1d", "certificate.early"), ("-7m", "proposal.clock"), ("+4000d", "certificate.expired")]
)
def test_a_clock_that_is_far_off(bench: Bench, row: Any, elsewhen: Nursery, shift: str, code: str) -> None:
    run, order = bench.begin()
    environment = {"FAKETIME": shift}
    proposal = decode_struct(SessionOrder, order, "order").proposal
    with other_clocks(bench, elsewhen):
        started = time.monotonic()
        status, out, words = bench.houses.considered(TAX, proposal, environment)
        seconds = time.monotonic() - started
        bench.houses.start(TAX, run, order, environment)
        ended, said = bench.houses.ended(TAX, run)
    if code.startswith("proposal"):
        decision = decode_struct(Decision, out, "decision")
        assert (status, decision.state, decision.code) == (0, "denied", code)
    else:  # its home does not open: its own log says why, nobody else learns it
        assert status == 3
        assert f"[{code}]" in words
        assert words.strip().endswith("[home.unusable]")
    assert ended == 3, said
    assert f"[{code}]" in bench.houses.log(TAX, run).read_text()
    row(f"clock of tax_office {SKEWS[shift]}", "proposal", f"refused: {code}", seconds, "no run")


def test_a_clock_that_is_a_day_ahead(bench: Bench, row: Any, elsewhen: Nursery) -> None:
    identical, seconds = _in_time(bench, elsewhen, {TAX: "+1d"})
    row(f"clock of tax_office {SKEWS['+1d']}", "all", "harmless: proposals hold for 30 days", seconds, identical)


def test_clocks_that_are_a_little_off(bench: Bench, row: Any, elsewhen: Nursery) -> None:
    identical, seconds = _in_time(bench, elsewhen, {TAX: "+2m", CUSTOMS: "-2m"})
    row(f"clock of tax_office {SKEWS['+2m']}, of customs {SKEWS['-2m']}", "all", "harmless", seconds, identical)


def _in_time(bench: Bench, elsewhen: Nursery, shifts: dict[Any, str]) -> tuple[str, float]:
    before = bench.totals()
    run, order = bench.begin()
    started = time.monotonic()
    with other_clocks(bench, elsewhen):
        for party, shift in shifts.items():
            bench.houses.start(party, run, order, {"FAKETIME": shift})
    bench.houses.start_all(run, order, but=list(shifts))
    bench.through(run, order)
    seconds = time.monotonic() - started
    for party, shift in shifts.items():
        log = bench.houses.homes[party].runs / run / "audit" / f"{party}.jsonl"
        last = datetime.fromisoformat(json.loads(log.read_text("utf-8").splitlines()[-1])["time"])
        off = last - datetime.now(UTC)
        assert (off > timedelta(seconds=60)) if shift.startswith("+") else (off < timedelta(seconds=-60)), (party, off)
    return bench.check(run, before), seconds


def test_a_party_that_leaves(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    held = bench.houses.hold(TAX, run, order, "scorecard:1")
    bench.houses.start_all(run, order, but=[TAX])
    held.wait()
    started = time.monotonic()
    stop = bench.houses.homes[TAX].state / "runs" / run / "stop"
    stop.touch()
    held.go()
    ended = bench.houses.all_finished(run)
    seconds = time.monotonic() - started
    assert ended[TAX].code == "run.left"
    told = named(ended, TAX, OTHERS[:1])
    stop.unlink(missing_ok=True)
    bench.through(run, order)
    row("tax_office leaves (stop file)", "scorecard", f"run.left; others: {told}", seconds, bench.check(run, before))


@contextmanager
def changed_records(bench: Bench, party: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Iterator[None]:
    path = bench.houses.loaded.base / f"{party}.csv"
    content = path.read_bytes()
    change(pl.read_csv(path)).write_csv(path)
    try:
        yield
    finally:
        path.write_bytes(content)


def test_records_that_changed_after_the_approval(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    with changed_records(bench, TAX, lambda frame: frame.with_columns(pl.col("turnover_1") + 1.0)):
        started = time.monotonic()
        bench.houses.start_all(run, order)
        ended = bench.houses.all_finished(run)
        seconds = time.monotonic() - started
    assert not ended[TAX].ok
    told = named(ended, TAX, OTHERS[:1])
    bench.through(run, order)
    happened = f"{ended[TAX].code}; others: {told}"
    row("records of tax_office changed", "start", happened, seconds, bench.check(run, before))


def test_records_that_are_wrong_before_the_approval(bench: Bench, row: Any) -> None:
    run = new_run()
    proposal = make_proposal(bench.houses.homes[COORDINATOR], run, travelling_json(bench.houses.loaded.spec, "records"))
    with changed_records(bench, TAX, lambda frame: frame.with_columns(pl.lit(1.0).alias("turnover_1"))):
        started = time.monotonic()
        decision = bench.houses.consider(TAX, proposal)
        seconds = time.monotonic() - started
    assert (decision.state, decision.code) == ("denied", "data")
    assert "turnover" not in decision.text
    row("records of tax_office are wrong (DataError)", "proposal", "denied: data", seconds, "no run")


def test_records_that_do_not_carry_the_run(bench: Bench, row: Any) -> None:
    """Read without an error, and too few of them are shared: that shows in the middle of the run."""
    with changed_records(bench, TAX, lambda frame: frame.head(60)):
        run, order = bench.begin()
        started = time.monotonic()
        bench.houses.start_all(run, order)
        ended = bench.houses.all_finished(run)
        seconds = time.monotonic() - started
    (first,) = [party for party, one in ended.items() if one.code not in OTHERS]
    told = named(ended, first, OTHERS[:1])
    happened = f"{first}: {ended[first].code}; others: {told}"
    row("records of tax_office do not carry the run", "align", happened, seconds, "no run")


def test_a_party_that_never_comes(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    started = time.monotonic()
    bench.houses.start_all(run, order, but=[CUSTOMS])
    ended = bench.houses.all_finished(run)
    seconds = time.monotonic() - started
    told = named(ended, CUSTOMS, OTHERS)
    assert seconds >= TIMEOUT_S
    bench.through(run, order)
    happened = f"{told} (time-out {TIMEOUT_S:g} s); resumed when it came"
    row("customs never comes", "start", happened, seconds, bench.check(run, before))


def test_a_party_that_never_comes_back(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    held = bench.houses.hold(CUSTOMS, run, order, "scorecard:1")
    bench.houses.start_all(run, order, but=[CUSTOMS])
    held.wait()
    bench.houses.kill(CUSTOMS, run)
    started = time.monotonic()
    ended = bench.houses.all_finished(run)
    seconds = time.monotonic() - started
    told = named(ended, CUSTOMS, OTHERS)
    bench.through(run, order)
    happened = f"{told} (time-out {TIMEOUT_S:g} s); resumed when it came"
    row("customs never comes back", "scorecard", happened, seconds, bench.check(run, before))


def test_a_house_without_a_line(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    settings = bench.houses.homes[TAX].folder / "node.toml"
    content = settings.read_text("utf-8")
    changed = tomllib.loads(content)
    changed["exchange"]["reconnect_s"] = 3.0
    settings.write_text(tomli_w.dumps(changed), encoding="utf-8")
    try:
        started = time.monotonic()
        bench.houses.start_all(run, order, but=[TAX])
        bench.houses.start(TAX, run, order, address="127.0.0.1:9")
        ended = bench.houses.all_finished(run)
        seconds = time.monotonic() - started
    finally:
        settings.write_text(content, encoding="utf-8")
    assert ended[TAX].code == "exchange.unreachable"
    told = named(ended, TAX, OTHERS)
    bench.through(run, order)
    happened = f"exchange.unreachable after 3 s; others: {told}"
    row("tax_office has no line at all", "start", happened, seconds, bench.check(run, before))


RESTARTS = 10


def test_memory_does_not_grow(bench: Bench, row: Any) -> None:
    before = bench.totals()
    run, order = bench.begin()
    bench.houses.start_all(run, order, but=[BANK])
    watched = (TAX, CUSTOMS, COORDINATOR)
    sizes: list[dict[str, int]] = []
    started = time.monotonic()
    for _ in range(RESTARTS + 1):
        held = bench.houses.hold(BANK, run, order, "bin:3")
        held.wait()
        sizes.append({party: bench.houses.workers[run, party].memory() for party in watched})
        bench.houses.kill(BANK, run)
    seconds = time.monotonic() - started
    ended = bench.through(run, order)
    assert all(ended[party].attempts == RESTARTS + 2 for party in watched)
    grown = {party: (sizes[-1][party] - sizes[2][party]) / MIB for party in watched}
    assert max(grown.values()) < 16, sizes
    happened = (
        f"from the 3rd to the 11th life: {', '.join(f'{party} {size:+.1f} MiB' for party, size in grown.items())}"
    )
    row("ten restarts of bank: memory of the others", "bin", happened, seconds, bench.check(run, before))


def test_expiry(bench: Bench, row: Any) -> None:
    """A proposal that lies around is refused when its time is over."""
    home = bench.houses.homes[COORDINATOR]
    text = travelling_json(bench.houses.loaded.spec, "records")
    made = datetime.now(UTC).replace(microsecond=0) - timedelta(days=31)
    decision = bench.houses.consider(TAX, make_proposal(home, new_run(), text, made=made))
    assert (decision.state, decision.code) == ("denied", "proposal.expired")
    row("a proposal of 31 days ago", "proposal", "refused: proposal.expired", None, "no run")
