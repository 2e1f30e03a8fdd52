"""Runs carried by Flower for real: SuperLink, SuperNodes, ServerApp and proxy as processes; workers are stand-ins."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.proxy import ProxySettings, find_nginx, proxy_child
from fedcredit.runtime.daemon.supervisor import Supervisor
from fedcredit.runtime.flower_bundle import bundle_archive, bundle_files, bundle_sha256
from fedcredit.runtime.flower_client import sessions_folder
from fedcredit.runtime.flower_processes import (
    CoordinatorFlower,
    NodeFlower,
    coordinator_children,
    ended_runs,
    flower_folder,
    launch_run,
    node_children,
    register_nodes,
)
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.runs.registry import ENDED, Registry
from fedcredit.runtime.session.keeper import end_sessions
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import load_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import PartyId, RunId

try:
    find_nginx()
except FedCreditError as missing:
    pytest.skip(f"NOT TESTED: {missing}", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Result = TypeVar("Result")
NODES = (PartyId("bank"), PartyId("tax_office"))

WORKER = '''
"""Stands in for a worker: decides and ends as a real one does, but plays no role; waits while a file tells it to."""
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.runs.proposal import *
from fedcredit.wire.message import encode_struct

folder, what = sys.argv[1:]
home, payload = open_home(Path(folder)), sys.stdin.buffer.read()
proposal = payload if what == "consider" else read_order(payload).proposal
checked = check_proposal(proposal, home.roster, datetime.now(UTC))
if what == "consider":
    approval = signed_approval(home, checked, bytes(32), "")
    answer = encode_struct(Decision(party=home.party, state="approved", approval=approval))
else:
    meeting = Path(__file__).parent.parent / "meeting" / checked.run
    meeting.mkdir(parents=True, exist_ok=True)
    with (meeting / f"{home.party}.starts").open("a") as file:
        file.write("x")
    while len(list(meeting.glob("*.starts"))) < 3 or (meeting.parent / "hold").exists():
        time.sleep(0.1)
    answer = signed_finished(home, Finished(party=home.party, run=checked.run, ok=True))
sys.stdout.buffer.write(answer)
'''

SITE = '''
"""Tells every look-up and connection that leaves this machine, and puts the stand-ins in the place of the workers."""
import sys
from pathlib import Path
here = Path(__file__).parent
def hook(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with (here / "outside.txt").open("a") as file:
            file.write(f"{sys.argv[:2]} {event} {host}\\n")
    else:
        (here / "inside.txt").touch()
sys.addaudithook(hook)
for room in ("nodes", "coordinator"):
    if len(sys.orig_argv) > 2 and f"{room}.worker" in sys.orig_argv:
        __import__(room).__path__.insert(0, str(here / "stand_ins"))
'''


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Loop:
    """An event loop in a thread that lives as long as the children."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout: float = 120) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Town:
    """A coordinator and two nodes as processes."""

    folder: Path
    home: Home
    homes: dict[PartyId, Home]
    setup: CoordinatorFlower
    nodes: dict[PartyId, NodeFlower]
    loop: Loop
    supervisors: dict[str, Supervisor] = field(default_factory=dict)
    registry: Registry = field(init=False)
    spec: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        self.registry = Registry(self.home.state / "registry.sqlite")

    def submit(self) -> RunId:
        return self.registry.submit(self.spec, "made-up", self.digest, "scorecard", "loans")

    def launch(self) -> RunId:
        run = self.submit()
        self.registry.launched(run, self.loop.run(launch_run(self.setup, run)))
        return run

    def until(self, seconds: float, what: Callable[[], Result]) -> Result:
        until = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < until, self.told()
            time.sleep(0.1)
        return found

    def ended(self, run: RunId, seconds: float = 200) -> str:
        self.until(seconds, lambda: self.registry.get(run).state in ENDED)
        return f"{self.registry.get(run).state}: {self.registry.get(run).detail}"

    def told(self) -> str:
        lines = [f"{one.time} {one.text}" for run in self.registry.runs() for one in self.registry.events(run.run)]
        for home in (self.home, *self.homes.values()):
            for log in sorted((home.folder / "logs").glob("*.log")):
                lines += [f"--- {home.party} {log.name}", log.read_text("utf-8", "replace")[-1500:]]
        return "\n".join(lines)

    def seconds(self, run: RunId) -> dict[str, float]:
        """From the submission to the first event of each kind."""
        events = self.registry.events(run)
        start = datetime.fromisoformat(events[0].time)
        found: dict[str, float] = {}
        for one in events:
            name = one.text.split(":")[0] if one.event == "state" else one.event
            found.setdefault(name, (datetime.fromisoformat(one.time) - start).total_seconds())
        return found

    @property
    def meeting(self) -> Path:
        folder = self.folder / "site" / "meeting"
        folder.mkdir(exist_ok=True)
        return folder


def _spec(folder: Path, consortium: Callable[..., Path]) -> tuple[str, str]:
    spec = load_spec(consortium(folder, holders=("tax_office",), rows=200)).spec
    return travelling_json(spec, "loans"), spec_digest(spec)


def _site(folder: Path) -> None:
    for room in ("stand_ins",):
        (folder / room).mkdir(parents=True)
        (folder / room / "worker.py").write_text(WORKER)
    (folder / "sitecustomize.py").write_text(SITE)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, consortium: Callable[..., Path]) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("flower")
    exchange, fleet, link, *own = free_ports(5)
    members = [{"name": name} for name in NODES] + [{"name": "ops", "kind": "operator"}]
    coordinator = {"exchange": f"127.0.0.1:{exchange}", "fleet": f"127.0.0.1:{fleet}"}
    plan = {"name": "made-up", "trial": True, "coordinator": coordinator, "member": members}
    made = provision_local(ConsortiumSpec.model_validate(plan), folder / "homes")
    homes = {name: open_home(path) for name, path in made.items()}
    _site(folder / "site")
    home = homes[PartyId("coordinator")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"))
        patch.setenv("OMP_NUM_THREADS", "1")
        town = Town(
            folder,
            home,
            {name: homes[name] for name in NODES},
            CoordinatorFlower(home.folder, link),
            {
                name: NodeFlower(homes[name].folder, name, "", f"127.0.0.1:{fleet}", port)
                for name, port in zip(NODES, own, strict=True)
            },
            Loop(),
        )
        town.spec, town.digest = _spec(folder / "data", consortium)
        proxy = ProxySettings(
            folder=flower_folder(home.folder) / "proxy",
            listen=f"127.0.0.1:{fleet}",
            superlink=f"127.0.0.1:{link}",
            loopback_ca=town.setup.tls.ca,
            certificate=home.certificate_file,
            key=home.keys / "tls.key",
            ca=home.ca_file,
            consortium=home.roster.consortium,
        )
        children = {"coordinator": [*coordinator_children(town.setup), proxy_child(proxy)]}
        children |= {name: node_children(node) for name, node in town.nodes.items()}
        try:
            town.supervisors["coordinator"] = Supervisor(home.logs)
            town.loop.run(town.supervisors["coordinator"].start(children["coordinator"]))
            keys = {name: home.roster.member(name).flower_key for name in NODES}
            said = town.until(60, lambda: _tried(lambda: town.loop.run(register_nodes(town.setup, keys))))
            assert json.loads(said or "") == {"added": sorted(NODES), "removed": []}
            for name in NODES:
                town.supervisors[name] = Supervisor(homes[name].logs)
                town.loop.run(town.supervisors[name].start(children[name]))
            yield town
        finally:
            for supervisor in reversed(town.supervisors.values()):
                town.loop.run(supervisor.stop())
            for name in NODES:
                end_sessions(sessions_folder(homes[name].folder))
            town.loop.close()
            town.registry.close()


def _tried(what: Callable[[], Result]) -> Result | None:
    try:
        return what()
    except FedCreditError:
        return None


def process_of(supervisor: Supervisor, name: str) -> int:
    (view,) = [one for one in supervisor.views() if one.name == name]
    assert view.process is not None
    return view.process


def test_two_runs_at_once_outlive_the_superlink(town: Town, record_property: Callable[[str, object], None]) -> None:
    (town.meeting / "hold").touch()
    runs = [town.launch(), town.launch()]
    starts = [town.meeting / run / f"{party}.starts" for run in runs for party in (*NODES, "coordinator")]
    town.until(200, lambda: all(one.exists() for one in starts))
    os.kill(process_of(town.supervisors["coordinator"], "superlink"), signal.SIGKILL)
    town.until(20, lambda: town.supervisors["coordinator"].views()[0].restarts == 1)
    time.sleep(3)
    assert town.loop.run(ended_runs(town.setup, [town.registry.get(one).flower_run for one in runs])) == set()
    (town.meeting / "hold").unlink()
    assert [town.ended(run) for run in runs] == ["finished: all parties have finished"] * 2, town.told()
    assert [one.read_text() for one in starts] == ["x"] * 6, "no session was interrupted"
    carriers = [town.registry.get(run).flower_run for run in runs]
    town.until(30, lambda: town.loop.run(ended_runs(town.setup, [*carriers, "12345"])) == {*carriers, "12345"})
    assert set(town.registry.outcomes(runs[0])) == {*NODES, "coordinator"}
    record_property("seconds", json.dumps([town.seconds(run) for run in runs]))


def test_a_doctored_bundle_is_refused_named_and_written_down(town: Town) -> None:
    files = bundle_files()
    files["fedcredit_node.py"] += b"#"
    found = bundle_sha256(files)
    (town.folder / "doctored.fab").write_bytes(bundle_archive(files))
    run = town.submit()
    start = (
        "import sys; from pathlib import Path; import coordinator.control as control;"
        "control.bundle_archive = Path(sys.argv[1]).read_bytes;"
        "sys.stdout.write(control.main(sys.argv[2:]))"
    )
    where = (f"localhost:{town.setup.port}", str(town.setup.tls.ca))
    command = [sys.executable, "-c", start, str(town.folder / "doctored.fab"), *where, "run", run]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    end = town.ended(run)
    assert f"app bundle {found[:16]} is not listed here" in end
    assert end.endswith("[bundle.unlisted]")
    first = PartyId(end.split(": ")[1])
    (line,) = [json.loads(one) for one in (town.homes[first].logs / "flower-audit.jsonl").read_text().splitlines()]
    assert (line["event"], line["found"]) == ("bundle.unlisted", found)


def test_a_node_that_is_not_in_the_roster_is_not_let_in(town: Town) -> None:
    home = town.folder / "stranger"
    (home / "keys").mkdir(parents=True)
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(home / "keys" / "flower.key")]
    subprocess.run(command, check=True)
    (home / "ca.pem").write_bytes(town.homes[NODES[0]].ca_file.read_bytes())
    (port,) = free_ports(1)
    node, _ = node_children(replace(town.nodes[NODES[0]], home=home, port=port))
    done = subprocess.run(
        node.command, env=dict(node.environment), check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "2004" in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_node_that_is_killed_goes_on_with_its_session(town: Town) -> None:
    (town.meeting / "hold").touch()
    run, tax = town.launch(), NODES[1]
    starts = town.meeting / run / f"{tax}.starts"
    town.until(200, starts.exists)
    town.loop.run(town.supervisors[tax].stop())
    end_sessions(sessions_folder(town.homes[tax].folder))
    town.supervisors[tax] = Supervisor(town.homes[tax].logs)
    town.loop.run(town.supervisors[tax].start(node_children(town.nodes[tax])))
    town.until(200, lambda: starts.read_text() == "xx")
    (town.meeting / "hold").unlink()
    assert town.ended(run) == "finished: all parties have finished", town.told()
    told = [one.event for one in town.registry.events(run) if one.party == tax]
    assert told == ["approved", "session", "lost", "back", "session", "finished"]


def test_nothing_left_this_machine(town: Town) -> None:
    assert (town.folder / "site" / "inside.txt").exists(), "the hook was there"
    outside = town.folder / "site" / "outside.txt"
    assert not outside.exists(), outside.read_text()
