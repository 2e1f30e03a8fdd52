"""Engines and images that the tests of containers share: made once for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.containers import container_bench as bench
    from tests.e2e.containers.container_bench import Engine, Room
else:
    sys.path.append(str(Path(__file__).parent))
    import container_bench as bench
    from container_bench import Engine, Room


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where images are kept: for good in FEDCREDIT_CONTAINER_FOLDER, else until the end of the tests."""
    kept = os.environ.get("FEDCREDIT_CONTAINER_FOLDER")
    made = Path(kept) if kept else tmp_path_factory.mktemp("engine")
    made.mkdir(exist_ok=True)
    yield made
    if not kept:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[Engine]:
    """podman and buildah of this machine."""
    wanted = ["buildah", "podman", "crun", "iptables", "nsenter", "unshare"]
    wanted += [] if "FEDCREDIT_CONTAINER_BASE" in os.environ else ["debootstrap"]
    if reason := bench.cannot(*wanted, gigabytes=12):
        pytest.skip(f"NO IMAGE WAS BUILT OR RUN: {reason}")
    storage = f'driver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(f"[storage]\n{storage}", "utf-8")
    most = subprocess.run(["sh", "-c", "ulimit -Hn"], check=True, capture_output=True, text=True).stdout.strip()
    limits = f'default_ulimits = ["nofile={most}:{most}", "nproc=4096:4096"]\n'
    quiet = 'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    (folder / "containers.conf").write_text(f"[containers]\n{limits}[engine]\n{quiet}", "utf-8")
    hide = "mount -t tmpfs none /sys/fs/cgroup && exec sleep 7200"
    holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", hide])
    time.sleep(1.0)
    engine = Engine(folder, holder.pid)
    try:
        yield engine
    finally:
        engine.run("podman", "rm", "--force", "--all", check=False)
        engine.run("podman", "network", "prune", "--force", check=False)
        if "FEDCREDIT_CONTAINER_FOLDER" not in os.environ:
            engine.run("podman", "rmi", "--force", "--all", check=False)
        holder.kill()
        holder.wait()


@pytest.fixture(scope="session")
def images(engine: Engine) -> Engine:
    """Both images, built by buildah."""
    base = bench.make_base(engine)
    for image, target in bench.TARGETS.items():
        bench.build(engine, base, target, bench.tag(image))
    return engine


@pytest.fixture(scope="session")
def room(folder: Path) -> Iterator[Room]:
    """Docker, its compose plugin and a newer podman, from Debian 13, beside this machine's own."""
    reason = bench.cannot("debootstrap", "slirp4netns", "nsenter", "unshare", "pivot_root", gigabytes=14)
    if reason:
        pytest.skip(f"DOCKER'S ENGINE WAS NOT RUN: {reason}")
    root = folder / "room"
    if not (root / "usr/sbin/dockerd").exists():
        bench.debootstrap("trixie", root, *bench.ROOM_PACKAGES)
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n", "utf-8")
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    with bench.open_room(root, shared) as opened:
        yield opened


@pytest.fixture(scope="session")
def docker(room: Room) -> Room:
    """Docker's engine with both images, built by itself from the Dockerfile."""
    bench.start_docker(room)
    for image, target in bench.TARGETS.items():
        bench.docker_build(room, target, f"{image}:{bench.VERSION}")
    return room


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tools that check and render, in an environment of their own."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = [f"--requirement={bench.CONSORTIUM / name}" for name in ("lint.txt", "sbom.txt")]
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    done = bench.call(pip, check=False)
    if done.returncode != 0:
        pytest.skip(f"NOTHING WAS CHECKED: the tools cannot be installed: {done.stderr.strip().splitlines()[-1][:200]}")
    return folder / "bin"
