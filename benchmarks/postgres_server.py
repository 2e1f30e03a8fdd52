"""A PostgreSQL server of its own for a test or a measurement: in a temporary folder, on a socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["find_server", "server"]

_USERS = ("postgres", "nobody")  # the server refuses to run as root


def find_server() -> Path | None:
    """Folder of the server's programs, or None: on the path, or where Debian puts them (the newest version)."""
    found = shutil.which("initdb")
    if found and Path(found).with_name("pg_ctl").exists():
        return Path(found).resolve().parent
    places = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(places, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    return newest[-1].parent if newest else None


def _owner() -> str | None:
    """Who runs the server, if not whoever asks."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in known)


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """Start a server without a network port; yields its SQLAlchemy URL.

    Args:
        programs: From ``find_server``.
    """
    owner = _owner()
    # not under the folder of a test: another user must be able to reach it, and a socket's path is short
    folder = Path(tempfile.mkdtemp(prefix="fedcredit-pg-"))
    if owner is not None:
        shutil.chown(folder, owner)

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(programs / command[0]), *command[1:]], user=owner, cwd=folder, capture_output=True, text=True,
            check=False, env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(folder)}, timeout=120,
        )  # fmt: skip
        if done.returncode:
            log = folder / "log"
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}{said[-2000:]}")

    data = str(folder / "data")
    try:
        run("initdb", "--pgdata", data, "--username", "fedcredit", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c full_page_writes=off"
        run("pg_ctl", "start", "--pgdata", data, "--wait", "--log", str(folder / "log"), "--options", options)
        try:
            yield f"postgresql+psycopg://fedcredit@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--pgdata", data, "--wait", "--mode", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
