"""Houses in processes of their own, with a real exchange between them; only Flower's errands are run by the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedcredit.runtime.home import Home, open_home
from fedcredit.runtime.proposal import (
    Decision,
    Finished,
    SessionOrder,
    check_finished,
    check_proposal,
    make_proposal,
    signed_approval,
)
from fedcredit.runtime.provision import provision_local
from fedcredit.runtime.provision_spec import load_consortium
from fedcredit.runtime.session_files import EPHEMERAL, kept_secret, public_of, unfinished_files
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

HERE = Path(__file__).parent
PATIENCE = 120.0
Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Houses:
    """A trial consortium on this machine.

    Args:
        folder: Where everything is.
        homes: By member.
        loaded: The run's spec.
        exchange: Its process.
        workers: Running sessions by (run, party).
    """

    folder: Path
    homes: dict[PartyId, Home]
    loaded: LoadedSpec
    exchange: Process | None = None
    runs: list[RunId] = field(default_factory=list)
    workers: dict[tuple[RunId, PartyId], Process] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def parties(self) -> list[PartyId]:
        return [*self.loaded.spec.parties, COORDINATOR]

    def start_exchange(self) -> None:
        home = self.homes[COORDINATOR]
        entries = [f"{run}={','.join(self.parties)}" for run in self.runs]
        command = [sys.executable, str(HERE / "exchange_process.py"), str(home.folder), *entries]
        self.exchange = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.exchange.stdout is not None
        assert self.exchange.stdout.readline() == b"ready\n"

    def kill_exchange(self) -> None:
        assert self.exchange is not None
        self.exchange.kill()
        self.exchange.wait()

    def order(self, run: RunId, *, spec: LoadedSpec | None = None, ended: bool = False, **changes: Any) -> bytes:
        """A session order with everyone's approvals, as the coordinator would have collected them."""
        home = self.homes[COORDINATOR]
        text = travelling_json((spec or self.loaded).spec, "records")
        proposal = make_proposal(home, run, text, made=datetime.now(UTC).replace(microsecond=0), **changes)
        checked = check_proposal(proposal, home.roster, datetime.now(UTC))
        approvals = []
        for party in checked.roster:
            if party == COORDINATOR:
                own = public_of(kept_secret(unfinished_files(home, run), EPHEMERAL))
                approvals.append(signed_approval(home, checked, own, ""))
            else:
                decision = self.consider(party, proposal)
                assert decision.state == "approved", (decision.code, decision.text)
                approvals.append(decision.approval)
        return encode_struct(SessionOrder(proposal=proposal, approvals=approvals, ended=ended))

    def consider(self, party: PartyId, proposal: bytes) -> Decision:
        done = subprocess.run(self._command(party, "consider"), input=proposal, capture_output=True, check=True)
        return decode_struct(Decision, done.stdout, "decision")

    def _command(self, party: PartyId, action: str) -> list[str]:
        module = "coordinator.worker" if party == COORDINATOR else "nodes.worker"
        return [sys.executable, "-m", module, str(self.homes[party].folder), action]

    def start(self, party: PartyId, run: RunId, order: bytes, environment: Mapping[str, str] | None = None) -> Process:
        """Starts a party's session."""
        source = self.folder / f"{run}.{party}.order"
        source.write_bytes(order)
        with source.open("rb") as stdin, (self.folder / f"{run}.{party}.log").open("ab") as stderr:
            process = subprocess.Popen(
                self._command(party, "run"),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment, **(environment or {})},
                start_new_session=True,
            )
        self.workers[run, party] = process
        return process

    def start_all(self, run: RunId, order: bytes) -> None:
        for party in self.parties:
            self.start(party, run, order)

    def kill(self, party: PartyId, run: RunId) -> None:
        """Kills a party's session, as a power cut would."""
        process = self.workers.pop((run, party))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def finished(self, party: PartyId, run: RunId, patience: float = PATIENCE) -> Finished:
        """How a party's session ended."""
        process = self.workers.pop((run, party))
        out, _ = process.communicate(timeout=patience)
        assert process.returncode == 0, (self.folder / f"{run}.{party}.log").read_text()
        return check_finished(out, party, run, self.homes[party].roster)

    def all_finished(self, run: RunId, patience: float = PATIENCE) -> dict[PartyId, Finished]:
        return {party: self.finished(party, run, patience) for party in self.parties if (run, party) in self.workers}

    def stage(self, party: PartyId, run: RunId) -> tuple[str, int]:
        """Stage and step that a party's session is in; ("", 0) before the first."""
        try:
            content = json.loads((self.homes[party].state / "runs" / run / "progress.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return "", 0
        return content["stage"], content["done"] or 0

    def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, f"not within {patience:g} s: {what}"
            time.sleep(0.005)

    def end(self) -> None:
        for process in [*self.workers.values(), *([self.exchange] if self.exchange else [])]:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def houses(tmp_path: Path, consortium: Callable[..., Path]) -> Iterator[Callable[..., Houses]]:
    """Makes a trial consortium over made-up records, or over those of a configuration."""
    made: list[Houses] = []

    def make(
        config: Path | None = None, exchange: str = "", node: Mapping[str, Any] | None = None, **options: Any
    ) -> Houses:
        loaded = load_spec(config or consortium(tmp_path / "records", **{"rows": 400, **options}))
        members = [
            {
                "name": party.name,
                "role": str(party.role),
                "data": {"records": {"source": _source(party.source, loaded)}},
            }
            for party in loaded.spec.party
        ]
        content = {
            "name": "made-up",
            "trial": True,
            "coordinator": {"exchange": exchange or f"127.0.0.1:{free_port()}", "fleet": "127.0.0.1:9"},
            "member": [*members, {"name": "operations", "kind": "operator"}],
        }
        (tmp_path / "consortium.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
        folders = provision_local(load_consortium(tmp_path / "consortium.toml"), tmp_path / "homes")
        for party in loaded.spec.parties:
            _change(folders[party] / "policy.toml", {"enforce": loaded.spec.privacy.enforce})
            _change(folders[party] / "node.toml", dict(node or {}))
        found = Houses(tmp_path, {name: open_home(folder) for name, folder in folders.items()}, loaded)
        made.append(found)
        return found

    yield make
    for one in made:
        one.end()


def _source(source: str, loaded: LoadedSpec) -> str:
    return source if source.startswith(("known:", "$")) or "://" in source else str(loaded.base / source)


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    content = tomllib.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
