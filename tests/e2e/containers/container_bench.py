"""Engines that tests of containers start for themselves, and the trial consortium that they carry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

import fedcredit
from fedcredit.data.known import find_known, read_known
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import load_consortium

ROOT = Path(__file__).parents[3]
CONSORTIUM = ROOT / "configs/consortium"
SHIPPED = ROOT / "fedcredit/shipped"
SPEC = ROOT / "configs/simulations/demo.toml"
TARGETS: Final[Mapping[str, str]] = {"fedcredit-node": "node", "fedcredit-coordinator": "coordinator"}
PYTHON = "/opt/fedcredit/bin/python"
MIRROR = "http://deb.debian.org"
USER = 10001
HOLDERS = ("bank", "tax_office", "utility")
DAEMONS = ("coordinator", *HOLDERS)
READY_S = 300.0

VERSION: Final = fedcredit.__version__
yaml: Any = import_module("yaml")  # it has no types of its own


def tag(image: str) -> str:
    return f"localhost/{image}:{VERSION}"


def absent(*programs: str) -> list[str]:
    return [name for name in programs if shutil.which(name) is None]


def cannot(*programs: str, gigabytes: int) -> str:
    """Why nothing can be started here; "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "containers are made by root on Linux"
    if missing := absent(*programs):
        packages = "buildah podman crun netavark aardvark-dns iptables debootstrap slirp4netns uidmap"
        return f"not installed: {', '.join(missing)}; apt-get install {packages}"
    if shutil.disk_usage("/tmp").free < gigabytes << 30:
        return f"needs {gigabytes} GB of free disk under /tmp"
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "true"], check=False, capture_output=True).returncode:
        return "namespaces are not permitted here"
    return ""


def call(
    words: list[str], *, check: bool = True, timeout_s: float = 2400.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command; fails the test with what it said where it fails."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment, timeout=timeout_s)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


@dataclass(frozen=True)
class Engine:
    """podman and buildah with storage of their own, in a mount namespace of their own.

    Args:
        folder: Where everything is kept.
        namespace: Process that holds the namespace; it hides control groups that the tests leave alone.
    """

    folder: Path
    namespace: int

    def run(
        self, *command: str | Path, check: bool = True, timeout_s: float = 2400.0
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }
        words = ["nsenter", "--target", str(self.namespace), "--mount", f"--wd={ROOT}", *map(str, command)]
        return call(words, check=check, timeout_s=timeout_s, environment=environment)

    def container(self, image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs a command in a hardened container without a network, and without a shell in it."""
        hard = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
        shells = [f"--volume=/dev/null:/usr/bin/{name}:ro" for name in ("dash", "bash")]
        return self.run(
            *("podman", "run", "--rm", "--cgroups=disabled", *hard, *shells, *options),
            *(f"--entrypoint={command[0]}", tag(image), *command[1:]),
            check=False,
        )

    def python(self, image: str, code: str) -> Any:
        done = self.container(image, PYTHON, "-I", "-c", code)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def base_archive(folder: Path) -> Path:
    """A Debian 12 without recommendations, as the slim image of the registries is, as an archive."""
    folder.mkdir(exist_ok=True)
    archive = folder / "base.tar"
    if archive.exists():
        return archive
    root = folder / "root"
    debootstrap("bookworm", root, "ca-certificates")
    suites = (("debian", "bookworm"), ("debian", "bookworm-updates"), ("debian-security", "bookworm-security"))
    lines = [f"deb {MIRROR}/{archive} {suite} main\n" for archive, suite in suites]
    (root / "etc/apt/sources.list").write_text("".join(lines), "utf-8")
    for used in ("var/lib/apt/lists", "var/cache/apt/archives"):
        shutil.rmtree(root / used)
        (root / used / "partial").mkdir(parents=True)
    call(["tar", "--create", "--directory", str(root), "--file", str(archive), "."])
    shutil.rmtree(root)
    return archive


def make_base(engine: Engine) -> str:
    given = os.environ.get("FEDCREDIT_CONTAINER_BASE")
    name = "localhost/fedcredit-base:bookworm"
    if not given and engine.run("podman", "image", "exists", name, check=False).returncode != 0:
        engine.run("podman", "import", base_archive(engine.folder / "shared"), name)
    return given or name


def debootstrap(suite: str, root: Path, *packages: str) -> None:
    words = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(root)]
    done = call([*words, f"{MIRROR}/debian"], check=False)
    if done.returncode != 0:
        shutil.rmtree(root, ignore_errors=True)
        pytest.skip(f"NOTHING RAN: debootstrap {suite} failed: {done.stdout.strip().splitlines()[-1:]}")


def pip_settings() -> dict[str, str]:
    words = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True)
    return dict(re.findall(r"(?:global|:env:)\.([a-z-]+)='(.*)'", listed.stdout))


def secrets(folder: Path) -> list[str]:
    """This machine's settings of pip, as secrets of the build: they never reach a layer; its wheels, as a context."""
    found = pip_settings()
    lines = [f"{key} = {found[key]}" for key in ("index-url", "trusted-host", "proxy") if key in found]
    options = ["--secret", f"id=pip,src={folder / 'pip.conf'}"]
    if "cert" in found:
        shutil.copy(found["cert"], folder / "ca.pem")
        lines.append("cert = /run/secrets/ca")
        options += ["--secret", f"id=ca,src={folder / 'ca.pem'}"]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]), "utf-8")
    given = Path(found.get("find-links", "/nonexistent"))
    if given.is_dir():
        shutil.copytree(given, folder / "wheels", dirs_exist_ok=True)
        options += ["--build-context", f"wheels={folder / 'wheels'}"]
    return options


def build(engine: Engine, base: str, target: str, name: str, *options: str) -> None:
    """Builds a target of the Dockerfile with buildah."""
    engine.run(
        *("buildah", "build", "--format=docker", "--layers", "--network=host", "--isolation=chroot"),
        *("--build-arg", f"BASE={base}", *secrets(engine.folder), *options, "--target", target, "--tag", name, "."),
    )


def make_trial(base: Path, consortium: Path = CONSORTIUM / "compose/consortium.toml") -> Path:
    """A trial consortium's homes and records, owned by the number of the images' user."""
    shutil.rmtree(base, ignore_errors=True)
    provision_local(load_consortium(consortium), base / "homes")
    frame = read_known(find_known("credit-data")).frame
    frame = frame.with_columns(Status=(frame["Status"] == "bad").cast(int))
    for party in tomllib.loads(SPEC.read_text("utf-8"))["party"]:
        columns = ["rownames", *([party["label"]] if "label" in party else []), *party["columns"]]
        (base / "records" / party["name"]).mkdir(parents=True)
        frame.select(columns).write_csv(base / "records" / party["name"] / "credit.csv")
    (base / "specs").mkdir()
    shutil.copy(SPEC, base / "specs")
    own(base)
    return base


def own(base: Path) -> None:
    for path in [base, *base.rglob("*")]:
        os.chown(path, USER, USER, follow_symlinks=False)


def auc_of(summary: str) -> float:
    """The held-out AUC in the summary of a finished run."""
    found = re.search(r'"auc": ([0-9.]+)', summary)
    assert found is not None, summary[:2000]
    return float(found[1])


def auc(home: Path) -> float:
    """That of the one run that a label holder's home has."""
    return auc_of(next((home / "runs").glob("*/summary.json")).read_text("utf-8"))


def simulated_auc(trial: Path) -> float:
    """The held-out AUC of the same specification in a simulation, on the very files that the trial's nodes read."""
    first, *parties = SPEC.read_text("utf-8").split("[[party]]")
    for party in tomllib.loads(SPEC.read_text("utf-8"))["party"]:
        one = parties.pop(0)
        source = json.dumps(str(trial / "records" / party["name"] / "credit.csv"))
        first += "[[party]]" + one.replace('"known:credit-data"', source, 1)
    (trial / "simulated.toml").write_text(first, "utf-8")
    program = str(Path(sys.executable).parent / "fedcredit")
    call([program, "simulate", str(trial / "simulated.toml"), "--out", str(trial / "simulated")])
    return auc_of((trial / "simulated/summary.json").read_text("utf-8"))


ROOM_PACKAGES = (
    *("ca-certificates", "docker.io", "docker-cli", "docker-buildx", "docker-compose", "iptables", "nftables"),
    *("iproute2", "podman", "crun", "netavark", "aardvark-dns", "catatonit", "procps"),
)

ENTER = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
mkdir -p "$1/src" "$1/old"
mount -t tmpfs none "$1/tmp"
mkdir -p "$1$2"
mount --bind "$2" "$1$2"
mount --bind "$3" "$1/src"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs none "$1/run"
ip link set lo up
cd "$1"
pivot_root . old
umount -l /old
exec sleep 9000
"""
"""Arguments: the room, a folder that is seen in it at its own path, the project."""


@dataclass(frozen=True)
class Room:
    """A Debian 13 with newer engines, in namespaces of its own: mounts, network, processes end with it.

    Args:
        folder: Seen inside at its own path: images, secrets of the build, trial consortia.
        init: Process that is number 1 inside.
        services: Started in it.
    """

    folder: Path
    init: int
    services: list[subprocess.Popen[bytes]]

    def words(self, *command: str | Path, **variables: str) -> list[str]:
        inside = ["nsenter", "--target", str(self.init), "--mount", "--net", "--pid", "--root", "--wdns=/src"]
        given = [f"{name}={value}" for name, value in variables.items()]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["env", "--ignore-environment", path, "HOME=/root", "LANG=C.UTF-8", *given]
        return [*inside, *clean, *map(str, command)]

    def run(
        self, *command: str | Path, check: bool = True, timeout_s: float = 2400.0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return call(self.words(*command, **variables), check=check, timeout_s=timeout_s)

    def start(self, log: str, *command: str | Path) -> None:
        """Starts a service of the room; it ends with the room."""
        with (self.folder / log).open("wb") as file:
            self.services.append(subprocess.Popen(self.words(*command), stdout=file, stderr=file))


@contextmanager
def open_room(root: Path, shared: Path) -> Iterator[Room]:
    """Enters a Debian at `root`; its network leads out through slirp4netns and never to this machine's loopback."""
    enter = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "room"]
    holder = subprocess.Popen([*enter, str(root), str(shared), str(ROOT)])
    services: list[subprocess.Popen[bytes]] = []
    try:
        time.sleep(2.0)
        init = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text("ascii").split()[0])
        line = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", str(init), "tap0"]
        services.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield Room(shared, init, services)
    finally:
        for service in reversed(services):
            service.terminate()
            service.wait(60)
        holder.kill()
        holder.wait()


def start_docker(room: Room) -> None:
    """Docker's own engine, with its images in the room's folder and its control groups below one of its own."""
    places = ("--data-root", room.folder / "docker", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid")
    room.start("dockerd.log", "dockerd", *places, "--cgroup-parent", "/fedcredit-test")
    try:
        wait_for("dockerd", lambda: room.run("docker", "version", check=False).returncode == 0, 60.0)
    except pytest.fail.Exception:
        last = (room.folder / "dockerd.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
        pytest.skip(f"DOCKER WAS NOT RUN: its engine does not start here: {last}")
    name = "fedcredit-base:bookworm"
    if room.run("docker", "image", "inspect", name, check=False).returncode != 0:
        archive = base_archive(room.folder)
        room.run("docker", "import", archive, name)


def docker_build(room: Room, target: str, name: str, *options: str) -> None:
    """Builds a target of the Dockerfile with Docker's own builder."""
    room.run(
        *("docker", "build", "--network=host", "--build-arg", "BASE=fedcredit-base:bookworm"),
        *(*secrets(room.folder), *options, "--target", target, "--tag", name, "/src"),
    )


def wait_for(what: str, done: Callable[[], bool], seconds: float = READY_S) -> None:
    """Waits until something is so."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(1.0)
