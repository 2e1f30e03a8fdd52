"""A consortium in which every house is a network namespace, a user and a folder of its own, around one coordinator.

Each house has one line, to the coordinator; nothing is forwarded. A line is a plain veth pair, or one with a bandwidth
and a latency. Needs root, ``ip`` and ``setpriv``; everything is removed at the end. No address is reached from outside.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import tomli_w

from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import load_consortium
from fedcredit.runtime.runs.proposal import Finished, check_finished
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId

if TYPE_CHECKING:
    from benchmarks.star_house import HERE, ROOT, HouseProcess, copy_compiled, mounts
else:
    from star_house import HERE, ROOT, HouseProcess, copy_compiled, mounts

HUB = "10.87.0.1"
PORT = 9443
_PREFIX = "fcstar"
_FIRST_UID = 200_000


@dataclass(frozen=True)
class Line:
    """One house's line to the coordinator.

    Args:
        mbps: 10^6 bits a second, each way.
        ms: Milliseconds one way, from the house to the coordinator.
    """

    mbps: float
    ms: float


def unavailable(*programs: str) -> str:
    """Why this machine cannot hold a star, or ""."""
    if os.geteuid() != 0:
        return "needs root: namespaces, users and captures"
    missing = [name for name in ("ip", "setpriv", *programs) if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: iproute2, util-linux, tcpdump)"
    name = f"{_PREFIX}-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces cannot be made here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return ""


def has_netem() -> bool:
    """Whether the kernel has the netem qdisc."""
    name = f"{_PREFIX}-{os.getpid()}-tc"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        command = ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        return (
            shutil.which("tc") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@dataclass
class Star:
    """Namespaces, homes and processes of one consortium; a context manager.

    Args:
        folder: A new folder that other users can enter, outside of private ones.
        loaded: The run's spec; its relative sources are copied into the homes.
        shaped: The lines can be given a bandwidth and a latency; otherwise they are plain veth pairs.
    """

    folder: Path
    loaded: LoadedSpec
    shaped: bool = False
    homes: dict[PartyId, Home] = field(default_factory=dict)
    processes: dict[str, HouseProcess] = field(default_factory=dict)
    _lines: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _namespaces: list[str] = field(default_factory=list)

    @property
    def members(self) -> list[PartyId]:
        """Coordinator first."""
        return [COORDINATOR, *self.loaded.spec.parties]

    def namespace(self, party: PartyId) -> str:
        return f"{_PREFIX}-{os.getpid()}-{self.members.index(party)}"

    def address(self, party: PartyId) -> str:
        return HUB if party == COORDINATOR else f"10.87.0.{10 + self.members.index(party)}"

    def uid(self, party: PartyId) -> int:
        return _FIRST_UID + os.getpid() % 10_000 * 16 + self.members.index(party)

    def interface(self, party: PartyId) -> str:
        """Name of a house's line at the coordinator."""
        return f"to{self.members.index(party)}"

    def __enter__(self) -> Self:
        try:
            _remove_stale()
            self.folder.mkdir(mode=0o755, exist_ok=True)
            for party in self.members:
                self._add_namespace(party)
            for party in self.members[1:]:
                self._add_line(party)
            self._provision()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes and removes the namespaces, with all that is in them."""
        for process in self.processes.values():
            process.end()
        self.processes.clear()
        for line in self._lines:
            line.kill()
            line.communicate()
        self._lines.clear()
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        self._namespaces.clear()

    # Namespaces and lines.

    def _add_namespace(self, party: PartyId) -> None:
        name = self.namespace(party)
        _run("ip", "netns", "add", name)
        self._namespaces.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        settings = ["net.ipv4.ip_forward=0", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]
        _run("ip", "netns", "exec", name, "sysctl", "-qw", *settings)
        if party == COORDINATOR:
            _run("ip", "-n", name, "address", "add", f"{HUB}/32", "dev", "lo")

    def _add_line(self, party: PartyId) -> None:
        here, hub, interface = self.namespace(party), self.namespace(COORDINATOR), self.interface(party)
        if not self.shaped or has_netem():
            _run(
                *("ip", "link", "add", "name", "line", "netns", here, "type", "veth"),
                *("peer", "name", interface, "netns", hub),
            )
        else:
            self._long_line(interface, here, hub)
        _run("ip", "-n", here, "address", "add", f"{self.address(party)}/32", "dev", "line")
        _run("ip", "-n", here, "link", "set", "line", "up")
        _run("ip", "-n", hub, "link", "set", interface, "up")
        _run("ip", "-n", here, "route", "add", HUB, "dev", "line")
        _run("ip", "-n", here, "route", "add", "default", "via", HUB, "dev", "line", "onlink")
        _run("ip", "-n", hub, "route", "add", self.address(party), "dev", interface, "src", HUB)

    def _long_line(self, interface: str, here: str, hub: str) -> None:
        """A line through a process of this machine, for kernels without netem."""
        own = f"u{os.getpid()}.{interface}"
        command = [sys.executable, str(HERE / "line.py")]
        other = f"h{own[1:]}"
        process = subprocess.Popen(
            [*command, f"{own}@{here}", f"{other}@{hub}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._lines.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        _run("ip", "-n", here, "link", "set", own, "name", "line")
        _run("ip", "-n", hub, "link", "set", other, "name", interface)

    def shape(self, line: Line | None) -> None:
        """Gives all lines a bandwidth and a latency, or takes them away."""
        mbps, ms = (line.mbps, line.ms) if line is not None else (0.0, 0.0)
        for process in self._lines:
            _ask_line(process, f"{mbps} {ms}")
        for party in () if self._lines else self.members[1:]:
            for name, device in (self.namespace(party), "line"), (self.namespace(COORDINATOR), self.interface(party)):
                shape = ["delay", f"{ms}ms", *(["rate", f"{mbps}mbit"] if mbps else []), "limit", "1000"]
                _run("tc", "-n", name, "qdisc", "replace", "dev", device, "root", "netem", *shape)

    def carried(self, party: PartyId) -> tuple[int, int]:
        """Bytes that a house's line has carried up and down, with the headers of Ethernet, IP and TCP."""
        if self._lines:
            up, down, _ = _ask_line(self._lines[self.members.index(party) - 1], "count")
            return up, down
        shown = _run("ip", "-n", self.namespace(COORDINATOR), "-s", "-j", "link", "show", self.interface(party))
        counts = json.loads(shown)[0]["stats64"]
        return counts["rx"]["bytes"], counts["tx"]["bytes"]

    # Homes.

    def _provision(self) -> None:
        members, copied = [], {}
        for party in self.loaded.spec.party:
            source = party.source
            if not (source.startswith(("known:", "$")) or "://" in source):
                copied[party.name] = self.loaded.base / source
                source = str(self.folder / "houses" / party.name / "records.csv")
            data = {"records": {"source": source}}
            members.append({"name": party.name, "role": str(party.role), "data": data})
        content = {
            "name": "made-up",
            "trial": True,
            "coordinator": {"exchange": f"{HUB}:{PORT}", "fleet": f"{HUB}:9"},
            "member": [*members, {"name": "operations", "kind": "operator"}],
        }
        work = self.folder / "work"
        work.mkdir(mode=0o700)
        (work / "consortium.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
        folders = provision_local(load_consortium(work / "consortium.toml"), self.folder / "houses")
        for party in self.loaded.spec.party:
            policy = folders[party.name] / "policy.toml"
            changed = tomllib.loads(policy.read_text("utf-8")) | {"enforce": self.loaded.spec.privacy.enforce}
            policy.write_text(tomli_w.dumps(changed), encoding="utf-8")
            if party.name in copied:
                shutil.copyfile(copied[party.name], folders[party.name] / "records.csv")
        self.homes = {name: open_home(folders[name]) for name in self.members}
        for name in self.members:
            copy_compiled(folders[name] / "compiled")
            _give(folders[name], self.uid(name))
        (self.folder / "houses").chmod(0o755)

    # Processes.

    def start(self) -> None:
        """One process a house, and one for the exchange."""
        for name in [*self.members, "exchange"]:
            party = COORDINATOR if name == "exchange" else PartyId(name)
            home = self.homes[party].folder
            inside = [sys.executable, str(HERE / "house_process.py"), str(home)]
            environment = {
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(home),
                "PYTHONPATH": str(ROOT),
                "NUMBA_CACHE_DIR": str(home / "compiled"),
                "MPLCONFIGDIR": str(home / "compiled"),
                "OMP_NUM_THREADS": "1",
                "GRPC_VERBOSITY": "NONE",
                "GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384",
                **{key: value for key, value in os.environ.items() if key == "FEDCREDIT_DATA"},
            }
            log = self.folder / "work" / f"{name}.log"
            self.processes[name] = HouseProcess(self.command(party, inside), log, environment)
        for process in self.processes.values():
            process.hello()

    def command(self, party: PartyId, inside: Sequence[str]) -> list[str]:
        """A command, in the namespace and as the user of a house."""
        uid = str(self.uid(party))
        drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
        return [
            *("ip", "netns", "exec", self.namespace(party)),
            *("sh", "-ec", mounts() + 'exec "$@"', "sh", *drop, "--", *inside),
        ]

    def forget(self) -> None:
        """Empties the houses' ledgers, so that the next run may disclose what a first run, as a simulation, may."""
        for party in self.loaded.spec.parties:
            for file in self.homes[party].folder.glob("state/ledger.sqlite*"):
                file.unlink()

    def order(self, run: RunId, loaded: LoadedSpec) -> str:
        """Opens a run, asks every house, and makes the order that starts it."""
        self.processes["exchange"].ask("serve", runs={run: [*loaded.spec.parties, COORDINATOR]})
        coordinator = self.processes[COORDINATOR]
        proposal = coordinator.ask("propose", run=run, spec=travelling_json(loaded.spec, "records"))["proposal"]
        for party in loaded.spec.parties:
            self.processes[party].tell("consider", proposal=proposal)
        decisions = [self.processes[party].answer()["decision"] for party in loaded.spec.parties]
        return str(coordinator.ask("order", run=run, proposal=proposal, decisions=decisions)["order"])

    def begin(self, order: str, *, report: bool = False) -> None:
        """Starts every house's part."""
        for party in self.members:
            self.processes[party].tell("run", order=order, report=report)

    def finish(self, run: RunId) -> dict[PartyId, Finished]:
        """Waits for every house."""
        return {
            party: check_finished(
                base64.b64decode(self.processes[party].answer()["finished"]), party, run, self.homes[party].roster
            )
            for party in self.members
        }


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _ask_line(process: subprocess.Popen[bytes], words: str) -> list[int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{words}\n".encode())
    process.stdin.flush()
    return [int(word) for word in process.stdout.readline().split()]


def _remove_stale() -> None:
    """Namespaces of processes that were killed."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split()[0] if line else ""
        prefix, _, rest = name.partition("-")
        if prefix == _PREFIX and not Path(f"/proc/{rest.split('-')[0]}").exists():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _give(folder: Path, uid: int) -> None:
    """Makes a folder a user's own, and closes it to everybody else."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


@contextlib.contextmanager
def captured(star: Star, file: Path) -> Iterator[None]:
    """Captures all traffic of the coordinator's namespace.

    Raises:
        RuntimeError: the kernel dropped packets, so that the capture shows less than there was.
    """
    file.touch(mode=0o600)
    command = ["tcpdump", "-i", "any", "-s", "0", "-B", "65536", "-U", "-Z", "root", "-w", str(file)]
    process = subprocess.Popen(
        ["ip", "netns", "exec", star.namespace(COORDINATOR), *command], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    heard = ""
    while "listening on" not in heard:
        line = process.stderr.readline()
        if not line:
            raise RuntimeError(f"tcpdump: {heard}")
        heard += line
    try:
        yield
    finally:
        process.terminate()
        heard += process.communicate(timeout=60)[1]
    if "\n0 packets dropped by kernel" not in heard:
        raise RuntimeError(f"tcpdump: {heard}")
