"""Houses in processes of their own, with a real exchange between them; only Flower's errands are run by the test."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcredit.runtime.house.consent import approve
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.runs.proposal import (
    Decision,
    Finished,
    SessionOrder,
    check_finished,
    check_proposal,
    make_proposal,
    signed_approval,
)
from fedcredit.runtime.session import node as node_session
from fedcredit.runtime.session.files import EPHEMERAL, kept_secret, public_of, unfinished_files
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

HERE = Path(__file__).parent
PATIENCE = 240.0
Faults = Mapping[str, Any]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.005)


class Nursery:
    """Starts processes by forking one that has imported everything; see ``nursery.py``.

    Args:
        prefix: Words before the command, such as those that enter a network namespace.
        environment: Of the process and all that it starts.
    """

    def __init__(self, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        everything = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        command = [*prefix, sys.executable, str(HERE / "nursery.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=everything)
        self._lock = threading.Lock()
        assert self._answer() == {"ready": True}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Child:
    """A running process with its standard output in a file.

    Args:
        pid: Leader of a session of its own.
        out: The file.
        reap: Gives the exit status of a process that has ended.
    """

    def __init__(self, pid: int, out: Path, reap: Callable[[], int]) -> None:
        self.pid, self.out, self._reap = pid, out, reap
        self._handle = os.pidfd_open(pid)
        self.status: int | None = None

    def running(self, seconds: float = 0.0) -> bool:
        if self.status is not None:
            return False
        ready, _, _ = select.select([self._handle], [], [], seconds)
        if ready:
            self.status = self._reap()
            os.close(self._handle)
        return not ready

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
            assert not self.running(10)

    def memory(self) -> int:
        """Bytes of memory that are its own."""
        words = Path(f"/proc/{self.pid}/status").read_text().split()
        return int(words[words.index("RssAnon:") + 1]) * 1024


@dataclass
class Held:
    """A process that stands still at a place."""

    marker: Path

    def wait(self, patience: float = PATIENCE) -> None:
        until(self.marker.exists, f"{self.marker.name} is reached", patience)

    def go(self) -> None:
        self.marker.with_name(self.marker.name + ".go").touch()


@dataclass
class Houses:
    """A trial consortium on this machine.

    Args:
        folder: Where everything is.
        homes: By member.
        loaded: The run's spec.
        nursery: Starts processes.
    """

    folder: Path
    homes: dict[PartyId, Home]
    loaded: LoadedSpec
    nursery: Nursery
    exchange: Child | None = None
    runs: dict[RunId, list[PartyId]] = field(default_factory=dict)
    workers: dict[tuple[RunId, PartyId], Child] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def parties(self) -> list[PartyId]:
        return [*self.loaded.spec.parties, COORDINATOR]

    # The exchange.

    def start_exchange(self) -> None:
        arguments = [str(self.homes[COORDINATOR].folder), *(self._entry(run) for run in self.runs)]
        commands = self.folder / "exchange.in"
        if not commands.exists():
            os.mkfifo(commands, 0o600)
        self.exchange = self._forked("exchange_process", arguments, self.folder / "exchange", commands, {})
        self._hears("ready")

    def kill_exchange(self) -> None:
        assert self.exchange is not None
        self.exchange.kill()

    def tell_exchange(self, word: str, answer: str) -> None:
        commands = os.open(self.folder / "exchange.in", os.O_RDWR)  # does not wait for a reader that has died
        try:
            os.write(commands, f"{word}\n".encode())
            self._hears(answer)
        finally:
            os.close(commands)

    def open_run(self, run: RunId, parties: Sequence[PartyId] = ()) -> None:
        """Opens a run in the exchange; of everyone, unless parties are named."""
        for over in [one for one in self.runs if self._is_over(one)]:
            del self.runs[over]
            self.tell_exchange(f"close {over}", f"closed {over}")
        self.runs[run] = [*parties, COORDINATOR] if parties else self.parties
        self.tell_exchange(f"open {self._entry(run)}", f"opened {run}")

    def _is_over(self, run: RunId) -> bool:
        return all((self.homes[party].runs / run).exists() for party in self.runs[run])

    def _entry(self, run: RunId) -> str:
        return f"{run}={','.join(self.runs[run])}"

    def _hears(self, answer: str) -> None:
        assert self.exchange is not None
        out = self.exchange.out
        until(lambda: out.exists() and answer in out.read_text().splitlines(), f"the exchange says {answer}", 60)

    # What the coordinator's driver does.

    def order(self, run: RunId, *, spec: LoadedSpec | None = None, ended: bool = False, **changes: Any) -> bytes:
        """A session order with everyone's approvals, as the coordinator would have collected them."""
        home = self.homes[COORDINATOR]
        made = changes.pop("made", datetime.now(UTC)).replace(microsecond=0)
        proposal = make_proposal(
            home, run, travelling_json((spec or self.loaded).spec, "records"), made=made, **changes
        )
        checked = check_proposal(proposal, home.roster, datetime.now(UTC))
        approvals = []
        for party in checked.roster:
            if party == COORDINATOR:
                own = public_of(kept_secret(unfinished_files(home, run), EPHEMERAL))
                approvals.append(signed_approval(home, checked, own, ""))
            else:
                decision = self.consider(party, proposal)
                if decision.state == "pending":  # in production its people decide
                    approve(self.homes[party], run)
                    decision = self.consider(party, proposal)
                assert decision.state == "approved", (decision.code, decision.text)
                approvals.append(decision.approval)
        return encode_struct(SessionOrder(proposal=proposal, approvals=approvals, ended=ended))

    def consider(self, party: PartyId, proposal: bytes) -> Decision:
        return decode_struct(Decision, node_session.consider(self.homes[party], proposal), "decision")

    # Sessions.

    def considered(self, party: PartyId, proposal: bytes, environment: Mapping[str, str]) -> tuple[int, bytes, str]:
        """A decision by a process: its exit status, standard output and standard error."""
        place = self.folder / f"{party}.{time.monotonic_ns()}"
        place.write_bytes(proposal)
        arguments = ["nodes.worker", str(self.homes[party].folder), "consider"]
        child = self._forked("faulty_worker", arguments, place, place, {}, environment)
        until(lambda: not child.running(0.05), f"{party} has considered")
        assert child.status is not None
        return child.status, child.out.read_bytes(), Path(f"{place}.log").read_text("utf-8")

    def _forked(
        self,
        module: str,
        arguments: list[str],
        place: Path,
        stdin: Path,
        faults: Faults,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        out = place.with_name(f"{place.name}.{time.monotonic_ns()}.out")
        nursery = self.nursery  # another one may be in its place when the process ends
        pid = nursery.ask(
            module=module,
            arguments=arguments,
            stdin=str(stdin),
            stdout=str(out),
            stderr=f"{place}.log",
            environment={**self.environment, **(environment or {}), "FAULTS": json.dumps(dict(faults))},
        )["pid"]
        return Child(pid, out, lambda: int(nursery.ask(wait=pid)["status"]))

    def _source(self, party: PartyId, run: RunId, order: bytes) -> Path:
        source = self.folder / f"{run}.{party}.order"
        source.write_bytes(order)
        return source

    def start(
        self,
        party: PartyId,
        run: RunId,
        order: bytes,
        environment: Mapping[str, str] | None = None,
        **faults: Any,
    ) -> Child:
        """Starts a party's session, with something wrong about it or not (``faulty_worker.py``)."""
        module = "coordinator.worker" if party == COORDINATOR else "nodes.worker"
        arguments = [module, str(self.homes[party].folder), "run"]
        source = self._source(party, run, order)
        child = self._forked("faulty_worker", arguments, self.folder / f"{run}.{party}", source, faults, environment)
        self.workers[run, party] = child
        return child

    def start_program(self, party: PartyId, run: RunId, order: bytes) -> Child:
        """Starts a party's session as the command that a node starts."""
        module = "coordinator.worker" if party == COORDINATOR else "nodes.worker"
        place = self.folder / f"{run}.{party}.{time.monotonic_ns()}.out"
        source = self._source(party, run, order)
        with source.open("rb") as stdin, place.open("wb") as out, self.log(party, run).open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(self.homes[party].folder), "run"],
                stdin=stdin,
                stdout=out,
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
                start_new_session=True,
            )
        self.workers[run, party] = child = Child(process.pid, place, process.wait)
        return child

    def hold(self, party: PartyId, run: RunId, order: bytes, at: str, **faults: Any) -> Held:
        """Starts a party's session, which stands still at a place."""
        marker = self.folder / f"{run}.{party}.{time.monotonic_ns()}.held"
        self.start(party, run, order, hold=at, file=str(marker), **faults)
        return Held(marker)

    def start_all(self, run: RunId, order: bytes, *, but: Sequence[PartyId] = (), **faults: Any) -> None:
        for party in self.parties:
            if party not in but:
                self.start(party, run, order, **faults)

    def log(self, party: PartyId, run: RunId) -> Path:
        return self.folder / f"{run}.{party}.log"

    def kill(self, party: PartyId, run: RunId) -> None:
        """Kills a party's session, as a power cut would."""
        self.workers.pop((run, party)).kill()

    def ended(self, party: PartyId, run: RunId, patience: float = PATIENCE) -> tuple[int, bytes]:
        """Exit status and standard output of a party's session."""
        child = self.workers[run, party]
        until(lambda: not child.running(0.05), f"{party}'s session of {run} ends", patience)
        del self.workers[run, party]
        assert child.status is not None
        return child.status, child.out.read_bytes()

    def finished(self, party: PartyId, run: RunId, patience: float = PATIENCE) -> Finished:
        """How a party's session ended."""
        status, out = self.ended(party, run, patience)
        assert status == 0, (party, status, self.log(party, run).read_text()[-2000:])
        return check_finished(out, party, run, self.homes[party].roster)

    def all_finished(self, run: RunId, patience: float = PATIENCE) -> dict[PartyId, Finished]:
        return {party: self.finished(party, run, patience) for party in self.parties if (run, party) in self.workers}

    def end(self) -> None:
        for child in [*self.workers.values(), *([self.exchange] if self.exchange else [])]:
            child.kill()


def with_ended(order: bytes) -> bytes:
    """The same order, to a party that comes back after another has finished."""
    read = decode_struct(SessionOrder, order, "order")
    return encode_struct(SessionOrder(proposal=read.proposal, approvals=read.approvals, ended=True))
