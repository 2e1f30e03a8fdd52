"""Command lines and environments of Flower's processes, with everything off that leaves the house or lets others in.

Coordinator: a SuperLink that listens on loopback only (the proxy is what nodes see), with TLS, SuperNode authentication
and a database, which starts nothing itself; a SuperExec beside it that proves itself with a secret and starts the
ServerApp, so that a run survives the SuperLink. Node: a SuperNode that only dials out, and its SuperExec.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcredit.errors import IntegrityError, SpecError, TransportError
from fedcredit.runtime.daemon.supervisor import Child
from fedcredit.runtime.exchange.loopback_tls import LOOPBACK_NAME, LoopbackTls, loopback_tls
from fedcredit.runtime.flower_client import HOME_VARIABLE, SUPERVISOR_VARIABLE
from fedcredit.runtime.ready_loops import place_loops
from fedcredit.types import PartyId, RunId

__all__ = [
    "SWITCHED_OFF",
    "CoordinatorFlower",
    "NodeFlower",
    "control",
    "coordinator_children",
    "ended_runs",
    "flower_folder",
    "launch_run",
    "node_children",
    "register_nodes",
    "stop_flower_run",
]

SWITCHED_OFF: Final[Mapping[str, str]] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TRACING_ENABLED": "0",
    "FLWR_ENABLE_EVENT_LOG": "0",
    "FLWR_OIDC_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment of every process of Flower: nothing is reported, asked or installed from outside."""

_OWN = ("FLWR_", "RAY_", "OTEL_", HOME_VARIABLE, SUPERVISOR_VARIABLE)  # not taken over from the environment outside
_POLL_S = "0.2"  # between a SuperExec's looks for a task: 5 small requests a second on loopback
_TASK_COMMANDS = (
    "flwr-clientapp",
    "flwr-agentapp",
    "flwr-connector",
    "flwr-model",
    "flwr-serverapp",
    "flwr-simulation",
)
_SECRET_BYTES = 32
_CONTROL_S = 60.0
_SHIM = "#!{python} -P\nfrom nodes.shim import main\n\nmain()\n"


@dataclass(frozen=True)
class NodeFlower:
    """What a node's Flower processes need to know.

    Args:
        home: The member's folder.
        party: Its name.
        role: Its role; "" = either.
        fleet: "host:port" of the coordinator's proxy.
        port: Port of the SuperNode's own interface, on loopback; its SuperExec alone uses it.
        host: Loopback address of it.
    """

    home: Path
    party: PartyId
    role: str
    fleet: str
    port: int
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class CoordinatorFlower:
    """What the coordinator's Flower processes need to know.

    Args:
        home: The coordinator's folder.
        port: Port of the SuperLink, on loopback.
        host: Loopback address of it.
    """

    home: Path
    port: int
    host: str = "127.0.0.1"

    @property
    def tls(self) -> LoopbackTls:
        """Certificate of the line to the SuperLink."""
        return loopback_tls(flower_folder(self.home) / "loopback")


def flower_folder(home: Path) -> Path:
    """Where a member keeps what belongs to Flower; made with mode 0700."""
    folder = home / "state" / "flower"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def coordinator_children(setup: CoordinatorFlower) -> list[Child]:
    """SuperLink and SuperExec of the coordinator."""
    _on_loopback(setup.host)
    tls, secret, folder = setup.tls, str(_secret(setup.home)), flower_folder(setup.home)
    link = (
        *(_program("flower-superlink"), "--host", setup.host, "--port", str(setup.port)),
        *("--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)),
        *("--enable-supernode-auth", "--isolation", "process", "--superexec-auth-secret-file", secret),
        *("--database", str(folder / "superlink.db"), "--disable-runtime-dependency-installation"),
    )
    starts = (
        *(_program("flower-superexec"), "--runtime-api-address", f"{LOOPBACK_NAME}:{setup.port}"),
        *("--root-certificates", str(tls.ca), "--superexec-auth-secret-file", secret),
    )
    environment = _environment(setup.home, str(Path(sys.executable).parent))
    return [Child("superlink", link, environment), Child("superexec", starts, environment)]


def node_children(setup: NodeFlower) -> list[Child]:
    """SuperNode and SuperExec of a node."""
    _on_loopback(setup.host)
    secret, shims = str(_secret(setup.home)), _shims(setup.home)
    config = f"party={json.dumps(setup.party)} role={json.dumps(setup.role)}"
    own = f"{setup.host}:{setup.port}"
    node = (
        *(_program("flower-supernode"), "--superlink", setup.fleet),
        *("--root-certificates", str(setup.home / "ca.pem")),
        *("--auth-supernode-private-key", str(setup.home / "keys" / "flower.key"), "--node-config", config),
        *("--host", setup.host, "--port", str(setup.port)),
        *("--isolation", "process", "--superexec-auth-secret-file", secret),
    )
    starts = (
        *(_program("flower-superexec"), "--runtime-api-address", own, "--insecure"),  # never leaves loopback
        *("--superexec-auth-secret-file", secret),
    )
    environment = _environment(setup.home, str(shims))
    return [Child("supernode", node, environment), Child("superexec", starts, environment)]


async def register_nodes(setup: CoordinatorFlower, keys: Mapping[PartyId, str]) -> str:
    """Makes the SuperLink's list of nodes that of the roster: adds who is missing, removes whoever is not in it.

    Args:
        setup: The coordinator's.
        keys: Flower key of each node, OpenSSH public line.

    Returns:
        What was changed, one line.

    Raises:
        TransportError: the SuperLink does not answer.
    """
    return await control(setup, "nodes", json.dumps(dict(keys)))


async def launch_run(setup: CoordinatorFlower, run: RunId) -> str:
    """Has Flower carry a run: starts the bundle's ServerApp for it.

    Returns:
        The Flower run's id.

    Raises:
        TransportError: the SuperLink does not answer.
    """
    return await control(setup, "run", run)


async def stop_flower_run(setup: CoordinatorFlower, flower_run: str) -> None:
    """Ends a Flower run, its ServerApp included. Sessions at nodes are ended through the exchange, not by this."""
    await control(setup, "stop", flower_run)


async def ended_runs(setup: CoordinatorFlower, flower_runs: Sequence[str]) -> frozenset[str]:
    """Those Flower runs that have ended or are unknown to the SuperLink.

    Raises:
        TransportError: the SuperLink does not answer.
    """
    return frozenset(map(str, json.loads(await control(setup, "ended", json.dumps(list(flower_runs))))))


async def control(setup: CoordinatorFlower, *arguments: str) -> str:
    """Runs ``coordinator.control``, which speaks to the SuperLink's control interface, in a process of its own.

    Raises:
        TransportError: it failed or did not end in time.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "coordinator.control", f"{LOOPBACK_NAME}:{setup.port}", str(setup.tls.ca)),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(setup.home, str(Path(sys.executable).parent)),
    )
    try:
        said, why = await asyncio.wait_for(process.communicate(), _CONTROL_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise TransportError("flower.control", f"the SuperLink did not answer within {_CONTROL_S:g} s") from None
    if process.returncode != 0:
        last = why.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        raise TransportError("flower.control", "the SuperLink refused or did not answer", last)
    return said.decode().strip()


def _environment(home: Path, first_in_path: str) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    path = os.pathsep.join([first_in_path, outside.get("PATH", os.defpath)])
    own = {"PATH": path, "FLWR_HOME": str(flower_folder(home) / "home"), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_S}
    whose = {HOME_VARIABLE: str(home), SUPERVISOR_VARIABLE: str(os.getpid())}
    return {**outside, **SWITCHED_OFF, **own, **whose, **place_loops(home)}


def _program(name: str) -> str:
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        raise SpecError("flower.program", f"{path}: not there; install fedcredit[deploy]")
    return str(path)


def _on_loopback(host: str) -> None:
    if host not in {"127.0.0.1", "::1", LOOPBACK_NAME}:
        raise SpecError("flower.host", f"[flower] host = {host!r}: has to be on loopback; others come by the proxy")


def _secret(home: Path) -> Path:
    """The secret with which a SuperExec proves itself; made once."""
    path = flower_folder(home) / "superexec.secret"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
    except FileExistsError:
        if path.stat().st_size != _SECRET_BYTES:
            raise IntegrityError("flower.secret", f"{path}: not {_SECRET_BYTES} bytes; remove it") from None
    return path


def _shims(home: Path) -> Path:
    """Folder of the commands that a SuperNode may start, all of them `nodes.shim`."""
    folder = flower_folder(home) / "bin"
    folder.mkdir(mode=0o700, exist_ok=True)
    content = _SHIM.format(python=sys.executable)
    for name in _TASK_COMMANDS:
        part = folder / f".{name}"
        part.write_text(content, "utf-8")
        part.chmod(0o700)
        part.replace(folder / name)
    return folder
