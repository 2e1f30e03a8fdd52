"""Checks of the machine: Python, packages, environment, clock, disk, SQLite, ports."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

import fedcredit
from fedcredit.errors import SpecError
from fedcredit.runtime.daemon.proxy import NO_STREAM, find_nginx, stream_module
from fedcredit.runtime.doctor.checks import Finding, Status
from fedcredit.runtime.house.home import Home, read_pins
from fedcredit.runtime.house.roster import MemberKind, split_address

__all__ = [
    "check_disk",
    "check_environment",
    "check_local_clock",
    "check_packages",
    "check_ports",
    "check_proxy",
    "check_python",
    "check_sqlite",
]

_OLDEST: Final = (3, 11)
_DEPLOY: Final = "deploy"
_LEAST_FREE, _FEW_FREE = 1 << 29, 5 << 30  # bytes; a run keeps ciphertexts of a whole stage
_QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_TIMEDATECTL = "/usr/bin/timedatectl"
_CANNOT_BE_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)  # this program is younger than that


def check_python() -> Finding:
    """The interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _OLDEST:
        return Finding("python", Status.FAIL, found, f"install Python {_OLDEST[0]}.{_OLDEST[1]} or newer")
    return Finding("python", Status.OK, f"{found}, fedcredit {fedcredit.__version__}")


def check_packages(kind: MemberKind | None, distribution: str = "fedcredit") -> Finding:
    """Installed packages against the versions this program asks for; nodes and coordinator need more than operators.

    Args:
        kind: Kind of the member; None = the basic ones only.
        distribution: Whose requirements.
    """
    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return Finding(
            "packages", Status.UNCHECKED, f"{distribution} is not installed as a package", "install its wheel"
        )
    extras = ("",) if kind is None else ("", _DEPLOY)
    wanted = [one for one in map(Requirement, lines) if _applies(one, extras)]
    wrong = []
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} {version} is not {one.specifier}")
    if wrong:
        extra = f"[{_DEPLOY}]" if kind is not None else ""
        remedy = f"pip install -c constraints.txt '{distribution}{extra}'"
        return Finding("packages", Status.FAIL, "; ".join(wrong[:4]) + ("; …" if len(wrong) > 4 else ""), remedy)
    return Finding("packages", Status.OK, f"{len(wanted)} packages have versions this program asks for")


def _applies(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def check_environment() -> Finding:
    """Whether telemetry, update checks and installation at run time are off in this environment."""
    wrong = [f"{name}={os.environ[name]}" for name, off in _QUIET.items() if os.environ.get(name, off) != off]
    if wrong:
        remedy = f"set {' '.join(f'{name}={off}' for name, off in _QUIET.items())}"
        return Finding("telemetry", Status.FAIL, f"switched on: {', '.join(wrong)}", remedy)
    if any(name not in os.environ for name in _QUIET):
        return Finding("telemetry", Status.OK, "not switched on here; the services switch it off for what they start")
    return Finding("telemetry", Status.OK, "telemetry, update checks and installation at run time are off")


def check_local_clock(home: Path | None) -> Iterator[Finding]:
    """What can be said of the clock without asking anybody: not before what happened, and kept by NTP."""
    now, floor, what = datetime.now(UTC), _CANNOT_BE_BEFORE, "this program was written"
    if home is not None and (home / "pins.json").exists():
        pinned = datetime.fromisoformat(read_pins(home).pinned)
        if pinned > floor:
            floor, what = pinned, f"the bundle was pinned, {pinned:%Y-%m-%d %H:%M} UTC"
    if now < floor:
        yield Finding("clock", Status.FAIL, f"says {now:%Y-%m-%d %H:%M} UTC, before {what}", "set it, by NTP")
        return
    synchronised = _ntp()
    if synchronised is None:
        found = f"says {now:%Y-%m-%d %H:%M:%S} UTC; whether NTP keeps it cannot be seen here"
        yield Finding("clock", Status.UNCHECKED, found, "look at the host's time service")
    elif synchronised:
        yield Finding("clock", Status.OK, f"{now:%Y-%m-%d %H:%M:%S} UTC, kept by NTP")
    else:
        yield Finding("clock", Status.WARN, "not kept by NTP", "timedatectl set-ntp true, or start chrony")


def _ntp() -> bool | None:
    """Whether NTP keeps the clock; None = nobody to ask."""
    if not Path(_TIMEDATECTL).exists():
        return None
    command = [_TIMEDATECTL, "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, check=False, text=True)  # noqa: S603 -- fixed
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip()) if done.returncode == 0 else None


def check_disk(folder: Path) -> Finding:
    """Space, and whether a file can be written and forced to the disk."""
    free = shutil.disk_usage(folder).free
    shown = f"{free / (1 << 30):.1f} GiB free in {folder}"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"\0" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        found = f"{folder} cannot be written ({error.strerror})"
        return Finding("disk", Status.FAIL, found, "make it writable for this user, and free some space")
    if free < _LEAST_FREE:
        return Finding("disk", Status.FAIL, shown, "free at least 0.5 GiB; a run stops where the disk is full")
    if free < _FEW_FREE:
        return Finding("disk", Status.WARN, shown, "free 5 GiB for larger runs")
    return Finding("disk", Status.OK, f"{shown}, written and synced")


def check_sqlite(folder: Path) -> Finding:
    """Whether SQLite's write-ahead log works there; it does not on most network file systems."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as probe:
            connection = sqlite3.connect(Path(probe) / "probe.sqlite", timeout=5)
            try:
                mode = str(connection.execute("pragma journal_mode = wal").fetchone()[0])
                with connection:
                    connection.execute("create table probe (x integer)")
                    connection.execute("insert into probe values (1)")
                rows = connection.execute("select count(*) from probe").fetchone()[0]
            finally:
                connection.close()
    except (sqlite3.Error, OSError) as error:
        why = f"SQLite cannot write in {folder} ({type(error).__name__})"
        return Finding("sqlite", Status.FAIL, why, "put the home on a local disk")
    if (mode, rows) != ("wal", 1):
        return Finding("sqlite", Status.FAIL, f"journal mode {mode} in {folder}", "put the home on a local disk")
    return Finding("sqlite", Status.OK, f"SQLite {sqlite3.sqlite_version}, write-ahead log works")


def check_ports(home: Home) -> Iterator[Finding]:
    """The addresses this member listens on: free, or taken; fine if its own service runs."""
    addresses = dict(_listening(home))
    runs = "metrics" in addresses and _answers(addresses["metrics"])
    for what, address in addresses.items():
        found = _check_port(f"port of {what}", address)
        if runs and found.status is Status.WARN:
            found = Finding(found.check, Status.OK, f"{address} is taken, and this member's service runs")
        yield found


def check_proxy(home: Home) -> Finding:
    """Whether the coordinator's proxy can do what the roster's addresses ask of it."""
    settings, roster = home.coordinator, home.roster
    if not settings.flower.proxy:
        found = "a proxy of the operator's own" + (" that tells both apart" if roster.one_address else "")
        return Finding("proxy", Status.UNCHECKED, found, f"see that members reach {roster.fleet} through it")
    try:
        nginx = find_nginx()
    except SpecError as error:
        return Finding("proxy", Status.FAIL, "nginx is not installed", error.public)
    if not roster.one_address:
        return Finding("proxy", Status.OK, f"{nginx}, for the fleet interface alone")
    if split_address(settings.exchange.listen)[1] == split_address(settings.flower.proxy)[1]:
        found = (
            f"coordinator.toml: exchange.listen and flower.proxy have port {split_address(settings.flower.proxy)[1]}"
        )
        return Finding("proxy", Status.FAIL, found, 'set exchange.listen = "127.0.0.1:9442": it is behind the proxy')
    if stream_module() is None:
        return Finding("proxy", Status.FAIL, f"{nginx} cannot tell exchange and fleet apart", NO_STREAM)
    return Finding("proxy", Status.OK, f"{nginx} with its stream module, for the one address {roster.exchange}")


def _listening(home: Home) -> Iterator[tuple[str, str]]:
    if home.kind is MemberKind.NODE:
        yield "metrics", home.node.metrics.listen
        yield "Flower", f"{home.node.flower.host}:{home.node.flower.port}"
    if home.kind is MemberKind.COORDINATOR:
        settings = home.coordinator
        yield "exchange", settings.exchange.listen
        if settings.flower.proxy:
            yield "everything" if home.roster.one_address else "fleet", settings.flower.proxy
        yield "metrics", settings.metrics.listen
        yield "Flower", f"{settings.flower.host}:{settings.flower.port}"


def _check_port(check: str, address: str) -> Finding:
    try:
        host, port = split_address(address)
    except SpecError as error:
        return Finding(check, Status.FAIL, error.public, "correct the settings file")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            remedy = "choose a port above 1023, or give the service CAP_NET_BIND_SERVICE"
            return Finding(check, Status.FAIL, f"{address} is not allowed for this user", remedy)
        except OSError as error:
            if host not in {"127.0.0.1", "::1", "0.0.0.0", "::", "localhost"} and not _taken(host, port):  # noqa: S104
                remedy = "choose an address of this machine"
                return Finding(check, Status.FAIL, f"{address} cannot be used ({error.strerror})", remedy)
            found = f"{address} is taken: by this member's own service, or by another"
            return Finding(check, Status.WARN, found, "fine while the service runs; else choose another port")
    return Finding(check, Status.OK, f"{address} is free")


def _answers(address: str) -> bool:
    """Whether a service of this program answers at its address of metrics."""
    host, port = split_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _taken(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
