"""Proof on the wire: five houses, each with its own network namespace, user and folder, and what can be seen of them.

What is looked for is found where it has to be: the same search finds a house's records in that house's own memory.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.runtime.simulate import simulate
from fedcredit.runtime.wire_proof.capture import Capture, read_capture
from fedcredit.runtime.wire_proof.needles import Needles, file_pieces, memory_pieces
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import COORDINATOR, PartyId, RunId

if TYPE_CHECKING:
    from benchmarks import star as stars
    from tests.e2e.deployment import wire_bench
else:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3] / "benchmarks")]
    import star as stars
    import wire_bench

WHY = stars.unavailable("tcpdump")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(WHY), reason=f"NOTHING OF THE PROOF ON THE WIRE WAS RUN: {WHY}"),
]

BANK = wire_bench.BANK
RUNS = {"scorecard": RunId("5c" * 16), "boost": RunId("b0" * 16)}
LISTENING = 7777
SAMPLES = "samples.txt"
ALIVE = ("bank", *wire_bench.HOLDERS)


@dataclass
class Seen:
    """All that was seen of the houses.

    Args:
        reached: By (party, to): why a connection failed, "" where it did not.
        capture: Of both runs.
        folders: A party's folder of each run.
        simulated: The simulation's.
        readable: What each party finds in files that it can read.
        memory: What of whose was found in whose memory, when; by (process, when).
        disk: What was found in the coordinator's files.
        payloads: How many payloads were sampled.
    """

    secrets: Mapping[PartyId, wire_bench.Secrets]
    capture: Path
    reached: dict[tuple[str, str], str] = field(default_factory=dict)
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    simulated: dict[str, Path] = field(default_factory=dict)
    readable: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    disk: set[str] = field(default_factory=set)
    payloads: int = 0


def everyones(secrets: Mapping[PartyId, wire_bench.Secrets], names: bool = True) -> dict[bytes, str]:
    """All words of all parties; without those that stand in the run's specification, which the coordinator knows."""
    words = {word: f"{what} of {party}" for party, one in secrets.items() for word, what in one.everything().items()}
    return words if names else {word: what for word, what in words.items() if not what.startswith("name")}


def in_memory(pid: int, needles: Needles) -> set[str]:
    """What stands in a process's memory; the process stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        found = [needles.find(pieces) for pieces in memory_pieces(pid)]
    finally:
        os.kill(pid, signal.SIGCONT)
    return {needles.words[word] for one in found for word in one}


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, f"not within 240 s: {what}"
        time.sleep(0.005)


def stage_of(star: Any, party: PartyId, run: RunId) -> str:
    try:
        content = json.loads((star.homes[party].folder / f"state/runs/{run}/progress.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return ""
    return str(content["stage"])


@pytest.fixture(scope="module")
def seen(consortium: Callable[..., Path]) -> Iterator[Seen]:
    """Everything, once: two runs, everything that was carried, kept and remembered."""
    folder = Path(tempfile.mkdtemp(prefix="fedcredit-wire-"))  # not in a private folder, as pytest's are
    folder.chmod(0o755)
    private = folder / "private"
    private.mkdir(mode=0o700)
    try:
        loaded, secrets = wire_bench.recognisable(consortium, private / "records", rows=500)
        boost = wire_bench.recognisable(consortium, private / "boost", rows=500, sections=wire_bench.BOOST)[0]
        found = Seen(secrets, private / "capture.pcap")
        with stars.Star(folder / "star", loaded) as star:
            star.start()
            _reach(star, found)
            for party in star.members:
                star.processes[party].ask("sample", file=str(star.homes[party].folder / SAMPLES))
            with stars.captured(star, found.capture):
                for model, spec in (("scorecard", loaded), ("boost", boost)):
                    _play(star, found, model, spec)
            _look(star, found)
            for model, spec in (("scorecard", loaded), ("boost", boost)):
                found.simulated[model] = simulate(spec, private / f"{model}.out").out
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reach(star: Any, found: Seen) -> None:
    """Every party listens; everyone tries to reach everyone."""
    for party in ALIVE:
        star.processes[party].ask("listen", port=LISTENING)
    targets = [(party, star.address(PartyId(party)), LISTENING) for party in ALIVE]
    targets.append(("exchange", stars.HUB, stars.PORT))
    star.processes["exchange"].ask("serve", runs={})
    for name, host, port in targets:
        for party in ALIVE:
            star.processes[party].tell("connect", host=host, port=port, seconds=2.0)
        for party in ALIVE:
            found.reached[party, name] = star.processes[party].answer()["why"]


def _play(star: Any, found: Seen, model: str, spec: LoadedSpec) -> None:
    """One run, with a look into memories in the middle of it."""
    run = RUNS[model]
    order = star.order(run, spec)
    star.begin(order, report=True)
    until(lambda: stage_of(star, BANK, run) in {"scorecard", "boost"}, f"the bank is in the middle of {model}")
    needles = Needles(everyones(found.secrets))
    for name in ("bank", "exchange"):
        found.memory[name, model] = in_memory(star.processes[name].pid, needles)
    ended = star.finish(run)
    assert all(one.ok for one in ended.values()), {party: (one.code, one.text) for party, one in ended.items()}
    for party in star.loaded.spec.parties:
        found.folders[model, party] = star.homes[party].folder / "runs" / run


def _look(star: Any, found: Seen) -> None:
    """At the end, before anyone has left: files, the memory of the middle, the coordinator's disk."""
    # Payloads as they were before they were sealed, noted by their senders; the coordinator's own are its to know.
    lines = [
        (party, *line.split())
        for party in star.members
        for line in (star.homes[party].folder / SAMPLES).read_text().splitlines()
    ]
    payloads = {bytes.fromhex(sample): f"payload {kind}" for _, _, kind, sample in lines}
    its_own = {bytes.fromhex(sample) for sender, to, _, sample in lines if COORDINATOR in {sender, to}}
    others = {sample: what for sample, what in payloads.items() if sample not in its_own}
    found.payloads = len(payloads)
    for party in star.members:
        (star.homes[party].folder / SAMPLES).unlink()
    words, known = everyones(found.secrets), everyones(found.secrets, names=False)
    # Beside them, how an envelope names its kind: only one that was opened, or not yet sealed, has these bytes.
    opened = {b"\xa4kind" + bytes([0xA0 | len(kind)]) + kind.encode(): f"payload {kind}" for _, _, kind, _ in lines}
    everything = {**words, **payloads, **opened}
    searched = {"exchange": everything, COORDINATOR: {**known, **others}, "bank": everything}
    for name, needles in searched.items():
        found.memory[name, "end"] = in_memory(star.processes[name].pid, Needles(needles))
    disk = Needles({**known, **payloads})
    for path in star.homes[COORDINATOR].folder.rglob("*"):
        if path.is_file():
            found.disk |= {f"{disk.words[word]} in {path.name}" for word in disk.find(file_pieces(path))}
    for party in star.loaded.spec.parties:
        shared = found.secrets[party].ids
        theirs = {
            word: f"{what} of {other}"
            for other, one in found.secrets.items()
            if other != party
            for word, what in one.everything(spared=shared).items()
            if what != "name"
        }
        asked = {"folder": str(star.folder.parent), "words": [base64.b64encode(word).decode() for word in theirs]}
        answer = star.processes[party].ask("walk", own=str(star.homes[party].folder), **asked)
        foreign = answer["found"]
        found.readable[party] = {
            "files": answer["files"],
            "found": {file: {theirs[base64.b64decode(hit)] for hit in hits} for file, hits in foreign.items()},
        }


def test_a_node_reaches_the_coordinator_and_nobody_else(seen: Seen) -> None:
    for (party, target), why in seen.reached.items():
        if target in {party, "exchange"}:
            assert why == "", (party, target)
        else:
            assert why, f"{party} reaches {target}"


def test_nothing_but_tls_13_is_on_the_lines(seen: Seen) -> None:
    capture: Capture = read_capture(seen.capture)
    assert capture.faults == []
    carried = [one for one in capture.streams if one.carried]
    assert len(carried) >= len(RUNS) * (len(ALIVE) + 1)  # every node and the coordinator's own worker
    assert {one.server for one in carried} == {f"{stars.HUB}:{stars.PORT}"}
    destinations: dict[str, set[str]] = {}
    for one in capture.streams:  # also those that carried nothing
        destinations.setdefault(one.client.rpartition(":")[0], set()).add(one.server)
    one_line = {f"{stars.HUB}:{stars.PORT}"}
    assert all(found == one_line for found in destinations.values()), destinations
    assert len(destinations) == len(ALIVE) + 1
    assert sum(one.carried for one in carried) > 10_000_000
    assert set(capture.other) <= {"arp"}


def test_nothing_of_anyone_is_on_the_lines(seen: Seen) -> None:
    needles = Needles(everyones(seen.secrets))
    assert len(needles.words) > 5_000
    assert needles.find(file_pieces(seen.capture)) == {}
    streams: dict[str, list[bytes]] = {}
    read_capture(seen.capture, lambda name, data: streams.setdefault(name, []).append(data))
    assert needles.find(chain.from_iterable(streams.values())) == {}


def test_a_party_reads_its_own_records_only(seen: Seen) -> None:
    for party in ALIVE:
        found = seen.readable[party]
        assert found["files"] > 20
        assert found["found"] == {}, party


@pytest.mark.parametrize("when", [*RUNS, "end"])
def test_the_exchange_remembers_nothing(seen: Seen, when: str) -> None:
    assert seen.memory["exchange", when] == set()


def test_neither_does_the_coordinator(seen: Seen) -> None:
    assert seen.memory[COORDINATOR, "end"] == set()
    assert seen.disk == set()


@pytest.mark.parametrize("model", list(RUNS))
def test_the_same_search_finds_what_is_there(seen: Seen, model: str) -> None:
    """In the bank's own memory; without this the tests above would show nothing."""
    found = seen.memory["bank", model]
    assert {"value of bank", "labels of bank", "name of bank"} <= found
    assert any(what.startswith("id of") for what in found)
    assert seen.payloads > 50
    assert any(what.startswith("payload") for what in seen.memory["bank", "end"])


@pytest.mark.parametrize("model", list(RUNS))
def test_the_model_is_the_simulations(seen: Seen, model: str) -> None:
    for party in ALIVE:
        files = sorted((seen.simulated[model] / "model" / party).glob("*.json"))
        assert files
        for file in files:
            mine = seen.folders[model, party] / "model" / party / file.name
            assert json.loads(mine.read_text()) == json.loads(file.read_text()), (party, file.name)
