"""What happens on the line between a house and the exchange, and to the exchange itself, does not change the model."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.runtime.house.roster import split_address
from fedcredit.runtime.runs.proposal import Finished
from fedcredit.types import COORDINATOR, PartyId

if TYPE_CHECKING:
    from tests.e2e.deployment.fault_bench import TAX, Bench
    from tests.e2e.deployment.fault_proxy import Proxy, Resets
    from tests.e2e.deployment.house_bench import Nursery
else:
    from fault_bench import TAX, Bench
    from fault_proxy import Proxy, Resets
    from house_bench import Nursery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOSS = 2  # of a hundred packets, each way


@pytest.fixture
def bench(benches: Callable[..., Any]) -> Bench:
    found: Bench = benches("scorecard")
    return found


@pytest.fixture
def line(bench: Bench) -> Iterator[Proxy]:
    """The tax office's line to the exchange."""
    made = Proxy(split_address(bench.houses.homes[COORDINATOR].roster.exchange)[1])
    yield made
    made.close()


def disturbed(bench: Bench, at: str, disturb: Callable[[], None], **faults: Any) -> tuple[str, float]:
    """A run whose tax office stands still at a place while something happens.

    Returns:
        Whether the model is identical, and the seconds from then to the end.
    """
    before = bench.totals()
    run, order = bench.begin()
    held = bench.houses.hold(TAX, run, order, at, **faults)
    bench.houses.start_all(run, order, but=[TAX])
    held.wait()
    started = time.monotonic()
    disturb()
    held.go()
    on_the_first_attempt(bench.through(run, order))
    return bench.check(run, before), time.monotonic() - started


def on_the_first_attempt(ended: Mapping[PartyId, Finished]) -> None:
    """Nobody had to begin again: what was lost was sent again."""
    assert {one.attempts for one in ended.values()} == {1}


def again(bench: Bench) -> None:
    bench.houses.kill_exchange()
    bench.houses.start_exchange()


@pytest.mark.parametrize("stage", ["reference", "align", "bin", "scorecard", "score", "end"])
def test_the_exchange_is_killed(bench: Bench, row: Any, stage: str) -> None:
    identical, seconds = disturbed(bench, f"{stage}:1", lambda: again(bench))
    row("kill -9 of the exchange, restart", stage, "houses came back, nobody began again", seconds, identical)


def test_the_exchange_is_killed_twice(bench: Bench, row: Any) -> None:
    def twice() -> None:
        again(bench)
        time.sleep(1.0)  # houses are in the middle of coming back
        again(bench)

    identical, seconds = disturbed(bench, "scorecard:1", twice)
    row("kill -9 of the exchange, twice in a row", "scorecard", "houses came back twice", seconds, identical)


def test_the_exchange_is_killed_under_a_large_payload(bench: Bench, row: Any, line: Proxy) -> None:
    before = bench.totals()
    run, order = bench.begin()
    held = bench.houses.hold(TAX, run, order, "kind=group_sum.hints:1", address=line.address)
    bench.houses.start_all(run, order, but=[TAX])
    held.wait()
    line.stall_after(1_500_000)  # of the hints' 3.7 million bytes
    held.go()
    assert line.full.wait(120)
    started = time.monotonic()
    again(bench)
    line.reset()
    line.flow()
    on_the_first_attempt(bench.through(run, order))
    seconds = time.monotonic() - started
    identical = bench.check(run, before)
    row("kill -9 of the exchange, restart", "bin, 1.5 of 3.7 MB sent", "the payload was sent again", seconds, identical)


def test_a_slow_line(bench: Bench, row: Any, line: Proxy) -> None:
    line.delay = 0.2
    before = bench.totals()
    run, order = bench.begin()
    started = time.monotonic()
    bench.houses.start_all(run, order, but=[TAX])
    bench.houses.start(TAX, run, order, address=line.address)
    on_the_first_attempt(bench.through(run, order))
    seconds = time.monotonic() - started
    happened = f"whole run, undisturbed {bench.seconds:.1f} s"
    row("200 ms of latency each way", "all", happened, seconds, bench.check(run, before))


@pytest.mark.parametrize("seconds", [3.0, 30.0])
def test_a_line_is_cut(bench: Bench, row: Any, line: Proxy, seconds: float) -> None:
    def cut() -> None:
        line.cut()
        time.sleep(seconds)
        line.mend()

    identical, took = disturbed(bench, "scorecard:1", cut, address=line.address)
    assert line.connections >= 2
    row(f"line cut for {seconds:g} s", "scorecard", "went on where it was", took - seconds, identical)


def test_a_half_open_line(bench: Bench, row: Any, line: Proxy) -> None:
    identical, seconds = disturbed(bench, "scorecard:1", line.deafen, address=line.address)
    assert line.connections >= 2
    assert seconds < 120
    row("half-open connection", "scorecard", "counted as dead after silence, connected again", seconds, identical)


def test_random_resets(bench: Bench, row: Any, line: Proxy) -> None:
    before = bench.totals()
    run, order = bench.begin()
    started = time.monotonic()
    resets = Resets(line, 1, (0.2, 1.0))
    try:
        bench.houses.start_all(run, order, but=[TAX])
        bench.houses.start(TAX, run, order, address=line.address)
        on_the_first_attempt(bench.through(run, order))
    finally:
        resets.end()
    seconds = time.monotonic() - started
    happened = f"{resets.count} resets, {line.connections} connections"
    row("random resets, every 0.2 to 1 s", "all", happened, seconds, bench.check(run, before))


@pytest.fixture
def lossy(tmp_path: Path) -> Iterator[Nursery]:
    """Processes in a network of their own that loses packets."""
    name = f"fc{tmp_path.stat().st_ino}"
    inside = ("ip", "netns", "exec", name)
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", name], check=False).returncode:
        pytest.skip("packet loss: no network namespaces here; needs iproute2 and root")
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        if not _loses(inside):
            pytest.skip("packet loss: neither tc netem nor nft numgen in this kernel")
        made = Nursery(inside)
        yield made
        made.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _loses(inside: tuple[str, ...]) -> bool:
    """Has the loopback interface of a namespace drop packets, by whatever the kernel offers."""
    netem = [[*inside, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", f"{LOSS}%"]]
    chain = "{ type filter hook input priority 0 ; }"
    nft = [
        [*inside, "nft", "add", "table", "inet", "faults"],
        [*inside, "nft", "add", "chain", "inet", "faults", "input", chain],
        [*inside, "nft", "add", "rule", "inet", "faults", "input", f"numgen random mod 100 < {LOSS} drop"],
    ]
    for way in (netem, nft):
        if shutil.which(way[0][len(inside)]) is None:
            continue
        if all(subprocess.run(one, capture_output=True, check=False).returncode == 0 for one in way):
            return True
    return False


def test_packets_are_lost(bench: Bench, row: Any, lossy: Nursery) -> None:
    before = bench.totals()
    houses, outside, exchange = bench.houses, bench.houses.nursery, bench.houses.exchange
    houses.kill_exchange()
    houses.nursery = lossy
    try:
        houses.start_exchange()
        run, order = bench.begin()
        started = time.monotonic()
        houses.start_all(run, order)
        on_the_first_attempt(bench.through(run, order))
        seconds = time.monotonic() - started
    finally:
        assert houses.exchange is not exchange
        houses.end()
        houses.nursery = outside
        houses.start_exchange()
    row(f"{LOSS} % of packets lost", "all", "whole run in a namespace", seconds, bench.check(run, before))
