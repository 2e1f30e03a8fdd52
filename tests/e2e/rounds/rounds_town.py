"""Banks and a coordinator as processes under Flower: SuperLink with TLS and node authentication, proxy, SuperNodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.proxy import ProxySettings, proxy_child
from fedcredit.runtime.daemon.supervisor import Supervisor
from fedcredit.runtime.flower_processes import (
    CoordinatorFlower,
    NodeFlower,
    coordinator_children,
    flower_folder,
    launch_run,
    node_children,
    register_nodes,
)
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.runs.registry import ENDED, Registry
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId

Result = TypeVar("Result")


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
    """A consortium of banks on this machine."""

    folder: Path
    loaded: LoadedSpec
    homes: dict[PartyId, Home]
    setup: CoordinatorFlower
    nodes: dict[PartyId, NodeFlower]
    loop: Loop = field(default_factory=Loop)
    supervisors: dict[str, Supervisor] = field(default_factory=dict)
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Registry(self.homes[COORDINATOR].state / "registry.sqlite")

    def start(self, proxy: ProxySettings) -> None:
        coordinator = self.homes[COORDINATOR]
        self.supervisors[COORDINATOR] = Supervisor(coordinator.logs)
        children = [*coordinator_children(self.setup), proxy_child(proxy)]
        self.loop.run(self.supervisors[COORDINATOR].start(children))
        keys = {name: coordinator.roster.member(name).flower_key for name in self.nodes}
        self.until(60, lambda: _tried(lambda: self.loop.run(register_nodes(self.setup, keys))))
        for name in self.nodes:
            self.start_node(name)

    def start_node(self, name: PartyId) -> None:
        self.supervisors[name] = Supervisor(self.homes[name].logs)
        self.loop.run(self.supervisors[name].start(node_children(self.nodes[name])))

    def stop_node(self, name: PartyId) -> None:
        self.loop.run(self.supervisors.pop(name).stop())

    def stop(self) -> None:
        for supervisor in reversed(self.supervisors.values()):
            self.loop.run(supervisor.stop())
        self.loop.close()
        self.registry.close()

    def launch(self, changes: Mapping[str, Any] | None = None) -> RunId:
        spec = self.loaded.spec
        if changes and spec.fedavg is not None:
            spec = spec.model_copy(update={"fedavg": spec.fedavg.model_copy(update=dict(changes))})
        text = travelling_json(spec, "records")
        run = self.registry.submit(text, spec.run.name, spec_digest(spec), spec.run.model, "records")
        self.registry.launched(run, self.loop.run(launch_run(self.setup, run)))
        return run

    def events(self, run: RunId, kind: str) -> list[str]:
        return [one.text for one in self.registry.events(run) if one.event == kind]

    def until(self, seconds: float, what: Callable[[], Result]) -> Result:
        until = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < until, self.told()
            time.sleep(0.1)
        return found

    def ended(self, run: RunId, seconds: float = 900) -> str:
        self.until(seconds, lambda: self.registry.get(run).state in ENDED)
        return f"{self.registry.get(run).state}: {self.registry.get(run).detail}"

    def told(self) -> str:
        lines = [f"{one.time} {one.text}" for run in self.registry.runs() for one in self.registry.events(run.run)]
        for home in self.homes.values():
            for log in sorted([*(home.folder / "logs").glob("*.log"), *(home.folder / "logs").glob("*.jsonl")]):
                lines += [f"--- {home.party} {log.name}", log.read_text("utf-8", "replace")[-1500:]]
        return "\n".join(lines)

    def summary(self, party: PartyId, run: RunId) -> dict[str, Any]:
        return dict(json.loads((self.homes[party].runs / run / "summary.json").read_text()))


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def build(folder: Path, loaded: LoadedSpec) -> tuple[Town, ProxySettings]:
    """A provisioned consortium whose nodes have the banks' records; nothing runs yet."""
    banks = [party.name for party in loaded.spec.party]
    exchange, fleet, link, *own = free_ports(3 + len(banks))
    members: list[dict[str, Any]] = [
        {
            "name": party.name,
            "role": str(party.role),
            "data": {"records": {"source": str(loaded.base / party.source)}},
        }
        for party in loaded.spec.party
    ]
    plan = {
        "name": "made-up",
        "trial": True,
        "local": {"mode": loaded.spec.run.mode},
        "coordinator": {"exchange": f"127.0.0.1:{exchange}", "fleet": f"127.0.0.1:{fleet}"},
        "member": [*members, {"name": "ops", "kind": "operator"}],
    }
    made = provision_local(ConsortiumSpec.model_validate(plan), folder / "homes")
    homes = {name: open_home(path) for name, path in made.items()}
    home = homes[COORDINATOR]
    town = Town(
        folder,
        loaded,
        homes,
        CoordinatorFlower(home.folder, link),
        {
            name: NodeFlower(homes[name].folder, name, "", f"127.0.0.1:{fleet}", port)
            for name, port in zip(banks, own, strict=True)
        },
    )
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
    return town, proxy


def change_settings(path: Path, changes: Mapping[str, Any]) -> None:
    content = tomllib.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(tomli_w.dumps(content), encoding="utf-8")


def kill_all(supervisor: Supervisor) -> None:
    """Ends all processes of a node at once, as a power cut would."""
    for one in supervisor.views():
        if one.process is not None:
            os.kill(one.process, signal.SIGKILL)


def _tried(what: Callable[[], Result]) -> Result | None:
    try:
        return what()
    except FedCreditError:
        return None
